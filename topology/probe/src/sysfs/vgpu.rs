//! Types of vGPU that a GPU or one of its virtual functions offers: mediated devices of older kernels, or the vendor's own files.

use berth_model::{VgpuCarrier, virt};

use super::Reader;

/// Reads the types of one device, by whichever of the two ways its kernel has.
pub(super) fn read(reader: &mut Reader<'_>, device: &str) -> Option<(VgpuCarrier, Vec<String>)> {
    let directory = format!("{device}/mdev_supported_types");
    let kinds = reader.list(&directory);
    if !kinds.is_empty() {
        let kinds = kinds.into_iter().take(virt::VGPU_TYPES_MAX);
        // How many are still to be had (`available_instances`) is not read: it is no fact of the hardware.
        let names = kinds.filter_map(|kind| reader.text(&format!("{directory}/{kind}/name"))).filter_map(|n| name(&n));
        return Some((VgpuCarrier::Mdev, names.collect()));
    }
    let text = reader.text(&format!("{device}/nvidia/creatable_vgpu_types"))?;
    Some((VgpuCarrier::Vfio, parse_creatable(&text)))
}

/// Lines like `1428 : NVIDIA H200X-141C`; others, the heading among them, are no types.
#[must_use]
pub fn parse_creatable(text: &str) -> Vec<String> {
    let types = text.lines().filter_map(|line| {
        let (number, rest) = line.split_once(':')?;
        number.trim().parse::<u32>().ok().and_then(|_| name(rest))
    });
    types.take(virt::VGPU_TYPES_MAX).collect()
}

fn name(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = (1..=virt::NAME_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control);
    fits.then(|| text.to_owned())
}
