//! The loop from machine file to report: fake driver library and kernel tree on disk in, the probe's report out.
//!
//! The captured machines must come back as `nvidia-smi topo -m` printed them, cell by cell.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by its attribute; this file has tests and what they share")]

use berth_model::{Driver, GpuIndex, Health, NodeName, NodeTopology, PortState};
use berth_probe::{ProbeConfig, ProbeError, Prober, probe};
use berth_tests::made_node::{MadeNode, hide_symbol};

const MACHINES: [&str; 5] = ["bridged-pairs", "cpu-only", "dgx-1v", "dgx-h100", "pcie-8gpu-two-level"];

fn made(machine: &str) -> MadeNode {
    MadeNode::new(machine, "node-a").unwrap()
}

fn config(made: &MadeNode) -> ProbeConfig {
    let node = NodeName::parse(made.name()).unwrap();
    ProbeConfig { nvml_library: Some(made.library().unwrap()), ..ProbeConfig::new(made.root(), node) }
}

fn report(made: &MadeNode) -> NodeTopology {
    probe(&config(made), None).unwrap()
}

/// A capture of `nvidia-smi topo -m`: cells of all devices, and the columns after them by heading.
struct Capture {
    cells: Vec<Vec<String>>,
    gpu_count: usize,
    cpu_affinity: Vec<String>,
    numa_affinity: Option<Vec<String>>,
}

fn capture(text: &str) -> Capture {
    let mut lines = text.lines().filter(|l| !l.starts_with('#'));
    let heading: Vec<&str> = lines.next().unwrap().split('\t').skip(1).collect();
    let column = |name: &str| heading.iter().position(|h| *h == name);
    let devices = column("CPU Affinity").unwrap();
    let rows: Vec<Vec<&str>> = lines.take(devices).map(|l| l.split('\t').skip(1).map(str::trim).collect()).collect();
    let gpu_count = heading.iter().filter(|h| h.starts_with("GPU") && h[3..].parse::<u8>().is_ok()).count();
    let of_gpus = |c: usize| rows[..gpu_count].iter().map(|r| r[c].to_owned()).collect::<Vec<_>>();
    Capture {
        cells: rows.iter().map(|r| r[..devices].iter().map(|c| (*c).to_owned()).collect()).collect(),
        gpu_count,
        cpu_affinity: of_gpus(devices),
        numa_affinity: column("NUMA Affinity").map(of_gpus),
    }
}

/// The cells that `nvidia-smi topo -m` would print for a report.
fn cells(node: &NodeTopology) -> Vec<Vec<String>> {
    let links = &node.parts().links;
    let all = 0..links.device_count();
    let cell = |a, b| links.link(a, b).map_or_else(|| "X".to_owned(), |l| l.class().to_string());
    all.clone().map(|a| all.clone().map(|b| cell(a, b)).collect()).collect()
}

#[test]
fn captured_machines_come_back_cell_by_cell() {
    for (name, text) in [
        ("dgx-h100", include_str!("../../captures/dgx-h100-8gpu-12nic.txt")),
        ("dgx-1v", include_str!("../../captures/dgx-1v-8gpu-4nic.txt")),
        ("pcie-8gpu-two-level", include_str!("../../captures/pcie-8gpu-1nic-two-level-switch.txt")),
    ] {
        let captured = capture(text);
        let node = report(&made(name));
        assert_eq!(captured.gpu_count, 8);
        assert_eq!(node.parts().gpus.len(), captured.gpu_count, "{name}");
        assert_eq!(cells(&node), captured.cells, "{name}");
        let cpus: Vec<String> = node.parts().gpus.iter().map(|g| g.cpus.to_string()).collect();
        assert_eq!(cpus, captured.cpu_affinity, "{name}");
        let zones: Vec<String> = node.parts().gpus.iter().map(|g| g.zone.unwrap().to_string()).collect();
        assert!(captured.numa_affinity.is_none_or(|numa| numa == zones), "{name}");
    }
}

#[test]
fn under_the_nvlinks_the_pcie_levels_are_those_of_topo_mp() {
    // Same kind of machine, another capture: there nvidia-smi leaves NVLink out.
    let captured = capture(include_str!("../../captures/dgx-1v-8gpu-4nic-mp.txt"));
    let node = report(&made("dgx-1v"));
    let links = &node.parts().links;
    let level = |a, b| links.link(a, b).map_or("X", |l| l.pcie.unwrap().word());
    let levels: Vec<Vec<&str>> = (0..12).map(|a| (0..12).map(|b| level(a, b)).collect()).collect();
    assert_eq!(levels, captured.cells);
    let zones: Vec<String> = node.parts().gpus.iter().map(|g| g.zone.unwrap().to_string()).collect();
    assert_eq!(Some(zones), captured.numa_affinity);
}

#[test]
fn what_a_machine_file_says_is_exactly_what_the_agent_would_report() {
    for machine in MACHINES {
        let made = made(machine);
        assert_eq!(report(&made), made.topology(None).unwrap(), "{machine}");
    }
}

#[test]
fn with_faults_too_machine_file_and_agent_agree() {
    let mut made = made("dgx-h100");
    let config = config(&made);
    let before = probe(&config, None).unwrap();
    for faults in [
        "lost: [3]",
        "lost: [0, 7]\nresetRequired: [2]\nunreadable: [5]",
        "unlisted: [4]",
        "nvlinksDown: [{gpu: 1}, {gpu: 2, links: [0, 17]}]\nportsDown: [mlx5_3]",
        "symbolsAbsent: [nvmlDeviceGetMemoryInfo_v2]",
        "symbolsAbsent: [nvmlDeviceGetMemoryInfo_v2, nvmlDeviceGetMemoryInfo, nvmlDeviceGetMigMode]",
        "symbolsAbsent: [nvmlDeviceGetNvLinkRemoteDeviceType]",
        "symbolsAbsent: [nvmlDeviceGetNvLinkRemoteDeviceType, nvmlDeviceGetNvLinkRemotePciInfo_v2]",
        "symbolsAbsent: [nvmlDeviceGetNvLinkState, nvmlSystemGetDriverVersion, nvmlDeviceGetName]",
        "symbolsAbsent: [nvmlDeviceGetUUID]",
        "symbolsAbsent: [nvmlDeviceGetHandleByIndex_v2]",
        "symbolsAbsent: [nvmlDeviceGetCount_v2]",
        "driver: notLoaded",
        "driver: libraryNotFound",
        "driver: versionMismatch",
    ] {
        made.set_faults(faults).unwrap();
        for previous in [None, Some(&before)] {
            assert_eq!(probe(&config, previous).unwrap(), made.topology(previous).unwrap(), "{faults}");
        }
    }
}

#[test]
fn nodes_of_one_machine_file_share_no_identity() {
    let of = |name| report(&MadeNode::new("dgx-1v", name).unwrap());
    let (a, b) = (of("a"), of("b"));
    assert_ne!(a.parts().boot_id, b.parts().boot_id);
    assert!(a.parts().gpus.iter().all(|g| b.parts().gpus.iter().all(|other| other.uuid != g.uuid)));
    assert_eq!(cells(&a), cells(&b));
}

#[test]
fn a_missing_library_is_a_node_without_driver() {
    let made = made("dgx-h100");
    let config = ProbeConfig { nvml_library: Some("/nonexistent/libnvidia-ml.so.1".into()), ..config(&made) };
    let node = probe(&config, None).unwrap();
    assert!(matches!(&node.parts().driver, Driver::Absent(why) if why.contains("cannot be loaded")));
    assert!(node.parts().gpus.is_empty());
    assert_eq!((node.parts().zones.len(), node.parts().nics.len()), (2, 12));
    let finding = &node.parts().findings[0];
    assert_eq!(finding.code, "driver-absent");
    assert!(finding.text.starts_with("8 NVIDIA GPUs on the PCI bus are not reported"), "{}", finding.text);
}

#[test]
fn a_library_that_is_none_is_a_node_without_driver() {
    let made = made("dgx-1v");
    std::fs::write(made.root().join("libnvidia-ml.so.1"), "not an ELF file").unwrap();
    let config = ProbeConfig { nvml_library: Some(made.root().join("libnvidia-ml.so.1")), ..config(&made) };
    assert!(matches!(probe(&config, None).unwrap().parts().driver, Driver::Absent(_)));
}

#[test]
fn a_lost_gpu_keeps_its_identity_and_the_others_stay_as_they_were() {
    let mut made = made("dgx-h100");
    let mut prober = Prober::new(config(&made));
    let before = prober.probe(None).unwrap();
    made.set_faults("lost: [3]").unwrap();
    let after = prober.probe(Some(&before)).unwrap();
    for (old, new) in before.parts().gpus.iter().zip(&after.parts().gpus) {
        if old.index == GpuIndex(3) {
            let health = Health::Unhealthy("NVML: the GPU is lost".to_owned());
            assert_eq!(*new, berth_model::Gpu { health, ..old.clone() });
        } else {
            assert_eq!(new, old);
        }
    }
    assert_eq!(before.parts().nics, after.parts().nics);
    assert_eq!(prober.probe(Some(&after)).unwrap(), after, "the report of a lost GPU is stable");

    made.set_faults("").unwrap();
    assert_eq!(prober.probe(Some(&after)).unwrap(), before, "a GPU that is back is as it was");
}

#[test]
fn a_gpu_lost_before_the_first_report_is_a_finding_with_its_address() {
    let mut made = made("dgx-h100");
    made.set_faults("lost: [3]").unwrap();
    let node = report(&made);
    assert_eq!(node.parts().gpus.len(), 7);
    let finding = &node.parts().findings[0];
    assert_eq!((finding.code.as_str(), finding.device.as_str()), ("gpu-unreadable", "0000:61:00.0"));
}

#[test]
fn a_running_prober_sees_ports_go_down_and_drivers_come_and_go() {
    let mut made = made("dgx-h100");
    let mut prober = Prober::new(config(&made));
    let before = prober.probe(None).unwrap();
    made.set_faults("portsDown: [mlx5_10]").unwrap();
    let nics = prober.probe(Some(&before)).unwrap().into_parts().nics;
    let down: Vec<&str> = nics.iter().filter(|n| n.state == PortState::Down).map(|n| n.name.as_str()).collect();
    assert_eq!(down, ["mlx5_10"]);
    made.set_faults("driver: versionMismatch").unwrap();
    let without = prober.probe(Some(&before)).unwrap();
    assert!(matches!(&without.parts().driver, Driver::Absent(why) if why.contains("different versions")));
    made.set_faults("").unwrap();
    assert_eq!(prober.probe(Some(&without)).unwrap(), before);
}

/// The report over a library that lacks some calls.
fn report_without(symbols: &[&str]) -> NodeTopology {
    let made = made("dgx-h100");
    let config = config(&made);
    for symbol in symbols {
        hide_symbol(config.nvml_library.as_deref().unwrap(), symbol).unwrap();
    }
    probe(&config, None).unwrap()
}

#[test]
fn a_library_without_a_symbol_costs_only_that_answer() {
    let whole = report_without(&[]);
    let old = report_without(&["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetNvLinkRemoteDeviceType"]);
    assert_eq!(old, whole, "the first form of the memory call and the PCI bus say the same");

    let older = report_without(&["nvmlDeviceGetNvLinkState", "nvmlDeviceGetMigMode"]);
    assert_eq!(older.link_class(), "NODE");
    assert!(older.parts().gpus.iter().all(|g| g.mig_enabled.is_none() && g.health.is_usable()));

    let none = report_without(&["nvmlInit_v2"]);
    assert!(matches!(&none.parts().driver, Driver::Absent(why) if why.contains("nvmlInit_v2")));
}

#[test]
fn truncated_and_absurd_kernel_files_cost_their_own_fact_only() {
    let made = made("dgx-h100");
    let before = report(&made);
    let at = |path: &str| made.root().join(path);
    let gpu0 = "sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:02.0/0000:19:00.0/0000:1a:00.0/0000:1b:00.0";
    let nic0 = "sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:00.0/0000:18:00.0/infiniband/mlx5_0/ports/1";
    std::fs::write(at(&format!("{gpu0}/numa_node")), "77\n").unwrap();
    std::fs::write(at(&format!("{nic0}/state")), "").unwrap();
    std::fs::write(at(&format!("{nic0}/rate")), vec![b'9'; 100_000]).unwrap();
    std::fs::write(at("sys/devices/system/node/node1/meminfo"), "Node 1 MemTo").unwrap();
    std::fs::write(at("sys/devices/system/node/node1/distance"), "21 ten").unwrap();
    std::fs::write(at("proc/sys/kernel/random/boot_id"), [0xff, 0xfe]).unwrap();
    std::fs::remove_file(at("sys/bus/pci/devices/0000:43:00.0")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("sys/bus/pci/devices/0000:43:00.0")).unwrap();

    let after = report(&made);
    let parts = after.parts();
    // NVML's memory affinity takes the place of the zone that does not exist.
    assert_eq!(parts.gpus[0], before.parts().gpus[0]);
    assert_eq!(parts.gpus[1].zone, before.parts().gpus[1].zone);
    assert_eq!(parts.links.link(1, 8).unwrap().pcie, None, "a GPU without a way on the bus is not far, it is unknown");
    assert_eq!(parts.links.link(0, 1).unwrap().nvlinks, 18);
    assert_eq!((parts.nics[0].state, parts.nics[0].rate_gbps), (PortState::Unknown, None));
    assert_eq!((parts.zones[1].memory, parts.zones[1].distances.len()), (None, 0));
    assert_eq!(parts.zones[0], before.parts().zones[0]);
    assert_eq!(parts.boot_id.as_str(), "unknown");
    assert_eq!(parts.gpus[2..], before.parts().gpus[2..]);
    assert_eq!(parts.nics[1..], before.parts().nics[1..]);
    let named: Vec<&str> = parts.findings.iter().map(|f| f.device.as_str()).collect();
    for file in [&format!("{nic0}/rate"), "sys/bus/pci/devices/0000:43:00.0", "sys/devices/system/node/node1/distance"]
    {
        assert!(named.iter().any(|n| file.starts_with(n)), "{file} is not named in {named:?}");
    }
}

#[test]
fn an_empty_kernel_tree_is_unknown_and_no_tree_is_an_error() {
    let made = made("dgx-1v");
    std::fs::remove_dir_all(made.root()).unwrap();
    let error = probe(&config(&made), None).unwrap_err();
    assert!(matches!(&error, ProbeError::NoTree { root } if *root == made.root().display().to_string()), "{error}");

    std::fs::create_dir_all(made.root().join("sys")).unwrap();
    let node = report(&made);
    let parts = node.parts();
    assert_eq!((parts.gpus.len(), parts.nics.len(), parts.zones.len()), (8, 0, 0));
    assert!(parts.gpus.iter().all(|g| g.zone.is_none() && g.cpus.is_empty()));
    assert_eq!(parts.links.link(0, 3).unwrap().to_string(), "NV2/?");
    assert_eq!(parts.links.link(0, 5).unwrap().to_string(), "?");
}

#[test]
fn the_fake_exports_every_call_that_it_names() {
    let none = report_without(berth_fake_nvml::SYMBOLS);
    assert!(matches!(none.parts().driver, Driver::Absent(_)));
}
