//! Owns what the tests, the benches and people share to run Berth's programs
//! beside real parts. The tests themselves are in `tests/tests/`.

pub mod binaries;
pub mod controlplane;
pub mod faulty;
mod go_module;
pub mod installed;
pub mod kubelet_plugins;
pub mod kubelet_socket;
pub mod made_node;
pub mod real_cluster;
pub mod real_node;
pub mod reported;
pub mod rest;
pub mod running;
pub mod stock_plugin;
pub mod streaming;
