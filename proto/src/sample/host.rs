//! Hosts and functions of NICs.

use std::collections::BTreeMap;

use berth_model::host::{Governor, SamepageMerging, TransparentHugePages};
use berth_model::kubelet::{CpuManagerPolicy, MemoryManagerPolicy, TopologyManagerPolicy, TopologyManagerScope};
use berth_model::{
    Bond, Cpu, CpuFlag, CpuGroups, CpuSet, Host, HugePages, IommuGroup, Kubelet, NicFunction, NicName, PciAddress,
    Sriov, VfioGpu, VgpuCarrier, VgpuHosts, VirtualFunction,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

/// The host of the full machine: every fact that a GPU node without virtual machines has.
pub(super) fn full() -> Host {
    let groups = |text| CpuGroups::parse(text).ok();
    let kubelet = Kubelet {
        cpu_manager: CpuManagerPolicy::Static,
        cpu_manager_options: [("full-pcpus-only".to_owned(), "true".to_owned())].into(),
        topology_manager: TopologyManagerPolicy::SingleNumaNode,
        reserved_cpus: CpuSet::parse("0-1,112-113").unwrap(),
        ..Kubelet::default()
    };
    Host {
        cpu: Cpu {
            vendor: Some("GenuineIntel".to_owned()),
            model: Some("Intel(R) Xeon(R) Platinum 8480C".to_owned()),
            flags: Some(CpuFlag::ALL.iter().copied().filter(|f| f.word().starts_with('a')).collect()),
            cores: groups("0,112x112+1"),
            sockets: groups("0-55,112-167x2+56"),
            l3_caches: groups("0-55,112-167x2+56"),
            isolated: Some(CpuSet::default()),
            nohz_full: Some(CpuSet::default()),
            governor: Some(Governor::Performance),
        },
        transparent_huge_pages: Some(TransparentHugePages::Madvise),
        samepage_merging: Some(SamepageMerging::Off),
        kubelet: Some(kubelet),
        ..Host::default()
    }
}

/// The function of the full machine's NIC `i`.
pub(super) fn full_function(i: u8) -> NicFunction {
    NicFunction {
        netdevs: vec![format!("ibp{}s0", 24 + 16 * i)],
        sriov: Some(Sriov { function_count_max: 16, function_count: 0 }),
        ..NicFunction::default()
    }
}

pub(super) fn huge_pages() -> impl Strategy<Value = Option<Vec<HugePages>>> {
    let pools = btree_map(1_u64..2_000_000, 1_u64.., 0..HugePages::SIZES_MAX);
    let listed = |pools: BTreeMap<u64, u64>| {
        pools.into_iter().map(|(page_kib, page_count)| HugePages { page_kib, page_count }).collect()
    };
    of(pools.prop_map(listed))
}

pub(super) fn any() -> impl Strategy<Value = Host> {
    let settings = (of(select(TransparentHugePages::ALL)), of(select(SamepageMerging::ALL)), of(kubelet()));
    let carrier = select(VgpuCarrier::ALL);
    let vfio = ("[a-z-]{1,20}", address()).prop_map(|(driver, pci)| VfioGpu { pci, driver });
    let vgpu = (vec(address(), 0..4), carrier, vec("[ -~]{1,20}", 0..4)).prop_map(|(gpus, carrier, types)| VgpuHosts {
        gpus,
        carrier,
        types,
    });
    let group =
        (0..=i32::MAX.unsigned_abs(), vec(address(), 0..4)).prop_map(|(id, devices)| IommuGroup { id, devices });
    (cpu(), settings, vec(vfio, 0..3), vec(vgpu, 0..3), vec(group, 0..3)).prop_map(
        |(cpu, (transparent_huge_pages, samepage_merging, kubelet), vfio_gpus, vgpu_hosts, iommu_groups)| Host {
            cpu,
            transparent_huge_pages,
            samepage_merging,
            kubelet,
            vfio_gpus,
            vgpu_hosts,
            iommu_groups,
        },
    )
}

fn cpu() -> impl Strategy<Value = Cpu> {
    let sizes = || of(vec(1_u32..5, 1..9).prop_map(groups));
    let told = (of("[ -~é]{1,60}"), of("[ -~]{1,60}"), of(btree_set(select(CpuFlag::ALL), 0..6)));
    let lists = (of(super::cpus()), of(super::cpus()), of(select(Governor::ALL)));
    (told, (sizes(), sizes(), sizes()), lists).prop_map(
        |((vendor, model, flags), (cores, sockets, l3_caches), (isolated, nohz_full, governor))| Cpu {
            vendor,
            model,
            flags,
            cores,
            sockets,
            l3_caches,
            isolated,
            nohz_full,
            governor,
        },
    )
}

/// Groups of the given sizes, each above the one before.
fn groups(sizes: Vec<u32>) -> CpuGroups {
    let mut next = 0;
    let group = |size: u32| {
        let group = CpuSet::from_cpus(next..next + size);
        next += size + 1;
        group
    };
    CpuGroups::from_groups(sizes.into_iter().map(group).collect::<Vec<_>>()).unwrap()
}

fn kubelet() -> impl Strategy<Value = Kubelet> {
    let options = || btree_map("[a-z-]{1,20}", "[a-z0-9=]{0,10}", 0..4);
    let policies = (
        select(CpuManagerPolicy::ALL),
        select(MemoryManagerPolicy::ALL),
        select(TopologyManagerPolicy::ALL),
        select(TopologyManagerScope::ALL),
    );
    (policies, options(), options(), super::cpus()).prop_map(
        |(
            (cpu_manager, memory_manager, topology_manager, topology_manager_scope),
            cpu_manager_options,
            topology_manager_options,
            reserved_cpus,
        )| Kubelet {
            cpu_manager,
            cpu_manager_options,
            memory_manager,
            topology_manager,
            topology_manager_scope,
            topology_manager_options,
            reserved_cpus,
        },
    )
}

fn address() -> impl Strategy<Value = PciAddress> {
    let address = |(bus, device, function)| PciAddress { domain: 0, bus, device, function };
    (proptest::num::u8::ANY, 0_u8..32, 0_u8..8).prop_map(address)
}

pub(super) fn any_function() -> impl Strategy<Value = NicFunction> {
    let netdevs = || vec("[a-z0-9]{1,15}", 0..3);
    let bond = ("[a-z0-9]{1,15}", netdevs()).prop_map(|(name, members)| Bond { name, members });
    let sriov = (0_u16.., 0_u16..)
        .prop_map(|(function_count_max, function_count)| Sriov { function_count_max, function_count });
    let name = of("[!-~]{1,20}".prop_map(|name| NicName::parse(&name).unwrap()));
    let function = (address(), name).prop_map(|(pci, name)| VirtualFunction { pci, name });
    (netdevs(), of(bond), of(0_u16..), of(sriov), vec(function, 0..3)).prop_map(
        |(netdevs, bond, card, sriov, virtual_functions)| NicFunction { netdevs, bond, card, sriov, virtual_functions },
    )
}
