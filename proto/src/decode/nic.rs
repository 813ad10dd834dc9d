//! NICs: ports and functions.

use berth_model::{Bond, LinkLayer, Nic, NicFunction, NicName, PciAddress, PortState, Sriov, VirtualFunction};

use super::{DecodeError, at_most, optional_zone_id, outside, refusal, text};
use crate::limit::{NAME_BYTES_MAX, NETDEV_BYTES_MAX, NETDEVS_MAX, TEXT_BYTES_MAX, VIRTUAL_FUNCTIONS_MAX, cut};
use crate::topology::v1alpha1 as wire;

pub(super) fn nic(nic: &wire::Nic) -> Result<Nic, DecodeError> {
    let pci = (!nic.pci.is_empty()).then(|| super::pci(&nic.pci)).transpose();
    Ok(Nic {
        name: NicName::parse(&nic.name).map_err(|e| refusal("name", e))?,
        pci: pci?,
        zone: optional_zone_id("zone", nic.zone)?,
        link_layer: match nic.link_layer.as_str() {
            "infiniband" => LinkLayer::InfiniBand,
            "ethernet" => LinkLayer::Ethernet,
            _ => LinkLayer::Unknown,
        },
        state: match nic.state.as_str() {
            "active" => PortState::Active,
            "down" => PortState::Down,
            _ => PortState::Unknown,
        },
        rate_gbps: nic.rate_gbps.map(|r| u32::try_from(r).map_err(|_| outside("rateGbps", r, i32::MAX))).transpose()?,
        function: function(nic)?,
    })
}

fn function(nic: &wire::Nic) -> Result<NicFunction, DecodeError> {
    let bond = |bond: &wire::Bond| -> Result<Bond, DecodeError> {
        let (name, members) =
            (text("bond.name", &bond.name, NETDEV_BYTES_MAX)?, netdevs("bond.members", &bond.members)?);
        Ok(Bond { name, members })
    };
    let count = |field: &str, count: i32| u16::try_from(count).map_err(|_| outside(field, count, u16::MAX));
    let function_count = count("vfs", nic.vfs)?;
    let devices: Vec<String> =
        text("netdevs", &nic.netdevs, TEXT_BYTES_MAX)?.split_whitespace().map(str::to_owned).collect();
    let sriov = |max: i32| count("vfsMax", max).map(|function_count_max| Sriov { function_count_max, function_count });
    at_most("virtualFunctions", nic.virtual_functions.len(), VIRTUAL_FUNCTIONS_MAX)?;
    Ok(NicFunction {
        netdevs: netdevs("netdevs", &devices)?,
        bond: nic.bond.as_ref().map(bond).transpose()?,
        card: nic.card.map(|c| count("card", c)).transpose()?,
        sriov: nic.vfs_max.map(sriov).transpose()?,
        virtual_functions: nic.virtual_functions.iter().map(|f| virtual_function(f)).collect::<Result<_, _>>()?,
    })
}

fn netdevs(field: &str, names: &[String]) -> Result<Vec<String>, DecodeError> {
    at_most(field, names.len(), NETDEVS_MAX)?;
    names.iter().map(|name| text(field, name, NETDEV_BYTES_MAX)).collect()
}

fn virtual_function(given: &str) -> Result<VirtualFunction, DecodeError> {
    let (pci, name) = given.split_once(' ').map_or((given, None), |(pci, name)| (pci, Some(name)));
    let wrong = |problem: String| refusal("virtualFunctions", format!("{:?}: {problem}", cut(given, NAME_BYTES_MAX)));
    Ok(VirtualFunction {
        pci: PciAddress::parse(pci).map_err(|e| wrong(e.to_string()))?,
        name: name.map(NicName::parse).transpose().map_err(|e| wrong(e.to_string()))?,
    })
}
