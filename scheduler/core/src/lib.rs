//! Decisions: which devices a pod would get on a node, how good that is, and why not where it is not.
//!
//! [`plan::plan`] is the one decision path. It is pure: no clock, no IO, no locks, no floats, no hash order. Filter,
//! prioritize, bind, explain, the CLI and the benches all call it, so they cannot disagree.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::float_arithmetic,
        clippy::as_conversions,
        clippy::wildcard_enum_match_arm,
        clippy::disallowed_types
    )
)]

pub mod annotation;
pub mod demand;
pub mod device;
pub mod fabric;
pub mod group;
pub mod level;
pub mod order;
pub mod place;
pub mod plan;
pub mod policy;
pub mod preempt;
pub mod quantity;
pub mod score;
#[cfg(test)]
mod testing;
pub mod unfit;
pub mod value;
pub mod view;
pub mod wish;
pub mod zone;

pub use demand::{Demand, PodRequest, Shape};
pub use fabric::Fabric;
pub use group::Group;
pub use plan::{Plan, plan};
pub use policy::Policy;
pub use score::Score;
pub use unfit::Unfit;
pub use view::{Knowledge, NodeView};
