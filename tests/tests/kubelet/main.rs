//! Tests on real nodes: a real kubelet and a real container runtime beside the real control plane. They need root.

mod churn;
mod lease;
mod level;
mod node;
mod plugin;
mod zones;
