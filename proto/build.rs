//! Compiles the schema of a report with protox and prost, and derives the JSON form of the same types from it.
//!
//! The .proto decides everything: json_name is the JSON key, a repeated field is an atomic list, a value at its default is left out.
//! Only what proto3 cannot say (limits, closed words) stands in the tables below.

use std::error::Error;

const PROTO: &str = "topology/v1alpha1/topology.proto";
/// The kubelet's own services.
const KUBELET: [&str; 2] = ["kubelet/podresources/v1.proto", "kubelet/deviceplugin/v1beta1.proto"];
const PACKAGE: &str = "berth.topology.v1alpha1";

/// `FieldDescriptorProto.Label.LABEL_REPEATED`.
const REPEATED: i32 = 3;
/// `FieldDescriptorProto.Type`: the integer types that the schema uses.
const INTEGERS: [i32; 2] = [3, 5];

/// Written even at their default, because a reader would miss them: a zone's `id: 0`, `gpuCount: 0` of a CPU node,
/// `accepting: false`.
const ALWAYS: [&str; 5] =
    ["Status.gpu_count", "Status.generation", "Zone.id", "IommuGroup.id", "DevicePlugin.accepting"];

/// Longest list or text per field, by the same constants that decode holds.
const LIMITS: &[(&str, &str)] = &[
    ("Status.product", "TEXT_BYTES_MAX"),
    ("Status.boot_id", "ID_BYTES_MAX"),
    ("Status.agent_version", "NAME_BYTES_MAX"),
    ("Status.zones", "ZONES_MAX"),
    ("Status.products", "GPUS_MAX"),
    ("Status.gpus", "GPUS_MAX"),
    ("Status.nics", "NICS_MAX"),
    ("Status.links", "DEVICES_MAX"),
    ("Status.findings", "FINDINGS_MAX"),
    ("Status.drifts", "DRIFTS_MAX"),
    ("Status.refusals", "REFUSALS_MAX"),
    ("Refusal.pod", "POD_BYTES_MAX"),
    ("Refusal.pod_uid", "NAME_BYTES_MAX"),
    ("Refusal.container", "NAME_BYTES_MAX"),
    ("Refusal.text", "TEXT_BYTES_MAX"),
    ("Drift.pod", "POD_BYTES_MAX"),
    ("Drift.pod_uid", "NAME_BYTES_MAX"),
    ("Drift.resource", "RESOURCE_BYTES_MAX"),
    ("Drift.devices", "DRIFT_DEVICES_MAX"),
    ("Driver.version", "NAME_BYTES_MAX"),
    ("Driver.text", "TEXT_BYTES_MAX"),
    ("Zone.cpus", "CPU_LIST_BYTES_MAX"),
    ("Zone.distances", "ZONES_MAX"),
    ("Product.name", "NAME_BYTES_MAX"),
    ("Gpu.uuid", "ID_BYTES_MAX"),
    ("Gpu.cpus", "CPU_LIST_BYTES_MAX"),
    ("Gpu.health_reason", "TEXT_BYTES_MAX"),
    ("Gpu.pci", "NAME_BYTES_MAX"),
    ("Status.serials", "SERIALS_BYTES_MAX"),
    ("Gpu.nvlinks_down", "NVLINKS_MAX"),
    ("Gpu.nvlink_errors", "NVLINKS_MAX"),
    ("Gpu.pcie", "NAME_BYTES_MAX"),
    ("Gpu.mig_instances", "MIG_INSTANCES_MAX"),
    ("Product.part", "NAME_BYTES_MAX"),
    ("Product.architecture", "NAME_BYTES_MAX"),
    ("Product.pcie_max", "NAME_BYTES_MAX"),
    ("Product.read", "NAME_BYTES_MAX"),
    ("Product.compute_mode", "NAME_BYTES_MAX"),
    ("Product.virtualization", "NAME_BYTES_MAX"),
    ("Product.host_vgpu", "NAME_BYTES_MAX"),
    ("Product.mig_profiles", "MIG_PROFILES_MAX"),
    ("Fabric.state", "NAME_BYTES_MAX"),
    ("Fabric.cluster", "NAME_BYTES_MAX"),
    ("Fabric.health", "NAME_BYTES_MAX"),
    ("Driver.nvml", "NAME_BYTES_MAX"),
    ("Driver.cuda", "NAME_BYTES_MAX"),
    ("Nic.name", "ID_BYTES_MAX"),
    ("Finding.code", "NAME_BYTES_MAX"),
    ("Finding.device", "NAME_BYTES_MAX"),
    ("Finding.text", "TEXT_BYTES_MAX"),
    ("Zone.huge_pages", "NAME_BYTES_MAX"),
    ("Nic.netdevs", "TEXT_BYTES_MAX"),
    ("Nic.virtual_functions", "VIRTUAL_FUNCTIONS_MAX"),
    ("Bond.name", "NETDEV_BYTES_MAX"),
    ("Bond.members", "NETDEVS_MAX"),
    ("Host.cpu_vendor", "NAME_BYTES_MAX"),
    ("Host.cpu_model", "NAME_BYTES_MAX"),
    ("Host.cpu_flags", "TEXT_BYTES_MAX"),
    ("Host.cores", "CPU_LIST_BYTES_MAX"),
    ("Host.sockets", "CPU_LIST_BYTES_MAX"),
    ("Host.l3_caches", "CPU_LIST_BYTES_MAX"),
    ("Host.isolated_cpus", "CPU_LIST_BYTES_MAX"),
    ("Host.nohz_full_cpus", "CPU_LIST_BYTES_MAX"),
    ("Host.vfio_gpus", "GROUPS_MAX"),
    ("Host.vgpu_hosts", "GPUS_MAX"),
    ("Host.iommu_groups", "GROUPS_MAX"),
    ("Kubelet.cpu_manager_options", "OPTIONS_MAX"),
    ("Kubelet.topology_manager_options", "OPTIONS_MAX"),
    ("Kubelet.reserved_cpus", "CPU_LIST_BYTES_MAX"),
    ("VfioGpu.pci", "NAME_BYTES_MAX"),
    ("VfioGpu.driver", "NAME_BYTES_MAX"),
    ("VgpuHosts.gpus", "GPUS_MAX"),
    ("VgpuHosts.types", "VGPU_TYPES_MAX"),
    ("IommuGroup.devices", "GROUP_DEVICES_MAX"),
];

/// Closed words that the API server refuses to take others for.
const WORDS: [(&str, &str); 10] = [
    (
        "Refusal.reason",
        r#""no-plan", "foreign-plan", "broken-plan", "other-plan", "unknown-device", "sick-device", "device-leased", "ambiguous", "no-edits""#,
    ),
    ("DevicePlugin.level", r#""preferred", "enforced""#),
    ("Driver.state", r#""loaded", "absent""#),
    ("Gpu.health", r#""healthy", "unhealthy", "unknown""#),
    ("Nic.link_layer", r#""infiniband", "ethernet", "unknown""#),
    ("Nic.state", r#""active", "down", "unknown""#),
    (
        "Host.governor",
        r#""performance", "powersave", "schedutil", "ondemand", "conservative", "userspace", "mixed", "other""#,
    ),
    ("Host.transparent_huge_pages", r#""always", "madvise", "never""#),
    ("Host.samepage_merging", r#""off", "on", "unmerge""#),
    ("VgpuHosts.carrier", r#""mdev", "vfio""#),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO}");
    let mut compiler = protox::Compiler::new(["."])?;
    // Without source info the comments are lost, and with them the Rust docs and `kubectl explain`.
    compiler.include_source_info(true).open_file(PROTO)?;
    let files = compiler.file_descriptor_set();

    let mut config = prost_build::Config::new();
    config.type_attribute(".", "#[derive(::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema)]");
    config.type_attribute(".", "#[serde(default)]");
    // One writer replaces the whole status, so that nobody merges half of one report into another.
    config.type_attribute(format!("{PACKAGE}.Status"), r#"#[schemars(extend("x-kubernetes-map-type" = "atomic"))]"#);
    for message in files.file.iter().flat_map(|f| &f.message_type) {
        for field in &message.field {
            let name = format!("{}.{}", message.name(), field.name());
            let shape = Shape {
                repeated: field.label == Some(REPEATED),
                integer: field.r#type.is_some_and(|t| INTEGERS.contains(&t)),
            };
            for attribute in attributes(&name, field.json_name(), &shape) {
                config.field_attribute(format!("{PACKAGE}.{name}"), attribute);
            }
        }
    }
    tonic_prost_build::configure().compile_fds_with_config(files, config)?;
    kubelet()
}

/// The kubelet's own services: wire only, no JSON form.
fn kubelet() -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_source_info(true);
    for file in KUBELET {
        println!("cargo:rerun-if-changed={file}");
        compiler.open_file(file)?;
    }
    let mut config = prost_build::Config::new();
    // In order, so that two equal answers are equal bytes.
    config.btree_map(["."]);
    tonic_prost_build::configure().compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}

/// What of a field's type its JSON form depends on.
struct Shape {
    repeated: bool,
    integer: bool,
}

fn attributes(name: &str, json_name: &str, shape: &Shape) -> Vec<String> {
    let mut attributes = vec![format!("#[serde(rename = {json_name:?})]")];
    if !ALWAYS.contains(&name) {
        attributes.push(r#"#[serde(skip_serializing_if = "crate::is_default")]"#.to_owned());
    }
    if shape.repeated {
        attributes.push(r#"#[schemars(extend("x-kubernetes-list-type" = "atomic"))]"#.to_owned());
    } else if shape.integer {
        attributes.push("#[schemars(range(min = 0))]".to_owned());
    }
    if let Some((_, limit)) = LIMITS.iter().find(|(field, _)| *field == name) {
        attributes.push(format!("#[schemars(length(max = crate::limit::{limit}))]"));
    }
    if let Some((_, words)) = WORDS.iter().find(|(field, _)| *field == name) {
        attributes.push(format!(r#"#[schemars(extend("enum" = [{words}]))]"#));
    }
    attributes
}
