//! A lease as it is remembered: the value, and its JSON in the state folder.

use std::fmt;

use berth_core::annotation::Device;
use serde::{Deserialize, Serialize};

use super::{IDS_MAX, check};

/// Version of the form.
const VERSION: u32 = 1;

/// What every name begins with: a CDI device name begins with a letter, and a person who reads the container's error sees what it is.
const PREFIX: &str = "lease-";

/// Hexadecimal digits of a name: 128 random bits are never drawn twice.
const DIGITS: usize = 32;

/// Name of a lease. Never used twice, so that a spec left over can match no container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct LeaseName(String);

impl LeaseName {
    /// Length of a name.
    pub(super) const BYTES: usize = PREFIX.len() + DIGITS;

    /// The name made of 16 random bytes.
    pub(super) fn new(random: [u8; 16]) -> Self {
        Self(format!("{PREFIX}{:032x}", u128::from_be_bytes(random)))
    }

    /// Reads a name; `None` for any other text, so that a name is always a safe part of a path.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?;
        let is_hex = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (digits.len() == DIGITS && is_hex).then(|| Self(text.to_owned()))
    }

    /// The name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for LeaseName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{PREFIX} and {DIGITS} hexadecimal digits are right"))
    }
}

impl From<LeaseName> for String {
    fn from(name: LeaseName) -> Self {
        name.0
    }
}

/// One lease: pending until its holder is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Lease {
    /// Its name.
    pub(super) name: LeaseName,
    /// Place in the order of grants, across restarts: the kubelet admits one pod after the other.
    pub(super) sequence: u64,
    /// Extended resource that was asked for.
    pub(super) resource: String,
    /// What the kubelet gave, in order.
    pub(super) ids: Vec<String>,
    /// Who has it; `None` while it is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) holder: Option<Holder>,
}

/// The container that a lease is for, and what it gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Holder {
    /// UID of the pod.
    #[serde(rename = "podUID")]
    pub(super) pod_uid: String,
    /// Its namespace.
    pub(super) namespace: String,
    /// Its name.
    pub(super) pod: String,
    /// The container.
    pub(super) container: String,
    /// Whether it is a plain init container: others of its pod get its devices afterwards.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) init: bool,
    /// What its plan names for it.
    pub(super) devices: Vec<Device>,
}

/// A lease and the version of its form.
#[derive(Serialize, Deserialize)]
struct File<L> {
    v: u32,
    lease: L,
}

impl Lease {
    /// Its JSON.
    pub(super) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&File { v: VERSION, lease: self })
    }

    /// Reads its JSON; the error says what would be right.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let File { v, lease }: File<serde_json::Value> = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        if v != VERSION {
            return Err(format!("version {v}, {VERSION} is right"));
        }
        let lease: Self = serde_json::from_value(lease).map_err(|e| e.to_string())?;
        check(&lease.resource, &lease.ids).map_err(|e| e.to_string())?;
        match &lease.holder {
            Some(holder) if holder.devices.is_empty() || holder.devices.len() > IDS_MAX => {
                Err(format!("{} devices, 1 to {IDS_MAX} are right", holder.devices.len()))
            }
            _ => Ok(lease),
        }
    }
}
