//! Claims about the machines of the test suite and about files that are refused.

mod devices;
mod facts;
mod host;

use berth_model::{Driver, Health, LinkClass, NodeTopology, PortState};

use super::*;

const BRIDGED_PAIRS: &str = include_str!("../../../tests/machines/bridged-pairs.yaml");
const CPU_ONLY: &str = include_str!("../../../tests/machines/cpu-only.yaml");
const DGX_1V: &str = include_str!("../../../tests/machines/dgx-1v.yaml");
const DGX_H100: &str = include_str!("../../../tests/machines/dgx-h100.yaml");
const PCIE_8GPU: &str = include_str!("../../../tests/machines/pcie-8gpu-two-level.yaml");

fn report(text: &str) -> NodeTopology {
    let machine = Machine::parse(text).unwrap();
    topology(&machine, &machine.name, &Salt::default()).unwrap()
}

fn report_with(text: &str, faults: &str, previous: Option<&NodeTopology>) -> NodeTopology {
    let machine = Machine::parse(text).unwrap();
    let faults = Faults::parse(&format!("apiVersion: berth.dev/faults/v1\n{faults}"), &machine).unwrap();
    topology_with(&machine, &machine.name, &Salt::default(), &faults, previous).unwrap()
}

/// A machine of two GPUs and a NIC that shows the whole grammar in few lines.
const SMALL: &str = "\
apiVersion: berth.dev/machine/v1
name: small
source: made up
synthetic: true
driver: '1.2'
zones:
- {id: 0, cpus: 0-3, memoryMib: 1000, distances: 10 20}
- {id: 1, cpus: 4-7, memoryMib: 1000, distances: 20 10}
gpuFacts: {product: Test, memoryMib: 100}
nicFacts: {state: active, linkLayer: InfiniBand, rateGbps: 100}
nvlink: {fabric: direct, pairs: [{gpus: [0, 1], links: 2}]}
pcie:
- host: pci0000:00
  zone: 0
  below:
  - {via: [0000:00:01.0], gpu: 0, at: 0000:01:00.0}
  - {via: [0000:00:02.0], nic: mlx5_0, at: 0000:02:00.0}
- host: pci0000:80
  zone: 1
  below:
  - {via: [0000:80:01.0], gpu: 1, at: 0000:81:00.0}
";

#[test]
fn the_machines_of_the_suite_are_clean() {
    for (text, gpu_count, nic_count, class) in [
        (BRIDGED_PAIRS, 8, 2, "NV12"),
        (CPU_ONLY, 0, 1, "none"),
        (DGX_1V, 8, 4, "NV2"),
        (DGX_H100, 8, 12, "NV18"),
        (PCIE_8GPU, 8, 1, "PIX"),
    ] {
        let node = report(text);
        assert_eq!((node.parts().gpus.len(), node.parts().nics.len()), (gpu_count, nic_count));
        assert_eq!(node.link_class(), class);
        assert_eq!(node.parts().findings, []);
        assert_eq!(node.usable_gpus(), node.all_gpus());
    }
}

#[test]
fn a_node_without_a_driver_keeps_its_zones_and_nics() {
    let node = report(CPU_ONLY);
    assert!(matches!(&node.parts().driver, Driver::Absent(why) if why == "the NVIDIA driver is not loaded"));
    assert_eq!(node.parts().zones.len(), 2);
    assert_eq!(node.parts().zones[0].cpus.to_string(), "0-31,64-95");
    assert_eq!(node.parts().nics[0].state, PortState::Active);
}

#[test]
fn what_the_kernel_does_not_show_is_unknown_beyond_its_zone() {
    let hidden = SMALL.replace("host: pci0000:80", "host: unknown").replace("via: [0000:80:01.0], ", "");
    let links = report(&hidden.replace("zone: 1\n", "zone: unknown\n")).into_parts().links;
    assert_eq!(links.rows(), ["X NV2/? PHB", "NV2/? X ?", "PHB ? X"]);
    let links = report(&hidden).into_parts().links;
    assert_eq!(links.rows(), ["X NV2/SYS PHB", "NV2/SYS X SYS", "PHB SYS X"], "the driver names the zone");
    let chip = SMALL.replace("via: [0000:00:02.0], nic: mlx5_0, at: 0000:02:00.0", "nic: hns_0, at: unknown");
    assert_eq!(report(&chip).parts().links.rows()[2], "NODE SYS X");
    let error = Machine::parse(&hidden.replace("gpu: 1", "nic: mlx5_1")).unwrap_err().to_string();
    assert!(
        error.starts_with("pcie[1].below[0]: below an unknown host only GPUs and NICs off PCI are right"),
        "{error}"
    );
}

#[test]
fn a_gpu_without_its_links_into_the_switches_is_said_in_the_file() {
    let text = DGX_H100.replace("links: 18}", "links: 18, except: [{gpu: 2, links: 0}, {gpu: 5, links: 17}]}");
    let links = report(&text).into_parts().links;
    let count = |a, b| links.link(a, b).unwrap().nvlinks;
    assert_eq!((count(0, 1), count(0, 2), count(2, 5), count(5, 0)), (18, 0, 0, 17));
    for (wrong, said) in
        [("{gpu: 2, links: 18}", "nvlink.except[0].links"), ("{gpu: 8, links: 1}", "nvlink.except[0].gpu")]
    {
        let text = DGX_H100.replace("links: 18}", &format!("links: 18, except: [{wrong}]}}"));
        assert!(Machine::parse(&text).unwrap_err().to_string().starts_with(said));
    }
}

#[test]
fn a_salt_changes_every_identity_and_nothing_else() {
    let machine = Machine::parse(SMALL).unwrap();
    let of = |salt: &str| topology(&machine, &machine.name, &Salt::new(salt)).unwrap().into_parts();
    let (a, mut b) = (of("a"), of("b"));
    assert_eq!(a, of("a"));
    assert_ne!(a.boot_id, b.boot_id);
    b.boot_id = a.boot_id.clone();
    for (mine, theirs) in a.gpus.iter().zip(&mut b.gpus) {
        assert_ne!(mine.uuid, theirs.uuid);
        theirs.uuid = mine.uuid.clone();
    }
    assert_eq!(a, b);
}

#[test]
fn unknown_is_legal_for_every_fact_and_stays_unknown() {
    let text = SMALL
        .replace("driver: '1.2'", "driver: unknown\nbootId: unknown")
        .replace("zones:\n- {id: 0, cpus: 0-3, memoryMib: 1000, distances: 10 20}\n", "zones:\n")
        .replace("{id: 1, cpus: 4-7, memoryMib: 1000, distances: 20 10}", "{id: 0, cpus: unknown, memoryMib: unknown}\n- {id: 1, cpus: unknown, memoryMib: unknown, distances: unknown}")
        .replace("{product: Test, memoryMib: 100}", "{product: unknown, memoryMib: unknown, mig: unknown}")
        .replace("{state: active, linkLayer: InfiniBand, rateGbps: 100}", "{state: unknown, linkLayer: unknown, rateGbps: unknown}")
        .replace("nvlink: {fabric: direct, pairs: [{gpus: [0, 1], links: 2}]}", "nvlink: {fabric: unknown}")
        .replace("zone: 0", "zone: unknown")
        .replace("zone: 1", "zone: unknown")
        .replace("nic: mlx5_0, at: 0000:02:00.0", "nic: rxe0, at: unknown");
    let node = report(&text);
    let parts = node.parts();
    assert_eq!(parts.boot_id.as_str(), "unknown");
    let gpu = &parts.gpus[0];
    assert_eq!((gpu.product.as_str(), gpu.memory, gpu.zone, gpu.mig_enabled), ("unknown", None, None, None));
    assert_eq!((parts.nics[0].pci, parts.nics[0].zone, parts.nics[0].rate_gbps), (None, None, None));
    assert_eq!(parts.links.rows(), ["X ? ?", "? X ?", "? ? X"]);
    assert_eq!((parts.zones[0].memory, parts.zones[0].cpus.is_empty()), (None, true));
    let codes: Vec<&str> = parts.findings.iter().map(|f| f.code.as_str()).collect();
    assert_eq!(codes, ["boot-id-unknown", "nvlink-unreadable", "nvlink-unreadable"]);

    let nothing = SMALL.replace("- {id: 0, cpus: 0-3, memoryMib: 1000, distances: 10 20}\n- {id: 1, cpus: 4-7, memoryMib: 1000, distances: 20 10}", "  unknown");
    let nothing = nothing.replace("zone: 0", "zone: unknown").replace("zone: 1", "zone: unknown");
    assert!(report(&nothing).parts().zones.is_empty());
}

#[test]
fn a_lost_gpu_keeps_its_identity_and_leaves_the_others_reported() {
    let before = report(DGX_1V);
    let after = report_with(DGX_1V, "lost: [3]", Some(&before));
    assert_eq!(after.parts().gpus[3].uuid, before.parts().gpus[3].uuid);
    assert_eq!(after.parts().gpus[3].health, Health::Unhealthy("NVML: the GPU is lost".to_owned()));
    assert_eq!(after.usable_gpus().bits(), 0b1111_0111);
    assert_eq!(after.parts().links.link(0, 3).unwrap().class().to_string(), "PHB", "its NVLinks are gone");
    assert_eq!(after.parts().links.link(0, 4), before.parts().links.link(0, 4));

    let first_sight = report_with(DGX_1V, "lost: [3]", None);
    assert_eq!(first_sight.parts().gpus.len(), 7);
    let finding = &first_sight.parts().findings[0];
    assert_eq!((finding.code.as_str(), finding.device.as_str()), ("gpu-unreadable", "0000:0b:00.0"));
}

#[test]
fn faults_show_where_they_are() {
    let before = report(DGX_H100);
    let reset = report_with(DGX_H100, "resetRequired: [0]\nunreadable: [1]\nunlisted: [7]", Some(&before));
    let reasons: Vec<&str> = reset.parts().gpus.iter().map(|g| g.health.reason()).collect();
    assert_eq!(reasons[0], "NVML: the GPU needs a reset");
    assert_eq!(reasons[1], "NVML: unknown error");
    assert_eq!(reasons[2], "");
    assert_eq!(reasons[7], "the driver no longer lists it");
    assert_eq!(reset.parts().gpus[7].uuid, before.parts().gpus[7].uuid);

    let links = report_with(DGX_H100, "nvlinksDown: [{gpu: 2, links: [0, 5]}, {gpu: 3}]\nportsDown: [mlx5_4]", None);
    let class = |a, b| links.parts().links.link(a, b).unwrap().class();
    assert_eq!(class(1, 2), LinkClass::NvLink(16));
    assert_eq!(class(2, 3).to_string(), "NODE");
    assert_eq!(class(0, 1), LinkClass::NvLink(18));
    assert_eq!(links.parts().nics[4].state, PortState::Down);
    assert_eq!(links.parts().nics[5].state, PortState::Active);

    let direct = report_with(DGX_1V, "nvlinksDown: [{gpu: 0, links: [2]}]", None);
    assert_eq!(direct.parts().links.link(0, 3).unwrap().class(), LinkClass::NvLink(1), "down at both ends");

    let driver = report_with(DGX_H100, "driver: versionMismatch", Some(&before));
    assert!(driver.parts().gpus.is_empty());
    assert_eq!(driver.parts().findings[0].code, "driver-absent");
}

#[test]
fn an_old_library_costs_only_what_it_lacks() {
    let before = report(DGX_H100);
    let without_type = report_with(DGX_H100, "symbolsAbsent: [nvmlDeviceGetNvLinkRemoteDeviceType]", None);
    assert_eq!(without_type.parts().links, before.parts().links, "the switches are on the PCI bus");
    let without_v2 = report_with(DGX_H100, "symbolsAbsent: [nvmlDeviceGetMemoryInfo_v2]", None);
    assert_eq!(without_v2.parts(), before.parts());
    let without_memory =
        report_with(DGX_H100, "symbolsAbsent: [nvmlDeviceGetMemoryInfo_v2, nvmlDeviceGetMemoryInfo]", None);
    assert_eq!(without_memory.parts().gpus[0].memory, None);
    assert!(without_memory.parts().gpus[0].health.is_usable());
}

#[test]
fn a_file_that_is_wrong_is_refused_with_the_field_or_the_line() {
    let absurd_links = "nvlink: {fabric: nvswitch, links: 19}";
    let direct = "nvlink: {fabric: direct, pairs: [{gpus: [0, 1], links: 2}]}";
    for (from, to, said) in [
        ("synthetic: true", "synthetic: true\ncolour: red", "unknown field `colour`"),
        ("{product: Test,", "{produkt: Test,", "unknown field `produkt`"),
        ("name: small", "name: small\nname: twice", "duplicate"),
        ("berth.dev/machine/v1", "berth.dev/machine/v2", "apiVersion: \"berth.dev/machine/v2\""),
        ("name: small", "name: Small Machine", "name: \"Small Machine\" is no node name"),
        ("driver: '1.2'\n", "", "missing field `driver`"),
        ("at: 0000:81:00.0", "at: 0001:81:00.0", "pcie[1].below[0].at: 0001:81:00.0 is not in the domain"),
        (
            "0000:00:02.0",
            "0000:00:01.0",
            "pcie[0].below[1].via[0]: 0000:00:01.0 stands at pcie[0].below[0].via[0] already",
        ),
        (
            "at: 0000:02:00.0",
            "at: 0000:01:00.0",
            "pcie[0].below[1].at: 0000:01:00.0 stands at pcie[0].below[0].at already",
        ),
        ("at: 0000:02:00.0", "at: 1234", "\"1234\" is neither a PCI address like 0000:1b:00.0 nor unknown"),
        ("gpu: 1,", "gpu: 2,", "pcie: GPU 2 without GPU 1"),
        ("gpu: 1,", "gpu: 0,", "pcie[1].below[0].gpu: GPU 0 stands twice"),
        ("gpu: 1,", "gpu: 1, nic: mlx5_1,", "pcie[1].below[0]: one of below, gpu, nic, nvswitch and vfio is right"),
        ("gpu: 1,", "gpu: 1, nicFacts: {rateGbps: 1},", "pcie[1].below[0].nicFacts: only right beside nic"),
        ("gpu: 0, at: 0000:01:00.0", "gpu: 0", "pcie[0].below[0].at: an address is right"),
        ("host: pci0000:80", "host: pci0000:00", "pcie[1].host"),
        ("zone: 1", "zone: 7", "pcie[1].zone: zone 7 is not among zones"),
        ("cpus: 4-7", "cpus: 3-7", "zones[1].cpus: CPU 3 is in zone 0 too"),
        ("cpus: 4-7", "cpus: 4-70000", "\"4-70000\" is neither a list like 0-13,28-41 nor unknown"),
        ("distances: 20 10", "distances: 20", "zones[1].distances: 1 values, one per zone (2) is right"),
        ("{id: 1,", "{id: 0,", "zones[1].id: 0 must be above the id before it"),
        ("{product: Test, memoryMib: 100}", "{memoryMib: 99999999999}", "pcie[0].below[0].gpuFacts.memoryMib"),
        ("{product: Test, memoryMib: 100}", "{memoryMib: -1}", "\"-1\" is neither a whole number nor unknown"),
        ("{product: Test,", "{uuid: GPU-1, product: Test,", "gpuFacts.uuid: only right at a leaf"),
        ("rateGbps: 100", "rateGbps: 400000", "pcie[0].below[1].nicFacts.rateGbps: 400000"),
        ("nic: mlx5_0", "nic: ../../etc", "pcie[0].below[1].nic: \"../../etc\" must be a device name"),
        ("links: 2", "links: 0", "nvlink.pairs[0].links: 0 links, 1 to 18 are right"),
        (direct, absurd_links, "nvlink.links: 19 links"),
        ("gpus: [0, 1]", "gpus: [0, 2]", "nvlink.pairs[0].gpus: there is no GPU 2"),
        ("gpus: [0, 1]", "gpus: [1, 1]", "nvlink.pairs[0].gpus: 1 and 1 must be two GPUs"),
    ] {
        assert!(SMALL.contains(from), "{from:?} is not in the file");
        let error = Machine::parse(&SMALL.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(said), "{to:?} gave {error:?}, expected {said:?}");
    }
}

#[test]
fn what_is_no_machine_file_is_refused_with_line_and_column() {
    for (from, to, place) in [
        ("synthetic: true", "synthetic: true\ncolour: red", "line 5"),
        ("cpus: 4-7", "cpus: four", "line 8, column 17"),
        ("gpu: 1,", "gpu: one,", "\"one\" is not a whole number below 256 at line 21"),
    ] {
        let error = Machine::parse(&SMALL.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(place), "{error}");
    }
}

#[test]
fn absurd_sizes_and_depths_are_refused_before_they_cost_anything() {
    let long = format!("{SMALL}# {}\n", "x".repeat(300 * 1024));
    assert!(Machine::parse(&long).unwrap_err().to_string().contains("bytes, at most"));
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(Machine::parse(&SMALL.replace("small", &deep)).is_err());
    let anchors = SMALL.replace("source: made up", "source: &a made up\nbootId: *a");
    assert!(Machine::parse(&anchors).is_err(), "aliases are a bomb's fuse");
}

#[test]
fn faults_that_the_machine_cannot_have_are_refused() {
    let machine = Machine::parse(SMALL).unwrap();
    for (text, said) in [
        ("lost: [2]", "lost: small has no GPU 2"),
        ("portsDown: [mlx5_9]", "portsDown[0]: \"mlx5_9\" is no NIC of small"),
        ("symbolsAbsent: [dlopen]", "symbolsAbsent[0]: \"dlopen\" is no name of an NVML call"),
        ("callsFailing: [nvmlInit_v2, read]", "callsFailing[1]: \"read\" is no name of an NVML call"),
        ("nvlinksDown: [{gpu: 5}]", "nvlinksDown[0].gpu: small has no GPU 5"),
        ("driver: onFire", "onFire"),
        ("changed: [{gpu: 2, facts: {mig: true}}]", "changed[0].gpu: small has no GPU 2"),
        ("changed: [{gpu: 0, facts: {uuid: GPU-1}}]", "changed[0].facts.uuid: what a GPU is"),
        ("changed: [{gpu: 0, facts: {mig: true, migInstances: 3g.40gb@4+4}}]", "changed[0].facts.migInstances"),
        ("last: [1]", "unknown field `last`"),
    ] {
        let error = Faults::parse(&format!("apiVersion: berth.dev/faults/v1\n{text}\n"), &machine).unwrap_err();
        assert!(error.to_string().contains(said), "{text:?} gave {error}");
    }
    let error = Faults::parse("apiVersion: v1\n", &machine).unwrap_err().to_string();
    assert!(error.starts_with("apiVersion:"), "{error}");
}

#[test]
fn a_tree_written_twice_is_the_tree() {
    use berth_probe::tree::{SysRoot, Tree as _};
    let machine = Machine::parse(SMALL).unwrap();
    let tree = render::tree(&machine, &Salt::default(), &Faults::default());
    let directory = tempfile::tempdir().unwrap();
    render::write(&tree, directory.path()).unwrap();
    render::write(&tree, directory.path()).unwrap();
    let disk = SysRoot::new(directory.path());
    let from_disk = berth_probe::sysfs::read(&disk);
    assert_eq!(from_disk, berth_probe::sysfs::read(&tree));
    assert_eq!(disk.list("sys/bus/pci/devices").unwrap().unwrap().len(), 6);
}

proptest::proptest! {
    #[test]
    fn a_file_with_any_bytes_changed_gives_a_report_or_an_error(
        at in 0..SMALL.len(),
        length in 0..12_usize,
        put in "[ -~]{0,8}",
    ) {
        let end = SMALL.len().min(at + length);
        let bent = format!("{}{put}{}", &SMALL[..at], &SMALL[end..]);
        if let Ok(machine) = Machine::parse(&bent) {
            topology(&machine, &machine.name, &Salt::new("n")).unwrap();
        }
    }
}
