//! Pods that belong together, and where NVLink reaches further than one node.
//!
//! On NVL72 racks GPUs of several nodes form one NVLink clique. The pods of one group are better off inside one.

use std::collections::BTreeMap;

use berth_model::NodeTopology;
use berth_model::gpu::detail::FabricClique;

use crate::policy::Policy;

/// Pods with one value of the label that the policy names, in one namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// Their namespace.
    pub namespace: String,
    /// The label's value.
    pub value: String,
}

impl Group {
    /// The group of a pod; `None` where it is in none, or the policy names no label.
    #[must_use]
    pub fn of(namespace: &str, labels: &BTreeMap<String, String>, policy: &Policy) -> Option<Self> {
        let value = labels.get(policy.group_label()?).filter(|value| !value.is_empty())?;
        Some(Self { namespace: namespace.to_owned(), value: value.clone() })
    }
}

/// The clique that all GPUs of a node are in.
///
/// Source: `cmd/compute-domain-kubelet-plugin/nvlib.go` of NVIDIA's DRA driver: GPUs of one node that name several are in none.
#[must_use]
pub fn clique(topology: &NodeTopology) -> Option<&FabricClique> {
    let mut cliques = topology.parts().gpus.iter().map(|gpu| gpu.detail.board.fabric.as_ref()?.clique.as_ref());
    let first = cliques.next()??;
    cliques.all(|clique| clique == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use berth_model::gpu::detail::{Board, Fabric, FabricState};

    use super::*;
    use crate::testing::{Box8, topology};

    fn in_cliques(cliques: [Option<u32>; 8]) -> NodeTopology {
        let mut parts = topology(Box8::Switched).into_parts();
        for (gpu, clique) in parts.gpus.iter_mut().zip(cliques) {
            let clique = clique.map(|clique| FabricClique { cluster: "a".to_owned(), clique });
            let fabric = Fabric { state: FabricState::Completed, failed: false, clique, health: None, degraded: None };
            gpu.detail.board = Arc::new(Board { fabric: Some(fabric), ..Board::default() });
        }
        NodeTopology::try_new(parts).unwrap()
    }

    #[test]
    fn a_node_is_in_a_clique_when_all_its_gpus_are() {
        assert_eq!(clique(&in_cliques([Some(7); 8])).map(|clique| clique.clique), Some(7));
        let mut torn = [Some(7); 8];
        torn[5] = Some(8);
        assert_eq!(clique(&in_cliques(torn)), None);
        torn[5] = None;
        assert_eq!(clique(&in_cliques(torn)), None);
        assert_eq!(clique(&topology(Box8::Switched)), None, "a fabric inside one machine");
    }

    #[test]
    fn a_group_is_a_value_of_the_label_that_the_policy_names_in_one_namespace() {
        let head = "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n";
        let policy = crate::policy::parse(&format!("{head}groups: {{label: example.com/job}}\n")).unwrap();
        let labels = BTreeMap::from([("example.com/job".to_owned(), "a".to_owned())]);
        assert!(Group::of("x", &labels, &policy).is_some());
        assert_ne!(Group::of("x", &labels, &policy), Group::of("y", &labels, &policy));
        assert_eq!(Group::of("x", &labels, &Policy::default()), None);
        assert_eq!(Group::of("x", &BTreeMap::from([("example.com/job".to_owned(), String::new())]), &policy), None);
        let error = crate::policy::parse(&format!("{head}groups: {{label: 'a b'}}\n")).unwrap_err();
        assert!(error.message.contains("groups.label: \"a b\" is no key of a label"), "{}", error.message);
    }
}
