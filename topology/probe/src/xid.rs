//! What an Xid, the driver's error number, says about the GPU that it names. Pure.
//!
//! Sources: NVIDIA's Xid catalogue (docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html) and `nverror.h` of its open kernel modules
//! for the meanings; `internal/rm/health.go` of its device plugin for the numbers that blame the application. Checked: 2026-11-21.

use std::collections::BTreeSet;

/// Numbers that blame the application on the GPU and not the GPU.
pub const APPLICATION_XIDS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// What an Xid says about its GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XidVerdict {
    /// Nothing: an application was at fault.
    Ignored,
    /// The GPU goes on, though something was wrong: no new pod until it was calm for a while.
    Doubtful,
    /// The GPU is not to be used.
    Broken,
}

/// Numbers with a meaning of their own, and what they mean in a report.
const KNOWN: [(u64, XidVerdict, &str); 15] = [
    (48, XidVerdict::Broken, "double-bit ECC error"),
    (62, XidVerdict::Broken, "the GPU's own controller halted"),
    (63, XidVerdict::Doubtful, "a row remap or page retirement was recorded"),
    (64, XidVerdict::Broken, "a row remap or page retirement failed"),
    (74, XidVerdict::Broken, "NVLink error"),
    (79, XidVerdict::Broken, "the GPU fell off the bus"),
    (92, XidVerdict::Doubtful, "many single-bit ECC errors"),
    (94, XidVerdict::Doubtful, "contained memory error"),
    (95, XidVerdict::Broken, "uncontained memory error"),
    (110, XidVerdict::Broken, "security fault"),
    (119, XidVerdict::Broken, "the GPU's system processor does not answer"),
    (120, XidVerdict::Broken, "the GPU's system processor failed"),
    (136, XidVerdict::Broken, "NVLink training failed"),
    (140, XidVerdict::Broken, "unrecovered ECC error"),
    (143, XidVerdict::Broken, "the GPU did not start"),
];

/// Judges an Xid. `ignored` takes the place of [`APPLICATION_XIDS`]. A number that nobody listed counts against the GPU, as it does in the
/// device plugin.
#[must_use]
pub fn verdict(xid: u64, ignored: &BTreeSet<u64>) -> XidVerdict {
    if ignored.contains(&xid) {
        return XidVerdict::Ignored;
    }
    KNOWN.iter().find(|(known, ..)| *known == xid).map_or(XidVerdict::Broken, |(_, verdict, _)| *verdict)
}

/// The words for a report.
#[must_use]
pub fn text(xid: u64) -> String {
    match KNOWN.iter().find(|(known, ..)| *known == xid) {
        Some((_, _, meaning)) => format!("Xid {xid}: {meaning}"),
        None => format!("Xid {xid}"),
    }
}

/// Stands after the words of an Xid that the driver laid at no GPU's door.
pub const OF_NO_CERTAIN_GPU: &str = ", of no certain GPU";

/// The Xid of one GPU that a reason in a report tells of, and what the reason says before it. `None` where it tells of none.
#[must_use]
pub fn in_reason(reason: &str) -> Option<(u64, &str)> {
    let (before, said) = reason.rsplit_once("; ").unwrap_or(("", reason));
    let number = said.strip_prefix("Xid ")?;
    let number: u64 = number.split(':').next()?.parse().ok()?;
    (said == text(number)).then_some((number, before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_ascending_order_and_blames_no_application() {
        assert!(KNOWN.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(
            KNOWN
                .iter()
                .all(|(xid, verdict, _)| { !APPLICATION_XIDS.contains(xid) && *verdict != XidVerdict::Ignored })
        );
    }

    #[test]
    fn an_application_at_fault_says_nothing_about_the_gpu() {
        let ignored = BTreeSet::from(APPLICATION_XIDS);
        for xid in APPLICATION_XIDS {
            assert_eq!(verdict(xid, &ignored), XidVerdict::Ignored, "{xid}");
        }
        for xid in [48, 64, 79, 95, 119, 4711] {
            assert_eq!(verdict(xid, &ignored), XidVerdict::Broken, "{xid}");
        }
        for xid in [63, 92, 94] {
            assert_eq!(verdict(xid, &ignored), XidVerdict::Doubtful, "{xid}");
        }
    }

    #[test]
    fn a_reason_gives_its_xid_back_and_nothing_else_is_one() {
        for (xid, _, _) in KNOWN.into_iter().chain([(4711, XidVerdict::Broken, "")]) {
            assert_eq!(in_reason(&text(xid)), Some((xid, "")));
            let both = format!("NVML: the GPU is lost; {}", text(xid));
            assert_eq!(in_reason(&both), Some((xid, "NVML: the GPU is lost")));
            assert_eq!(in_reason(&format!("{}{OF_NO_CERTAIN_GPU}", text(xid))), None, "{xid}");
        }
        for other in ["", "Xid", "Xid x", "Xid 79: something else", "drain and reset: Xid 79", "NVML: the GPU is lost"]
        {
            assert_eq!(in_reason(other), None, "{other}");
        }
    }

    #[test]
    fn the_list_of_ignored_numbers_is_the_callers() {
        assert_eq!(verdict(79, &BTreeSet::from([79])), XidVerdict::Ignored);
        assert_eq!(verdict(13, &BTreeSet::new()), XidVerdict::Broken);
        assert_eq!((text(79), text(4711)), ("Xid 79: the GPU fell off the bus".to_owned(), "Xid 4711".to_owned()));
    }
}
