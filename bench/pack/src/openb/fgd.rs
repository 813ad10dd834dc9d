//! FGD: the node and GPU that raise the expected fragmentation least, as its artefact does it.
//!
//! Fragmentation of a node is the idle milli-GPU that a typical pod could not use, expected over the typical pods. Two
//! artefacts matter for its result and are kept: scores rounded to whole numbers of 0 to 100, and ties by a fixed order.
//! Source: USENIX ATC'23 "Beware of Fragmentation"; `pkg/simulator/plugin/fgd_score.go` of its simulator.

use super::host::{Cards, Host};
use super::judge::{Judge, Offer, floor};
use super::trace::{PodClass, Trace};

/// The most frequent shapes that cover this share of the pods stand for all.
const COVERED: f64 = 0.95;

/// A shape of pod and how often it comes.
#[derive(Debug, Clone, Copy)]
struct Typical {
    class: PodClass,
    chance: f64,
}

/// The policy, with the typical pods of a trace.
#[derive(Debug, Clone)]
pub struct Fgd {
    typical: Vec<Typical>,
}

impl Fgd {
    /// Takes the typical pods from all pods of the trace: like every run of its authors, this one knows them beforehand.
    #[must_use]
    pub fn of(trace: &Trace) -> Self {
        let mut counts: std::collections::BTreeMap<PodClass, usize> = std::collections::BTreeMap::new();
        for pod in &trace.pods {
            *counts.entry(PodClass { memory_mib: 0, ..trace.classes[*pod] }).or_default() += 1;
        }
        let mut by_count: Vec<(usize, PodClass)> = counts.into_iter().map(|(class, count)| (count, class)).collect();
        by_count.sort_by(|a, b| b.cmp(a));
        let mut kept = Vec::new();
        let mut covered = 0;
        for (count, class) in by_count {
            if covered as f64 >= COVERED * trace.pods.len() as f64 {
                break;
            }
            covered += count;
            kept.push((count, class));
        }
        let chance = |count: usize| count as f64 / covered as f64;
        Self { typical: kept.into_iter().map(|(count, class)| Typical { class, chance: chance(count) }).collect() }
    }

    fn fragmentation(&self, host: &Host) -> f64 {
        let all = host.free_milli();
        let mut sum = 0.0;
        for Typical { class, chance } in &self.typical {
            let unusable = if class.gpu_count == 0 || !class.takes_model(host.capacity.model) {
                all
            } else {
                let small: i64 = host.gpus().iter().filter(|f| **f < class.gpu_milli).sum();
                let count = host.gpus().iter().filter(|f| **f >= class.gpu_milli).count();
                if count < class.gpu_count || host.cpu_milli < class.cpu_milli { all } else { small }
            };
            sum += chance * unusable as f64;
        }
        sum
    }

    fn score(&self, before: f64, host: &Host, class: &PodClass, cards: Cards) -> i64 {
        let mut after = host.clone();
        after.place(class, cards);
        let gain = before - self.fragmentation(&after);
        floor(100.0 / (1.0 + (-gain / 1000.0).exp()))
    }
}

impl Judge for Fgd {
    fn offer(&mut self, host: &Host, class: &PodClass) -> Option<Offer> {
        let before = self.fragmentation(host);
        let offer = |cards| Offer { score: self.score(before, host, class, cards), cards };
        if !class.is_share() {
            return Some(offer(host.usual_cards(class)));
        }
        let fitting = host.gpus().iter().enumerate().filter(|(_, f)| **f >= class.gpu_milli);
        // The first of equal ones: `max_by_key` would keep the last.
        fitting.map(|(at, _)| offer(1 << at)).rev().max_by_key(|o| o.score)
    }
}
