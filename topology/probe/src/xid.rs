//! What an Xid, the driver's error number, says about the GPU that it names. Pure.
//!
//! Sources: NVIDIA's Xid catalogue (docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html) and `nverror.h` of its open kernel modules
//! for the meanings; `internal/rm/health.go` of its device plugin for the numbers that blame the application. Checked: 2026-11-21.

use std::collections::BTreeSet;

use XidVerdict::{Broken, Doubtful};

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

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// The driver's number.
    pub xid: u64,
    /// What it says about the GPU where nobody chose to ignore it.
    pub verdict: XidVerdict,
    /// What it means, in words of a report.
    pub text: &'static str,
    /// What an operator can do.
    pub advice: &'static str,
}

const fn row(xid: u64, verdict: XidVerdict, text: &'static str, advice: &'static str) -> Meaning {
    Meaning { xid, verdict, text, advice }
}

/// Numbers with a meaning of their own, ascending. REFERENCE.md has the same table; a test compares them.
pub const KNOWN: [Meaning; 21] = [
    row(
        13,
        Broken,
        "an application made the graphics engine fault",
        "run the application under compute-sanitizer; if several healthy applications cause it, dcgmi diag -r 3",
    ),
    row(
        31,
        Broken,
        "an application touched memory that is not its own",
        "run the application under compute-sanitizer; a driver bug where several healthy applications cause it",
    ),
    row(
        43,
        Broken,
        "an application's channel was stopped after a fault of its own",
        "look at the application; the GPU goes on",
    ),
    row(
        45,
        Broken,
        "an application's work was cleaned up after an earlier error or a kill",
        "look for the Xid before it; harmless after a kill",
    ),
    row(
        48,
        Broken,
        "double-bit ECC error",
        "drain the node and reset the GPU; replace it if a row cannot be remapped or it comes again",
    ),
    row(
        62,
        Broken,
        "the GPU's own controller halted",
        "drain the node and reset the GPU; report it to NVIDIA if it comes again",
    ),
    row(
        63,
        Doubtful,
        "a row remap or page retirement was recorded",
        "reset the GPU once it is free, so that the remap takes effect",
    ),
    row(
        64,
        Broken,
        "a row remap or page retirement failed",
        "drain the node and reset the GPU; replace it if it comes again",
    ),
    row(
        68,
        Broken,
        "an application made the video decoder fault",
        "look at the application and its streams; update the driver",
    ),
    row(
        74,
        Broken,
        "NVLink error",
        "drain the node and reset all its GPUs; if it comes again check bridges or baseboard and the fabric manager's log",
    ),
    row(
        79,
        Broken,
        "the GPU fell off the bus",
        "drain the node and power it off and on; if it comes again check power, cooling and seat, then replace the GPU",
    ),
    row(
        92,
        Doubtful,
        "many single-bit ECC errors",
        "run dcgmi diag -r 3 once the GPU is free; replace it if they go on",
    ),
    row(
        94,
        Doubtful,
        "contained memory error",
        "only the application that hit it was lost: restart it; reset the GPU once it is free",
    ),
    row(
        95,
        Broken,
        "uncontained memory error",
        "drain the node and reset the GPU now: every application on it may have wrong data",
    ),
    row(
        109,
        Broken,
        "an application's work did not leave the GPU in time",
        "look at the application; update the driver if it comes again",
    ),
    row(110, Broken, "security fault", "drain the node and power it off and on; report it to NVIDIA"),
    row(
        119,
        Broken,
        "the GPU's system processor does not answer",
        "drain the node and reset the GPU, or restart the node; update the driver if it comes again",
    ),
    row(
        120,
        Broken,
        "the GPU's system processor failed",
        "drain the node and reset the GPU, or restart the node; update the driver if it comes again",
    ),
    row(
        136,
        Broken,
        "NVLink training failed",
        "drain the node and reset all its GPUs; if it comes again check the links and the fabric manager's log",
    ),
    row(140, Broken, "unrecovered ECC error", "drain the node and reset the GPU; replace it if it comes again"),
    row(
        143,
        Broken,
        "the GPU did not start",
        "restart the node; if it comes again power it off and on, then replace the GPU",
    ),
];

/// What helps with a number that the table lacks.
pub const UNLISTED_ADVICE: &str =
    "see NVIDIA's Xid catalogue; where it blames the application, add the number to the agent's --xids-ignored";

/// The row of a number.
#[must_use]
pub fn meaning(xid: u64) -> Option<&'static Meaning> {
    KNOWN.iter().find(|row| row.xid == xid)
}

/// The first Xid that a text names, as reports and the kernel's log write it: `Xid 79: ...`.
#[must_use]
pub fn named_in(text: &str) -> Option<u64> {
    let (_, after) = text.split_once("Xid ")?;
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    after.get(..digits)?.parse().ok()
}

/// Judges an Xid. `ignored` takes the place of [`APPLICATION_XIDS`]. A number that nobody listed counts against the GPU, as it does in the
/// device plugin.
#[must_use]
pub fn verdict(xid: u64, ignored: &BTreeSet<u64>) -> XidVerdict {
    if ignored.contains(&xid) {
        return XidVerdict::Ignored;
    }
    meaning(xid).map_or(Broken, |row| row.verdict)
}

/// The words for a report.
#[must_use]
pub fn text(xid: u64) -> String {
    match meaning(xid) {
        Some(row) => format!("Xid {xid}: {}", row.text),
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
    fn the_table_is_in_ascending_order_and_leaves_it_to_the_caller_what_to_ignore() {
        assert!(KNOWN.windows(2).all(|pair| pair[0].xid < pair[1].xid));
        assert!(
            KNOWN
                .iter()
                .all(|row| row.verdict != XidVerdict::Ignored && !row.text.is_empty() && !row.advice.is_empty())
        );
        assert!(APPLICATION_XIDS.iter().all(|xid| meaning(*xid).is_some()));
    }

    #[test]
    fn a_text_names_its_xid_wherever_it_stands() {
        for (said, xid) in [
            ("Xid 79: the GPU fell off the bus", Some(79)),
            ("NVML: lost; Xid 4711", Some(4711)),
            ("Xid x", None),
            ("", None),
        ] {
            assert_eq!(named_in(said), xid, "{said}");
        }
    }

    #[test]
    fn an_application_at_fault_says_nothing_about_the_gpu() {
        let ignored = BTreeSet::from(APPLICATION_XIDS);
        for xid in APPLICATION_XIDS {
            assert_eq!(verdict(xid, &ignored), XidVerdict::Ignored, "{xid}");
        }
        for xid in [48, 64, 79, 95, 119, 4711] {
            assert_eq!(verdict(xid, &ignored), Broken, "{xid}");
        }
        for xid in [63, 92, 94] {
            assert_eq!(verdict(xid, &ignored), Doubtful, "{xid}");
        }
    }

    #[test]
    fn a_reason_gives_its_xid_back_and_nothing_else_is_one() {
        for xid in KNOWN.iter().map(|row| row.xid).chain([4711]) {
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
        assert_eq!(verdict(13, &BTreeSet::new()), Broken);
        assert_eq!((text(79), text(4711)), ("Xid 79: the GPU fell off the bus".to_owned(), "Xid 4711".to_owned()));
    }
}
