//! The arms of a round: what kube-scheduler is configured with, and what policy stands behind it. Starts nothing.
//!
//! All arms are the default overlay's kube-scheduler; the in-tree arm only lacks the extender.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::serve::cases::ALL;

/// The configuration that Berth is installed with.
const CONFIG: &str = include_str!("../../../manifests/overlays/sidecar/kube-scheduler.yaml");

/// One way to schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Arm {
    /// kube-scheduler alone, `NodeResourcesFit` with `MostAllocated`.
    InTree,
    /// With Berth as it is installed: filter answers the best few.
    Short,
    /// With Berth whose filter answers all nodes that fit.
    Full,
}

impl Arm {
    pub(super) const ALL: [Self; 3] = [Self::InTree, Self::Short, Self::Full];

    /// Berth's policy; `None` where Berth has no part.
    pub(super) fn policy(self) -> Option<&'static str> {
        match self {
            Self::InTree => None,
            Self::Short => Some("apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n"),
            Self::Full => Some(ALL),
        }
    }

    /// The configuration of kube-scheduler, with the extender at `extender`.
    pub(super) fn config(self, extender: &str, qps: u32) -> Result<String> {
        let mut config: Value = serde_saphyr::from_str(CONFIG).context("kube-scheduler.yaml of overlay sidecar")?;
        config["leaderElection"] = json!({"leaderElect": false});
        config["clientConnection"] = json!({"qps": qps, "burst": qps});
        if self == Self::InTree {
            let map = config.as_object_mut().context("kube-scheduler.yaml is not a mapping")?;
            map.remove("extenders");
        } else {
            config["extenders"][0]["urlPrefix"] = json!(extender);
        }
        Ok(config.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arms_differ_in_the_extender_and_in_nothing_else() {
        let config = |arm: Arm| -> Value { serde_json::from_str(&arm.config("http://e", 7).unwrap()).unwrap() };
        let (in_tree, short, full) = (config(Arm::InTree), config(Arm::Short), config(Arm::Full));
        assert_eq!(short, full);
        assert_eq!(short["extenders"][0]["urlPrefix"], "http://e");
        assert_eq!(short["extenders"][0]["bindVerb"], "bind");
        let mut without = short;
        without.as_object_mut().unwrap().remove("extenders");
        assert_eq!(without, in_tree);
        assert_eq!(in_tree["profiles"][0]["percentageOfNodesToScore"], 100);
        assert_eq!(in_tree["clientConnection"]["qps"], 7);
        let strategy = &in_tree["profiles"][0]["pluginConfig"][0]["args"]["scoringStrategy"];
        assert_eq!(strategy["type"], "MostAllocated");
    }
}
