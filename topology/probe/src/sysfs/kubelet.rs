//! The kubelet's configuration file, as far as it decides which pods the kubelet refuses.

use std::collections::BTreeMap;

use berth_model::kubelet::{CpuManagerPolicy, MemoryManagerPolicy, TopologyManagerPolicy, TopologyManagerScope};
use berth_model::{CpuSet, Kubelet};
use serde::Deserialize;

use super::Reader;

/// Where the file is below the root.
pub const CONFIG: &str = "var/lib/kubelet/config.yaml";
/// Deepest nesting taken; the deepest key of the format is at four.
const DEPTH_MAX: usize = 32;

/// Reads the file. One that is missing or cannot be opened is no news: an agent need not be allowed to read it.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Kubelet> {
    let text = reader.quiet(CONFIG)?;
    parse(&text).map_err(|problem| reader.fault(CONFIG, problem)).ok()
}

/// The keys that count. Others are the kubelet's own business.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    kind: String,
    cpu_manager_policy: Option<String>,
    cpu_manager_policy_options: Option<BTreeMap<String, String>>,
    memory_manager_policy: Option<String>,
    topology_manager_policy: Option<String>,
    topology_manager_scope: Option<String>,
    topology_manager_policy_options: Option<BTreeMap<String, String>>,
    #[serde(rename = "reservedSystemCPUs")]
    reserved_system_cpus: Option<String>,
}

/// Reads the text of a `KubeletConfiguration`.
///
/// # Errors
/// What is wrong with it, in one sentence.
pub fn parse(text: &str) -> Result<Kubelet, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX, max_documents: 1, max_aliases: 0 },
        with_snippet: false,
    };
    let config: Config = serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?;
    if config.kind != "KubeletConfiguration" {
        return Err(format!(
            "kind {:?}, KubeletConfiguration is right",
            config.kind.chars().take(40).collect::<String>()
        ));
    }
    let default = Kubelet::default();
    let reserved = config.reserved_system_cpus.unwrap_or_default();
    let reserved_cpus = CpuSet::parse(&reserved).map_err(|error| format!("reservedSystemCPUs: {error}"))?;
    Ok(Kubelet {
        cpu_manager: word(
            config.cpu_manager_policy,
            default.cpu_manager,
            CpuManagerPolicy::parse,
            CpuManagerPolicy::Other,
        ),
        cpu_manager_options: bounded(config.cpu_manager_policy_options),
        // The one policy that the kubelet writes with capitals.
        memory_manager: word(
            config.memory_manager_policy.map(|p| p.to_ascii_lowercase()),
            default.memory_manager,
            MemoryManagerPolicy::parse,
            MemoryManagerPolicy::Other,
        ),
        topology_manager: word(
            config.topology_manager_policy,
            default.topology_manager,
            TopologyManagerPolicy::parse,
            TopologyManagerPolicy::Other,
        ),
        topology_manager_scope: word(
            config.topology_manager_scope,
            default.topology_manager_scope,
            TopologyManagerScope::parse,
            TopologyManagerScope::Other,
        ),
        topology_manager_options: bounded(config.topology_manager_policy_options),
        reserved_cpus,
    })
}

/// A word of a closed list; the kubelet's default where there is none.
fn word<T>(given: Option<String>, default: T, parse: impl Fn(&str) -> Option<T>, other: T) -> T {
    given.filter(|g| !g.is_empty()).map_or(default, |given| parse(&given).unwrap_or(other))
}

/// Options within the limits of a report; the kubelet itself refuses names that it does not know.
fn bounded(options: Option<BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let short = |text: &str| text.len() <= Kubelet::OPTION_BYTES_MAX && !text.contains(char::is_control);
    let fit = |(name, value): &(String, String)| short(name) && !name.contains('=') && short(value);
    options.unwrap_or_default().into_iter().filter(fit).take(Kubelet::OPTIONS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_does_not_say_is_the_kubelets_default() {
        let read = parse("kind: KubeletConfiguration\nmaxPods: 110\nshutdownGracePeriod: 0s\n").unwrap();
        assert_eq!(read, Kubelet::default());
    }

    #[test]
    fn policies_scope_options_and_reserved_cpus_are_read_beside_unknown_keys() {
        let read = parse(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncpuManagerPolicy: static\n\
             cpuManagerPolicyOptions: {full-pcpus-only: \"true\"}\nmemoryManagerPolicy: Static\n\
             topologyManagerPolicy: restricted\ntopologyManagerScope: pod\nreservedSystemCPUs: 0-1,64\nfuture: {a: [1]}\n\
             topologyManagerPolicyOptions: {max-allowable-numa-nodes: \"16\"}\n",
        )
        .unwrap();
        assert_eq!((read.cpu_manager, read.memory_manager), (CpuManagerPolicy::Static, MemoryManagerPolicy::Static));
        assert_eq!(read.topology_manager, TopologyManagerPolicy::Restricted);
        assert_eq!(read.topology_manager_scope, TopologyManagerScope::Pod);
        assert_eq!(read.reserved_cpus.to_string(), "0-1,64");
        assert_eq!(read.cpu_manager_options.get("full-pcpus-only").map(String::as_str), Some("true"));
        assert_eq!(read.topology_manager_options.len(), 1);
    }

    #[test]
    fn what_is_no_kubelet_configuration_is_refused_and_a_new_policy_is_other() {
        for bad in [
            "",
            "kind: Pod",
            "cpuManagerPolicy: static",
            "kind: [",
            "kind: KubeletConfiguration\nreservedSystemCPUs: x",
        ] {
            assert!(parse(bad).is_err(), "{bad:?} was taken");
        }
        let read = parse("kind: KubeletConfiguration\ncpuManagerPolicy: dynamic").unwrap();
        assert_eq!(read.cpu_manager, CpuManagerPolicy::Other);
    }
}
