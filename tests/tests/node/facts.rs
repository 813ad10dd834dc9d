//! Every fact of a report, one by one: the machine file says another one and the report does; nobody tells it, or what tells it makes no
//! sense, and it is unknown. Each time all other facts stay as they were. The tables are in [`driver`], [`fabric`] and [`kernel`], and a fact of the
//! machine file that stands in none of them fails a test.
//!
//! Each report comes from the probe over the fake driver library and a kernel tree on disk, and must survive the wire.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by its attribute; this file has tests and what they share")]

mod driver;
mod fabric;
mod kernel;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;

use berth_machine::Machine;
use berth_model::{NodeName, Parts};
use berth_probe::{ProbeConfig, Prober};
use berth_tests::made_node::MadeNode;

/// Where in the machine file a fact stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Top,
    Host,
    /// Zone 1.
    Zone,
    /// GPU 0, under a switch with the NIC.
    Gpu,
    /// GPU 1.
    OtherGpu,
    /// `mlx5_0`.
    Nic,
    /// A third device beside GPU 1.
    Leaf,
}

/// What tells a fact. Each entry is enough to take it away; of names joined by `+` all are needed.
#[derive(Debug, Clone, Copy)]
enum Source {
    Calls(&'static [&'static str]),
    Files(&'static [&'static str]),
}

#[derive(Clone, Copy)]
struct Fact {
    place: Place,
    key: &'static str,
    /// What the machine file says, and what it says of another machine.
    said: [&'static str; 2],
    read: fn(&Parts) -> String,
    /// How the report shows what is said.
    shown: [&'static str; 2],
    /// How it shows that nobody told.
    unknown: &'static str,
    /// What the machine file says when nobody tells; `None` where its grammar has no such word.
    untold: Option<&'static str>,
    source: Source,
    /// Facts that hang on this one.
    with: &'static [&'static str],
}

impl Fact {
    const fn new(
        place: Place,
        key: &'static str,
        said: [&'static str; 2],
        read: fn(&Parts) -> String,
        shown: [&'static str; 2],
        source: Source,
    ) -> Self {
        Self { place, key, said, read, shown, unknown: "None", untold: Some("unknown"), source, with: &[] }
    }

    const fn with(self, with: &'static [&'static str]) -> Self {
        Self { with, ..self }
    }

    const fn unknown(self, unknown: &'static str) -> Self {
        Self { unknown, ..self }
    }

    const fn untold(self, untold: Option<&'static str>) -> Self {
        Self { untold, ..self }
    }

    fn names(&self) -> BTreeSet<&'static str> {
        let (Source::Calls(entries) | Source::Files(entries)) = self.source;
        entries.iter().flat_map(|entry| entry.split('+')).collect()
    }
}

fn say<T: Debug>(known: Option<T>) -> String {
    known.map_or_else(|| "None".to_owned(), |known| format!("{known:?}"))
}

/// The machine file of all these facts, one of them as given.
fn text(facts: &[Fact], changed: Option<(usize, &str)>) -> String {
    let of = |place: Place| -> Vec<String> {
        let here = facts.iter().enumerate().filter(|(_, fact)| fact.place == place);
        here.map(|(i, fact)| {
            let said = changed.filter(|(at, _)| *at == i).map_or(fact.said[0], |(_, other)| other);
            format!("{}: {said}", fact.key)
        })
        .collect()
    };
    let [top, leaf] = [of(Place::Top).join("\n"), of(Place::Leaf).join(", ")];
    let comma = |place: Place| of(place).iter().map(|fact| format!(", {fact}")).collect::<String>();
    let zone =
        if of(Place::Zone).is_empty() { ", cpus: \"2-3,6-7\", memoryMib: 2048".to_owned() } else { comma(Place::Zone) };
    let driver = if top.contains("driver:") { "" } else { "driver: 580.1" };
    let leaf =
        if leaf.is_empty() { String::new() } else { format!("  - {{via: [0000:80:03.0], at: 0000:83:00.0, {leaf}}}") };
    let (gpu, other_gpu, host) = (comma(Place::Gpu), comma(Place::OtherGpu), of(Place::Host).join(", "));
    let nic = of(Place::Nic).join(", ");
    format!(
        "apiVersion: berth.dev/machine/v1
name: facts
source: made up for tests
synthetic: true
{driver}
{top}
zones:
- {{id: 0, cpus: \"0-1,4-5\", memoryMib: 1024}}
- {{id: 1{zone}}}
host: {{{host}}}
gpuFacts: {{}}
nvlink: {{fabric: nvswitch, links: 4}}
pcie:
- host: pci0000:00
  zone: 0
  below:
  - via: [0000:00:01.0]
    below:
    - {{via: [0000:02:00.0], gpu: 0, at: 0000:03:00.0, gpuFacts: {{mig: true{gpu}}}}}
    - {{via: [0000:02:01.0], nic: mlx5_0, at: 0000:04:00.0, nicFacts: {{{nic}}}}}
- host: pci0000:80
  zone: 1
  below:
  - {{via: [0000:80:01.0], gpu: 1, at: 0000:81:00.0, gpuFacts: {{nvlinkVersion: 4{other_gpu}}}}}
  - {{via: [0000:80:02.0], nic: mlx5_1, at: 0000:82:00.0, nicFacts: {{netdevs: ens9, bond: bond9, card: 'aaaa:0000:0000:0001'}}}}
{leaf}
",
    )
}

fn node(text: &str) -> MadeNode {
    MadeNode::of_text(text, "node-a").unwrap_or_else(|error| panic!("{error:#}\n{text}"))
}

/// What an agent says of a node.
fn read(made: &MadeNode) -> Parts {
    let name = NodeName::parse(made.name()).unwrap();
    let config = ProbeConfig { nvml_library: Some(made.library().unwrap()), ..ProbeConfig::new(made.root(), name) };
    let report = Prober::new(config).probe(None).unwrap();
    let wire = berth_proto::encode(&report, "test");
    assert_eq!(berth_proto::decode(made.name(), &wire).unwrap(), report, "the wire changes the report");
    report.into_parts()
}

/// As [`read`], of hardware of which machine file and faults say everything.
fn read_all(made: &MadeNode) -> Parts {
    let parts = read(made);
    assert_eq!(parts, made.topology(None).unwrap().into_parts(), "--machines shows another report than the agent");
    parts
}

/// One fact is as given, and those that do not hang on it, or come from the same source, are as they were.
fn assert_only(facts: &[Fact], changed: usize, shown: &str, parts: &Parts, shares: bool, what: &str) {
    let fact = &facts[changed];
    assert_eq!((fact.read)(parts), shown, "{what}");
    for other in facts {
        let hangs = std::ptr::eq(other, fact) || fact.with.contains(&other.key);
        if hangs || shares && !other.names().is_disjoint(&fact.names()) {
            continue;
        }
        assert_eq!((other.read)(parts), other.shown[0], "{} changes with: {what}", other.key);
    }
    assert_eq!((parts.gpus.len(), parts.zones.len()), (2, 2), "{what}");
}

fn changes_and_goes_missing(facts: &[Fact]) {
    let whole = read_all(&node(&text(facts, None)));
    for (i, fact) in facts.iter().enumerate() {
        assert_eq!((fact.read)(&whole), fact.shown[0], "{}", fact.key);
        let parts = read_all(&node(&text(facts, Some((i, fact.said[1])))));
        assert_ne!(fact.shown[0], fact.shown[1], "{}: nothing would be seen", fact.key);
        assert_only(facts, i, fact.shown[1], &parts, false, &format!("{}: {}", fact.key, fact.said[1]));
        assert_ne!(fact.shown[0], fact.unknown, "{}: nothing would be seen", fact.key);
        let Some(untold) = fact.untold else { continue };
        let parts = read_all(&node(&text(facts, Some((i, untold)))));
        assert_only(facts, i, fact.unknown, &parts, true, &format!("{}: {untold}", fact.key));
    }
}

/// A call that the library lacks, and one that fails.
fn refused_calls_take_their_facts_only(facts: &[Fact]) {
    let mut made = node(&text(facts, None));
    for (i, fact) in facts.iter().enumerate() {
        let Source::Calls(entries) = fact.source else { continue };
        for (entry, way) in entries.iter().flat_map(|entry| [(entry, "symbolsAbsent"), (entry, "callsFailing")]) {
            let fault = format!("{way}: [{}]", entry.replace('+', ", "));
            made.set_faults(&fault).unwrap();
            assert_only(facts, i, fact.unknown, &read_all(&made), true, &format!("{} under {fault}", fact.key));
        }
    }
}

/// Short for where the kernel shows the machine of [`text`].
const PLACES: [(&str, &str); 8] = [
    ("$switch", "sys/devices/pci0000:00/0000:00:01.0/0000:02:00.0"),
    ("$gpu", "sys/devices/pci0000:00/0000:00:01.0/0000:02:00.0/0000:03:00.0"),
    ("$nic", "sys/devices/pci0000:00/0000:00:01.0/0000:02:01.0/0000:04:00"),
    ("$rdma", "sys/devices/pci0000:00/0000:00:01.0/0000:02:01.0/0000:04:00.0/infiniband/mlx5_0"),
    ("$other", "sys/devices/pci0000:80/0000:80:01.0"),
    ("$leaf", "sys/devices/pci0000:80/0000:80:03.0/0000:83:00.0"),
    ("$zone", "sys/devices/system/node/node1"),
    ("$cpus", "sys/devices/system/cpu"),
];

/// A file that is not there, and one that holds what no kernel writes.
fn broken_files_take_their_facts_only(facts: &[Fact]) {
    for (i, fact) in facts.iter().enumerate() {
        let Source::Files(entries) = fact.source else { continue };
        for (entry, is_there) in entries.iter().flat_map(|entry| [(entry, false), (entry, true)]) {
            let made = node(&text(facts, None));
            for path in entry.split('+') {
                let path = PLACES.iter().fold(path.to_owned(), |path, (short, long)| path.replace(short, long));
                break_file(&made.root().join(path), is_there);
            }
            let parts = read(&made);
            let what = format!("{} with {entry} {}", fact.key, if is_there { "broken" } else { "missing" });
            assert_only(facts, i, fact.unknown, &parts, true, &what);
        }
    }
}

fn break_file(path: &Path, stays: bool) {
    let kind =
        std::fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).file_type();
    if kind.is_dir() {
        std::fs::remove_dir_all(path).unwrap();
    } else {
        std::fs::remove_file(path).unwrap();
    }
    if stays && kind.is_symlink() {
        std::os::unix::fs::symlink("../../../../../../../../../../../../../../../..", path).unwrap();
    } else if stays {
        std::fs::write(path, [0xff, 0xfe, b'\n']).unwrap();
    }
}

#[test]
fn a_fact_of_the_driver_changes_with_the_machine_and_untold_is_unknown() {
    changes_and_goes_missing(driver::FACTS);
    changes_and_goes_missing(fabric::FACTS);
}

#[test]
fn a_call_that_is_missing_or_fails_costs_its_own_fact_only() {
    refused_calls_take_their_facts_only(driver::FACTS);
    refused_calls_take_their_facts_only(fabric::FACTS);
}

#[test]
fn a_fact_of_the_kernel_changes_with_the_machine_and_untold_is_unknown() {
    changes_and_goes_missing(kernel::DEVICES);
    changes_and_goes_missing(kernel::HOST);
}

#[test]
fn a_file_that_is_missing_or_broken_costs_its_own_fact_only() {
    for facts in [driver::FACTS, kernel::DEVICES, kernel::HOST] {
        broken_files_take_their_facts_only(facts);
    }
}

/// Keys of the machine file that are no facts of the report by themselves.
const ELSEWHERE: [(Place, &str); 3] = [
    // `an_identity_is_the_files_and_a_gpu_without_one_is_left_out`
    (Place::Gpu, "uuid"),
    // Where the kernel shows the types: `vgpuVfio`.
    (Place::Gpu, "vgpuFunctions"),
    // What a zone is called.
    (Place::Zone, "id"),
];

#[test]
fn no_fact_of_the_machine_file_is_left_out_here() {
    let all = || [driver::FACTS, fabric::FACTS, kernel::DEVICES, kernel::HOST].into_iter().flatten();
    for place in [Place::Host, Place::Zone, Place::Gpu, Place::Nic] {
        let group = if place == Place::Nic { "nicFacts" } else { "gpuFacts" };
        let wrong = match place {
            Place::Host => text(&[], None).replace("host: {}", "host: {nonsense: 1}"),
            Place::Zone => text(&[], None).replace("{id: 0, ", "{id: 0, nonsense: 1, "),
            _ => text(&[], None).replacen(&format!("{group}: {{"), &format!("{group}: {{nonsense: 1, "), 1),
        };
        let error = Machine::parse(&wrong.replace(", }", "}")).unwrap_err().to_string();
        let (_, keys) = error.split_once("unknown field `nonsense`, expected one of ").expect(&error);
        let keys = keys.split(" at ").next().unwrap().split(", ").map(|key| key.trim_matches('`'));
        for key in keys {
            let stands = |other: Place| other == place || other == Place::OtherGpu && place == Place::Gpu;
            let is_known = all().any(|fact| stands(fact.place) && fact.key == key) || ELSEWHERE.contains(&(place, key));
            assert!(is_known, "{place:?}: nobody looks at {key}");
        }
    }
}

#[test]
fn an_identity_is_the_files_and_a_gpu_without_one_is_left_out() {
    let with = |uuid: &str| {
        text(driver::FACTS, None).replace("gpuFacts: {mig: true", &format!("gpuFacts: {{uuid: {uuid}, mig: true"))
    };
    let [one, other, none] = ["GPU-1", "GPU-2", "unknown"].map(|uuid| read_all(&node(&with(uuid))));
    assert_ne!(one.gpus[0].uuid, other.gpus[0].uuid);
    assert_eq!((&one.gpus[1], &one.nics), (&other.gpus[1], &other.nics));
    assert_eq!((none.gpus.len(), &none.gpus[0].uuid, &none.nics), (1, &one.gpus[1].uuid, &one.nics));
    let finding = none.findings.iter().find(|finding| finding.code == berth_probe::finding::GPU_UNREADABLE).unwrap();
    assert_eq!(finding.device, "0000:03:00.0");
    let mut made = node(&with("GPU-1"));
    for way in ["symbolsAbsent", "callsFailing"] {
        for call in ["nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetHandleByIndex_v2"] {
            made.set_faults(&format!("{way}: [{call}]")).unwrap();
            let parts = read_all(&made);
            let unreadable = parts.findings.iter().filter(|f| f.code == berth_probe::finding::GPU_UNREADABLE).count();
            assert_eq!((parts.gpus.len(), unreadable, &parts.nics, &parts.zones), (0, 2, &one.nics, &one.zones));
        }
    }
}

#[test]
fn where_a_device_sits_is_its_way_on_the_bus_and_without_one_it_is_unknown() {
    let level = |text: &str| {
        let parts = read_all(&node(text));
        // GPU 0 and the NIC beside it.
        (parts.gpus[0].pci.to_string(), say(parts.links.link(0, 2).unwrap().pcie.map(|level| level.word())))
    };
    let whole = text(&[], None);
    let at = |address: &str, word: &str| (address.to_owned(), format!("{word:?}"));
    assert_eq!(level(&whole), at("0000:03:00.0", "PIX"));
    assert_eq!(level(&whole.replace("0000:03:00.0", "0000:07:00.0")), at("0000:07:00.0", "PIX"));
    let cascaded = whole.replace("via: [0000:02:00.0]", "via: [0000:02:00.0, 0000:05:00.0]");
    assert_eq!(level(&cascaded), at("0000:03:00.0", "PXB"));
    let apart = whole.replace(
        "below:\n  - via: [0000:00:01.0]\n    below:\n    - {via: [0000:02:00.0]",
        "below:\n  - {via: [0000:02:00.0]",
    );
    let apart = apart.replace("    - {via: [0000:02:01.0]", "  - {via: [0000:02:01.0]");
    assert_eq!(level(&apart), at("0000:03:00.0", "PHB"));
    for (stays, expected) in [(false, "None"), (true, "None")] {
        let made = node(&whole);
        break_file(&made.root().join("sys/bus/pci/devices/0000:03:00.0"), stays);
        let parts = read(&made);
        assert_eq!(say(parts.links.link(0, 2).unwrap().pcie.map(|level| level.word())), expected);
        assert_eq!((parts.gpus.len(), parts.nics.len(), parts.links.link(0, 1).unwrap().nvlinks), (2, 2, 4));
    }
}

#[test]
fn a_boot_is_told_by_its_id_and_without_it_unknown() {
    let boot = |more: &str| {
        read_all(&node(&text(&[], None).replace("synthetic: true", &format!("synthetic: true\n{more}")))).boot_id
    };
    assert_ne!(boot("bootId: one"), boot("bootId: two"));
    assert_eq!(boot("bootId: unknown").as_str(), "unknown");
    for stays in [false, true] {
        let made = node(&text(&[], None));
        break_file(&made.root().join("proc/sys/kernel/random/boot_id"), stays);
        let parts = read(&made);
        assert_eq!((parts.boot_id.as_str(), parts.gpus.len(), parts.nics.len()), ("unknown", 2, 2));
    }
}
