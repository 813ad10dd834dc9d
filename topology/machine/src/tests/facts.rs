//! Every fact of the kernel about zones, NICs and devices for virtual machines: said in the machine file it is in the report, left out it
//! is unknown, and a file that makes no sense is unknown too and costs nothing else.

use berth_model::{NodeName, NodeTopology, Parts};
use berth_probe::probe_facts;
use berth_probe::tree::{Entry, MemoryTree};

use crate::{Faults, Machine, Salt, nvml, render};

const NIC: &str = "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0";
const GPU: &str = "sys/devices/pci0000:00/0000:00:02.0/0000:02:00.0";

/// A machine with one GPU and two NICs; each text is what the file says of its part beside the least.
#[derive(Clone, Copy, Default)]
struct Said {
    zone: &'static str,
    nic: &'static str,
    gpu: &'static str,
    more: &'static str,
    below: &'static str,
}

fn machine(said: Said) -> Result<Machine, crate::MachineError> {
    let Said { zone, nic, gpu, more, below } = said;
    let comma = |text: &str| if text.is_empty() { String::new() } else { format!(", {text}") };
    let zone = if zone.is_empty() { "cpus: unknown, memoryMib: unknown" } else { zone };
    Machine::parse(&format!(
        "apiVersion: berth.dev/machine/v1\nname: m\nsource: made up\nsynthetic: true\ndriver: '1'\nbootId: b\n\
         zones:\n- {{id: 0, {zone}}}\n- {{id: 1, cpus: unknown, memoryMib: unknown}}\n\
         gpuFacts: {{product: P, memoryMib: 1, mig: false}}\npcie:\n- host: pci0000:00\n  zone: 1\n  below:\n  \
         - {{via: [0000:00:01.0], nic: mlx5_0, at: 0000:01:00.0, nicFacts: {{{nic}}}}}\n  \
         - {{via: [0000:00:02.0], gpu: 0, at: 0000:02:00.0, gpuFacts: {{uuid: GPU-1{}}}}}\n  \
         - {{via: [0000:00:03.0], nic: mlx5_1, at: 0000:03:00.0, nicFacts: {{netdevs: ens9, bond: bond9, \
         card: 'aaaa:0000:0000:0001'}}}}\n{below}{more}",
        comma(gpu)
    ))
}

fn tree(said: Said) -> MemoryTree {
    render::tree(&machine(said).unwrap(), &Salt::default(), &Faults::default())
}

fn report_of(said: Said, tree: &MemoryTree) -> NodeTopology {
    let machine = machine(said).unwrap();
    let facts = nvml::facts(&machine, &Salt::default(), &Faults::default());
    probe_facts(facts, tree, None, NodeName::parse("m").unwrap()).unwrap()
}

fn report(said: Said) -> Parts {
    report_of(said, &tree(said)).into_parts()
}

fn zone(zone: &'static str) -> Said {
    Said { zone, ..Said::default() }
}

fn nic(nic: &'static str) -> Said {
    Said { nic, ..Said::default() }
}

fn gpu(gpu: &'static str) -> Said {
    Said { gpu, ..Said::default() }
}

fn more(more: &'static str) -> Said {
    Said { more, ..Said::default() }
}

fn below(below: &'static str) -> Said {
    Said { below, ..Said::default() }
}

/// A fact: as the file says it, how a report shows it, what it is then and what when the file leaves it out.
type Case = (Said, fn(&Parts) -> String, &'static str, &'static str);

fn zones_and_ports() -> Vec<Case> {
    vec![
        (zone("cpus: 0-3, memoryMib: unknown"), |p| p.zones[0].cpus.to_string(), "0-3", ""),
        (zone("cpus: unknown, memoryMib: 7"), |p| format!("{:?}", p.zones[0].memory.map(|m| m.0)), "Some(7)", "None"),
        (
            zone("cpus: unknown, memoryMib: unknown, hugePages: 2048x4"),
            |p| format!("{:?}", p.zones[0].huge_pages.as_ref().map(|h| h[0].page_count)),
            "Some(4)",
            "None",
        ),
        (
            zone("cpus: unknown, memoryMib: unknown, distances: 10 21"),
            |p| format!("{:?}", p.zones[0].distances),
            "[10, 21]",
            "[]",
        ),
        (nic("zone: 0"), |p| format!("{:?}", p.nics[0].zone.map(|z| z.0)), "Some(0)", "Some(1)"),
        (nic("zone: unknown"), |p| format!("{:?}", p.nics[0].zone.map(|z| z.0)), "None", "Some(1)"),
        (nic("state: active"), |p| format!("{:?}", p.nics[0].state), "Active", "Unknown"),
        (nic("state: down"), |p| format!("{:?}", p.nics[0].state), "Down", "Unknown"),
        (nic("linkLayer: Ethernet"), |p| format!("{:?}", p.nics[0].link_layer), "Ethernet", "Unknown"),
        (nic("rateGbps: 400"), |p| format!("{:?}", p.nics[0].rate_gbps), "Some(400)", "None"),
    ]
}

fn functions() -> Vec<Case> {
    vec![
        (nic("netdevs: ens2 ens1"), |p| p.nics[0].function.netdevs.join(" "), "ens1 ens2", ""),
        (
            nic("netdevs: ens1, bond: bond9"),
            |p| {
                p.nics[0]
                    .function
                    .bond
                    .as_ref()
                    .map(|b| format!("{} {}", b.name, b.members.join("+")))
                    .unwrap_or_default()
            },
            "bond9 ens1+ens9",
            "",
        ),
        (
            nic("card: 'aaaa:0000:0000:0001'"),
            |p| format!("{:?}", p.nics.iter().map(|n| n.function.card).collect::<Vec<_>>()),
            "[Some(0), Some(0)]",
            "[None, None]",
        ),
        (
            nic("vfsMax: 8, virtualFunctions: 0000:01:00.1=mlx5_7 0000:01:00.2"),
            |p| format!("{:?}", p.nics[0].function.sriov.map(|s| (s.function_count_max, s.function_count))),
            "Some((8, 2))",
            "None",
        ),
        (
            nic("vfsMax: 8, virtualFunctions: 0000:01:00.1=mlx5_7 0000:01:00.2"),
            |p| {
                let name = |f: &berth_model::VirtualFunction| f.name.as_ref().map_or("-", |n| n.as_str()).to_owned();
                let functions = p.nics[0].function.virtual_functions.iter();
                functions.map(|f| format!("{}={}", f.pci, name(f))).collect::<Vec<_>>().join(" ")
            },
            "0000:01:00.1=mlx5_7 0000:01:00.2=-",
            "",
        ),
        (gpu("zone: 0"), |p| format!("{:?}", p.gpus[0].zone.map(|z| z.0)), "Some(0)", "Some(1)"),
        (gpu("memoryZone: 0"), |p| format!("{:?}", p.gpus[0].memory_zone.map(|z| z.0)), "Some(0)", "None"),
        (gpu("vgpuMdev: V100-2Q; V100-1Q"), vgpus, "mdev 0000:02:00.0 V100-1Q+V100-2Q", ""),
        (
            gpu("vgpuVfio: H100-4C; H100-8C, vgpuFunctions: 0000:02:00.4 0000:02:00.5"),
            vgpus,
            "vfio 0000:02:00.0 H100-4C+H100-8C",
            "",
        ),
        (
            below("  - {via: [0000:00:04.0], vfio: vfio-pci, at: 0000:04:00.0}\n"),
            |p| p.host.vfio_gpus.iter().map(|g| format!("{} {}", g.pci, g.driver)).collect::<Vec<_>>().join(" "),
            "0000:04:00.0 vfio-pci",
            "",
        ),
        (
            more("iommuGroups: [{id: 7, devices: [0000:01:00.0, 0000:02:00.0]}]\n"),
            |p| format!("{:?}", p.host.iommu_groups.iter().map(|g| (g.id, g.devices.len())).collect::<Vec<_>>()),
            "[(7, 2)]",
            "[]",
        ),
    ]
}

fn vgpus(parts: &Parts) -> String {
    let host = |h: &berth_model::VgpuHosts| {
        let gpus: Vec<String> = h.gpus.iter().map(ToString::to_string).collect();
        format!("{} {} {}", h.carrier.word(), gpus.join("+"), h.types.join("+"))
    };
    parts.host.vgpu_hosts.iter().map(host).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_fact_that_the_file_says_is_in_the_report_and_left_out_it_is_unknown() {
    let silent = report(Said::default());
    assert_eq!(silent.findings, []);
    for (said, read, expected, unknown) in zones_and_ports().into_iter().chain(functions()) {
        let Said { zone, nic, gpu, more, below } = said;
        let text = [zone, nic, gpu, more, below].concat();
        let parts = report(said);
        assert_eq!((read(&parts).as_str(), read(&silent).as_str()), (expected, unknown), "{text}");
        assert_eq!(parts.findings, [], "{text}");
    }
}

#[test]
fn a_file_that_makes_no_sense_is_unknown_and_costs_nothing_else() {
    let said = Said {
        zone: "cpus: 0-3, memoryMib: 7, hugePages: 2048x4, distances: 10 21",
        nic: "state: active, linkLayer: Ethernet, rateGbps: 400, netdevs: ens1, bond: bond9, card: 'aaaa:0000:0000:0001', \
              vfsMax: 8, virtualFunctions: 0000:01:00.1=mlx5_7",
        ..Said::default()
    };
    let whole = report(said);
    let port = format!("{NIC}/infiniband/mlx5_0/ports/1");
    type Change = fn(&mut Parts);
    let files: [(String, Change); 10] = [
        ("sys/devices/system/node/node0/cpulist".to_owned(), |p| p.zones[0].cpus = berth_model::CpuSet::default()),
        ("sys/devices/system/node/node0/meminfo".to_owned(), |p| p.zones[0].memory = None),
        ("sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages".to_owned(), |p| {
            p.zones[0].huge_pages = None;
        }),
        ("sys/devices/system/node/node0/distance".to_owned(), |p| p.zones[0].distances = Vec::new()),
        (format!("{NIC}/numa_node"), |p| p.nics[0].zone = None),
        (format!("{port}/state"), |p| p.nics[0].state = berth_model::PortState::Unknown),
        (format!("{port}/link_layer"), |p| p.nics[0].link_layer = berth_model::LinkLayer::Unknown),
        (format!("{port}/rate"), |p| p.nics[0].rate_gbps = None),
        (format!("{NIC}/infiniband/mlx5_0/sys_image_guid"), |p| {
            p.nics.iter_mut().for_each(|nic| nic.function.card = None);
        }),
        (format!("{NIC}/sriov_totalvfs"), |p| p.nics[0].function.sriov = None),
    ];
    for (path, change) in files {
        let mut broken = tree(said);
        broken.put_line(&path, "nonsense");
        let mut parts = report_of(said, &broken).into_parts();
        let named: Vec<String> = parts.findings.drain(..).map(|f| f.device).collect();
        assert_eq!(named, std::slice::from_ref(&path));
        let mut expected = whole.clone();
        change(&mut expected);
        assert_eq!(
            (&parts.zones, &parts.nics, &parts.gpus),
            (&expected.zones, &expected.nics, &expected.gpus),
            "{path}"
        );
        assert_ne!((&parts.zones, &parts.nics), (&whole.zones, &whole.nics), "{path}");
    }
    // Links: to nowhere in the tree they say nothing.
    for link in [format!("{NIC}/net/ens1/master"), format!("{GPU}/iommu_group"), format!("{GPU}/driver")] {
        let mut broken = tree(said);
        broken.put(link.as_str(), Entry::Link("../../../../../../../../..".to_owned()));
        let parts = report_of(said, &broken).into_parts();
        assert_eq!((parts.host.iommu_groups.len(), parts.host.vfio_gpus.len(), parts.gpus.len()), (0, 0, 1), "{link}");
    }
}

#[test]
fn functions_that_no_kernel_shows_are_refused_with_the_field() {
    for (said, field) in [
        (nic("bond: bond0"), "pcie[0].below[0].nicFacts.bond"),
        (nic("virtualFunctions: 0000:01:00.1"), "pcie[0].below[0].nicFacts.virtualFunctions"),
        (nic("vfsMax: 4, virtualFunctions: 0000:02:00.0"), "pcie[0].below[1].at"),
        (nic("vfsMax: 4, virtualFunctions: 0001:01:00.1"), "pcie[0].below[0].nicFacts.virtualFunctions[0]"),
        (gpu("vgpuVfio: H100-4C"), "pcie[0].below[1].gpuFacts.vgpuFunctions"),
        (gpu("vgpuVfio: A, vgpuMdev: B"), "pcie[0].below[1].gpuFacts.vgpuVfio"),
        (below("  - {vfio: nvidia, at: 0000:00:05.0}\n"), "pcie[0].below[3].vfio"),
        (more("iommuGroups: [{id: 7, devices: [0000:0f:00.0]}]\n"), "iommuGroups[0].devices"),
        (more("iommuGroups: [{id: 7, devices: []}, {id: 7, devices: []}]\n"), "iommuGroups[1].id"),
    ] {
        let error = machine(said).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}, {field} expected");
    }
    for text in ["netdevs: a/b", "card: 12", "virtualFunctions: x", "netdevs: ''"] {
        assert!(machine(Said { nic: text, ..Said::default() }).is_err(), "{text}");
    }
}
