//! Places on the PCIe tree and the level between two of them.
//!
//! The rule is the one of `nvml.h` (`nvmlGpuTopologyLevel_t`): what counts is the chain of bridges, never the root complex or the NUMA
//! node alone.

use std::fmt;

use crate::id::ZoneId;
use crate::link::PcieLevel;

/// A PCI function's address, `domain:bus:device.function`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// Domain. More than 16 bits occur (VMD: `10000`).
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, below 32.
    pub device: u8,
    /// Function, below 8.
    pub function: u8,
}

/// Why a text is no PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PCI address {text:?} is not of the form 0000:1b:00.0")]
pub struct PciAddressError {
    text: String,
}

impl PciAddress {
    /// Parses sysfs form (`0000:1b:00.0`) and NVML form (`00000000:1B:00.0`).
    ///
    /// # Errors
    /// [`PciAddressError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, PciAddressError> {
        Self::read(text).ok_or_else(|| PciAddressError { text: text.chars().take(32).collect() })
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (domain, bus, rest) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let (device, function) = rest.split_once('.')?;
        let hex = |t: &str, digits: std::ops::RangeInclusive<usize>| {
            let ok = digits.contains(&t.len()) && t.bytes().all(|b| b.is_ascii_hexdigit());
            ok.then(|| u32::from_str_radix(t, 16).ok()).flatten()
        };
        let device = u8::try_from(hex(device, 2..=2)?).ok().filter(|d| *d < 32)?;
        let function = u8::try_from(hex(function, 1..=1)?).ok().filter(|f| *f < 8)?;
        Some(Self { domain: hex(domain, 4..=8)?, bus: u8::try_from(hex(bus, 2..=2)?).ok()?, device, function })
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl fmt::Debug for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A device's way up the PCIe tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciPath {
    /// The host bridge as sysfs names it, e.g. `pci0000:00`.
    pub host_bridge: String,
    /// Bridges from the root port down to the device's parent.
    pub bridges: Vec<PciAddress>,
    /// The device itself.
    pub device: PciAddress,
}

impl PciPath {
    /// The level between two devices whose nearest zones are given. `None` where it depends on a zone that is unknown.
    ///
    /// Source: meanings of `NVML_TOPOLOGY_*` in `nvml.h`; reproduces every bridge level of the captured matrices in `tests/`.
    #[must_use]
    pub fn level(&self, zone: Option<ZoneId>, other: &Self, other_zone: Option<ZoneId>) -> Option<PcieLevel> {
        if self.host_bridge != other.host_bridge {
            return match (zone, other_zone) {
                (Some(a), Some(b)) if a == b => Some(PcieLevel::Node),
                (Some(_), Some(_)) => Some(PcieLevel::Sys),
                _ => None,
            };
        }
        let mut common = 0_usize;
        for (mine, theirs) in self.bridges.iter().zip(&other.bridges) {
            if mine != theirs {
                break;
            }
            common = common.saturating_add(1);
        }
        if common == 0 {
            return Some(PcieLevel::Phb);
        }
        let longest = self.bridges.len().max(other.bridges.len());
        // One bridge below the common chain on either side is one switch with its ports, or two functions in one slot.
        if longest.saturating_sub(common) <= 1 {
            return Some(PcieLevel::Pix);
        }
        Some(PcieLevel::Pxb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(host: &str, chain: &[&str]) -> PciPath {
        let mut chain: Vec<PciAddress> = chain.iter().map(|t| PciAddress::parse(t).unwrap()).collect();
        let device = chain.pop().unwrap();
        PciPath { host_bridge: host.to_owned(), bridges: chain, device }
    }

    #[test]
    fn both_forms_of_an_address_are_the_same_address() {
        let sysfs = PciAddress::parse("0000:1b:00.0").unwrap();
        assert_eq!(PciAddress::parse("00000000:1B:00.0").unwrap(), sysfs);
        assert_eq!(sysfs.to_string(), "0000:1b:00.0");
        assert_eq!(PciAddress::parse("10000:01:00.0").unwrap().to_string(), "10000:01:00.0");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "1b:00.0",
            "0000:1b:00",
            "0000:1b:20.0",
            "0000:1b:00.8",
            "0000:1b:00.0:1",
            "000g:1b:00.0",
            "+000:1b:00.0",
        ] {
            assert!(PciAddress::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn the_chain_of_bridges_decides_the_level() {
        let zone = |z| Some(ZoneId(z));
        // One switch: root port, upstream port, one downstream port each.
        let a = path("pci0000:00", &["0000:00:01.0", "0000:01:00.0", "0000:02:00.0", "0000:03:00.0"]);
        let b = path("pci0000:00", &["0000:00:01.0", "0000:01:00.0", "0000:02:01.0", "0000:04:00.0"]);
        // A second switch below the same first one.
        let c = path(
            "pci0000:00",
            &["0000:00:01.0", "0000:01:00.0", "0000:02:02.0", "0000:05:00.0", "0000:06:00.0", "0000:07:00.0"],
        );
        let d = path("pci0000:00", &["0000:00:02.0", "0000:08:00.0"]);
        let e = path("pci0000:40", &["0000:40:01.0", "0000:41:00.0"]);
        assert_eq!(a.level(zone(0), &b, zone(0)), Some(PcieLevel::Pix));
        assert_eq!(a.level(zone(0), &c, zone(0)), Some(PcieLevel::Pxb));
        assert_eq!(a.level(zone(0), &d, zone(0)), Some(PcieLevel::Phb));
        assert_eq!(a.level(zone(0), &e, zone(0)), Some(PcieLevel::Node));
        assert_eq!(a.level(zone(0), &e, zone(1)), Some(PcieLevel::Sys));
        assert_eq!(a.level(zone(0), &e, None), None, "an unknown zone is not SYS");
    }

    #[test]
    fn two_functions_in_one_slot_are_pix() {
        let a = path("pci0000:00", &["0000:00:01.0", "0000:03:00.0"]);
        let b = path("pci0000:00", &["0000:00:01.0", "0000:03:00.1"]);
        assert_eq!(a.level(None, &b, None), Some(PcieLevel::Pix));
    }
}
