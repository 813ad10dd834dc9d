//! Identities and units: one type per kind of thing, so that an index is never taken for a UUID or a MiB for a count.

use std::fmt;
use std::sync::Arc;

/// Longest accepted identity in bytes. Kubernetes names end at 253; NVML UUIDs at 96.
pub const ID_BYTES_MAX: usize = 253;

/// Why a text is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?} is not valid: it needs 1 to {ID_BYTES_MAX} printable ASCII characters without blanks")]
pub struct IdError {
    kind: &'static str,
    text: String,
}

fn check(kind: &'static str, text: &str) -> Result<Arc<str>, IdError> {
    let printable = text.bytes().all(|b| b.is_ascii_graphic());
    if text.is_empty() || text.len() > ID_BYTES_MAX || !printable {
        let text = text.chars().take(64).collect();
        return Err(IdError { kind, text });
    }
    Ok(Arc::from(text))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a text that satisfies the rule of [`IdError`].
            ///
            /// # Errors
            /// [`IdError`] when the text is empty, too long or holds blanks or control characters.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check($kind, text).map(Self)
            }

            /// The text as it was read.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($kind, "({})"), &self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }
    };
}

text_id!(
    /// The Kubernetes name of a node.
    NodeName,
    "node name"
);
text_id!(
    /// A GPU's identity as NVML prints it (`GPU-...`). Survives reboots and index shifts.
    GpuUuid,
    "GPU UUID"
);
text_id!(
    /// The kernel's name of an RDMA device, e.g. `mlx5_0`.
    NicName,
    "NIC name"
);
text_id!(
    /// `/proc/sys/kernel/random/boot_id`. Compared for equality only.
    BootId,
    "boot id"
);

/// A GPU's NVML index on its node. Positions shift when a GPU is lost: never an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpuIndex(pub u8);

impl fmt::Display for GpuIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GPU{}", self.0)
    }
}

/// Kernel id of a NUMA node (a zone).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneId(pub u16);

impl fmt::Display for ZoneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A size in mebibytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MiB(pub u64);

impl fmt::Display for MiB {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

/// Version of a node's report. Only grows, across boots too; the highest wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_with_blanks_controls_or_nothing_in_it_is_refused() {
        for bad in ["", "a b", "a\nb", "gpü", &"x".repeat(254)] {
            assert!(GpuUuid::parse(bad).is_err(), "{bad:?} was taken");
        }
        assert_eq!(GpuUuid::parse("GPU-1").unwrap().as_str(), "GPU-1");
    }

    #[test]
    fn the_refusal_names_the_kind_of_identity() {
        let error = NicName::parse("a b").unwrap_err().to_string();
        assert!(error.starts_with("NIC name \"a b\""), "{error}");
    }
}
