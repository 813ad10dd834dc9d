//! Scalars of functions of devices: network devices, virtual functions, types of vGPU, cards.

use berth_model::{NicFunction, NicName, PciAddress, virt};
use berth_probe::sysfs::infiniband::parse_guid;

use super::Scalar;

/// Names of network devices, separated by blanks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Netdevs(pub(crate) Vec<String>);

fn is_netdev(name: &str) -> bool {
    let fits = (1..=NicFunction::NETDEV_BYTES_MAX).contains(&name.len()) && !name.starts_with('.');
    fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

impl Scalar for Netdevs {
    const EXPECTED: &'static str = "names of network devices like ens1f0np0, separated by blanks";

    fn parse(text: &str) -> Option<Self> {
        let names: Vec<String> = text.split(' ').map(str::to_owned).collect();
        (names.len() <= NicFunction::NETDEVS_MAX && names.iter().all(|n| is_netdev(n))).then_some(Self(names))
    }
}

/// The name of a bond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BondName(pub(crate) String);

impl Scalar for BondName {
    const EXPECTED: &'static str = "the name of a network device like bond0";

    fn parse(text: &str) -> Option<Self> {
        is_netdev(text).then(|| Self(text.to_owned()))
    }
}

/// The GUID that devices of one card have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guid(pub(crate) String);

impl Scalar for Guid {
    const EXPECTED: &'static str = "a GUID like 9803:9b03:0067:ab58";

    fn parse(text: &str) -> Option<Self> {
        parse_guid(text).map(|_| Self(text.to_owned()))
    }
}

/// Virtual functions: addresses, each with the name of its RDMA device where it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Functions(pub(crate) Vec<(PciAddress, Option<NicName>)>);

impl Scalar for Functions {
    const EXPECTED: &'static str = "virtual functions like 0000:18:00.1=mlx5_12 0000:18:00.2";

    fn parse(text: &str) -> Option<Self> {
        let function = |word: &str| match word.split_once('=') {
            None => Some((PciAddress::parse(word).ok()?, None)),
            Some((address, name)) => {
                let name = NicName::parse(name).ok().filter(|_| is_netdev(name))?;
                Some((PciAddress::parse(address).ok()?, Some(name)))
            }
        };
        let functions: Vec<_> = text.split(' ').map(function).collect::<Option<_>>()?;
        (functions.len() <= NicFunction::VIRTUAL_FUNCTIONS_MAX).then_some(Self(functions))
    }
}

/// Names of vGPU types, separated by semicolons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VgpuTypes(pub(crate) Vec<String>);

impl Scalar for VgpuTypes {
    const EXPECTED: &'static str = "types of vGPU like NVIDIA H100-4C; NVIDIA H100-8C";

    fn parse(text: &str) -> Option<Self> {
        let types: Vec<String> = text.split(';').map(|t| t.trim().to_owned()).collect();
        let fits = |t: &String| (1..=virt::NAME_BYTES_MAX).contains(&t.len()) && !t.contains(char::is_control);
        (types.len() <= virt::VGPU_TYPES_MAX && types.iter().all(fits)).then_some(Self(types))
    }
}
