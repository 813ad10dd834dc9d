//! Claims about every preferred answer: it is one that the kubelet honours, it keeps to the plan, and else to what is near.

use super::super::devices::{GPU, MigStrategy, offer};
use super::super::sample::{cut, pairs};
use super::*;

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn wanted(available: &[&str], must: &[&str], size: usize) -> Wanted {
    Wanted { available: set(available), must: set(must), size }
}

/// The answer for GPUs of [`pairs`], joined by blanks, and how far it is the plan's.
fn told(wanted: &Wanted, planned: Option<&[&str]>, promised: &[&str]) -> (String, Kept) {
    let node = pairs();
    let devices = offer(&node, MigStrategy::Mixed).remove(GPU).unwrap();
    let planned = planned.map(set);
    let (ids, kept) = prefer(wanted, planned.as_ref(), &set(promised), &devices, &node);
    (ids.join(" "), kept)
}

const ALL: [&str; 4] = ["GPU-0", "GPU-1", "GPU-2", "GPU-3"];

#[test]
fn the_plan_is_the_answer_where_it_can_be() {
    let answer = told(&wanted(&ALL, &[], 2), Some(&["GPU-3", "GPU-0"]), &["GPU-1"]);
    assert_eq!(answer, ("GPU-0 GPU-3".to_owned(), Kept::Planned));
    let answer = told(&wanted(&ALL, &["GPU-2"], 2), Some(&["GPU-2", "GPU-3"]), &[]);
    assert_eq!(answer, ("GPU-2 GPU-3".to_owned(), Kept::Planned));
}

#[test]
fn a_plan_that_is_not_free_gives_way_as_far_as_it_must() {
    // The kubelet narrowed to zone 0, and the plan was for one of each.
    let answer = told(&wanted(&["GPU-0", "GPU-1"], &[], 2), Some(&["GPU-1", "GPU-2"]), &[]);
    assert_eq!(answer, ("GPU-0 GPU-1".to_owned(), Kept::Partly));
    // What was given already is not the plan's.
    let answer = told(&wanted(&ALL, &["GPU-0"], 2), Some(&["GPU-2", "GPU-3"]), &[]);
    assert_eq!(answer, ("GPU-0 GPU-2".to_owned(), Kept::Partly));
    // A plan for another number.
    let answer = told(&wanted(&ALL, &[], 1), Some(&["GPU-2", "GPU-3"]), &[]);
    assert_eq!(answer, ("GPU-2".to_owned(), Kept::Partly));
}

#[test]
fn without_a_plan_the_nearest_devices_that_nobody_was_promised_are_taken() {
    assert_eq!(told(&wanted(&["GPU-1", "GPU-2", "GPU-3"], &[], 2), None, &[]).0, "GPU-2 GPU-3");
    assert_eq!(told(&wanted(&ALL, &[], 2), None, &[]).0, "GPU-0 GPU-1");
    assert_eq!(told(&wanted(&ALL, &[], 1), None, &["GPU-0", "GPU-1"]).0, "GPU-2");
    assert_eq!(told(&wanted(&ALL, &[], 2), None, &["GPU-0"]).0, "GPU-2 GPU-3");
    assert_eq!(told(&wanted(&ALL, &["GPU-3"], 2), None, &[]).0, "GPU-2 GPU-3");
    // A promise is no reason for too few.
    assert_eq!(told(&wanted(&ALL, &[], 3), None, &["GPU-0", "GPU-1"]).0, "GPU-0 GPU-2 GPU-3");
    assert_eq!(told(&wanted(&ALL, &[], 2), None, &[]).1, Kept::Unplanned);
}

#[test]
fn instances_are_taken_from_the_fullest_gpu() {
    let node = cut(&[(0, &[("1g.10gb", 0), ("1g.10gb", 1), ("1g.10gb", 2)]), (1, &[("1g.10gb", 5), ("1g.10gb", 3)])]);
    let devices = offer(&node, MigStrategy::Mixed).remove("nvidia.com/mig-1g.10gb").unwrap();
    let all = ["MIG-0-0", "MIG-0-1", "MIG-0-2", "MIG-1-3", "MIG-1-5"];
    let answer = |wanted: &Wanted| prefer(wanted, None, &BTreeSet::new(), &devices, &node).0.join(" ");
    assert_eq!(answer(&wanted(&all, &[], 1)), "MIG-1-3");
    assert_eq!(answer(&wanted(&all[..4], &[], 2)), "MIG-0-0 MIG-1-3");
}

/// Every request over the four GPUs and one id that no report knows, with every plan and every promise of a few.
#[test]
fn every_answer_is_one_that_the_kubelet_honours() {
    let names = ["GPU-0", "GPU-1", "GPU-2", "GPU-3", "GPU-of-nobody"];
    let subset = |bits: usize| -> Vec<&str> { (0..5).filter(|i| bits >> i & 1 == 1).map(|i| names[i]).collect() };
    let node = pairs();
    let devices = offer(&node, MigStrategy::Mixed).remove(GPU).unwrap();
    for available in 0..32 {
        for must in (0..32).filter(|must| must & !available == 0) {
            let (offered, included) = (subset(available), subset(must));
            for size in included.len()..=offered.len() {
                for (planned, promised) in [(0, 0), (0, 3), (9, 0), (12, 3), (31, 31), (16, 4)] {
                    let planned = (planned > 0).then(|| set(&subset(planned)));
                    let wanted = wanted(&offered, &included, size);
                    let (ids, _) = prefer(&wanted, planned.as_ref(), &set(&subset(promised)), &devices, &node);
                    assert_eq!(ids.len(), size, "{wanted:?} {planned:?}: {ids:?}");
                    let ids: BTreeSet<String> = ids.into_iter().collect();
                    assert_eq!(ids.len(), size, "an id stands twice");
                    assert!(ids.is_subset(&wanted.available) && wanted.must.is_subset(&ids), "{wanted:?}: {ids:?}");
                }
            }
        }
    }
}

#[test]
fn a_request_that_cannot_be_met_is_answered_as_far_as_it_can_be() {
    assert_eq!(told(&wanted(&["GPU-1"], &[], 3), Some(&["GPU-0"]), &[]), ("GPU-1".to_owned(), Kept::Partly));
    assert_eq!(told(&wanted(&[], &[], 1), None, &[]).0, "");
    assert_eq!(told(&Wanted::new(vec!["GPU-0".to_owned()], Vec::new(), -1), None, &[]).0, "");
}
