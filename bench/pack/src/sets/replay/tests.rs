//! Floors of the `sets` bench, and that its judge tells good from bad.

use super::*;
use crate::sets::machine::{Kind, report};
use crate::sets::policy::policy;

fn mean(kind: Kind, name: &str) -> Outcome {
    let machine = report(kind).unwrap();
    let ideal = Ideal::of(&machine);
    let runs: Vec<Outcome> =
        [42, 43].map(|seed| replay(Protocol::default(), seed, &ideal, &mut *policy(name, &machine).unwrap())).into();
    let of = |value: fn(&Outcome) -> f64| runs.iter().map(value).sum::<f64>() / runs.len() as f64;
    Outcome { accepted: of(|r| r.accepted), at_ideal: of(|r| r.at_ideal), ring_quality: of(|r| r.ring_quality) }
}

#[test]
fn berth_gives_nearly_every_job_an_ideal_set_and_refuses_no_more_than_best_fit() {
    for (name, kind) in Kind::ALL {
        let best_fit = mean(kind, "best-fit");
        for berth in ["berth", "berth-expecting"].map(|policy| mean(kind, policy)) {
            assert!(berth.at_ideal >= 0.99, "{name}: {berth:?}");
            assert!(berth.accepted >= best_fit.accepted - 0.002, "{name}: {berth:?} {best_fit:?}");
        }
    }
}

#[test]
fn choosing_the_set_alone_is_worth_less_than_choosing_the_node_too() {
    let of = |name| mean(Kind::Bridged, name).at_ideal;
    let (berth, table, allocator, index) = (of("berth"), of("table"), of("go-gpuallocator"), of("index"));
    assert!(berth > table && table >= allocator && allocator > index, "{berth} {table} {allocator} {index}");
}

#[test]
fn the_judge_knows_a_double_link_and_a_zone() {
    let ideal = |kind, bits| Ideal::of(&report(kind).unwrap()).is_ideal(GpuSet::from_bits(bits));
    assert!(ideal(Kind::Dgx1v, 0b1001) && !ideal(Kind::Dgx1v, 0b11));
    assert!(ideal(Kind::Bridged, 0b101) && !ideal(Kind::Bridged, 0b11));
    assert!(ideal(Kind::DgxH100, 0b11) && !ideal(Kind::DgxH100, 0b1_0001), "equal rings, two zones");
}
