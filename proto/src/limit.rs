//! How much a report may hold: bounds for hostile input, held by decode, by the CRD schema, and kept by encode.

use berth_model::{Drift, GpuSet, Kubelet, LinkMatrix, NicFunction, NodeTopology, Refusal, virt};

/// Most GPUs, and so most products.
pub const GPUS_MAX: usize = GpuSet::GPUS_MAX;
/// Most zones, and so most distances of a zone.
pub const ZONES_MAX: usize = NodeTopology::ZONES_MAX;
/// Most NICs.
pub const NICS_MAX: usize = NodeTopology::NICS_MAX;
/// Most rows of the link matrix.
pub const DEVICES_MAX: usize = LinkMatrix::DEVICES_MAX;
/// Most findings: one per device is already more than a person reads.
pub const FINDINGS_MAX: usize = LinkMatrix::DEVICES_MAX;
/// Most drifts.
pub const DRIFTS_MAX: usize = Drift::DRIFTS_MAX;
/// Most devices of one drift.
pub const DRIFT_DEVICES_MAX: usize = Drift::DEVICES_MAX;
/// Most refusals.
pub const REFUSALS_MAX: usize = Refusal::REFUSALS_MAX;
/// Longest namespace and name of a pod in bytes.
///
/// Source: RFC 1123 label and subdomain as github.com/kubernetes/kubernetes checks them, 63 and 253 bytes.
pub const POD_BYTES_MAX: usize = 63 + 1 + 253;
/// Longest name of a resource in bytes: a prefix of 253 bytes, a slash, a name of 63.
pub const RESOURCE_BYTES_MAX: usize = 253 + 1 + 63;
/// Most NVLinks of a GPU.
pub const NVLINKS_MAX: usize = 18;
/// Most MIG profiles of a product.
pub const MIG_PROFILES_MAX: usize = berth_model::MigCapability::PROFILES_MAX;
/// Most GPU instances of a GPU: one per memory slot.
pub const MIG_INSTANCES_MAX: usize = 8;
/// Longest identity in bytes.
pub const ID_BYTES_MAX: usize = berth_model::id::ID_BYTES_MAX;
/// Longest name (product, version, code, device) in bytes. NVML's own names end at 96.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest list of serial numbers in bytes.
pub const SERIALS_BYTES_MAX: usize = GPUS_MAX * (NAME_BYTES_MAX + 1);
/// Longest sentence in bytes.
pub const TEXT_BYTES_MAX: usize = 512;
/// Longest CPU list in bytes: the worst list of 8192 CPUs (two of three set) takes less than 27 KiB.
pub const CPU_LIST_BYTES_MAX: usize = 32 << 10;
/// Longest row of the link matrix in bytes: a cell and its blank take at most 10.
pub const ROW_BYTES_MAX: usize = 10 * DEVICES_MAX;

/// Most network devices of one NIC or bond.
pub const NETDEVS_MAX: usize = NicFunction::NETDEVS_MAX;
/// Longest name of a network device in bytes.
pub const NETDEV_BYTES_MAX: usize = NicFunction::NETDEV_BYTES_MAX;
/// Most virtual functions of one NIC.
pub const VIRTUAL_FUNCTIONS_MAX: usize = NicFunction::VIRTUAL_FUNCTIONS_MAX;
/// Most options of one manager of the kubelet.
pub const OPTIONS_MAX: usize = Kubelet::OPTIONS_MAX;
/// Longest option as name=value in bytes.
pub const OPTION_BYTES_MAX: usize = 2 * Kubelet::OPTION_BYTES_MAX + 1;
/// Most IOMMU groups, and most GPUs of vfio.
pub const GROUPS_MAX: usize = virt::GROUPS_MAX;
/// Most devices of one IOMMU group.
pub const GROUP_DEVICES_MAX: usize = virt::GROUP_DEVICES_MAX;
/// Most vGPU types of one GPU.
pub const VGPU_TYPES_MAX: usize = virt::VGPU_TYPES_MAX;

/// The text, cut at a character's border where it is too long.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default()
}
