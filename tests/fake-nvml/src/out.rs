//! Writing answers through the caller's pointers.

use std::ffi::{c_char, c_uint, c_ulong};

use nvml_wrapper_sys::bindings::{nvmlPciInfo_t, nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE};

use berth_model::PciAddress;

use crate::Refusal;

/// Writes one value.
///
/// # Safety
/// `to` is null, or valid for writing a `T`.
pub(crate) unsafe fn value<T>(to: *mut T, value: T) -> Result<(), Refusal> {
    if to.is_null() {
        return Err(Refusal::INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes a text with its closing zero.
///
/// # Safety
/// `to` is null, or valid for writing `size` bytes.
pub(crate) unsafe fn text(to: *mut c_char, size: c_uint, text: &str) -> Result<(), Refusal> {
    if to.is_null() {
        return Err(Refusal::INVALID_ARGUMENT);
    }
    let fits = usize::try_from(size).is_ok_and(|size| text.len() < size);
    if !fits {
        return Err(Refusal::code(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE));
    }
    // SAFETY: not null; the text and its zero are at most `size` bytes.
    unsafe {
        to.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        to.add(text.len()).write(0);
    }
    Ok(())
}

/// Writes a set of numbers as a mask.
///
/// # Safety
/// `to` is null, or valid for writing `words` words.
pub(crate) unsafe fn mask(to: *mut c_ulong, words: c_uint, members: impl Iterator<Item = u32>) -> Result<(), Refusal> {
    let words = usize::try_from(words).unwrap_or(0);
    if to.is_null() || words == 0 {
        return Err(Refusal::INVALID_ARGUMENT);
    }
    let mut mask = vec![0; words];
    for member in members {
        let word = usize::try_from(member / c_ulong::BITS).ok().and_then(|w| mask.get_mut(w));
        if let Some(word) = word {
            *word |= 1 << (member % c_ulong::BITS);
        }
    }
    // SAFETY: not null, and valid for as many words as the mask has.
    unsafe { to.copy_from_nonoverlapping(mask.as_ptr(), words) };
    Ok(())
}

/// Writes a number over the caller's room.
///
/// # Safety
/// `to` is null, or valid for reading and writing.
pub(crate) unsafe fn count(to: *mut c_uint, count: c_uint) -> Result<(), Refusal> {
    if to.is_null() {
        return Err(Refusal::INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller vouches for the rest.
    let room = unsafe { to.read() };
    // SAFETY: as above.
    unsafe { value(to, count) }?;
    if count > room { Err(crate::mig::too_long()) } else { Ok(()) }
}

/// Writes a list and its length.
///
/// # Safety
/// `length` is null or valid for reading and writing; `to` is null or has room for as many as `length` says.
pub(crate) unsafe fn list<T>(to: *mut T, length: *mut c_uint, items: impl Iterator<Item = T>) -> Result<(), Refusal> {
    let items: Vec<T> = items.collect();
    // SAFETY: the caller's promise.
    unsafe { count(length, c_uint::try_from(items.len()).map_err(|_| Refusal::UNKNOWN)?) }?;
    if to.is_null() {
        return Err(Refusal::INVALID_ARGUMENT);
    }
    for (position, item) in items.into_iter().enumerate() {
        // SAFETY: not null, and `count` has seen that there is room for all of them.
        unsafe { to.add(position).write(item) };
    }
    Ok(())
}

/// A device's PCI record: 8-digit upper-case domain in `busId`, 4 digits in the legacy field.
pub(crate) fn pci_info(address: PciAddress) -> nvmlPciInfo_t {
    let PciAddress { domain, bus, device, function } = address;
    let mut info = nvmlPciInfo_t {
        busIdLegacy: [0; 16],
        domain,
        bus: u32::from(bus),
        device: u32::from(device),
        // Device id 0: the machine file does not know it. The vendor is NVIDIA.
        pciDeviceId: berth_probe::facts::PciFacts::VENDOR_NVIDIA,
        pciSubSystemId: 0,
        busId: [0; 32],
    };
    fill(&mut info.busIdLegacy, &format!("{domain:04X}:{bus:02X}:{device:02X}.{function:X}"));
    fill(&mut info.busId, &format!("{domain:08X}:{bus:02X}:{device:02X}.{function:X}"));
    info
}

pub(crate) fn fill(to: &mut [c_char], text: &str) {
    // The last byte stays zero.
    let room = to.len().saturating_sub(1);
    for (cell, byte) in to.iter_mut().take(room).zip(text.bytes()) {
        *cell = c_char::from_ne_bytes([byte]);
    }
}
