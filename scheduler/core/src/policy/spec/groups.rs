//! Pod groups, as the document says them.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{PolicyError, wrong};

/// The word for no groups.
const OFF: &str = "off";
/// Longest key of a label: a prefix of 253, a slash, a name of 63.
const LABEL_BYTES_MAX: usize = 317;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GroupsSpec {
    label: Option<Spanned<String>>,
}

pub(super) fn take(label: &mut Option<String>, given: &GroupsSpec) -> Result<(), PolicyError> {
    let Some(given) = &given.label else { return Ok(()) };
    *label = (given.value != OFF).then(|| given.value.clone());
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    let is_key = !given.value.is_empty() && given.value.len() <= LABEL_BYTES_MAX && given.value.chars().all(is_legal);
    if is_key {
        return Ok(());
    }
    let message =
        format!("groups.label: {:?} is no key of a label such as jobset.sigs.k8s.io/jobset-name, nor off", given.value);
    wrong(given.referenced, message)
}
