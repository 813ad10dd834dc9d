//! The `NodeTopology` object: a report as the API server keeps it. Cluster-scoped, named like its node, facts in `status`, no `spec`.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ClusterResourceScope;
use serde::{Deserialize, Serialize};

use crate::decode::{DecodeError, decode};
use crate::topology::v1alpha1::Status;

/// API group.
pub const GROUP: &str = "topology.berth.dev";
/// API version.
pub const VERSION: &str = "v1alpha1";
/// Kind.
pub const KIND: &str = "NodeTopology";
/// Name in URLs and RBAC rules.
pub const PLURAL: &str = "nodetopologies";

const API_VERSION: &str = "topology.berth.dev/v1alpha1";

/// The published topology of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeTopology {
    /// `topology.berth.dev/v1alpha1`; items of a list may come without.
    #[serde(default)]
    pub api_version: String,
    /// `NodeTopology`; items of a list may come without.
    #[serde(default)]
    pub kind: String,
    /// The name is the node's.
    pub metadata: ObjectMeta,
    /// The report; absent between the object's creation and its first report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

impl NodeTopology {
    /// The object of a node.
    #[must_use]
    pub fn new(node: &str, status: Option<Status>) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            metadata: ObjectMeta { name: Some(node.to_owned()), ..ObjectMeta::default() },
            status,
        }
    }

    /// The topology that the object tells; `None` before the first report.
    ///
    /// # Errors
    /// [`DecodeError`] as [`decode`].
    pub fn topology(&self) -> Result<Option<berth_model::NodeTopology>, DecodeError> {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        self.status.as_ref().map(|status| decode(name, status)).transpose()
    }
}

impl kube::Resource for NodeTopology {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
