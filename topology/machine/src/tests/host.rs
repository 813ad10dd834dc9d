//! Claims about the host: every fact of the file comes back from the kernel tree, and one that is missing or nonsense is unknown.

use berth_model::host::{Governor, SamepageMerging, TransparentHugePages};
use berth_model::kubelet::TopologyManagerPolicy;
use berth_model::{Host, HugePages, Parts};
use berth_probe::facts::NvmlFacts;
use berth_probe::probe_facts;
use berth_probe::tree::{Entry, MemoryTree};

use crate::{Faults, Machine, Salt, render};

const CPU: &str = "sys/devices/system/cpu";

type Change = fn(&mut Host);

/// Eight CPUs, two threads a core, two zones in two sockets, four L3 caches.
const FULL: &str = "  cpuVendor: GenuineIntel
  cpuModel: Some CPU
  cpuFlags: avx2 amx_tile hypervisor
  cores: 0,4x4+1
  sockets: 0-1,4-5x2+2
  l3Caches: 0,4x4+1
  isolated: 2-3
  nohzFull: 3
  governor: schedutil
  transparentHugePages: always
  samepageMerging: \"on\"
  kubeletConfig: |
    kind: KubeletConfiguration
    topologyManagerPolicy: single-numa-node
    reservedSystemCPUs: 0-1
";

fn machine(host: &str) -> Machine {
    let host = if host.is_empty() { String::new() } else { format!("host:\n{host}") };
    Machine::parse(&format!(
        "apiVersion: berth.dev/machine/v1\nname: m\nsource: made up\nsynthetic: true\ndriver: absent\nzones:\n\
         - {{id: 0, cpus: \"0-1,4-5\", memoryMib: 1024, hugePages: \"2048x10,1048576x2\"}}\n\
         - {{id: 1, cpus: \"2-3,6-7\", memoryMib: 1024, hugePages: none}}\n{host}pcie: []\n"
    ))
    .unwrap()
}

fn tree(host: &str) -> MemoryTree {
    render::tree(&machine(host), &Salt::new(""), &Faults::default())
}

fn report(tree: &MemoryTree) -> Parts {
    let node = berth_model::NodeName::parse("m").unwrap();
    probe_facts(NvmlFacts::NoDriver("none".to_owned()), tree, None, node).unwrap().into_parts()
}

fn host(host: &str) -> Host {
    report(&tree(host)).host
}

/// The full host with one line of its file changed.
fn with(line: &str, other: &str) -> Host {
    assert!(FULL.contains(line), "{line}");
    host(&FULL.replace(line, other))
}

#[test]
fn every_fact_of_the_file_comes_back() {
    let machine = machine(FULL);
    let read = host(FULL);
    assert_eq!(read.cpu, machine.host.cpu);
    assert_eq!(read.cpu.threads_per_core(), Some(2));
    assert_eq!(read.cpu.sockets.as_ref().map(|s| s.group_count()), Some(2));
    assert_eq!(read.transparent_huge_pages, Some(TransparentHugePages::Always));
    assert_eq!(read.samepage_merging, Some(SamepageMerging::On));
    let kubelet = read.kubelet.unwrap();
    assert_eq!(kubelet.topology_manager, TopologyManagerPolicy::SingleNumaNode);
    assert_eq!(kubelet.reserved_cpus.to_string(), "0-1");
    assert_eq!(report(&tree(FULL)).findings, []);
}

#[test]
fn a_fact_that_changes_in_the_file_changes_in_the_report_alone() {
    let before = host(FULL);
    let cases: [(&str, &str, Change); 10] = [
        ("cpuVendor: GenuineIntel", "cpuVendor: AuthenticAMD", |h| h.cpu.vendor = Some("AuthenticAMD".to_owned())),
        ("cpuModel: Some CPU", "cpuModel: Other CPU", |h| h.cpu.model = Some("Other CPU".to_owned())),
        ("avx2 amx_tile hypervisor", "avx2 amx_tile", |h| {
            h.cpu.flags.as_mut().unwrap().retain(|f| f.word() != "hypervisor");
        }),
        ("cores: 0,4x4+1", "cores: 0x8+1", |h| h.cpu.cores = berth_model::CpuGroups::parse("0x8+1").ok()),
        ("l3Caches: 0,4x4+1", "l3Caches: 0-7", |h| h.cpu.l3_caches = berth_model::CpuGroups::parse("0-7").ok()),
        ("isolated: 2-3", "isolated: \"\"", |h| h.cpu.isolated = Some(berth_model::CpuSet::default())),
        ("governor: schedutil", "governor: performance", |h| h.cpu.governor = Some(Governor::Performance)),
        ("transparentHugePages: always", "transparentHugePages: never", |h| {
            h.transparent_huge_pages = Some(TransparentHugePages::Never);
        }),
        ("samepageMerging: \"on\"", "samepageMerging: unmerge", |h| {
            h.samepage_merging = Some(SamepageMerging::Unmerge);
        }),
        ("single-numa-node", "best-effort", |h| {
            h.kubelet.as_mut().unwrap().topology_manager = TopologyManagerPolicy::BestEffort;
        }),
    ];
    for (line, other, change) in cases {
        let mut expected = before.clone();
        change(&mut expected);
        assert_ne!(expected, before, "{line}");
        assert_eq!(with(line, other), expected, "{other}");
    }
}

#[test]
fn a_fact_that_the_kernel_does_not_show_is_unknown_and_takes_no_other_with_it() {
    assert_eq!(host(""), Host::default());
    let before = host(FULL);
    let cases: [(&str, &str, Change); 9] = [
        ("cpuVendor: GenuineIntel", "cpuVendor: unknown", |h| h.cpu.vendor = None),
        ("avx2 amx_tile hypervisor", "unknown", |h| h.cpu.flags = None),
        ("cores: 0,4x4+1", "cores: unknown", |h| h.cpu.cores = None),
        ("l3Caches: 0,4x4+1", "l3Caches: unknown", |h| h.cpu.l3_caches = None),
        ("isolated: 2-3", "isolated: unknown", |h| h.cpu.isolated = None),
        ("nohzFull: 3", "nohzFull: unknown", |h| h.cpu.nohz_full = None),
        ("governor: schedutil", "governor: unknown", |h| h.cpu.governor = None),
        ("transparentHugePages: always", "transparentHugePages: unknown", |h| h.transparent_huge_pages = None),
        ("samepageMerging: \"on\"", "samepageMerging: unknown", |h| h.samepage_merging = None),
    ];
    for (line, other, change) in cases {
        let mut expected = before.clone();
        change(&mut expected);
        assert_eq!(with(line, other), expected, "{other}");
    }
}

#[test]
fn a_file_that_makes_no_sense_is_unknown_and_named() {
    let before = host(FULL);
    let cases: [(&str, Change); 5] = [
        (&format!("{CPU}/cpu2/topology/thread_siblings_list"), |h| h.cpu.cores = None),
        (&format!("{CPU}/isolated"), |h| h.cpu.isolated = None),
        ("sys/kernel/mm/transparent_hugepage/enabled", |h| h.transparent_huge_pages = None),
        ("sys/kernel/mm/ksm/run", |h| h.samepage_merging = None),
        ("var/lib/kubelet/config.yaml", |h| h.kubelet = None),
    ];
    for (path, change) in cases {
        let mut broken = tree(FULL);
        broken.put_line(path, "nonsense");
        let mut expected = before.clone();
        change(&mut expected);
        let parts = report(&broken);
        assert_eq!(parts.host, expected, "{path}");
        let named: Vec<&str> = parts.findings.iter().map(|f| f.device.as_str()).collect();
        assert_eq!(named, [path]);
    }
}

#[test]
fn what_changes_by_itself_is_in_no_report() {
    let mut tree = tree(FULL);
    let before = report(&tree);
    let pool = "sys/devices/system/node/node0/hugepages/hugepages-2048kB";
    // Free pages, pages lent beyond the pool, frequencies, pages merged.
    tree.put_line(format!("{pool}/free_hugepages"), 3);
    tree.put_line(format!("{pool}/nr_hugepages"), 17);
    tree.put_line(format!("{pool}/surplus_hugepages"), 7);
    tree.put_line(format!("{CPU}/cpufreq/policy0/scaling_cur_freq"), 800_000);
    tree.put_line("sys/kernel/mm/ksm/pages_shared", 99);
    assert_eq!(report(&tree), before);
}

#[test]
fn huge_pages_are_those_of_the_zone_or_unknown() {
    let pools = |parts: &Parts| parts.zones.iter().map(|z| z.huge_pages.clone()).collect::<Vec<_>>();
    let pool = |page_kib, page_count| HugePages { page_kib, page_count };
    let both = Some(vec![pool(2048, 10), pool(1_048_576, 2)]);
    assert_eq!(pools(&report(&tree(""))), [both.clone(), Some(Vec::new())]);
    let mut broken = tree("");
    broken.put_line("sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", "many");
    assert_eq!(pools(&report(&broken)), [both, None]);
}

#[test]
fn sockets_with_other_governors_are_mixed_and_a_strange_one_is_other() {
    let mut tree = tree(FULL);
    tree.put_line(format!("{CPU}/cpufreq/policy2/scaling_governor"), "performance");
    assert_eq!(report(&tree).host.cpu.governor, Some(Governor::Mixed));
    for socket in [0, 2] {
        tree.put_line(format!("{CPU}/cpufreq/policy{socket}/scaling_governor"), "vendor-special");
    }
    assert_eq!(report(&tree).host.cpu.governor, Some(Governor::Other));
}

#[test]
fn a_long_cpuinfo_is_read_from_its_start() {
    let mut tree = tree(FULL);
    let block = "processor : 0\nvendor_id : X\nmodel name : Long\nflags : fpu avx2\n\n";
    tree.put("proc/cpuinfo", Entry::File(format!("{block}{}", "processor : 1\n".repeat(20_000))));
    let parts = report(&tree);
    assert_eq!((parts.host.cpu.model.as_deref(), parts.findings.len()), (Some("Long"), 0));
    let arm = "processor : 0\nFeatures : fp sve sve2 i8mm bf16\nCPU implementer : 0x41\nCPU part : 0xd4f\n";
    tree.put("proc/cpuinfo", Entry::File(arm.to_owned()));
    let cpu = report(&tree).host.cpu;
    assert_eq!((cpu.vendor.as_deref(), cpu.model.as_deref()), (Some("0x41"), Some("0xd4f")));
    assert_eq!(cpu.flags.unwrap().len(), 4);
}

#[test]
fn groups_that_are_not_the_zones_cpus_are_refused_with_the_field() {
    for (line, field) in [("  cores: 0,4x3+1\n", "host.cores"), ("  sockets: 0-15\n", "host.sockets")] {
        let text = format!(
            "apiVersion: berth.dev/machine/v1\nname: m\nsource: made up\nsynthetic: true\ndriver: absent\n\
             zones: [{{id: 0, cpus: 0-7, memoryMib: 1}}]\nhost:\n{line}pcie: []\n"
        );
        let error = Machine::parse(&text).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
}
