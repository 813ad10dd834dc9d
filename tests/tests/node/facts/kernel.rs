//! What the kernel tells, and the kubelet's file, with the files that tell it.

use berth_model::{Nic, Parts, VgpuHosts};

use super::Place::{Gpu, Host, Leaf, Nic as Nic0, OtherGpu, Top, Zone};
use super::Source::Files;
use super::{Fact, say};

/// Of the NIC of the table.
fn nic(parts: &Parts) -> &Nic {
    let found = parts.nics.iter().find(|nic| nic.name.as_str() == "mlx5_0");
    found.unwrap()
}

const VIRTUAL: &[&str] = &["$nic.1/physfn+$nic.2/physfn"];
const MDEV: &[&str] = &["$gpu/mdev_supported_types/nvidia-1400/name+$gpu/mdev_supported_types/nvidia-1401/name"];
const VENDOR: &[&str] =
    &["$other/0000:81:00.4/nvidia/creatable_vgpu_types+$other/0000:81:00.5/nvidia/creatable_vgpu_types"];
const MASTERS: &[&str] = &["$nic.0/net/ens1/master+$nic.0/net/ens2/master"];
const PAGES: &[&str] = &["$zone/hugepages/hugepages-2048kB/nr_hugepages"];

const KUBELET_STATIC: &str = "\"kind: KubeletConfiguration\\ntopologyManagerPolicy: single-numa-node\\n\
    cpuManagerPolicy: static\\nmemoryManagerPolicy: Static\\nreservedSystemCPUs: 0-1\\n\"";
const KUBELET_POD: &str = "\"kind: KubeletConfiguration\\ntopologyManagerScope: pod\\n\"";

/// Zones, NICs, GPUs for virtual machines.
pub(super) const DEVICES: &[Fact] = &[
    Fact::new(
        Zone,
        "cpus",
        ["'2-3,6-7'", "2-3"],
        |p| p.zones[1].cpus.to_string(),
        ["2-3,6-7", "2-3"],
        Files(&["$zone/cpulist"]),
    )
    .unknown(""),
    Fact::new(
        Zone,
        "memoryMib",
        ["2048", "4096"],
        |p| say(p.zones[1].memory.map(|m| m.0)),
        ["2048", "4096"],
        Files(&["$zone/meminfo"]),
    ),
    Fact::new(
        Zone,
        "hugePages",
        ["2048x4", "2048x8"],
        |p| say(p.zones[1].huge_pages.as_ref().map(|h| h[0].page_count)),
        ["4", "8"],
        Files(PAGES),
    ),
    Fact::new(
        Zone,
        "distances",
        ["21 10", "32 10"],
        |p| format!("{:?}", p.zones[1].distances),
        ["[21, 10]", "[32, 10]"],
        Files(&["$zone/distance"]),
    )
    .unknown("[]"),
    Fact::new(
        Nic0,
        "state",
        ["active", "down"],
        |p| format!("{:?}", nic(p).state),
        ["Active", "Down"],
        Files(&["$rdma/ports/1/state"]),
    )
    .unknown("Unknown"),
    Fact::new(
        Nic0,
        "linkLayer",
        ["InfiniBand", "Ethernet"],
        |p| format!("{:?}", nic(p).link_layer),
        ["InfiniBand", "Ethernet"],
        Files(&["$rdma/ports/1/link_layer"]),
    )
    .unknown("Unknown"),
    Fact::new(
        Nic0,
        "rateGbps",
        ["400", "200"],
        |p| say(nic(p).rate_gbps),
        ["400", "200"],
        Files(&["$rdma/ports/1/rate"]),
    ),
    Fact::new(Nic0, "zone", ["1", "0"], |p| say(nic(p).zone.map(|z| z.0)), ["1", "0"], Files(&["$nic.0/numa_node"])),
    Fact::new(
        Nic0,
        "netdevs",
        ["ens1 ens2", "ens3"],
        |p| nic(p).function.netdevs.join(" "),
        ["ens1 ens2", "ens3"],
        Files(&["$nic.0/net"]),
    )
    .with(&["bond"])
    .unknown("")
    .untold(None),
    Fact::new(Nic0, "bond", ["bond9", "bond8"], bond, ["bond9: ens1 ens2 ens9", "bond8: ens1 ens2"], Files(MASTERS))
        .unknown(""),
    Fact::new(
        Nic0,
        "card",
        ["'aaaa:0000:0000:0001'", "'aaaa:0000:0000:0002'"],
        cards,
        ["[Some(0), Some(0)]", "[None, None]"],
        Files(&["$rdma/sys_image_guid"]),
    )
    .unknown("[None, None]"),
    Fact::new(
        Nic0,
        "vfsMax",
        ["8", "16"],
        |p| say(nic(p).function.sriov.map(|s| s.function_count_max)),
        ["8", "16"],
        Files(&["$nic.0/sriov_totalvfs", "$nic.0/sriov_numvfs"]),
    )
    .untold(None),
    Fact::new(
        Nic0,
        "virtualFunctions",
        ["0000:04:00.1=mlx5_7 0000:04:00.2", "0000:04:00.2=mlx5_8"],
        functions,
        ["0000:04:00.1=mlx5_7 0000:04:00.2=-", "0000:04:00.2=mlx5_8"],
        Files(VIRTUAL),
    )
    .unknown(""),
    // Without it the driver is asked, which is silent here.
    Fact::new(
        Gpu,
        "zone",
        ["1, memoryAffinity: unknown", "0, memoryAffinity: unknown"],
        |p| say(p.gpus[0].zone.map(|z| z.0)),
        ["1", "0"],
        Files(&["$gpu/numa_node"]),
    )
    .untold(Some("unknown, memoryAffinity: unknown")),
    Fact::new(
        Gpu,
        "vgpuMdev",
        ["V100-2Q; V100-1Q", "V100-4Q"],
        |p| vgpus(p, "mdev"),
        ["0000:03:00.0: V100-1Q V100-2Q", "0000:03:00.0: V100-4Q"],
        Files(MDEV),
    )
    .unknown(""),
    Fact::new(
        OtherGpu,
        "vgpuVfio",
        ["H100-8C; H100-4C, vgpuFunctions: 0000:81:00.4 0000:81:00.5", "H100-8C, vgpuFunctions: 0000:81:00.4"],
        |p| vgpus(p, "vfio"),
        ["0000:81:00.0: H100-4C H100-8C", "0000:81:00.0: H100-8C"],
        Files(VENDOR),
    )
    .unknown(""),
    Fact::new(
        Leaf,
        "vfio",
        ["vfio-pci", "nvgrace_gpu_vfio_pci"],
        |p| say(p.host.vfio_gpus.first().map(|g| (g.pci.to_string(), g.driver.clone()))),
        ["(\"0000:83:00.0\", \"vfio-pci\")", "(\"0000:83:00.0\", \"nvgrace_gpu_vfio_pci\")"],
        Files(&["$leaf/driver"]),
    )
    .untold(None),
    Fact::new(
        Top,
        "iommuGroups",
        ["[{id: 7, devices: [0000:03:00.0, 0000:04:00.0]}]", "[{id: 8, devices: [0000:81:00.0, 0000:82:00.0]}]"],
        groups,
        ["7: 0000:03:00.0 0000:04:00.0", "8: 0000:81:00.0 0000:82:00.0"],
        Files(&["$gpu/iommu_group+$nic.0/iommu_group"]),
    )
    .unknown("")
    .untold(Some("[]")),
];

/// CPUs, memory settings, and the kubelet's file.
pub(super) const HOST: &[Fact] = &[
    Fact::new(
        Host,
        "cpuVendor",
        ["GenuineIntel", "AuthenticAMD"],
        |p| say(p.host.cpu.vendor.as_ref()),
        ["\"GenuineIntel\"", "\"AuthenticAMD\""],
        Files(&["proc/cpuinfo"]),
    ),
    Fact::new(
        Host,
        "cpuModel",
        ["Some CPU", "Other CPU"],
        |p| say(p.host.cpu.model.as_ref()),
        ["\"Some CPU\"", "\"Other CPU\""],
        Files(&["proc/cpuinfo"]),
    ),
    Fact::new(
        Host,
        "cpuFlags",
        ["avx2 avx512f amx_tile", "avx2 sve2"],
        |p| say(p.host.cpu.flags.as_ref().map(|f| f.iter().map(|f| f.word()).collect::<Vec<_>>())),
        ["[\"avx2\", \"avx512f\", \"amx_tile\"]", "[\"avx2\", \"sve2\"]"],
        Files(&["proc/cpuinfo"]),
    ),
    Fact::new(
        Host,
        "cores",
        ["'0,4x4+1'", "0x8+1"],
        |p| say(p.host.cpu.cores.as_ref().map(|g| g.group_count())),
        ["4", "8"],
        Files(&["$cpus/cpu2/topology/thread_siblings_list"]),
    ),
    Fact::new(
        Host,
        "sockets",
        ["'0-1,4-5x2+2'", "0-7"],
        |p| say(p.host.cpu.sockets.as_ref().map(|g| g.group_count())),
        ["2", "1"],
        Files(&["$cpus/cpu2/topology/package_cpus_list"]),
    ),
    Fact::new(
        Host,
        "l3Caches",
        ["'0,4x4+1'", "0-7"],
        |p| say(p.host.cpu.l3_caches.as_ref().map(|g| g.group_count())),
        ["4", "1"],
        Files(&["$cpus/cpu2/cache/index1/level", "$cpus/cpu2/cache/index1/shared_cpu_list"]),
    ),
    Fact::new(
        Host,
        "isolated",
        ["2-3", "'3'"],
        |p| say(p.host.cpu.isolated.as_ref().map(ToString::to_string)),
        ["\"2-3\"", "\"3\""],
        Files(&["$cpus/isolated"]),
    ),
    Fact::new(
        Host,
        "nohzFull",
        ["'3'", "'2'"],
        |p| say(p.host.cpu.nohz_full.as_ref().map(ToString::to_string)),
        ["\"3\"", "\"2\""],
        Files(&["$cpus/nohz_full"]),
    ),
    Fact::new(
        Host,
        "governor",
        ["schedutil", "performance"],
        |p| say(p.host.cpu.governor),
        ["Schedutil", "Performance"],
        Files(&["$cpus/cpufreq/policy0/scaling_governor", "$cpus/cpufreq/policy2/scaling_governor"]),
    ),
    Fact::new(
        Host,
        "transparentHugePages",
        ["always", "never"],
        |p| say(p.host.transparent_huge_pages),
        ["Always", "Never"],
        Files(&["sys/kernel/mm/transparent_hugepage/enabled"]),
    ),
    Fact::new(
        Host,
        "samepageMerging",
        ["'on'", "unmerge"],
        |p| say(p.host.samepage_merging),
        ["On", "Unmerge"],
        Files(&["sys/kernel/mm/ksm/run"]),
    ),
    Fact::new(
        Host,
        "kubeletConfig",
        [KUBELET_STATIC, KUBELET_POD],
        kubelet,
        ["Static Static SingleNumaNode Container 0-1", "None None None Pod "],
        Files(&["var/lib/kubelet/config.yaml"]),
    ),
];

fn bond(parts: &Parts) -> String {
    nic(parts).function.bond.as_ref().map(|b| format!("{}: {}", b.name, b.members.join(" "))).unwrap_or_default()
}

fn cards(parts: &Parts) -> String {
    let physical = parts.nics.iter().filter(|nic| matches!(nic.name.as_str(), "mlx5_0" | "mlx5_1"));
    format!("{:?}", physical.map(|nic| nic.function.card).collect::<Vec<_>>())
}

fn functions(parts: &Parts) -> String {
    let name = |f: &berth_model::VirtualFunction| f.name.as_ref().map_or("-", |n| n.as_str()).to_owned();
    let functions = nic(parts).function.virtual_functions.iter();
    functions.map(|f| format!("{}={}", f.pci, name(f))).collect::<Vec<_>>().join(" ")
}

fn vgpus(parts: &Parts, carrier: &str) -> String {
    let host = |h: &VgpuHosts| {
        let gpus: Vec<String> = h.gpus.iter().map(ToString::to_string).collect();
        format!("{}: {}", gpus.join(" "), h.types.join(" "))
    };
    let hosts = parts.host.vgpu_hosts.iter().filter(|h| h.carrier.word() == carrier);
    hosts.map(host).collect::<Vec<_>>().join(", ")
}

fn groups(parts: &Parts) -> String {
    let group = |g: &berth_model::IommuGroup| {
        let devices: Vec<String> = g.devices.iter().map(ToString::to_string).collect();
        format!("{}: {}", g.id, devices.join(" "))
    };
    parts.host.iommu_groups.iter().map(group).collect::<Vec<_>>().join(", ")
}

fn kubelet(parts: &Parts) -> String {
    let Some(k) = &parts.host.kubelet else { return say::<()>(None) };
    let (cpu, memory) = (k.cpu_manager, k.memory_manager);
    let (policy, scope) = (k.topology_manager, k.topology_manager_scope);
    format!("{cpu:?} {memory:?} {policy:?} {scope:?} {}", k.reserved_cpus)
}
