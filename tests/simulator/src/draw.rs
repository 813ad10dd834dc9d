//! Chance: which step comes next. The weather changes: some runs are nearly calm, some are storms.

use fastrand::Rng;

use crate::answer::What;
use crate::api::KINDS;
use crate::fleet;
use crate::objects::{POLICIES, SHAPES};
use crate::step::{AgentState, Delivery, How, NodeStep, ReportStep, Step};
use crate::world::{REPLICAS, World};

/// How a run is: how bad, in percent of what may go wrong, how slow, and how crowded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    call_faults: u8,
    watch_faults: u8,
    accidents: u8,
    /// Percent of steps that answer a call, if one waits.
    answers: u8,
    /// Percent of the others that deliver an event, if there is one.
    deliveries: u8,
    /// Whether bindings are long on their way.
    has_slow_binds: bool,
    /// Nodes that kube-scheduler names: in a crowd all want the same one.
    names: u8,
    /// Shapes that people ask for, from the first on.
    shapes: usize,
}

impl Weather {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut level = || *rng.choice(&[0_u8, 2, 10, 30]).unwrap_or(&0);
        let (call_faults, watch_faults, accidents) = (level(), level(), level());
        let is_crowded = rng.bool();
        Self {
            call_faults,
            watch_faults,
            accidents,
            answers: *rng.choice(&[20, 40]).unwrap_or(&40),
            deliveries: *rng.choice(&[20, 60]).unwrap_or(&60),
            has_slow_binds: rng.u8(..4) == 0,
            names: if is_crowded { *rng.choice(&[0b1, 0b10, 0b100, 0b1000, 0b110]).unwrap_or(&0b100) } else { 0xff },
            shapes: if is_crowded && rng.bool() { 2 } else { SHAPES.len() },
        }
    }
}

fn byte(rng: &mut Rng) -> u8 {
    rng.u8(..)
}

fn small(rng: &mut Rng, count: usize) -> u8 {
    u8::try_from(rng.usize(..count)).unwrap_or(0)
}

/// Draws the next step.
pub(crate) fn draw(world: &World, weather: Weather, rng: &mut Rng) -> Step {
    let (calls, behind, slow) = {
        let api = world.api.lock();
        let slow: Vec<bool> = api.calls.iter().map(|call| matches!(call.what, What::Bind { .. })).collect();
        let behind: Vec<u16> =
            (0..).zip(&api.watches).filter(|(_, watch)| api.is_behind(watch)).map(|(at, _)| at).collect();
        (u16::try_from(api.calls.len()).unwrap_or(u16::MAX), behind, slow)
    };
    let is_bad = |rng: &mut Rng, percent: u8| rng.u8(..100) < percent;
    if calls > 0 && rng.u8(..100) < weather.answers {
        let how = if is_bad(rng, weather.call_faults) { bad_answer(rng) } else { How::Ok };
        let nth = rng.u16(..calls);
        if weather.has_slow_binds && slow.get(usize::from(nth)) == Some(&true) && rng.u8(..100) < 95 {
            return Step::Wait { ms: rng.u32(..300) };
        }
        return Step::Answer { nth, how };
    }
    if !behind.is_empty() && rng.u8(..100) < weather.deliveries {
        let how = if is_bad(rng, weather.watch_faults) { bad_delivery(rng) } else { Delivery::Next };
        return Step::Deliver { nth: *rng.choice(&behind).unwrap_or(&0), how };
    }
    if is_bad(rng, weather.accidents / 2) {
        return accident(rng);
    }
    everyday(weather, rng)
}

fn bad_answer(rng: &mut Rng) -> How {
    match rng.u8(..9) {
        0 | 1 => How::Stale(rng.u8(1..30)),
        2 => How::Refuse(*rng.choice(&[409, 429, 500, 503, 404, 403]).unwrap_or(&500)),
        3 => How::ApplyAndRefuse,
        4 => How::Lose,
        5 | 6 => How::ApplyAndLose,
        7 => How::Cut,
        _ => How::ApplyAndCut,
    }
}

fn bad_delivery(rng: &mut Rng) -> Delivery {
    match rng.u8(..11) {
        0 | 1 => Delivery::Twice,
        2 => Delivery::Skip,
        3 | 4 => Delivery::Swap,
        5 => Delivery::Again(rng.u8(..10)),
        6 => Delivery::Bookmark,
        7 => Delivery::End,
        8 => Delivery::Gone,
        9 => Delivery::Cut,
        _ => Delivery::Garbage,
    }
}

fn everyday(weather: Weather, rng: &mut Rng) -> Step {
    let nth = rng.u16(..64);
    match rng.u8(..100) {
        0..=13 => Step::Create { shape: small(rng, weather.shapes), again: rng.u8(..100) < 15 },
        14..=43 => {
            let names = (byte(rng) | byte(rng)) & (weather.names | 0x80);
            Step::Schedule { nth: rng.u16(..6), names, pick: byte(rng) }
        }
        44..=66 => Step::Bind { nth: rng.u16(..3) },
        67..=73 => Step::Kubelet { nth, ended: false },
        74..=80 => Step::Kubelet { nth, ended: true },
        81..=82 => Step::Delete { nth },
        83..=87 => Step::Remove { nth },
        88 => Step::Rebind { nth: rng.u16(..4) },
        89 => Step::Lead { replica: small(rng, REPLICAS) },
        90 => Step::Report { at: small(rng, fleet::NAMES.len()), what: ReportStep::Next { lost: 0 } },
        91..=97 => Step::Wait { ms: rng.u32(..400) },
        98 => Step::Wait { ms: rng.u32(..6_000) },
        _ => Step::Deliver { nth: rng.u16(..16), how: Delivery::Expire },
    }
}

fn accident(rng: &mut Rng) -> Step {
    let (at, replica) = (small(rng, fleet::NAMES.len()), small(rng, REPLICAS));
    match rng.u8(..40) {
        0 => Step::Kill { replica },
        1..=5 => Step::Start { replica },
        6 | 7 => Step::Lead { replica },
        8 => Step::Node { at, what: NodeStep::Gone },
        9..=11 => Step::Node { at, what: NodeStep::Back },
        12 => Step::Node { at, what: NodeStep::Boot },
        13..=16 => Step::Report { at, what: ReportStep::Next { lost: byte(rng) & byte(rng) & byte(rng) } },
        17..=20 => Step::Report { at, what: ReportStep::Next { lost: 0 } },
        21 | 22 => Step::Report { at, what: ReportStep::Back },
        23 => Step::Report { at, what: ReportStep::Broken },
        24 => Step::Report { at, what: ReportStep::Gone },
        25 => Step::Agent { at, state: AgentState::NotReady },
        26 => Step::Agent { at, state: AgentState::Gone },
        27..=30 => Step::Agent { at, state: AgentState::Ready },
        31 | 32 => Step::Policy { document: Some(small(rng, POLICIES.len())) },
        33 => Step::Policy { document: None },
        34 => Step::Compact { kind: small(rng, KINDS.len()) },
        35 | 36 => Step::Foreign { nth: rng.u16(..64), node: at },
        37 => Step::Wait { ms: rng.u32(..40_000) },
        38 => Step::Jump { seconds: rng.u16(..7200) },
        _ => Step::Deliver { nth: rng.u16(..16), how: Delivery::Gone },
    }
}
