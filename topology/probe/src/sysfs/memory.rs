//! What the kernel was told of memory: transparent huge pages and samepage merging.

use berth_model::{SamepageMerging, TransparentHugePages};

use super::Reader;

const THP: &str = "sys/kernel/mm/transparent_hugepage/enabled";
const KSM: &str = "sys/kernel/mm/ksm/run";

pub(super) fn read_thp(reader: &mut Reader<'_>) -> Option<TransparentHugePages> {
    reader.parsed(THP, "a choice like always [madvise] never", parse_thp)
}

pub(super) fn read_ksm(reader: &mut Reader<'_>) -> Option<SamepageMerging> {
    reader.parsed(KSM, "0, 1 or 2", parse_ksm)
}

/// `always [madvise] never`: the word in brackets holds.
#[must_use]
pub fn parse_thp(text: &str) -> Option<TransparentHugePages> {
    let (_, rest) = text.split_once('[')?;
    let (word, _) = rest.split_once(']')?;
    TransparentHugePages::parse(word)
}

/// `0`, `1`, `2`.
#[must_use]
pub fn parse_ksm(text: &str) -> Option<SamepageMerging> {
    match text {
        "0" => Some(SamepageMerging::Off),
        "1" => Some(SamepageMerging::On),
        "2" => Some(SamepageMerging::Unmerge),
        _ => None,
    }
}
