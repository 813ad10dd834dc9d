//! Scalars of a machine file: read as text, so that `unknown` is legal in place of any fact and an error says what would be right.

pub(crate) mod function;
pub(crate) mod gpu;

use std::collections::BTreeSet;

use berth_model::{
    CpuFlag, CpuGroups, CpuSet, Governor, HugePages, LinkLayer, PciAddress, PcieLevel, PortState, SamepageMerging,
    TransparentHugePages,
};
use serde::de::{Deserialize, Deserializer, Error};

/// A kind of scalar.
pub(crate) trait Scalar: Sized {
    /// What would be right, for the error.
    const EXPECTED: &'static str;

    fn parse(text: &str) -> Option<Self>;
}

/// A scalar that must be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value<T>(pub(crate) T);

/// A scalar or the word `unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact<T> {
    Known(T),
    Unknown,
}

impl<T> Fact<T> {
    pub(crate) fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown => None,
        }
    }
}

impl<'de, T: Scalar> Deserialize<'de> for Value<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::parse(&text).map(Self).ok_or_else(|| D::Error::custom(format!("{text:?} is not {}", T::EXPECTED)))
    }
}

impl<'de, T: Scalar> Deserialize<'de> for Fact<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "unknown" {
            return Ok(Self::Unknown);
        }
        let value = T::parse(&text).map(Self::Known);
        value.ok_or_else(|| D::Error::custom(format!("{text:?} is neither {} nor unknown", T::EXPECTED)))
    }
}

impl Scalar for String {
    const EXPECTED: &'static str = "a text of 1 to 200 printable characters";

    fn parse(text: &str) -> Option<Self> {
        let fits = (1..=200).contains(&text.len()) && !text.chars().any(char::is_control);
        fits.then(|| text.to_owned())
    }
}

impl Scalar for u64 {
    const EXPECTED: &'static str = "a whole number";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Scalar for u32 {
    const EXPECTED: &'static str = "a whole number";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Scalar for u8 {
    const EXPECTED: &'static str = "a whole number below 256";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Scalar for u16 {
    const EXPECTED: &'static str = "a whole number below 65536";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Scalar for bool {
    const EXPECTED: &'static str = "true or false";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Scalar for CpuSet {
    const EXPECTED: &'static str = "a list like 0-13,28-41";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
}

impl Scalar for PciAddress {
    const EXPECTED: &'static str = "a PCI address like 0000:1b:00.0";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
}

impl Scalar for LinkLayer {
    const EXPECTED: &'static str = "InfiniBand or Ethernet";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "InfiniBand" => Some(Self::InfiniBand),
            "Ethernet" => Some(Self::Ethernet),
            _ => None,
        }
    }
}

impl Scalar for PortState {
    const EXPECTED: &'static str = "active or down";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "active" => Some(Self::Active),
            "down" => Some(Self::Down),
            _ => None,
        }
    }
}

/// SLIT distances in the kernel's form, `10 21`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Distances(pub(crate) Vec<u16>);

impl Scalar for Distances {
    const EXPECTED: &'static str = "a list of distances like 10 21";

    fn parse(text: &str) -> Option<Self> {
        text.split_ascii_whitespace().map(|d| d.parse().ok()).collect::<Option<Vec<u16>>>().map(Self)
    }
}

/// Pools of huge pages of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pools(pub(crate) Vec<HugePages>);

impl Scalar for Pools {
    const EXPECTED: &'static str = "none or a list like 2048x1024,1048576x16 (KiB per page, pages)";

    fn parse(text: &str) -> Option<Self> {
        HugePages::parse(text).map(Self)
    }
}

/// CPU flags, separated by blanks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) BTreeSet<CpuFlag>);

impl Scalar for Flags {
    const EXPECTED: &'static str = "a list of CPU flags that a report can name, separated by blanks";

    fn parse(text: &str) -> Option<Self> {
        text.split_ascii_whitespace().map(CpuFlag::parse).collect::<Option<_>>().map(Self)
    }
}

/// A whole file as a text of several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document(pub(crate) String);

impl Scalar for Document {
    const EXPECTED: &'static str = "a text of at most 4096 bytes";

    fn parse(text: &str) -> Option<Self> {
        (text.len() <= 4096).then(|| Self(text.to_owned()))
    }
}

impl Scalar for CpuGroups {
    const EXPECTED: &'static str = "groups of CPUs like 0,112x112+1";

    fn parse(text: &str) -> Option<Self> {
        // Made anew from its groups, as the probe makes them: so that one machine has one text.
        let groups = Self::parse(text).ok()?;
        Self::from_groups(groups.groups().collect::<Vec<_>>()).ok()
    }
}

impl Scalar for Governor {
    const EXPECTED: &'static str = "a governor like performance";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text).filter(|g| !matches!(g, Self::Mixed | Self::Other))
    }
}

impl Scalar for PcieLevel {
    const EXPECTED: &'static str = "PIX, PXB, PHB, NODE or SYS";

    fn parse(text: &str) -> Option<Self> {
        Self::from_word(text)
    }
}

impl Scalar for TransparentHugePages {
    const EXPECTED: &'static str = "always, madvise or never";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

impl Scalar for SamepageMerging {
    const EXPECTED: &'static str = "off, on or unmerge";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}
