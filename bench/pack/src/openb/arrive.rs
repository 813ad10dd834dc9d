//! Who arrives, in which order, and how long they stay. All policies replay the same arrivals.
//!
//! Source of the fill protocol: the FGD artefact (hkust-adsl/kubernetes-scheduler-simulator, `pkg/simulator/core.go` and
//! `experiments/`): every pod of the trace once in random order, then pods drawn with replacement until the GPUs asked for
//! reach 1.3 of those installed. The churn protocol is our own: the same draws, with lifetimes.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::trace::Trace;
use crate::draw::draws;

/// Arrivals with their lifetimes, and the order of hosts that breaks ties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrivals {
    /// The class of every arrival.
    pub classes: Vec<usize>,
    /// How many further arrivals each one stays for; `None` for ever.
    pub lives: Option<Vec<usize>>,
    /// Hosts in the order that decides ties.
    pub host_order: Vec<usize>,
}

/// Fills the cluster: nothing leaves.
#[must_use]
pub fn fill(trace: &Trace, demand: f64, seed: u64) -> Arrivals {
    let mut rng = draws(seed);
    let target = demand * trace.installed_milli() as f64;
    let mut classes = trace.pods.clone();
    classes.shuffle(&mut rng);
    let mut asked = trace.asked_milli(&classes) as f64;
    while asked > target && !classes.is_empty() {
        let gone = classes.swap_remove(rng.random_range(0..classes.len()));
        asked -= trace.classes[gone].demand_milli() as f64;
    }
    loop {
        let class = trace.pods[rng.random_range(0..trace.pods.len())];
        asked += trace.classes[class].demand_milli() as f64;
        if asked > target {
            break;
        }
        classes.push(class);
    }
    Arrivals { classes, lives: None, host_order: host_order(trace, &mut rng) }
}

/// Keeps the cluster at an offered load: pods drawn with replacement, with geometric lifetimes.
#[must_use]
pub fn churn(trace: &Trace, load: f64, pod_count: usize, seed: u64) -> Arrivals {
    let mut rng = draws(seed);
    let classes: Vec<usize> = (0..pod_count).map(|_| trace.pods[rng.random_range(0..trace.pods.len())]).collect();
    let mean_milli = trace.asked_milli(&trace.pods) as f64 / trace.pods.len() as f64;
    let leave_chance = mean_milli / (load * trace.installed_milli() as f64);
    let lives = (0..pod_count).map(|_| 1 + geometric(leave_chance, &mut rng)).collect();
    Arrivals { classes, lives: Some(lives), host_order: host_order(trace, &mut rng) }
}

fn host_order(trace: &Trace, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..trace.hosts.len()).collect();
    order.shuffle(rng);
    order
}

/// How many trials it takes until one succeeds, at least one.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at least one, and a cast of floats saturates"
)]
fn geometric(chance: f64, rng: &mut ChaCha8Rng) -> usize {
    let unit: f64 = rng.random();
    ((1.0 - unit).ln() / (1.0 - chance).ln()).ceil().max(1.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openb::synthetic;

    #[test]
    fn a_fill_asks_for_every_pod_once_and_then_up_to_the_demand() {
        let trace = synthetic::trace(1);
        let arrivals = fill(&trace, 1.3, 42);
        let count = |list: &[usize], class| list.iter().filter(|c| **c == class).count();
        for class in 0..trace.classes.len() {
            assert!(count(&arrivals.classes, class) >= count(&trace.pods, class));
        }
        let asked = trace.asked_milli(&arrivals.classes) as f64 / trace.installed_milli() as f64;
        assert!((1.29..=1.3).contains(&asked), "{asked}");
        assert_eq!(arrivals, fill(&trace, 1.3, 42));
        assert_ne!(arrivals, fill(&trace, 1.3, 43));
    }

    #[test]
    fn a_trace_that_asks_for_more_than_the_demand_loses_pods_at_random() {
        let trace = synthetic::trace(1);
        let arrivals = fill(&trace, 0.5, 42);
        assert!(arrivals.classes.len() < trace.pods.len());
        let asked = trace.asked_milli(&arrivals.classes) as f64 / trace.installed_milli() as f64;
        assert!(asked <= 0.5, "{asked}");
    }

    #[test]
    fn lives_offer_the_load_that_was_asked_for() {
        let trace = synthetic::trace(1);
        let arrivals = churn(&trace, 0.9, 20_000, 42);
        let lives = arrivals.lives.unwrap();
        let pairs = arrivals.classes.iter().zip(&lives);
        let offered: f64 = pairs.map(|(c, life)| trace.classes[*c].demand_milli() as f64 * *life as f64).sum();
        let load = offered / lives.len() as f64 / trace.installed_milli() as f64;
        assert!((0.85..0.95).contains(&load), "{load}");
    }
}
