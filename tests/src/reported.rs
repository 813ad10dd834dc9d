//! Owns nodes in bulk as Berth sees them: a Node, its report and a Ready agent pod, all written by the administrator. No program stands
//! behind them; where the truth of a report matters, `MadeNode` has an agent that reads it.

use anyhow::{Context, Result};
use berth_machine::{Machine, Salt, topology};
use berth_model::{Generation, NodeName};
use berth_proto::{NodeTopology, encode};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::controlplane::{ControlPlane, IN_FLIGHT, NodeSpec};
use crate::made_node::machine_file;

/// What the reports call the agent that wrote them.
const AGENT_VERSION: &str = "berth-tests";

impl ControlPlane {
    /// Makes Ready nodes of one machine file of `tests/machines/`, each with other UUIDs and another boot id, each with its report
    /// and a Ready agent pod. The default overlay, or the CRD and namespace `berth-system`, must be there.
    ///
    /// # Errors
    /// There is no such machine file, or the API server refuses something.
    pub async fn create_reported_nodes(&self, machine: &str, names: &[String]) -> Result<()> {
        let path = machine_file(machine);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let machine = Machine::parse(&text)?;
        stream::iter(names.iter().map(|name| self.create_reported_node(&machine, name)))
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
            .await
    }

    async fn create_reported_node(&self, machine: &Machine, name: &str) -> Result<()> {
        let topology = topology(machine, &NodeName::parse(name)?, &Salt::new(name))?.with_generation(Generation(1));
        let mut spec = NodeSpec::gpus(name, u32::try_from(topology.parts().gpus.len())?);
        spec.boot_id = topology.parts().boot_id.to_string();
        let node = self.create_node(&spec).await?;
        self.agent_pod(name).await?;

        let mut object = NodeTopology::new(name, None);
        // As the agent has it: the node owns the object and controls nothing of it.
        object.metadata.owner_references =
            node.controller_owner_ref(&()).map(|owner| vec![OwnerReference { controller: None, ..owner }]);
        let objects: Api<NodeTopology> = Api::all(self.client());
        let what = || format!("report of {name}");
        objects.create(&PostParams::default(), &object).await.with_context(what)?;
        let status = Patch::Merge(json!({"status": encode(&topology, AGENT_VERSION)}));
        objects.patch_status(name, &PatchParams::default(), &status).await.with_context(what)?;
        Ok(())
    }
}
