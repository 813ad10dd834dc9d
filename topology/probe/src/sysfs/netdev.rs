//! Network devices over a NIC, and the bond that they are in.

use berth_model::{Bond, NicFunction};

use super::Reader;

/// Reads the network devices below a device's directory, sorted.
pub(super) fn read(reader: &mut Reader<'_>, device: &str) -> Vec<String> {
    let mut names = reader.list(&format!("{device}/net"));
    names.retain(|name| is_name(name));
    names.truncate(NicFunction::NETDEVS_MAX);
    names
}

/// The bond of the first network device that is in one. A `master` alone may be a bridge or a switch: a bond shows `bonding_slave` too.
pub(super) fn read_bond(reader: &mut Reader<'_>, device: &str, netdevs: &[String]) -> Option<Bond> {
    for netdev in netdevs {
        let directory = format!("{device}/net/{netdev}");
        let Some(master) = reader.link(&format!("{directory}/master")) else { continue };
        if reader.list(&format!("{directory}/bonding_slave")).is_empty() {
            continue;
        }
        let name = master.rsplit('/').next().unwrap_or_default().to_owned();
        if !is_name(&name) {
            continue;
        }
        let slaves = reader.text(&format!("sys/devices/virtual/net/{name}/bonding/slaves")).unwrap_or_default();
        let fits = |s: &&str| s.len() <= NicFunction::NETDEV_BYTES_MAX;
        let mut members: Vec<String> = slaves.split_ascii_whitespace().filter(fits).map(str::to_owned).collect();
        members.sort_unstable();
        members.truncate(NicFunction::NETDEVS_MAX);
        return Some(Bond { name, members });
    }
    None
}

/// Source: Linux `dev_valid_name`, `net/core/dev.c`: no `.` and `..`, nothing blank.
fn is_name(name: &str) -> bool {
    let fits = (1..=NicFunction::NETDEV_BYTES_MAX).contains(&name.len());
    fits && name != "." && name != ".." && name.bytes().all(|b| b.is_ascii_graphic())
}
