//! Which GPUs inside a node, and which node: jobs of whole GPUs come and go on machines where the choice of the set matters.
//!
//! The protocol is that of the project's reference experiment: equal nodes of 8 GPUs, jobs of 1, 2, 4 and 8 GPUs that arrive at random and
//! stay at random. What counts is how many multi-GPU jobs get a set as good as the best of the idle machine, and how many get any.

pub mod allocator;
pub mod ideal;
pub mod machine;
pub mod policy;
pub mod replay;
