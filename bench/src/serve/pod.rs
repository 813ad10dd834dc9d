//! Request bodies as kube-scheduler writes them: `ExtenderArgs` with Go's field names, a pod, and names.
//!
//! Every call is for another pod, as in a cluster: a pod that comes back would be given a longer list. Only its UID changes,
//! in place.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::args::PodForm;

/// Stands in a template where the UID goes: as long as one, and nowhere else in a body.
const UID_PLACE: &str = "ffffffff-ffff-4fff-8fff-ffffffffffff";

/// The `resourceVersion` of every pod: only together with the UID it says anything.
pub(super) const VERSION: &str = "184467";

/// GPUs of the pod. Two: the least for which links matter.
const GPUS: &str = "2";

/// A body that lacks only the pod's UID.
#[derive(Debug, Clone)]
pub(super) struct Template {
    text: Vec<u8>,
    uid: Range<usize>,
}

impl Template {
    /// The body for a pod and names.
    ///
    /// # Errors
    /// A defect: the pod has no place for its UID.
    pub(super) fn new(pod: &Value, names: &[String]) -> Result<Self> {
        // In the order of Go's struct: a JSON value of serde_json would sort its keys.
        let names = serde_json::to_string(names)?;
        let text = format!(r#"{{"Pod":{},"Nodes":null,"NodeNames":{names}}}"#, as_go_writes(pod)?);
        let start = text.find(UID_PLACE).context("the pod has no UID")?;
        Ok(Self { text: text.into_bytes(), uid: start..start + UID_PLACE.len() })
    }

    /// The body for the pod with this UID.
    pub(super) fn body(&self, uid: &str) -> Bytes {
        let mut text = self.text.clone();
        if let Some(place) = text.get_mut(self.uid.clone()).filter(|place| place.len() == uid.len()) {
            place.copy_from_slice(uid.as_bytes());
        }
        Bytes::from(text)
    }
}

/// Members of metadata in the order of Go's struct. Source: k8s.io/apimachinery `pkg/apis/meta/v1/types.go`, ObjectMeta.
const METADATA: [&str; 8] =
    ["name", "namespace", "uid", "resourceVersion", "creationTimestamp", "labels", "annotations", "ownerReferences"];

/// A pod with its metadata first, and the pod's identity first in it.
fn as_go_writes(pod: &Value) -> Result<String> {
    let members = |of: &Value, order: &[&str]| -> Result<String> {
        let of = of.as_object().context("no object")?;
        ensure!(of.len() == order.len(), "a member has no place in the order");
        let member = |key: &&str| Ok(format!("{key:?}:{}", of.get(*key).context("a member is missing")?));
        Ok(order.iter().map(member).collect::<Result<Vec<_>>>()?.join(","))
    };
    let metadata = members(&pod["metadata"], &METADATA)?;
    Ok(format!(r#"{{"metadata":{{{metadata}}},"spec":{},"status":{}}}"#, pod["spec"], pod["status"]))
}

/// The UID of the pod of a number.
pub(super) fn uid(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// The pod, with the place for its UID.
pub(super) fn object(form: PodForm, class: Option<&str>) -> Value {
    let mut annotations = Map::new();
    if let Some(class) = class {
        annotations.insert("berth.dev/class".to_owned(), json!(class));
    }
    let mut labels = Map::from_iter([("app".to_owned(), json!("trainer"))]);
    let mut containers = vec![container("main", form, true)];
    let mut volumes = vec![volume("kube-api-access-x7p2k")];
    if form == PodForm::Fat {
        containers.extend(["metrics", "sync"].map(|name| container(name, form, false)));
        volumes.extend((0..6).map(|i| volume(&format!("shared-configuration-{i}"))));
        for i in 0..20 {
            labels.insert(format!("team.example.com/label-{i}"), json!("a-value-of-usual-length"));
            annotations
                .insert(format!("team.example.com/note-{i}"), json!("written by some controller of the cluster"));
        }
    }
    json!({
        "metadata": {
            "name": "trainer-5f7c9d", "namespace": "research", "uid": UID_PLACE, "resourceVersion": VERSION,
            "creationTimestamp": "2026-11-21T08:00:00Z", "labels": labels, "annotations": annotations,
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "trainer", "controller": true,
                "blockOwnerDeletion": true, "uid": "6a1f9a52-31c5-4a9d-9b0e-6d3a5b1c7e88"}],
        },
        "spec": {
            "containers": containers, "volumes": volumes, "schedulerName": "berth", "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "serviceAccountName": "default",
            "serviceAccount": "default", "securityContext": {}, "priority": 0, "enableServiceLinks": true,
            "preemptionPolicy": "PreemptLowerPriority",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            ],
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    })
}

fn container(name: &str, form: PodForm, has_gpus: bool) -> Value {
    let resources = if has_gpus {
        json!({"limits": {"nvidia.com/gpu": GPUS}, "requests": {"cpu": "16", "memory": "128Gi", "nvidia.com/gpu": GPUS}})
    } else {
        json!({"requests": {"cpu": "250m", "memory": "256Mi"}})
    };
    let count = if form == PodForm::Fat { 33 } else { 2 };
    let variable =
        |i: usize| json!({"name": format!("TRAINER_OPTION_{i}"), "value": "a value of usual length, with words"});
    let variables: Vec<Value> = (0..count).map(variable).collect();
    json!({
        "name": name, "image": "registry.example.com/research/trainer:2026.11", "imagePullPolicy": "IfNotPresent",
        "resources": resources, "env": variables, "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": [{"name": "kube-api-access-x7p2k", "readOnly": true,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
    })
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]}})
}

#[cfg(test)]
mod tests {
    use berth_extender::wire::{SplitArgs, decode_extender_args};

    use super::*;

    #[test]
    fn a_body_is_read_by_the_extender_with_its_own_uid() {
        for form in [PodForm::Lean, PodForm::Fat] {
            let names = ["a".to_owned(), "b".to_owned()];
            let template = Template::new(&object(form, Some("training")), &names).unwrap();
            let body = template.body(&uid(7));
            let version = SplitArgs::of(&body).unwrap().version().unwrap();
            assert_eq!((version.uid, version.resource_version), (uid(7).as_str(), VERSION));
            let args = decode_extender_args(&body).unwrap();
            let pod = args.pod.unwrap();
            assert_eq!(pod.metadata.uid, uid(7));
            assert_eq!(pod.metadata.annotations["berth.dev/class"], "training");
            assert_eq!(args.node_names.unwrap(), names);
        }
    }

    #[test]
    fn the_two_forms_have_the_sizes_that_they_are_told_with() {
        let size = |form| object(form, None).to_string().len();
        assert!((900..2500).contains(&size(PodForm::Lean)), "{}", size(PodForm::Lean));
        assert!((10_000..16_000).contains(&size(PodForm::Fat)), "{}", size(PodForm::Fat));
    }
}
