//! Claims about the object that operators see: its text, its size, and that the manifest is the code's own.

use std::path::Path;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, OwnerReference, Time};
use serde_json::{Value, json};

use super::*;
use crate::sample::eight_gpus_ten_nics;
use crate::{NodeTopology, encode};

/// design: 5000 such objects are listed and watched.
const OBJECT_BYTES_MAX: usize = 6144;

const HEADER: &str = "# Printed by `BERTH_UPDATE=1 cargo test -p berth-proto`. The texts are the comments of proto/topology/v1alpha1/topology.proto.\n";

fn schema() -> Value {
    let crd = serde_json::to_value(crd().unwrap()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Calls `visit` with the path of every schema below `schema`.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        visit(&path, property);
        walk(property, &path, visit);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), visit);
    }
}

#[test]
fn kubectl_explain_has_a_text_for_every_field() {
    let mut count = 0;
    walk(&schema(), "", &mut |path, property| {
        count += 1;
        let text = property["description"].as_str().unwrap_or_default();
        assert!(text.len() > 5 && text.ends_with('.'), "{path}: {text:?} is no sentence");
        assert!(!text.contains('\\'), "{path}: {text:?} shows its markup");
    });
    assert!(count > 40, "only {count} fields were seen");
}

#[test]
fn every_list_is_atomic_and_bounded_and_nothing_has_a_default() {
    walk(&schema(), "", &mut |path, property| {
        assert_eq!(property.get("default"), None, "{path} would be written into every object");
        if property["type"] == "array" {
            assert_eq!(property["x-kubernetes-list-type"], "atomic", "{path}");
            assert!(property["maxItems"].is_u64(), "{path} has no limit");
        }
        if property["type"] == "integer" {
            assert!(matches!(property["format"].as_str(), Some("int32" | "int64")), "{path}: {property}");
        }
    });
}

#[test]
fn the_manifest_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crd/nodetopologies.yaml");
    let printed = format!("{HEADER}{}", serde_saphyr::to_string(&crd().unwrap()).unwrap());
    if std::env::var_os("BERTH_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &printed).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == printed, "{} is not what the code says: run with BERTH_UPDATE=1", path.display());
    let read: CustomResourceDefinition = serde_saphyr::from_str(&found).unwrap();
    assert!(read == crd().unwrap(), "the YAML does not read back");
}

/// The object as the API server keeps it after the agent's two writes.
fn stored() -> NodeTopology {
    let uid = "0b9a7c5e-1f6d-4c1e-9a2b-3c4d5e6f7a8b".to_owned();
    let time = Time("2026-11-21T08:00:00Z".parse().unwrap());
    let entry = |fields: Value, subresource: Option<&str>| ManagedFieldsEntry {
        api_version: Some(format!("{GROUP}/{VERSION}")),
        fields_type: Some("FieldsV1".to_owned()),
        fields_v1: Some(FieldsV1(fields)),
        manager: Some("berth-agent".to_owned()),
        operation: Some("Update".to_owned()),
        subresource: subresource.map(str::to_owned),
        time: Some(time.clone()),
    };
    let given = eight_gpus_ten_nics();
    let mut object = NodeTopology::new(given.parts().node.as_str(), Some(encode(&given, "0.1.0")));
    let owner = format!("k:{{\"uid\":\"{uid}\"}}");
    object.metadata = ObjectMeta {
        name: object.metadata.name,
        uid: Some(uid.clone()),
        resource_version: Some("123456789".to_owned()),
        generation: Some(1),
        creation_timestamp: Some(time.clone()),
        owner_references: Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: given.parts().node.to_string(),
            uid,
            ..OwnerReference::default()
        }]),
        managed_fields: Some(vec![
            entry(json!({"f:metadata": {"f:ownerReferences": {".": {}, owner: {}}}}), None),
            entry(json!({"f:status": {}}), Some("status")),
        ]),
        ..ObjectMeta::default()
    };
    object
}

#[test]
fn eight_gpus_and_ten_nics_stay_within_the_budget() {
    let object = stored();
    let bytes = serde_json::to_vec(&object).unwrap().len();
    let mut bare = object;
    bare.metadata.managed_fields = None;
    let bare_bytes = serde_json::to_vec(&bare).unwrap().len();
    println!("{bytes} bytes as stored, {bare_bytes} without managedFields");
    assert!(bytes <= OBJECT_BYTES_MAX, "{bytes} bytes, of them {} in managedFields", bytes - bare_bytes);
}

#[test]
fn the_object_reads_back_and_tells_its_topology() {
    let json = serde_json::to_string(&stored()).unwrap();
    let object: NodeTopology = serde_json::from_str(&json).unwrap();
    assert_eq!(object.topology().unwrap().unwrap(), eight_gpus_ten_nics());
    let listed: NodeTopology = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
    assert_eq!(listed.topology().unwrap(), None);
}
