//! How much a report may hold: bounds for hostile input, held by decode, by the CRD schema, and kept by encode.

use berth_model::{GpuSet, LinkMatrix, NodeTopology};

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
/// Longest identity in bytes.
pub const ID_BYTES_MAX: usize = berth_model::id::ID_BYTES_MAX;
/// Longest name (product, version, code, device) in bytes. NVML's own names end at 96.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest sentence in bytes.
pub const TEXT_BYTES_MAX: usize = 512;
/// Longest CPU list in bytes: the worst list of 8192 CPUs (two of three set) takes less than 27 KiB.
pub const CPU_LIST_BYTES_MAX: usize = 32 << 10;
/// Longest row of the link matrix in bytes: a cell and its blank take at most 10.
pub const ROW_BYTES_MAX: usize = 10 * DEVICES_MAX;

/// The text, cut at a character's border where it is too long.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default()
}
