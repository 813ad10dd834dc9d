//! Claims about what is learned.

use super::*;
use crate::demand::{ContainerRequest, Demand, PodRequest};
use crate::policy::Policy;

const WINDOW: usize = 1600;

fn kind(gpu_count: u32, gpu_milli: u32) -> Typical {
    Typical { gpu_count, gpu_milli, cpu_milli: 4000 }
}

fn of(newest_first: &[(Typical, usize)], seed: &[(Typical, u64)]) -> Mix {
    Mix::of(newest_first.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count)), WINDOW, seed)
}

fn part(mix: &Mix, wanted: Typical) -> u64 {
    mix.parts().iter().find(|(kind, _)| *kind == wanted).map_or(0, |(_, part)| *part)
}

#[test]
fn a_few_pods_say_nothing_and_eight_do() {
    assert_eq!(of(&[(kind(1, 1000), 7)], &[]), Mix::default());
    assert_eq!(of(&[(kind(1, 1000), 7)], &[]).fingerprint(), 0);
    assert_eq!(part(&of(&[(kind(1, 1000), 8)], &[]), kind(1, 1000)), 1_000_000);
}

#[test]
fn the_seed_counts_less_with_every_pod_and_in_the_end_not_at_all() {
    let seed = [(kind(8, 1000), 3), (kind(2, 1000), 1)];
    let parts: Vec<u64> =
        [0, 10, 400, 1599, 1600, 5000].map(|count| part(&of(&[(kind(1, 470), count)], &seed), kind(8, 1000))).into();
    assert_eq!(parts[0], 750_000, "by weight");
    assert!(parts.is_sorted_by(|a, b| a > b || (*a == 0 && *b == 0)), "{parts:?}");
    assert_eq!(parts[4..], [0, 0]);
}

#[test]
fn what_came_last_counts_most_and_what_came_before_the_window_nothing() {
    let (new, old) = (kind(1, 470), kind(1, 810));
    // A quarter of the window weighs 8 of 15.
    assert_eq!(part(&of(&[(new, 400), (old, 1200)], &[]), new), 8 * 1_000_000 / 15);
    assert_eq!(part(&of(&[(new, 1600), (old, 9000)], &[]), new), 1_000_000);
}

#[test]
fn a_mix_is_far_from_another_by_a_fifth_of_the_pods_and_from_none_always() {
    let mix = |count| of(&[(kind(1, 470), 0)], &[(kind(1, 470), count), (kind(1, 810), 1000 - count)]);
    assert!(!mix(500).is_far_from(&mix(500)) && !mix(500).is_far_from(&mix(690)));
    assert!(mix(500).is_far_from(&mix(710)) && mix(710).is_far_from(&mix(500)));
    assert!(mix(500).is_far_from(&Mix::default()) && Mix::default().is_far_from(&mix(500)));
    assert!(!Mix::default().is_far_from(&Mix::default()));
}

#[test]
fn the_fingerprint_is_the_mixs_own_and_fits_a_float() {
    let (a, b) = (of(&[(kind(1, 470), 60)], &[]), of(&[(kind(1, 480), 60)], &[]));
    assert_ne!(a.fingerprint(), b.fingerprint());
    assert_eq!(a.fingerprint(), of(&[(kind(1, 470), 60)], &[]).fingerprint());
    assert!(a.fingerprint() < 1 << 52);
}

#[test]
fn kinds_beyond_the_limit_are_the_rarest() {
    let many: Vec<(Typical, usize)> =
        (0..300).map(|i| (Typical { cpu_milli: 1000 * i, ..kind(1, 1000) }, if i < 9 { 9 } else { 1 })).collect();
    let mix = of(&many, &[]);
    assert_eq!(mix.counts().len(), KINDS_MAX);
    assert!((0..9).all(|i| mix.counts().iter().any(|(kind, _)| kind.cpu_milli == 1000 * i)));
}

fn asked(limits: &[(&str, &str)]) -> Option<Ask> {
    let requests = limits.iter().map(|(name, amount)| ((*name).to_owned(), (*amount).to_owned())).collect();
    let container = ContainerRequest { name: "main".to_owned(), requests, is_sidecar: false };
    let request = PodRequest { containers: vec![container], ..PodRequest::default() };
    Ask::of(&Demand::parse(&request, &Policy::default()).unwrap().shape)
}

#[test]
fn shares_are_told_by_cores_or_by_memory_and_mig_not_at_all() {
    let of = |limits: &[(&str, &str)], card| {
        asked(limits).and_then(|ask| ask.kind(card)).map(|k| (k.gpu_count, k.gpu_milli))
    };
    let card = Some(MiB(81_920));
    let (gpu, cores, memory) = ("nvidia.com/gpu", "nvidia.com/gpucores", "nvidia.com/gpumem");
    assert_eq!(of(&[(gpu, "4")], None), Some((4, 1000)));
    assert_eq!(of(&[(gpu, "1"), (cores, "30")], None), Some((1, 300)));
    assert_eq!(of(&[(gpu, "1"), (cores, "30"), (memory, "40960")], card), Some((1, 500)));
    assert_eq!(of(&[(gpu, "2"), (memory, "16384")], card), Some((2, 200)));
    assert_eq!(of(&[(gpu, "2"), (memory, "16384")], None), None, "nobody knows of how much");
    assert_eq!(of(&[("nvidia.com/mig-1g.10gb", "1")], card), None);
    assert_eq!(of(&[("cpu", "4")], card), None);
}

#[test]
fn cores_are_told_to_the_next_whole_one() {
    let cpu = |cpu: &str| asked(&[("nvidia.com/gpu", "1"), ("cpu", cpu)]).unwrap().cpu_milli;
    assert_eq!((cpu("0"), cpu("100m"), cpu("4"), cpu("4001m")), (0, 1000, 4000, 5000));
}
