//! The text of kube-scheduler's configuration that calls Berth. The files of `manifests/overlays` are this text; a test says so.

use std::collections::BTreeSet;

use crate::args::Mode;

const HEAD: &str = "\
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection:
  leaderElect: true
  resourceName: berth-scheduler
  resourceNamespace: berth-system
  # The defaults, written out because a bind must end before the next leader may start (3 s against 15 s - 10 s).
  leaseDuration: 15s
  renewDeadline: 10s
  retryPeriod: 2s
profiles:
- schedulerName: berth
  # All nodes: on a sample, the best node is mostly not among those looked at.
  percentageOfNodesToScore: 100
  pluginConfig:
  - name: NodeResourcesFit
    args:
      # Our scores outweigh this by far. It decides where we abstain (equal scores) and where our scores are lost (a
      # failed prioritize call is ignored in silence): there it should pack as the default policy packs, not spread.
      scoringStrategy:
        type: MostAllocated
        resources:
";

const EXTENDER: &str = "\
extenders:
- urlPrefix: http://127.0.0.1:8888
  filterVerb: filter
  prioritizeVerb: prioritize
  # Without it kube-scheduler evicts by counts alone, and may kill pods whose GPUs do not make the set that is needed.
  preemptVerb: preempt
";

const TAIL: &str = "  # One step of ours is worth 2000 in-tree points, more than all plugins together.
  weight: 200
  nodeCacheCapable: true
  # With `true` kube-scheduler would place GPU pods by guess while we are away; pods without GPUs never come to us.
  ignorable: false
  httpTimeout: 5s
  # Exact names, no patterns: `berth policy scheduler-config` prints every name that the reports know.
  managedResources:
";

/// The configuration for the mode, with the given extended resources sent to Berth. kube-scheduler does not count those of `uncounted`:
/// shares of GPUs, of which no node offers a number.
pub(super) fn document(mode: Mode, resources: &BTreeSet<String>, uncounted: &BTreeSet<String>) -> String {
    let (about, bind) = match mode {
        Mode::Allocate => ("`allocate`: berth-scheduler binds.", "  bindVerb: bind\n"),
        Mode::Score => ("`score`: kube-scheduler binds, so there are no plans.", ""),
    };
    let mut text = format!("# kube-scheduler beside berth-scheduler in mode {about}\n{HEAD}");
    for name in resources {
        text.push_str(&format!("        - {{name: {name}, weight: 3}}\n"));
    }
    text.push_str("        - {name: cpu, weight: 1}\n        - {name: memory, weight: 1}\n");
    text.push_str(EXTENDER);
    text.push_str(bind);
    text.push_str(TAIL);
    for name in resources {
        text.push_str(&format!("  - {{name: {name}}}\n"));
    }
    for name in uncounted {
        text.push_str(&format!("  - {{name: {name}, ignoredByScheduler: true}}\n"));
    }
    text
}

/// Whether an extended resource of a node stands for GPUs or parts of them. kube-scheduler reads its configuration once, the policy
/// is read at any time: naming them all now saves a restart when the policy learns one of them.
pub(super) fn means_gpus(resource: &str) -> bool {
    resource.strip_prefix("nvidia.com/").is_some_and(|name| name.starts_with("gpu") || name.starts_with("mig-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn only_mode_allocate_binds() {
        let resources = named(&["nvidia.com/gpu"]);
        let (allocate, score) =
            (document(Mode::Allocate, &resources, &named(&[])), document(Mode::Score, &resources, &named(&[])));
        assert!(allocate.contains("\n  bindVerb: bind\n"));
        assert!(!score.contains("bindVerb"));
        for text in [allocate, score] {
            assert!(text.contains("\n  preemptVerb: preempt\n"), "{text}");
            assert!(text.contains("\n  weight: 200\n") && text.contains("\n  nodeCacheCapable: true\n"), "{text}");
        }
    }

    #[test]
    fn the_manifests_hold_this_very_text() {
        for (overlay, mode) in [("sidecar", Mode::Allocate), ("score", Mode::Score)] {
            let path = format!("{}/../../manifests/overlays/{overlay}/kube-scheduler.yaml", env!("CARGO_MANIFEST_DIR"));
            let file = std::fs::read_to_string(&path).unwrap();
            let shares = named(&["nvidia.com/gpucores", "nvidia.com/gpumem"]);
            assert_eq!(file, document(mode, &named(&["nvidia.com/gpu"]), &shares), "{path}");
        }
    }

    #[test]
    fn every_resource_is_managed_by_its_exact_name() {
        let counted = named(&["nvidia.com/mig-1g.10gb", "nvidia.com/gpu"]);
        let text = document(Mode::Allocate, &counted, &named(&["nvidia.com/gpumem"]));
        let managed = text.split("  managedResources:\n").nth(1).unwrap();
        let expected = "  - {name: nvidia.com/gpu}\n  - {name: nvidia.com/mig-1g.10gb}\n  - {name: nvidia.com/gpumem, ignoredByScheduler: true}\n";
        assert_eq!(managed, expected);
        assert!(
            !text.contains("{name: nvidia.com/gpumem, weight"),
            "kube-scheduler cannot score what it does not count"
        );
    }

    #[test]
    fn only_names_of_gpus_are_taken_from_nodes() {
        for (name, means) in [
            ("nvidia.com/gpu", true),
            ("nvidia.com/gpu.shared", true),
            ("nvidia.com/mig-3g.40gb", true),
            ("nvidia.com/hostdev", false),
            ("cpu", false),
            ("amd.com/gpu", false),
        ] {
            assert_eq!(means_gpus(name), means, "{name}");
        }
    }
}
