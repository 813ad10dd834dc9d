//! What is left behind and what is expected, as the document says it.

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::{bounded, wrong};
use crate::policy::{Policy, PolicyError};
use crate::value::{GPU_MILLI, Tuning, Typical};

/// The best that was measured: bench/README.md has what was tried.
pub(super) const BEST: Tuning = Tuning {
    covered_permille: 950,
    unusable_permille: 1000,
    room_permille: 100,
    multi_permille: 0,
    multi_share_permille: 7000,
    scarce_permille: 4000,
    scarce_roots: 5,
    waste_permille: 1500,
    step_milli: 45,
};

/// Of how many pods is learned: a fourth of them is what a mix needs to be known, and the rest are its past.
pub(super) const LEARNED_PODS: usize = 1600;
/// Most pods that are remembered to learn from: each takes about half a kilobyte.
const LEARNED_PODS_MAX: u32 = 10_000;
/// Largest weight of a part: ten times what the idle GPUs themselves count.
const PERMILLE_MAX: u32 = 10_000;
/// Beyond it room is never anything but scarce.
const SCARCE_ROOTS_MAX: u32 = 1000;
/// Most kinds of pods: clusters show one or two hundred, of which a few dozen matter.
const KINDS_MAX: usize = 1000;
/// Largest weight of a kind, so that no sum overflows.
const WEIGHT_MAX: u32 = 1_000_000;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LeftSpec {
    covered_permille: Option<Spanned<u32>>,
    unusable_permille: Option<Spanned<u32>>,
    room_permille: Option<Spanned<u32>>,
    multi_permille: Option<Spanned<u32>>,
    multi_share_permille: Option<Spanned<u32>>,
    scarce_permille: Option<Spanned<u32>>,
    scarce_roots: Option<Spanned<u32>>,
    waste_permille: Option<Spanned<u32>>,
    step_milli: Option<Spanned<u32>>,
    learned_pods: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KindSpec {
    gpus: Spanned<u32>,
    gpu_milli: Option<Spanned<u32>>,
    cpu_milli: Spanned<u32>,
    weight: Spanned<u32>,
}

pub(super) fn take(mut policy: Policy, left: &LeftSpec, expected: &[Spanned<KindSpec>]) -> Result<Policy, PolicyError> {
    let tuning = &mut policy.tuning;
    for (field, given, least, most, known) in [
        ("coveredPermille", &left.covered_permille, 1, 1000, &mut tuning.covered_permille),
        ("unusablePermille", &left.unusable_permille, 0, PERMILLE_MAX, &mut tuning.unusable_permille),
        ("roomPermille", &left.room_permille, 0, PERMILLE_MAX, &mut tuning.room_permille),
        ("multiPermille", &left.multi_permille, 0, PERMILLE_MAX, &mut tuning.multi_permille),
        ("multiSharePermille", &left.multi_share_permille, 0, PERMILLE_MAX, &mut tuning.multi_share_permille),
        ("scarcePermille", &left.scarce_permille, 0, PERMILLE_MAX, &mut tuning.scarce_permille),
        ("scarceRoots", &left.scarce_roots, 1, SCARCE_ROOTS_MAX, &mut tuning.scarce_roots),
        ("wastePermille", &left.waste_permille, 0, PERMILLE_MAX, &mut tuning.waste_permille),
        ("stepMilli", &left.step_milli, 1, GPU_MILLI, &mut tuning.step_milli),
    ] {
        if let Some(given) = given {
            *known = bounded(given, &format!("left.{field}"), least, most)?;
        }
    }
    if let Some(pods) = &left.learned_pods {
        let pods = bounded(pods, "left.learnedPods", 0, LEARNED_PODS_MAX)?;
        policy.learned_pods = usize::try_from(pods).unwrap_or(0);
    }
    if expected.len() > KINDS_MAX {
        let at = expected.first().map_or(Location::UNKNOWN, |kind| kind.referenced);
        return wrong(at, format!("expected: {} kinds, at most {KINDS_MAX} are right", expected.len()));
    }
    let counts =
        expected.iter().enumerate().map(|(at, kind)| kind_of(at, &kind.value)).collect::<Result<Vec<_>, _>>()?;
    policy.seed.clone_from(&counts);
    Ok(policy.expecting(&counts))
}

fn kind_of(at: usize, spec: &KindSpec) -> Result<(Typical, u64), PolicyError> {
    let key = |field: &str| format!("expected[{at}].{field}");
    let gpu_count = bounded(&spec.gpus, &key("gpus"), 0, 32)?;
    let gpu_milli = match &spec.gpu_milli {
        None => GPU_MILLI,
        Some(milli) if gpu_count == 1 => bounded(milli, &key("gpuMilli"), 1, GPU_MILLI)?,
        Some(milli) => {
            let message = format!("{}: only a pod of one GPU takes a share of it", key("gpuMilli"));
            return wrong(milli.referenced, message);
        }
    };
    let cpu_milli = u64::from(bounded(&spec.cpu_milli, &key("cpuMilli"), 0, u32::MAX)?);
    let weight = u64::from(bounded(&spec.weight, &key("weight"), 1, WEIGHT_MAX)?);
    Ok((Typical { gpu_count, gpu_milli, cpu_milli }, weight))
}
