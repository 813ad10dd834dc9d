//! Runs: from a seed, or from steps that were written down; and the shortest list of steps that still fails.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::draw::{Weather, draw};
use crate::mutant::Mutant;
use crate::step::Step;
use crate::world::World;

/// Steps of one run, before the calm.
pub(crate) const STEPS: usize = 2000;
/// Calm comes in the middle too.
const CALM_EVERY: usize = 1000;
/// How long a search for fewer steps may take.
const SEARCH: Duration = Duration::from_secs(30);

/// A run that broke something.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) seed: u64,
    pub(crate) why: String,
    pub(crate) steps: Vec<Step>,
}

fn block_on<T>(seed: u64, run: impl Future<Output = T>) -> T {
    // kube's watcher draws its pauses from here.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run)
}

/// A run of a seed; says how many steps it took.
pub(crate) fn from_seed(seed: u64, mutant: Mutant) -> Result<usize, Broken> {
    block_on(seed, async {
        let mut rng = Rng::with_seed(seed);
        let weather = Weather::draw(&mut rng);
        let mut world = World::new(mutant);
        let mut steps = Vec::with_capacity(STEPS);
        while steps.len() < STEPS {
            let is_calm = steps.len() % CALM_EVERY == CALM_EVERY - 1;
            let step = if is_calm { Step::Calm } else { draw(&world, weather, &mut rng) };
            steps.push(step);
            if let Err(why) = world.go(step).await {
                return Err(Broken { seed, why, steps });
            }
        }
        Ok(steps.len())
    })
}

/// A run of given steps. What breaks, and after how many.
pub(crate) fn from_steps(seed: u64, steps: &[Step], mutant: Mutant) -> Option<(usize, String)> {
    block_on(seed, async {
        let mut world = World::new(mutant);
        for (count, step) in (1..).zip(steps) {
            if let Err(why) = world.go(*step).await {
                return Some((count, why));
            }
        }
        None
    })
}

/// The word before the colon: which rule is broken.
fn rule(why: &str) -> &str {
    why.split_once(':').map_or(why, |(rule, _)| rule)
}

/// Takes away whatever is not needed to break the same rule.
pub(crate) fn shortened(broken: &Broken, mutant: Mutant) -> Broken {
    let (mut steps, mut why) = (broken.steps.clone(), broken.why.clone());
    let (mut chunk, began) = (steps.len() / 2, Instant::now());
    while chunk > 0 && began.elapsed() < SEARCH {
        let mut at = 0;
        let mut is_shorter = false;
        while at < steps.len() && began.elapsed() < SEARCH {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + chunk).min(fewer.len()));
            match from_steps(broken.seed, &fewer, mutant) {
                Some((count, text)) if rule(&text) == rule(&broken.why) => {
                    fewer.truncate(count);
                    (steps, why, is_shorter) = (fewer, text, true);
                }
                _ => at += chunk,
            }
        }
        if !is_shorter || chunk > 1 {
            chunk /= 2;
        }
    }
    Broken { seed: broken.seed, why, steps }
}

/// Writes a trace that [`read`] reads; says where it is.
pub(crate) fn write(broken: &Broken) -> PathBuf {
    let path = std::env::temp_dir().join(format!("berth-sim-{}.trace", broken.seed));
    let mut text = format!("seed {}\n", broken.seed);
    for step in &broken.steps {
        text.push_str(&serde_json::to_string(step).unwrap());
        text.push('\n');
    }
    std::fs::write(&path, text).unwrap();
    path
}

/// Reads a trace.
pub(crate) fn read(text: &str) -> (u64, Vec<Step>) {
    let mut lines = text.lines();
    let seed = lines.next().and_then(|line| line.strip_prefix("seed ")).and_then(|seed| seed.parse().ok());
    (
        seed.expect("the first line of a trace is its seed"),
        lines.map(|line| serde_json::from_str(line).unwrap()).collect(),
    )
}
