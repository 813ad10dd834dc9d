//! The host of the report: what was read, with foreign texts made fit for it.

use berth_model::{Cpu, Host};

use super::clean;
use crate::facts::SysfsFacts;

/// Takes what the kernel shows of the host.
pub(super) fn take(sysfs: &SysfsFacts) -> Host {
    let word = |text: &Option<String>| text.as_deref().map(clean).filter(|t| !t.is_empty());
    Host {
        cpu: Cpu { vendor: word(&sysfs.cpu.vendor), model: word(&sysfs.cpu.model), ..sysfs.cpu.clone() },
        transparent_huge_pages: sysfs.transparent_huge_pages,
        samepage_merging: sysfs.samepage_merging,
        kubelet: sysfs.kubelet.clone(),
        ..Host::default()
    }
}
