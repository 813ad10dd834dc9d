//! The part of a core/v1 Pod that decisions read. Everything else is skipped at decode, so a pod costs about a kilobyte.
//!
//! Plain data: turning it into a demand, and judging quantities and wishes, is not done here.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error, Visitor};

use super::go::{Given, GoValue, ItemCount, go_struct};

/// Amounts by resource name, as `requests` and `limits` hold them.
pub type ResourceList = BTreeMap<String, Quantity>;

go_struct! {
    /// A pod.
    pub struct Pod {
        /// Identity, labels, annotations, owners.
        pub metadata: PodMeta = "metadata",
        /// What it asks for.
        pub spec: PodSpec = "spec",
        /// What is known of where it goes.
        pub status: PodStatus = "status",
    }
}

go_struct! {
    /// Identity of a pod.
    pub struct PodMeta {
        /// Name.
        pub name: String = "name",
        /// Namespace.
        pub namespace: String = "namespace",
        /// UID; a pod of the same name that is created later has another one.
        pub uid: String = "uid",
        /// Labels.
        pub labels: BTreeMap<String, String> = "labels",
        /// Annotations, wishes and plan among them.
        pub annotations: BTreeMap<String, String> = "annotations",
        /// Owners; at most one is the controller.
        pub owner_references: Vec<OwnerReference> = "ownerReferences",
        /// RFC 3339; orders pods by arrival.
        pub creation_timestamp: String = "creationTimestamp",
        /// RFC 3339, empty unless the pod is terminating. It still holds its devices.
        pub deletion_timestamp: String = "deletionTimestamp",
    }
}

go_struct! {
    /// An owner of a pod.
    pub struct OwnerReference {
        /// Kind, such as `ReplicaSet`.
        pub kind: String = "kind",
        /// Whether it controls the pod.
        pub controller: bool = "controller",
    }
}

go_struct! {
    /// What a pod asks for.
    pub struct PodSpec {
        /// Containers that run side by side.
        pub containers: Vec<Container> = "containers",
        /// Containers that run before, one by one; with `restartPolicy: Always` they stay.
        pub init_containers: Vec<Container> = "initContainers",
        /// Pod-level resources.
        pub resources: Resources = "resources",
        /// What the runtime class adds.
        pub overhead: ResourceList = "overhead",
        /// Affinity, as far as it makes soft wishes.
        pub affinity: Affinity = "affinity",
        /// Spread rules.
        pub topology_spread_constraints: Vec<TopologySpread> = "topologySpreadConstraints",
        /// The scheduler that owns the pod.
        pub scheduler_name: String = "schedulerName",
        /// Resolved priority, `None` where admission did not set one.
        pub priority: Option<i32> = "priority",
        /// Volumes, as far as they may tie the pod to nodes.
        pub volumes: Vec<Volume> = "volumes",
        /// How many claims of devices it has.
        pub resource_claims: ItemCount = "resourceClaims",
        /// How many gates still hold the pod back.
        pub scheduling_gates: ItemCount = "schedulingGates",
        /// The node, empty until bound.
        pub node_name: String = "nodeName",
    }
}

go_struct! {
    /// One container.
    pub struct Container {
        /// Name.
        pub name: String = "name",
        /// `Always` makes an init container a sidecar; empty otherwise.
        pub restart_policy: String = "restartPolicy",
        /// Requests and limits.
        pub resources: Resources = "resources",
        /// Ports.
        pub ports: Vec<ContainerPort> = "ports",
    }
}

go_struct! {
    /// One port of a container.
    #[derive(Copy)]
    pub struct ContainerPort {
        /// The port of the node that it takes; 0 for none.
        pub host_port: i32 = "hostPort",
    }
}

go_struct! {
    /// One volume.
    #[derive(Copy)]
    pub struct Volume {
        /// Whether it is a claim.
        pub persistent_volume_claim: Given = "persistentVolumeClaim",
        /// Whether it brings a claim of its own.
        pub ephemeral: Given = "ephemeral",
        /// Whether a driver makes it on the node.
        pub csi: Given = "csi",
    }
}

go_struct! {
    /// Requests and limits.
    pub struct Resources {
        /// Amounts asked for.
        pub requests: ResourceList = "requests",
        /// Amounts not to pass; for extended resources equal to the requests.
        pub limits: ResourceList = "limits",
    }
}

go_struct! {
    /// A pod's affinity: how many terms there are. What they say is kube-scheduler's alone.
    pub struct Affinity {
        /// For nodes.
        pub node_affinity: PreferredTerms = "nodeAffinity",
        /// To be near pods.
        pub pod_affinity: PodTerms = "podAffinity",
        /// To be away from pods.
        pub pod_anti_affinity: PodTerms = "podAntiAffinity",
    }
}

impl Affinity {
    /// Whether any preferred term is set, of nodes or pods.
    #[must_use]
    pub fn has_preferred(&self) -> bool {
        let soft = [self.node_affinity.count, self.pod_affinity.preferred, self.pod_anti_affinity.preferred];
        soft.iter().any(|count| count.0 > 0)
    }
}

go_struct! {
    /// How many preferred terms one kind of affinity has.
    #[derive(Copy)]
    pub struct PreferredTerms {
        /// Their number.
        pub count: ItemCount = "preferredDuringSchedulingIgnoredDuringExecution",
    }
}

go_struct! {
    /// How many terms a pod has towards other pods.
    #[derive(Copy)]
    pub struct PodTerms {
        /// Those that are wishes.
        pub preferred: ItemCount = "preferredDuringSchedulingIgnoredDuringExecution",
        /// Those that must hold.
        pub required: ItemCount = "requiredDuringSchedulingIgnoredDuringExecution",
    }
}

go_struct! {
    /// One spread rule.
    pub struct TopologySpread {
        /// `DoNotSchedule` (hard) or `ScheduleAnyway` (soft).
        pub when_unsatisfiable: String = "whenUnsatisfiable",
    }
}

go_struct! {
    /// The status of a pod.
    pub struct PodStatus {
        /// The node that preemption made room on, empty mostly.
        pub nominated_node_name: String = "nominatedNodeName",
        /// Phase; `Succeeded` and `Failed` hold nothing any more.
        pub phase: String = "phase",
        /// QoS class, which the API server sets when the pod is made.
        pub qos_class: String = "qosClass",
        /// When the kubelet took the pod.
        pub start_time: String = "startTime",
        /// What the kubelet says of the containers.
        pub container_statuses: Vec<ContainerStatus> = "containerStatuses",
        /// What the kubelet says of the init containers; sidecars are among them.
        pub init_container_statuses: Vec<ContainerStatus> = "initContainerStatuses",
    }
}

go_struct! {
    /// What the kubelet says of one container.
    pub struct ContainerStatus {
        /// Devices that it was given. Feature gate ResourceHealthStatus, on since 1.36.
        pub allocated_resources_status: Vec<AllocatedResource> = "allocatedResourcesStatus",
    }
}

go_struct! {
    /// Devices of one resource.
    pub struct AllocatedResource {
        /// Name of the extended resource.
        pub name: String = "name",
        /// The devices.
        pub resources: Vec<AllocatedDevice> = "resources",
    }
}

go_struct! {
    /// One device.
    pub struct AllocatedDevice {
        /// Its id, as the device plugin names it.
        pub resource_id: String = "resourceID",
    }
}

/// A resource quantity as it was written: `2`, `500m`, `16Gi`. Go takes bare JSON numbers too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(pub String);

impl Quantity {
    /// The text, to be parsed by who knows the grammar.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Quantity {
    /// Go reads a `null` quantity as zero.
    fn default() -> Self {
        Self("0".to_owned())
    }
}

impl<'de> GoValue<'de> for Quantity {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;
        impl Visitor<'_> for Amount {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 2, \"500m\" or \"16Gi\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Quantity, E> {
                Ok(Quantity(text.to_owned()))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }
        }
        deserializer.deserialize_any(Amount)
    }
}
