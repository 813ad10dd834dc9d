//! Owns a whole Berth at work on real nodes: what [`Running`] has, with real kubelets that run the pods it places. Needs root.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use berth_core::annotation::PLAN_KEY;
use berth_core::place::mig::name::resource_form;
use berth_proto::NodeTopology;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::controlplane::{AGENT_ACCOUNT, NAMESPACE, ProcessSpec, SCHEDULER_ACCOUNT};
use crate::installed::overlay;
use crate::made_node::MadeNode;
use crate::real_node::{RealNode, SHARED, Said, files};
use crate::running::{Running, offered};
use crate::stock_plugin::Offer;

/// Two kubelets, their pods, and everything else on a machine with two cores.
pub const SOON: Duration = Duration::from_secs(90);

/// The resource of whole GPUs.
pub const GPU: &str = "nvidia.com/gpu";

/// Where kubelets serve PodResources, as their own node sees it.
const POD_RESOURCES: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

/// A whole Berth at work on real nodes. Everything ends when it is dropped.
#[derive(Debug)]
pub struct RealCluster {
    /// The nodes, in the order asked for.
    pub nodes: Vec<RealNode>,
    /// The control plane and Berth on it. It has no made nodes.
    pub running: Running,
}

impl RealCluster {
    /// Starts everything, with an agent on each node that asks its kubelet often and gets `agent_args` more, and waits until every
    /// node's report is known. `nodes` are machine files and node names; `rules` are keys of all kubelets' configuration.
    ///
    /// # Errors
    /// A part does not come up in time; the text carries the end of its log.
    pub async fn start(nodes: &[(&str, &str)], rules: &Value, agent_args: &[&str]) -> Result<Self> {
        Self::start_each(&with_rules(nodes, rules), agent_args).await
    }

    /// As [`RealCluster::start`], where every node has rules of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn start_each(nodes: &[(&str, &str, Value)], agent_args: &[&str]) -> Result<Self> {
        Self::start_on(Running::start_managing(&[], of_nodes(nodes)?).await?, nodes, agent_args).await
    }

    /// As [`RealCluster::start`], with a proxy that fails on request between berth-scheduler and the API server.
    ///
    /// # Errors
    /// As there.
    pub async fn start_behind_a_proxy(nodes: &[(&str, &str)], rules: &Value, agent_args: &[&str]) -> Result<Self> {
        let nodes = with_rules(nodes, rules);
        let running = Running::start_managing_behind_a_proxy(of_nodes(&nodes)?).await?;
        Self::start_on(running, &nodes, agent_args).await
    }

    async fn start_on(running: Running, nodes: &[(&str, &str, Value)], agent_args: &[&str]) -> Result<Self> {
        running.plane.apply_kustomize(&overlay("holders")).await?;
        // What a device plugin needs: the pods of its node.
        let role = ["create", "clusterrole", "plugin", "--verb=get,list,watch", "--resource=pods"];
        running.plane.kubectl(&role).await?;
        let subject = format!("--serviceaccount={NAMESPACE}:{AGENT_ACCOUNT}");
        running.plane.kubectl(&["create", "clusterrolebinding", "plugin", "--clusterrole=plugin", &subject]).await?;
        // The agents' pods run as processes of this machine: they need its network, which a restricted namespace refuses.
        let open = "pod-security.kubernetes.io/enforce=privileged";
        running.plane.kubectl(&["label", "namespace", NAMESPACE, "--overwrite", open]).await?;
        let mut started = Self { nodes: Vec::new(), running };
        for (machine, name, rules) in nodes {
            let mut node = RealNode::start(&started.running.plane, machine, name, rules).await?;
            let own = ["--pod-resources", POD_RESOURCES, "--holders-interval", "100ms"];
            node.start_agent(&started.running.plane, &[own.as_slice(), agent_args].concat()).await?;
            started.nodes.push(node);
        }
        for (_, name, _) in nodes {
            started.running.until(SOON, &format!("a report of {name}"), || started.running.has_report(name)).await?;
        }
        Ok(started)
    }

    /// Waits until a node offers so many of a resource.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn until_offered(&self, node: &str, resource: &str, count: usize) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.running.plane.client());
        let wanted = count.to_string();
        let offered = || async {
            let status = nodes.get(node).await?.status.unwrap_or_default();
            let there = status.allocatable.unwrap_or_default().remove(resource);
            Ok((there.map(|quantity| quantity.0).as_ref() == Some(&wanted)).then_some(()))
        };
        self.running.until(SOON, &format!("{count} {resource} on {node}"), offered).await
    }

    /// Waits until a node's report says of its device plugin that it gives this level, and whether it accepts pods.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn until_accepting(&self, node: &str, level: &str, accepting: bool) -> Result<()> {
        let reports: Api<NodeTopology> = Api::all(self.running.plane.client());
        let look = || async {
            let plugin = reports.get(node).await?.status.and_then(|status| status.device_plugin);
            Ok(plugin.is_some_and(|plugin| plugin.accepting == accepting && plugin.level == level).then_some(()))
        };
        self.running.until(SOON, &format!("{level}, accepting: {accepting} on {node}"), look).await
    }

    /// Ends a node's agent and starts it again at another level, as the label of a pool does.
    ///
    /// # Errors
    /// It does not end, or does not start.
    pub async fn move_to(&mut self, at: usize, level: &str) -> Result<()> {
        let node = self.nodes.get_mut(at).context("no such node")?;
        node.agent.take().context("an agent")?.terminate(SOON).await?;
        let kubeconfig = self.running.plane.agent_identity(node.name()).await?;
        let args = ["--pod-resources", POD_RESOURCES, "--holders-interval", "100ms", "--level", level];
        node.agent = Some(node.spawn(node.made().agent(&kubeconfig)?.args(args))?);
        let name = self.nodes[at].name();
        if level != "advice" {
            return self.until_accepting(name, level, true).await;
        }
        let reports: Api<NodeTopology> = Api::all(self.running.plane.client());
        let look = || async {
            let status = reports.get(name).await?.status;
            Ok(status.is_some_and(|status| status.device_plugin.is_none()).then_some(()))
        };
        self.running.until(SOON, &format!("advice on {name}"), look).await
    }

    /// Runs a shell's line where the kubelet of the first node is.
    ///
    /// # Errors
    /// It fails.
    pub async fn shell(&self, line: &str) -> Result<()> {
        let node = self.nodes.first().context("no node")?;
        let mut shell = node.spawn(ProcessSpec::new("sh", "/bin/sh").args(["-c", line]))?;
        ensure!(shell.wait_for_end(SOON).await?.success(), "{line}: {}", shell.log_tail());
        Ok(())
    }

    /// Kills the processes of container `main` of a pod on the first node, as a crash of its program does.
    ///
    /// # Errors
    /// It has none.
    pub async fn crash(&self, pod: &Pod) -> Result<()> {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let main = statuses.and_then(|all| all.iter().find(|status| status.name == "main")).context("no container")?;
        let id = main.container_id.as_deref().and_then(|id| id.split_once("://")).context("no id")?.1;
        let kill = "for p in /proc/[0-9]*; do if grep -q \"$ID\" $p/cgroup; then kill -9 ${p#/proc/}; fi; done";
        self.shell(&format!("ID={id}; {{ {kill}; }} 2>/dev/null; true")).await
    }

    /// Waits until container `main` of a pod runs after so many restarts, and gives what it said then.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn said_after(&self, name: &str, restarts: i32) -> Result<Said> {
        let look = || async {
            let pod = self.running.pods().get(name).await?;
            let is_there = is_running(&pod).is_some_and(|(count, is_running)| is_running && count == restarts);
            if is_there { self.said(&pod, "main") } else { Ok(None) }
        };
        self.running.until(SOON, &format!("restart {restarts} of {name}"), look).await
    }

    /// Creates a pod.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create(&self, pod: &Value) -> Result<()> {
        self.running.pods().create(&PostParams::default(), &serde_json::from_value(pod.clone())?).await?;
        Ok(())
    }

    /// Binds a pod under the scheduler's account, as a scheduler that errs would: with this text as its plan.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn bind(&self, name: &str, node: &str, plan: &str) -> Result<()> {
        let plane = &self.running.plane;
        let token = plane.service_account_token(NAMESPACE, SCHEDULER_ACCOUNT, None).await?;
        let pods: Api<Pod> = Api::default_namespaced(plane.client_for(&token)?);
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": node},
            "metadata": {"name": name, "annotations": {PLAN_KEY: plan}},
        });
        let bound: Result<Value, _> = pods.create_subresource("binding", name, &PostParams::default(), &binding).await;
        bound.with_context(|| format!("bind {name}"))?;
        Ok(())
    }

    /// Waits until the pod runs and its container `main` has said what it sees.
    ///
    /// # Errors
    /// It fails, or does not run in time.
    pub async fn until_running(&self, name: &str) -> Result<(Pod, Said)> {
        let look = || async {
            let pod = self.running.pods().get(name).await?;
            match phase(&pod) {
                "Running" => Ok(self.said(&pod, "main")?.map(|said| (pod, said))),
                "Failed" | "Succeeded" => bail!("pod {name} ended: {:?}", pod.status),
                _ => Ok(None),
            }
        };
        match self.running.until(SOON, &format!("running pod {name}"), look).await {
            Ok(found) => Ok(found),
            Err(error) => {
                let told = self.running.plane.kubectl(&["describe", "pod", name]).await.unwrap_or_default();
                Err(error.context(told))
            }
        }
    }

    /// What a container of the pod said at its last start; `None` when it has not said it yet.
    ///
    /// # Errors
    /// It said something else.
    pub fn said(&self, pod: &Pod, container: &str) -> Result<Option<Said>> {
        let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let Some(node) = self.nodes.iter().find(|node| node.name() == name) else { return Ok(None) };
        Ok(node.said(pod, container)?.pop())
    }

    /// Deletes a pod as a user does, and waits until its kubelet has let it go.
    ///
    /// # Errors
    /// It is still there after a while.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.running.pods().delete(name, &DeleteParams::default()).await?;
        let gone = || async { Ok(self.running.pods().get_opt(name).await?.is_none().then_some(())) };
        self.running.until(SOON, &format!("end of pod {name}"), gone).await
    }

    /// Waits until no pod of the tests' namespace is left.
    ///
    /// # Errors
    /// Some are.
    pub async fn until_empty(&self) -> Result<()> {
        let empty = || async {
            let left = self.running.pods().list(&ListParams::default().limit(1)).await?;
            Ok(left.items.is_empty().then_some(()))
        };
        self.running.until(SOON, "empty namespace", empty).await
    }
}

/// The nodes, all with the same rules.
fn with_rules<'a>(nodes: &[(&'a str, &'a str)], rules: &Value) -> Vec<(&'a str, &'a str, Value)> {
    nodes.iter().map(|(machine, name)| (*machine, *name, rules.clone())).collect()
}

/// The MIG resources of these nodes.
fn of_nodes(nodes: &[(&str, &str, Value)]) -> Result<BTreeSet<String>> {
    offered(&nodes.iter().map(|(machine, name, _)| MadeNode::new(machine, name)).collect::<Result<Vec<_>>>()?)
}

/// The pod's phase.
#[must_use]
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// How often container `main` of a pod was started anew, and whether it runs.
#[must_use]
pub fn is_running(pod: &Pod) -> Option<(i32, bool)> {
    let all = pod.status.as_ref()?.container_statuses.as_ref()?;
    let main = all.iter().find(|status| status.name == "main")?;
    Some((main.restart_count, main.state.as_ref().is_some_and(|state| state.running.is_some())))
}

/// What the stock device plugin of a node offers, by resource: GPUs that are whole, and MIG instances by their profiles.
///
/// # Errors
/// The machine makes no topology.
pub fn stock_offers(node: &RealNode) -> Result<BTreeMap<String, Vec<Offer>>> {
    let topology = node.made().topology(None)?;
    let files = files(&topology);
    let mut offers: BTreeMap<String, Vec<Offer>> = BTreeMap::new();
    for gpu in &topology.parts().gpus {
        let own = gpu.detail.mig_instances.iter().flat_map(|instance| {
            let resource = format!("nvidia.com/mig-{}", resource_form(&instance.profile));
            instance.uuids.iter().map(move |uuid| (resource.clone(), uuid.to_string()))
        });
        let whole = (gpu.mig_enabled != Some(true)).then(|| (GPU.to_owned(), gpu.uuid.to_string()));
        for (resource, id) in own.chain(whole) {
            let nodes = files.get(&id).into_iter().flatten().cloned().chain(SHARED.map(str::to_owned)).collect();
            let zones = gpu.zone.iter().map(|zone| zone.0).collect();
            offers.entry(resource).or_default().push(Offer { id, zones, is_healthy: true, nodes });
        }
    }
    Ok(offers)
}

/// Every id that the kubelet says a pod holds.
///
/// # Errors
/// The kubelet does not answer.
pub async fn ids_held(node: &RealNode, pod: &str) -> Result<BTreeSet<String>> {
    let pods = node.held().await.with_context(|| format!("who holds what on {}", node.name()))?;
    let containers = pods.into_iter().filter(|p| p.name == pod).flat_map(|p| p.containers);
    Ok(containers.flat_map(|c| c.devices).flat_map(|d| d.device_ids).collect())
}
