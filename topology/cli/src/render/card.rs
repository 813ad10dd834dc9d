//! What a line or box of a GPU says beside its name and health: the marks of what is not as it should be, and its PCIe link.

use berth_model::Gpu;
use berth_model::gpu::detail::PcieLink;

/// A fact in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// What to say.
    pub(crate) text: String,
    /// Whether somebody should look.
    pub(crate) is_doubtful: bool,
}

/// `PCIe 5 x16`.
pub(crate) fn pcie(link: PcieLink) -> String {
    format!("PCIe {} x{}", link.generation, link.width)
}

/// The marks of a GPU beside its health, which tells of its memory. What is not known is not there.
pub(crate) fn marks(gpu: &Gpu) -> Vec<Mark> {
    let detail = &gpu.detail;
    let calm = |text: String| Mark { text, is_doubtful: false };
    let doubtful = |text: String| Mark { text, is_doubtful: true };
    let mut marks = Vec::new();
    match (detail.pcie, detail.board.pcie_max) {
        (Some(now), Some(max)) if now.generation < max.generation || now.width < max.width => {
            marks.push(doubtful(format!("{} of {} x{}", pcie(now), max.generation, max.width)));
        }
        (Some(now), _) => marks.push(calm(pcie(now))),
        (None, _) => {}
    }
    if gpu.mig_enabled == Some(true) {
        marks.push(calm("MIG on".to_owned()));
    }
    match detail.mig_pending {
        Some(true) => marks.push(doubtful("MIG on after a reset".to_owned())),
        Some(false) => marks.push(doubtful("MIG off after a reset".to_owned())),
        None => {}
    }
    match detail.nvlinks_down.len() {
        0 => {}
        1 => marks.push(doubtful("1 NVLink down".to_owned())),
        count => marks.push(doubtful(format!("{count} NVLinks down"))),
    }
    if detail.nvlink_errors.as_ref().is_some_and(|list| !list.is_empty()) {
        marks.push(doubtful("NVLink errors".to_owned()));
    }
    if detail.board.ecc == Some(false) {
        marks.push(calm("ECC off".to_owned()));
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::Sample;

    fn told(change: impl FnOnce(&mut Gpu)) -> Vec<(String, bool)> {
        let mut sample = Sample::new(&["X"], &[0], &[]);
        change(&mut sample.parts.gpus[0]);
        marks(&sample.parts.gpus[0]).into_iter().map(|m| (m.text, m.is_doubtful)).collect()
    }

    #[test]
    fn a_gpu_of_which_nothing_more_is_known_has_no_marks() {
        assert_eq!(told(|_| {}), []);
    }

    #[test]
    fn a_link_below_what_card_and_slot_allow_is_doubtful_and_one_at_it_is_not() {
        let link = |gpu: &mut Gpu, now: &str| {
            gpu.detail.pcie = PcieLink::parse(now);
            let board = berth_model::gpu::detail::Board { pcie_max: PcieLink::parse("5x16"), ..Default::default() };
            gpu.detail.board = board.into();
        };
        assert_eq!(told(|gpu| link(gpu, "5x16")), [("PCIe 5 x16".to_owned(), false)]);
        assert_eq!(told(|gpu| link(gpu, "5x8")), [("PCIe 5 x8 of 5 x16".to_owned(), true)]);
        assert_eq!(told(|gpu| link(gpu, "4x16")), [("PCIe 4 x16 of 5 x16".to_owned(), true)]);
    }

    #[test]
    fn what_changes_with_a_reset_and_what_is_down_is_marked() {
        let seen = told(|gpu| {
            gpu.mig_enabled = Some(true);
            gpu.detail.mig_pending = Some(false);
            gpu.detail.nvlinks_down = vec![3, 4];
        });
        let expected = [("MIG on", false), ("MIG off after a reset", true), ("2 NVLinks down", true)];
        assert_eq!(seen, expected.map(|(text, doubtful)| (text.to_owned(), doubtful)));
    }
}
