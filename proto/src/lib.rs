//! The wire forms: one schema of a report for the gRPC message and for the `status` of the `NodeTopology` object.
//!
//! The types are generated from `topology/v1alpha1/topology.proto`. [`encode`] and [`decode`] are the only ways between them and
//! `berth_model`; what a report may hold at most stands in [`limit`]. This crate reads no hardware and talks to no server.
#![forbid(unsafe_code)]

mod crd;
mod decode;
mod detail;
mod encode;
pub mod limit;
mod object;

pub use crd::crd;
pub use decode::{DecodeError, decode};
pub use encode::encode;
pub use object::{GROUP, KIND, NodeTopology, PLURAL, VERSION};

/// Generated types of the schema.
pub mod topology {
    /// Version `v1alpha1`.
    #[allow(
        missing_docs,
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated"
    )]
    pub mod v1alpha1 {
        include!(concat!(env!("OUT_DIR"), "/berth.topology.v1alpha1.rs"));
    }
}

/// Generated types of the kubelet's services.
pub mod kubelet {
    /// PodResources: which pod holds which devices.
    #[allow(
        missing_docs,
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated"
    )]
    pub mod podresources {
        include!(concat!(env!("OUT_DIR"), "/v1.rs"));
    }

    /// Device plugins: what they register with the kubelet, and what it asks them.
    #[allow(
        missing_docs,
        unused_qualifications,
        clippy::all,
        clippy::too_many_lines,
        clippy::allow_attributes_without_reason,
        reason = "generated"
    )]
    pub mod deviceplugin {
        include!(concat!(env!("OUT_DIR"), "/v1beta1.rs"));
    }
}

pub use topology::v1alpha1::Status;

/// Whether a value may be left out of JSON: readers put the default in its place.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod sample;
