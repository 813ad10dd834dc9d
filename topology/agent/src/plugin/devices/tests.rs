//! Claims about what is offered: NVIDIA's names, real ids, and health that follows the readings.

use berth_model::Health;

use super::super::sample::{changed, cut, pairs};
use super::*;

/// Resources with their ids; an unhealthy one has a `!`.
fn told(offer: &Offer) -> Vec<(String, String)> {
    let ids = |devices: &Devices| {
        let each = devices.iter().map(|(id, device)| format!("{id}{}", if device.is_healthy { "" } else { "!" }));
        each.collect::<Vec<_>>().join(" ")
    };
    offer.iter().map(|(resource, devices)| (resource.clone(), ids(devices))).collect()
}

fn row(resource: &str, ids: &str) -> (String, String) {
    (resource.to_owned(), ids.to_owned())
}

const WHOLE: &str = "GPU-0 GPU-1 GPU-2 GPU-3";

#[test]
fn whole_gpus_are_offered_by_uuid_with_their_zones_and_a_sick_one_as_unhealthy() {
    let sick = changed(|gpu| {
        if gpu.index.0 == 2 {
            gpu.health = Health::Unhealthy("lost".to_owned());
        }
        if gpu.index.0 == 3 {
            (gpu.health, gpu.zone) = (Health::Unknown("no answer".to_owned()), None);
        }
    });
    let offer = offer(&sick, MigStrategy::Mixed);
    assert_eq!(told(&offer), [row(GPU, "GPU-0 GPU-1 GPU-2! GPU-3!")]);
    let zones: Vec<_> = offer[GPU].values().map(|device| device.zone).collect();
    assert_eq!(zones, [Some(0), Some(0), Some(1), None]);
}

#[test]
fn strategy_mixed_names_each_profile_as_nvidia_does_and_leaves_uncut_gpus_whole() {
    let node = cut(&[(0, &[("3g.40gb", 0), ("3g.40gb", 4)]), (1, &[("1g.10gb", 0), ("1g.10gb+me", 6)]), (2, &[])]);
    assert_eq!(
        told(&offer(&node, MigStrategy::Mixed)),
        [
            row(GPU, "GPU-3"),
            row("nvidia.com/mig-1g.10gb", "MIG-1-0"),
            row("nvidia.com/mig-1g.10gb.me", "MIG-1-6"),
            row("nvidia.com/mig-3g.40gb", "MIG-0-0 MIG-0-4"),
        ]
    );
}

#[test]
fn strategy_single_calls_instances_gpus_only_where_they_are_all_alike_and_no_gpu_is_whole() {
    let all = |last: &'static str| cut(&[(0, &[("1g.10gb", 0)]), (1, &[("1g.10gb", 3)]), (2, &[]), (3, &[(last, 0)])]);
    assert_eq!(told(&offer(&all("1g.10gb"), MigStrategy::Single)), [row(GPU, "MIG-0-0 MIG-1-3 MIG-3-0")]);
    assert_eq!(told(&offer(&all("3g.40gb"), MigStrategy::Single)), []);
    let one_is_whole = cut(&[(0, &[("1g.10gb", 0)])]);
    assert_eq!(told(&offer(&one_is_whole, MigStrategy::Single)), [row(GPU, "GPU-1 GPU-2 GPU-3")]);
    assert_eq!(told(&offer(&pairs(), MigStrategy::Single)), [row(GPU, WHOLE)]);
}

#[test]
fn an_instance_with_no_or_several_devices_is_nothing_that_a_container_can_get() {
    let mut parts = cut(&[(0, &[("1g.10gb", 0), ("1g.10gb", 1), ("1g.10gb", 2)])]).into_parts();
    parts.gpus[0].detail.mig_instances[0].uuids.clear();
    parts.gpus[0].detail.mig_instances[1].uuids.push("MIG-more".to_owned());
    let node = NodeTopology::try_new(parts).unwrap();
    assert_eq!(told(&offer(&node, MigStrategy::Mixed))[1], row("nvidia.com/mig-1g.10gb", "MIG-0-2"));
}

#[test]
fn a_gpu_that_vanished_stays_known_as_unhealthy_and_is_whole_again_when_it_is_back() {
    let whole = offer(&pairs(), MigStrategy::Mixed);
    let mut parts = pairs().into_parts();
    parts.gpus.pop();
    parts.links = berth_model::LinkMatrix::build(3, |_, _| berth_model::Link::default());
    let less = NodeTopology::try_new(parts).unwrap();
    let told_less = with_gone(offer(&less, MigStrategy::Mixed), &whole, &less);
    assert_eq!(told(&told_less), [row(GPU, "GPU-0 GPU-1 GPU-2 GPU-3!")]);
    let again = with_gone(offer(&less, MigStrategy::Mixed), &told_less, &less);
    assert_eq!(again, told_less, "it does not fade");
    assert_eq!(with_gone(whole.clone(), &told_less, &pairs()), whole);
}

#[test]
fn what_somebody_cut_anew_is_not_told_as_broken() {
    let before = cut(&[(0, &[("1g.10gb", 0), ("1g.10gb", 1)])]);
    let after = cut(&[(0, &[("3g.40gb", 0)]), (1, &[("1g.10gb", 2)])]);
    let first = offer(&before, MigStrategy::Mixed);
    let now = with_gone(offer(&after, MigStrategy::Mixed), &first, &after);
    assert_eq!(
        told(&now),
        [row(GPU, "GPU-2 GPU-3"), row("nvidia.com/mig-1g.10gb", "MIG-1-2"), row("nvidia.com/mig-3g.40gb", "MIG-0-0"),]
    );
    // A resource that was registered is told to be empty rather than forgotten.
    let whole = with_gone(offer(&pairs(), MigStrategy::Mixed), &first, &pairs());
    assert_eq!(told(&whole), [row(GPU, WHOLE), row("nvidia.com/mig-1g.10gb", "")]);
}
