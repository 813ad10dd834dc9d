//! The file form of a policy, and the checks that turn it into a [`Policy`].

mod groups;
mod left;
mod levels;
mod read;
mod resources;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::{
    API_VERSION, Class, OnMissing, OnStale, Placement, Policy, PolicyError, Resources, SharePolicy, ShortList,
    UnnamedMemory, Weights,
};
use crate::wish::{Force, LinkWish};

/// Largest document taken. A ConfigMap holds at most 1 MiB; a policy is a few KiB.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Most classes: each is a metric label and a cache key.
const CLASSES_MAX: usize = 64;
/// Largest weight.
const WEIGHT_MAX: u32 = 1000;
/// Longest short list: above it, `all` says what is meant.
const SHORT_LIST_MAX: u64 = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: Spanned<String>,
    kind: Spanned<String>,
    #[serde(default)]
    resources: ResourcesSpec,
    #[serde(default)]
    shares: SharesSpec,
    #[serde(default)]
    topology: Topology,
    #[serde(default)]
    short_list: List,
    #[serde(default)]
    order: Order,
    #[serde(default)]
    groups: groups::GroupsSpec,
    #[serde(default)]
    left: left::LeftSpec,
    #[serde(default)]
    expected: Vec<Spanned<left::KindSpec>>,
    levels: Option<Vec<Spanned<levels::PoolSpec>>>,
    default_class: Option<Spanned<String>>,
    classes: Option<Spanned<BTreeMap<String, ClassSpec>>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourcesSpec {
    gpu: Option<Spanned<Vec<Spanned<String>>>>,
    gpu_cores: Option<Spanned<String>>,
    gpu_memory: Option<Spanned<String>>,
    mig_prefix: Option<Spanned<String>>,
    rdma: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SharesSpec {
    cores_overcommit_percent: Option<Spanned<u32>>,
    memory_overcommit_percent: Option<Spanned<u32>>,
    unnamed_memory: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Topology {
    missing: Option<Spanned<String>>,
    stale: Option<Spanned<String>>,
    stale_after_seconds: Option<Spanned<u64>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct List {
    size: Option<Spanned<String>>,
    size_soft: Option<Spanned<String>>,
    per_zone: Option<Spanned<u64>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Order {
    soft_steps: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassSpec {
    placement: Option<Spanned<String>>,
    weights: Option<Spanned<WeightsSpec>>,
    link: Option<Spanned<String>>,
    rail: Option<Spanned<String>>,
    zone: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightsSpec {
    gpu: Option<Spanned<u32>>,
    cpu: Option<Spanned<u32>>,
    memory: Option<Spanned<u32>>,
    link: Option<Spanned<u32>>,
    kept: Option<Spanned<u32>>,
    left: Option<Spanned<u32>>,
}

/// The policy that holds when nothing is said. A test compares it with the default document.
pub(super) fn built_in() -> Policy {
    let class = base_class();
    let weights = |link| Weights { link, ..class.weights };
    let training = Class {
        weights: weights(6),
        link: LinkWish::parse("nvlink:preferred"),
        rail: Force::Preferred,
        zone: Force::Preferred,
        ..class.clone()
    };
    let inference = Class { weights: weights(1), ..class.clone() };
    let notebook = Class { weights: weights(0), ..class.clone() };
    let classes = [("default", class), ("training", training), ("inference", inference), ("notebook", notebook)];
    Policy {
        resources: Resources {
            gpu: vec!["nvidia.com/gpu".to_owned()],
            gpu_cores: Some("nvidia.com/gpucores".to_owned()),
            gpu_memory: Some("nvidia.com/gpumem".to_owned()),
            mig_prefix: Some("nvidia.com/mig-".to_owned()),
            rdma: Vec::new(),
        },
        shares: SharePolicy {
            cores_overcommit_percent: 100,
            memory_overcommit_percent: 100,
            unnamed_memory: UnnamedMemory::Nothing,
        },
        on_missing: OnMissing::Reject,
        on_stale: OnStale::Deprioritize,
        stale_after_seconds: 60,
        short_list: ShortList { size: Some(32), size_soft: Some(256), per_zone: 4 },
        soft_steps: 4,
        group_label: None,
        default_class: "default".to_owned(),
        classes: classes.into_iter().map(|(name, class)| (name.to_owned(), class)).collect(),
        tuning: left::BEST,
        seed: Vec::new(),
        learned_pods: left::LEARNED_PODS,
        expected: None,
        levels: levels::built_in(),
    }
}

fn base_class() -> Class {
    Class {
        placement: Placement::Binpack,
        weights: Weights { gpu: 3, cpu: 1, memory: 1, link: 4, kept: 2, left: 8 },
        link: None,
        rail: Force::Off,
        zone: Force::Off,
    }
}

fn wrong<T>(at: Location, message: impl Into<String>) -> Result<T, PolicyError> {
    Err(PolicyError { line: at.line(), column: at.column(), message: message.into() })
}

pub(super) fn parse(document: &str) -> Result<Policy, PolicyError> {
    if document.len() > DOCUMENT_BYTES_MAX {
        let message = format!("the document has {} bytes, at most {DOCUMENT_BYTES_MAX} are taken", document.len());
        return Err(PolicyError { line: 1, column: 1, message });
    }
    let document: Document = read::read(document)?;
    expect_word(&document.api_version, "apiVersion", API_VERSION)?;
    expect_word(&document.kind, "kind", "Policy")?;
    let mut policy = built_in();
    resources::take(&mut policy.resources, &document.resources)?;
    take_shares(&mut policy.shares, &document.shares)?;
    take_topology(&mut policy, &document.topology)?;
    if let Some(pools) = &document.levels {
        policy.levels = levels::take(pools)?;
    }
    take_list(&mut policy.short_list, &document.short_list)?;
    if let Some(steps) = &document.order.soft_steps {
        policy.soft_steps = bounded(steps, "order.softSteps", 1, 16)?;
    }
    groups::take(&mut policy.group_label, &document.groups)?;
    if let Some(classes) = &document.classes {
        policy.classes = take_classes(classes)?;
    }
    let default_at = document.default_class.as_ref().map(|d| d.referenced);
    if let Some(name) = document.default_class {
        policy.default_class = name.value;
    }
    if !policy.classes.contains_key(&policy.default_class) {
        let known: Vec<&str> = policy.class_names().collect();
        let at = default_at.or(document.classes.as_ref().map(|c| c.referenced)).unwrap_or(Location::UNKNOWN);
        let message = format!("defaultClass: {:?} is none of the classes {}", policy.default_class, known.join(", "));
        return wrong(at, message);
    }
    left::take(policy, &document.left, &document.expected)
}

fn expect_word(given: &Spanned<String>, key: &str, right: &str) -> Result<(), PolicyError> {
    if given.value == right {
        return Ok(());
    }
    wrong(given.referenced, format!("{key}: {:?}, {right} is right", given.value))
}

fn one_of<T: Copy>(given: &Spanned<String>, key: &str, words: &[(&str, T)]) -> Result<T, PolicyError> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == given.value) {
        return Ok(*value);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    wrong(given.referenced, format!("{key}: {:?} is none of {}", given.value, known.join(", ")))
}

fn bounded<T: Copy + PartialOrd + std::fmt::Display>(
    given: &Spanned<T>,
    key: &str,
    least: T,
    most: T,
) -> Result<T, PolicyError> {
    if (least..=most).contains(&given.value) {
        return Ok(given.value);
    }
    wrong(given.referenced, format!("{key}: {} is not between {least} and {most}", given.value))
}

fn take_shares(shares: &mut SharePolicy, given: &SharesSpec) -> Result<(), PolicyError> {
    if let Some(percent) = &given.cores_overcommit_percent {
        shares.cores_overcommit_percent = bounded(percent, "shares.coresOvercommitPercent", 100, 1000)?;
    }
    if let Some(percent) = &given.memory_overcommit_percent {
        shares.memory_overcommit_percent = bounded(percent, "shares.memoryOvercommitPercent", 100, 1000)?;
    }
    if let Some(word) = &given.unnamed_memory {
        let words = [("nothing", UnnamedMemory::Nothing), ("all", UnnamedMemory::All)];
        shares.unnamed_memory = one_of(word, "shares.unnamedMemory", &words)?;
    }
    Ok(())
}

fn take_topology(policy: &mut Policy, given: &Topology) -> Result<(), PolicyError> {
    if let Some(missing) = &given.missing {
        let words = [("reject", OnMissing::Reject), ("byCount", OnMissing::ByCount)];
        policy.on_missing = one_of(missing, "topology.missing", &words)?;
    }
    if let Some(stale) = &given.stale {
        let words = [("deprioritize", OnStale::Deprioritize), ("reject", OnStale::Reject), ("ignore", OnStale::Ignore)];
        policy.on_stale = one_of(stale, "topology.stale", &words)?;
    }
    if let Some(seconds) = &given.stale_after_seconds {
        policy.stale_after_seconds = bounded(seconds, "topology.staleAfterSeconds", 1, 86_400)?;
    }
    Ok(())
}

fn take_list(list: &mut ShortList, given: &List) -> Result<(), PolicyError> {
    if let Some(size) = &given.size {
        list.size = list_size(size, "shortList.size")?;
    }
    if let Some(size) = &given.size_soft {
        list.size_soft = list_size(size, "shortList.sizeSoft")?;
    }
    if let Some(count) = &given.per_zone {
        let count = bounded(count, "shortList.perZone", 0, 1000)?;
        list.per_zone = usize::try_from(count).unwrap_or(0);
    }
    Ok(())
}

fn list_size(given: &Spanned<String>, key: &str) -> Result<Option<usize>, PolicyError> {
    if given.value == "all" {
        return Ok(None);
    }
    match given.value.parse::<u64>() {
        Ok(size) if (1..=SHORT_LIST_MAX).contains(&size) => Ok(usize::try_from(size).ok()),
        _ => wrong(given.referenced, format!("{key}: {:?} is not 1 to {SHORT_LIST_MAX} or all", given.value)),
    }
}

fn take_classes(given: &Spanned<BTreeMap<String, ClassSpec>>) -> Result<BTreeMap<String, Class>, PolicyError> {
    if given.value.is_empty() || given.value.len() > CLASSES_MAX {
        return wrong(given.referenced, format!("classes: 1 to {CLASSES_MAX} classes are right"));
    }
    let base = match given.value.get("default") {
        Some(spec) => take_class("default", spec, &base_class())?,
        None => base_class(),
    };
    let mut classes = BTreeMap::new();
    for (name, spec) in &given.value {
        let is_legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 63 || !name.chars().all(is_legal) {
            let message = format!("classes: {name:?} is no name of lower-case letters, digits and dashes");
            return wrong(given.referenced, message);
        }
        classes.insert(name.clone(), take_class(name, spec, &base)?);
    }
    Ok(classes)
}

fn take_class(name: &str, spec: &ClassSpec, base: &Class) -> Result<Class, PolicyError> {
    let mut class = base.clone();
    let key = |field: &str| format!("classes.{name}.{field}");
    if let Some(placement) = &spec.placement {
        let words = [("binpack", Placement::Binpack), ("spread", Placement::Spread)];
        class.placement = one_of(placement, &key("placement"), &words)?;
    }
    if let Some(weights) = &spec.weights {
        class.weights = take_weights(&key("weights"), weights, base.weights)?;
    }
    if let Some(link) = &spec.link {
        let wish = LinkWish::parse(&link.value);
        class.link = match wish {
            Some(wish) if wish.least == berth_model::LinkClass::Unknown => None,
            Some(wish) => Some(wish),
            None => {
                let forms = "nvlink, pix, pxb, phb, node or any, with :required or :preferred";
                return wrong(link.referenced, format!("{}: {:?} is not {forms}", key("link"), link.value));
            }
        };
    }
    let words = [("required", Force::Required), ("preferred", Force::Preferred), ("off", Force::Off)];
    if let Some(rail) = &spec.rail {
        class.rail = one_of(rail, &key("rail"), &words)?;
    }
    if let Some(zone) = &spec.zone {
        class.zone = one_of(zone, &key("zone"), &words)?;
    }
    Ok(class)
}

fn take_weights(key: &str, given: &Spanned<WeightsSpec>, base: Weights) -> Result<Weights, PolicyError> {
    let take = |field: &str, value: &Option<Spanned<u32>>, base: u32| match value {
        Some(value) => bounded(value, &format!("{key}.{field}"), 0, WEIGHT_MAX),
        None => Ok(base),
    };
    let weights = Weights {
        gpu: take("gpu", &given.value.gpu, base.gpu)?,
        cpu: take("cpu", &given.value.cpu, base.cpu)?,
        memory: take("memory", &given.value.memory, base.memory)?,
        link: take("link", &given.value.link, base.link)?,
        kept: take("kept", &given.value.kept, base.kept)?,
        left: take("left", &given.value.left, base.left)?,
    };
    if weights == (Weights { gpu: 0, cpu: 0, memory: 0, link: 0, kept: 0, left: weights.left }) {
        return wrong(given.referenced, format!("{key}: at least one weight must be above 0"));
    }
    Ok(weights)
}
