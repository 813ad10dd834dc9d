//! The trimmed pod of an API list or watch: the same spec and status as on the extender wire, under full object metadata.
//!
//! kube's watcher reads resource versions from [`ObjectMeta`], so the metadata cannot be trimmed at decode; [`Pod::from`] drops it.

use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::pod::{OwnerReference, Pod, PodMeta, PodSpec, PodStatus};

/// A pod as the API server sends it, with only the spec and status fields that decisions read.
#[derive(Debug, Clone, Default, Deserialize, kube::Resource)]
#[resource(inherit = core_v1::Pod)]
pub struct WatchedPod {
    /// Full metadata, for the watcher.
    pub metadata: ObjectMeta,
    /// What it asks for.
    #[serde(default)]
    pub spec: PodSpec,
    /// What is known of where it runs.
    #[serde(default)]
    pub status: PodStatus,
}

impl From<WatchedPod> for Pod {
    fn from(watched: WatchedPod) -> Self {
        let WatchedPod { metadata, spec, status } = watched;
        let owners = metadata.owner_references.unwrap_or_default();
        let metadata = PodMeta {
            name: metadata.name.unwrap_or_default(),
            namespace: metadata.namespace.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            owner_references: owners
                .into_iter()
                .map(|owner| OwnerReference { kind: owner.kind, controller: owner.controller.unwrap_or(false) })
                .collect(),
            creation_timestamp: metadata.creation_timestamp.map(|time| time.0.to_string()).unwrap_or_default(),
            deletion_timestamp: metadata.deletion_timestamp.map(|time| time.0.to_string()).unwrap_or_default(),
        };
        Self { metadata, spec, status }
    }
}
