//! Drift: devices that a pod holds and its plan does not name, as the node's own kubelet tells it.

/// What one pod holds of one resource, where that is not what its plan says. A pod without a plan planned nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Drift {
    /// Namespace and name of the pod, joined by `/`.
    pub pod: String,
    /// UID of the pod: a pod of the same name that comes later is another one.
    pub pod_uid: String,
    /// Extended resource, e.g. `nvidia.com/gpu`.
    pub resource: String,
    /// Ids of all its devices of that resource as the kubelet has them, sorted.
    pub devices: Vec<String>,
}

impl Drift {
    /// Most drifts of a node: the kubelet admits 110 pods unless told otherwise, and each may hold several resources.
    pub const DRIFTS_MAX: usize = 256;
    /// Most devices of one drift: 64 GPUs, or the instances of 16 GPUs cut into seven.
    pub const DEVICES_MAX: usize = 128;
}
