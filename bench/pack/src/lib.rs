//! How well plans pack: the protocols, the peers' rules and the draws behind `berth-bench pack|churn|mig|sets`. No sockets, no
//! clock, and nothing of the cluster: what decides is `berth_core::plan`, called as filter calls it. Apart from the other
//! benches so that its tests build in seconds.

pub mod draw;
pub mod mig;
pub mod openb;
pub mod sets;
