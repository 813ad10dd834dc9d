//! Scalars of a machine file: read as text, so that `unknown` is legal in place of any fact and an error says what would be right.

use berth_model::{CpuSet, LinkLayer, PciAddress, PortState};
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
