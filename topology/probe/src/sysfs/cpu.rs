//! CPUs: what they are, how they hang together, what the kernel was told about them.

use std::collections::BTreeSet;

use berth_model::{Cpu, CpuFlag, CpuGroups, CpuSet, Governor};

use super::Reader;

const CPUS: &str = "sys/devices/system/cpu";
/// The words of `/proc/cpuinfo` count: it names features in the kernel's own spelling, and needs no instruction to be executed.
const CPUINFO: &str = "proc/cpuinfo";
/// Most cache levels of one CPU looked at; four are usual.
const CACHES_MAX: usize = 16;

/// Reads all but the governor.
pub(super) fn read(reader: &mut Reader<'_>) -> Cpu {
    let online = reader.parsed(&format!("{CPUS}/online"), "a CPU list like 0-223", parse_cpus).unwrap_or_default();
    let info = reader.start(CPUINFO).map(|text| parse_cpuinfo(&text)).unwrap_or_default();
    let topology = |cpu: u32, file: &str| format!("{CPUS}/cpu{cpu}/topology/{file}");
    let cores = groups(reader, &online, |reader, cpu| {
        reader.parsed(&topology(cpu, "thread_siblings_list"), "a CPU list", parse_cpus)
    });
    let sockets = groups(reader, &online, |reader, cpu| {
        let package = reader.parsed(&topology(cpu, "package_cpus_list"), "a CPU list", parse_cpus);
        // Its name before Linux 5.3.
        package.or_else(|| reader.parsed(&topology(cpu, "core_siblings_list"), "a CPU list", parse_cpus))
    });
    let l3_caches = groups(reader, &online, l3_of);
    Cpu {
        vendor: info.vendor,
        model: info.model,
        flags: info.flags,
        cores,
        sockets,
        l3_caches,
        isolated: reader.parsed(&format!("{CPUS}/isolated"), "a CPU list", parse_cpus),
        nohz_full: reader.parsed(&format!("{CPUS}/nohz_full"), "a CPU list", parse_cpus),
        governor: None,
    }
}

/// Groups the CPUs by what `members` says of the first of each group. One CPU that does not say makes all of it unknown: half of a
/// machine's cores would be taken for all of them.
fn groups(
    reader: &mut Reader<'_>,
    online: &CpuSet,
    members: impl Fn(&mut Reader<'_>, u32) -> Option<CpuSet>,
) -> Option<CpuGroups> {
    let mut grouped = BTreeSet::new();
    let mut groups = Vec::new();
    for cpu in online.cpus() {
        if grouped.contains(&cpu) {
            continue;
        }
        let group = members(reader, cpu)?;
        grouped.extend(group.cpus());
        grouped.insert(cpu);
        groups.push(group);
    }
    if groups.is_empty() {
        return None;
    }
    CpuGroups::from_groups(groups).map_err(|error| reader.fault(CPUS, error.to_string())).ok()
}

/// The CPUs that share a CPU's L3 cache. Its directory is found by its level: its number differs between machines.
fn l3_of(reader: &mut Reader<'_>, cpu: u32) -> Option<CpuSet> {
    let caches = format!("{CPUS}/cpu{cpu}/cache");
    let names = reader.list(&caches).into_iter().filter(|n| n.starts_with("index")).take(CACHES_MAX);
    for name in names {
        let level = reader.parsed(&format!("{caches}/{name}/level"), "a number", |text| text.parse::<u8>().ok());
        if level == Some(3) {
            return reader.parsed(&format!("{caches}/{name}/shared_cpu_list"), "a CPU list", parse_cpus);
        }
    }
    None
}

/// One look per socket: a governor is set for a whole machine, and one file per CPU would be hundreds of reads.
pub(super) fn read_governor(reader: &mut Reader<'_>, sockets: Option<&CpuGroups>) -> Option<Governor> {
    let firsts: Vec<u32> = sockets.map_or_else(|| vec![0], |s| s.groups().filter_map(|g| g.first()).collect());
    let mut found = None;
    for cpu in firsts {
        // By the policy's own name: `cpuN/cpufreq` is a link, and links in the middle of a path are not followed.
        let text = reader.text(&format!("{CPUS}/cpufreq/policy{cpu}/scaling_governor"))?;
        let governor = Governor::parse(text.trim()).unwrap_or(Governor::Other);
        found = Some(if found.is_none_or(|f| f == governor) { governor } else { Governor::Mixed });
    }
    found
}

/// `0-13,28-41`; the kernel prints `(null)` for a list that was never set.
#[must_use]
pub fn parse_cpus(text: &str) -> Option<CpuSet> {
    if text == "(null)" { Some(CpuSet::default()) } else { CpuSet::parse(text).ok() }
}

/// What `/proc/cpuinfo` says of the first CPU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuInfo {
    /// `vendor_id`, or the number of `CPU implementer`.
    pub vendor: Option<String>,
    /// `model name`, or the number of `CPU part`.
    pub model: Option<String>,
    /// Those of `flags` or `Features` that are in the closed list.
    pub flags: Option<BTreeSet<CpuFlag>>,
}

/// Reads the first block of `/proc/cpuinfo`, of either architecture.
#[must_use]
pub fn parse_cpuinfo(text: &str) -> CpuInfo {
    let mut info = CpuInfo::default();
    for line in text.lines().take_while(|line| !line.trim().is_empty()) {
        let Some((key, value)) = line.split_once(':') else { continue };
        let (key, value) = (key.trim(), value.trim());
        let known = || (!value.is_empty()).then(|| value.to_owned());
        match key {
            "vendor_id" => info.vendor = known(),
            "model name" => info.model = known(),
            "CPU implementer" => info.vendor = info.vendor.or_else(known),
            "CPU part" => info.model = info.model.or_else(known),
            "flags" | "Features" => info.flags = Some(value.split(' ').filter_map(CpuFlag::parse).collect()),
            _ => {}
        }
    }
    info
}
