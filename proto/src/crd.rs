//! The CustomResourceDefinition of `NodeTopology`, from the generated types. `manifests/crd/nodetopologies.yaml` is its printed form.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec, CustomResourceDefinitionVersion, CustomResourceSubresourceStatus,
    CustomResourceSubresources, CustomResourceValidation, JSONSchemaProps,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};

use crate::object::{GROUP, KIND, PLURAL, VERSION};
use crate::topology::v1alpha1::Status;

const KIND_TEXT: &str = "The hardware of one node as its agent last read it: GPUs, NICs, zones and how near they are to each other. \
                         Named like the node and owned by it.";

/// The definition that a cluster needs before the first agent starts.
///
/// # Errors
/// Never in a released version: the schema is fixed at build time and a test makes it.
pub fn crd() -> Result<CustomResourceDefinition, serde_json::Error> {
    let status: JSONSchemaProps = serde_json::from_value(status_schema())?;
    let schema = JSONSchemaProps {
        type_: Some("object".to_owned()),
        description: Some(KIND_TEXT.to_owned()),
        properties: Some([("status".to_owned(), status)].into()),
        ..JSONSchemaProps::default()
    };
    let version = CustomResourceDefinitionVersion {
        name: VERSION.to_owned(),
        served: true,
        storage: true,
        schema: Some(CustomResourceValidation { open_api_v3_schema: Some(schema) }),
        subresources: Some(CustomResourceSubresources {
            // Its default is null, which the API server takes for no subresource at all.
            status: Some(CustomResourceSubresourceStatus(serde_json::json!({}))),
            scale: None,
        }),
        additional_printer_columns: Some(columns()),
        ..CustomResourceDefinitionVersion::default()
    };
    Ok(CustomResourceDefinition {
        metadata: ObjectMeta { name: Some(format!("{PLURAL}.{GROUP}")), ..ObjectMeta::default() },
        spec: CustomResourceDefinitionSpec {
            group: GROUP.to_owned(),
            scope: "Cluster".to_owned(),
            names: CustomResourceDefinitionNames {
                kind: KIND.to_owned(),
                list_kind: Some(format!("{KIND}List")),
                plural: PLURAL.to_owned(),
                singular: Some("nodetopology".to_owned()),
                short_names: Some(vec!["ntopo".to_owned()]),
                categories: Some(vec!["berth".to_owned()]),
            },
            versions: vec![version],
            ..CustomResourceDefinitionSpec::default()
        },
        status: None,
    })
}

fn status_schema() -> serde_json::Value {
    let settings = SchemaSettings::openapi3().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    // A default in the schema makes the API server write it into every object, which the size budget cannot bear.
    let mut strip = RecursiveTransform(|schema: &mut schemars::Schema| {
        schema.remove("default");
        schema.remove("title");
    });
    let mut schema = settings.into_generator().into_root_schema_for::<Status>();
    strip.transform(&mut schema);
    schema.to_value()
}

/// What `kubectl get nodetopologies` prints; a column of priority 1 needs `-o wide`.
fn columns() -> Vec<CustomResourceColumnDefinition> {
    let column = |name: &str, kind: &str, path: &str, priority: Option<i32>| CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: kind.to_owned(),
        json_path: path.to_owned(),
        priority,
        ..CustomResourceColumnDefinition::default()
    };
    vec![
        column("GPUS", "integer", ".status.gpuCount", None),
        column("PRODUCT", "string", ".status.product", None),
        column("LINK", "string", ".status.linkClass", None),
        column("HEALTH", "string", ".status.health", None),
        column("DRIVER", "string", ".status.driver.version", Some(1)),
        column("GENERATION", "integer", ".status.generation", Some(1)),
        column("AGENT", "string", ".status.agentVersion", Some(1)),
        column("AGE", "date", ".metadata.creationTimestamp", None),
    ]
}

#[cfg(test)]
mod tests;
