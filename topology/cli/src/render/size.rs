//! Sizes, lists of numbers and margins in the form an operator reads.

use berth_model::{CpuSet, GpuIndex, MiB};

/// A size as GiB with one decimal, rounded down; as MiB below one GiB.
pub(crate) fn gib(size: MiB) -> String {
    let (whole, rest) = (size.0 / 1024, size.0 % 1024);
    match (whole, rest * 10 / 1024) {
        (0, _) => size.to_string(),
        (_, 0) => format!("{whole} GiB"),
        (_, tenth) => format!("{whole}.{tenth} GiB"),
    }
}

/// Parts per million as percent with one decimal, rounded down.
pub(crate) fn percent(parts: u32) -> String {
    match (parts / 10_000, parts / 1_000 % 10) {
        (whole, 0) => format!("{whole}%"),
        (whole, tenth) => format!("{whole}.{tenth}%"),
    }
}

/// Numbers as a list with ranges: `0-3,7`.
pub(crate) fn ranges(numbers: impl IntoIterator<Item = u32>) -> String {
    CpuSet::from_cpus(numbers).to_string()
}

/// GPUs as `GPU0-3,7`.
pub(crate) fn gpus(indexes: impl IntoIterator<Item = GpuIndex>) -> String {
    format!("GPU{}", ranges(indexes.into_iter().map(|i| u32::from(i.0))))
}

/// Every line with a margin, and a line break at the end.
pub(crate) fn indented(text: &str, margin: &str) -> String {
    text.lines().map(|line| format!("{margin}{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_never_shown_larger_than_it_is() {
        for (mib, text) in [(0, "0 MiB"), (1023, "1023 MiB"), (1024, "1 GiB"), (81_559, "79.6 GiB"), (2047, "1.9 GiB")]
        {
            assert_eq!(gib(MiB(mib)), text);
        }
    }

    #[test]
    fn only_all_parts_are_a_hundred_percent() {
        for (parts, text) in [(0, "0%"), (999, "0%"), (15_625, "1.5%"), (999_999, "99.9%"), (1_000_000, "100%")] {
            assert_eq!(percent(parts), text);
        }
    }

    #[test]
    fn neighbours_become_a_range() {
        assert_eq!(gpus([0, 1, 2, 5].map(GpuIndex)), "GPU0-2,5");
    }
}
