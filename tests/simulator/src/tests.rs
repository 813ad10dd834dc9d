//! What the simulator must not find in the schedulers as they are, and must find in those with something wrong.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::mutant::Mutant;
use crate::run::{self, Broken, from_seed, from_steps, shortened};

/// Steps gone through wherever tests run; more with `BERTH_SIM_STEPS`.
const STEPS: usize = 1_000_000;

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn tell(broken: &Broken, mutant: Mutant) -> String {
    eprintln!("seed {} after {} steps: {}", broken.seed, broken.steps.len(), broken.why);
    let short = shortened(broken, mutant);
    let path = run::write(&short);
    let steps: Vec<String> = short.steps.iter().rev().take(40).rev().map(|step| format!("{step:?}")).collect();
    format!(
        "{} steps are enough: {}\n{}\nreplay: BERTH_SIM_REPLAY={} cargo test -p berth-simulator a_trace",
        short.steps.len(),
        short.why,
        steps.join("\n"),
        path.display()
    )
}

#[test]
fn a_million_steps_break_nothing() {
    let began = Instant::now();
    let wanted = number("BERTH_SIM_STEPS").unwrap_or(STEPS);
    let seed = AtomicU64::new(number("BERTH_SIM_SEED").unwrap_or(1) as u64);
    let steps = AtomicUsize::new(0);
    let search = || {
        while steps.load(Ordering::Relaxed) < wanted {
            match from_seed(seed.fetch_add(1, Ordering::Relaxed), Mutant::None) {
                Ok(count) => steps.fetch_add(count, Ordering::Relaxed),
                Err(broken) => return Some(broken),
            };
        }
        None
    };
    // Every run is on one thread; several runs are on several.
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    let broken = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).min_by_key(|broken| broken.seed)
    });
    if let Some(broken) = broken {
        panic!("{}", tell(&broken, Mutant::None));
    }
    println!("{} steps in {:.1} s", steps.into_inner(), began.elapsed().as_secs_f64());
}

#[test]
fn a_trace_is_gone_through_again() {
    let Ok(path) = std::env::var("BERTH_SIM_REPLAY") else { return replays_as_it_broke() };
    let (seed, steps) = run::read(&std::fs::read_to_string(path).unwrap());
    if let Some((count, why)) = from_steps(seed, &steps, Mutant::None) {
        panic!("after {count} of {} steps: {why}", steps.len());
    }
    println!("{} steps break nothing", steps.len());
}

/// What a broken run writes down breaks the same rule, in the same words, when it is read and gone through again.
fn replays_as_it_broke() {
    let broken = (1..).find_map(|seed| from_seed(seed, Mutant::NoHold).err()).unwrap();
    let (seed, steps) = run::read(&std::fs::read_to_string(run::write(&broken)).unwrap());
    assert_eq!((seed, steps.len()), (broken.seed, broken.steps.len()));
    assert_eq!(from_steps(seed, &steps, Mutant::NoHold), Some((broken.steps.len(), broken.why)));
    assert_eq!(from_steps(seed, &steps, Mutant::None), None, "the schedulers as they are do not break by it");
}

/// Steps within which a scheduler with something wrong must be found out.
const STEPS_OF_A_MUTANT: usize = 200_000;

/// Which rule the mutant breaks first, and after how many steps.
fn found_out(mutant: Mutant) -> String {
    let mut steps = 0;
    for seed in 1.. {
        match from_seed(seed, mutant) {
            Ok(count) => steps += count,
            Err(broken) => {
                println!("{mutant:?} after {} steps, seed {seed}: {:.300}", steps + broken.steps.len(), broken.why);
                return broken.why;
            }
        }
        assert!(steps < STEPS_OF_A_MUTANT, "{mutant:?} was not found in {steps} steps");
    }
    unreachable!("there is always another seed")
}

#[test]
fn binds_that_hold_nothing_over_their_write_are_found() {
    assert!(found_out(Mutant::NoHold).starts_with("I1"));
}

#[test]
fn a_hold_that_is_freed_when_nobody_knows_is_found() {
    assert!(found_out(Mutant::HoldFreedWhenUnknown).starts_with("I1"));
}

#[test]
fn a_write_without_the_uid_is_found() {
    assert!(found_out(Mutant::UidIgnored).starts_with("I6"));
}

#[test]
fn a_list_before_the_write_that_is_not_consistent_is_found() {
    assert!(found_out(Mutant::ListNotConsistent).starts_with("I1"));
}

#[test]
fn a_report_that_is_older_than_the_known_one_is_found() {
    assert!(found_out(Mutant::OlderReportTaken).contains("went back"));
}

#[test]
fn deletions_that_are_missed_are_found() {
    let why = found_out(Mutant::DeletionsMissed);
    assert!(why.starts_with("I2") || why.starts_with("I8") || why.starts_with("I9"), "{why}");
}

#[test]
fn holds_that_never_end_are_found() {
    assert!(found_out(Mutant::HoldsNeverEnd).starts_with("I5"));
}
