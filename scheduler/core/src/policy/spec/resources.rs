//! The names of resources: each is one that Kubernetes would take, and stands for one thing.

use serde_saphyr::Spanned;

use super::{PolicyError, ResourcesSpec, wrong};
use crate::policy::Resources;

/// Most names of one meaning.
const NAMES_MAX: usize = 16;
/// The word for a meaning that is not used.
const OFF: &str = "off";

/// Takes what is given over what holds.
pub(super) fn take(resources: &mut Resources, given: &ResourcesSpec) -> Result<(), PolicyError> {
    if let Some(names) = &given.gpu {
        if names.value.is_empty() {
            return wrong(names.referenced, format!("resources.gpu: 1 to {NAMES_MAX} names are right"));
        }
        resources.gpu = list(names, "resources.gpu")?;
    }
    if let Some(name) = &given.gpu_cores {
        resources.gpu_cores = one(name, "resources.gpuCores", "nvidia.com/gpucores")?;
    }
    if let Some(name) = &given.gpu_memory {
        resources.gpu_memory = one(name, "resources.gpuMemory", "nvidia.com/gpumem")?;
    }
    if let Some(prefix) = &given.mig_prefix {
        resources.mig_prefix = one(prefix, "resources.migPrefix", "nvidia.com/mig-")?;
    }
    if let Some(names) = &given.rdma {
        resources.rdma = list(names, "resources.rdma")?;
    }
    each_means_one_thing(resources, given)
}

fn list(names: &Spanned<Vec<Spanned<String>>>, key: &str) -> Result<Vec<String>, PolicyError> {
    if names.value.len() > NAMES_MAX {
        return wrong(names.referenced, format!("{key}: 1 to {NAMES_MAX} names are right"));
    }
    let mut taken: Vec<String> = Vec::new();
    for name in &names.value {
        check(name, key, "nvidia.com/gpu")?;
        if taken.contains(&name.value) {
            return wrong(name.referenced, format!("{key}: {:?} stands twice", name.value));
        }
        taken.push(name.value.clone());
    }
    Ok(taken)
}

fn one(name: &Spanned<String>, key: &str, example: &str) -> Result<Option<String>, PolicyError> {
    if name.value == OFF {
        return Ok(None);
    }
    check(name, key, example)?;
    Ok(Some(name.value.clone()))
}

/// An extended resource is domain/name outside kubernetes.io; the domain may be one word, as in rdma/hca. Source: apis/core/helper
/// IsExtendedResourceName.
fn check(name: &Spanned<String>, key: &str, example: &str) -> Result<(), PolicyError> {
    let (domain, rest) = name.value.split_once('/').unwrap_or(("", ""));
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let shaped = !rest.is_empty() && !domain.is_empty() && name.value.replacen('/', "", 1).chars().all(is_legal);
    if !shaped || domain.ends_with("kubernetes.io") || name.value.len() > 253 {
        let message = format!("{key}: {:?} is no extended resource such as {example}", name.value);
        return wrong(name.referenced, message);
    }
    Ok(())
}

fn each_means_one_thing(resources: &Resources, given: &ResourcesSpec) -> Result<(), PolicyError> {
    let mut known: Vec<&str> = Vec::new();
    let singles = resources.shares();
    for name in resources.gpu.iter().chain(&resources.rdma).map(String::as_str).chain(singles) {
        if known.contains(&name) || resources.mig_profile(name).is_some() {
            let places = [given.gpu.as_ref().map(|g| g.referenced), given.rdma.as_ref().map(|r| r.referenced)];
            let others = [&given.gpu_cores, &given.gpu_memory, &given.mig_prefix];
            let others = others.into_iter().map(|o| o.as_ref().map(|o| o.referenced));
            let at = others.chain(places).flatten().next().unwrap_or(serde_saphyr::Location::UNKNOWN);
            return wrong(at, format!("resources: {name:?} stands for two things"));
        }
        known.push(name);
    }
    Ok(())
}
