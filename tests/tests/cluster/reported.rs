//! Holds nodes made in bulk to looking like nodes with agents.

use anyhow::{Context, Result};
use berth_proto::NodeTopology;
use berth_tests::controlplane::{ControlPlane, Options};
use berth_tests::installed::overlay;
use berth_tests::made_node::MadeNode;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};

#[tokio::test]
async fn nodes_in_bulk_say_what_an_agent_on_them_would_say() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    plane.apply_kustomize(&overlay("sidecar")).await?;
    let names: Vec<String> = (0..100).map(|number| format!("node-{number}")).collect();
    plane.create_reported_nodes("dgx-h100", &names).await?;

    let reports: Api<NodeTopology> = Api::all(plane.client());
    assert_eq!(reports.list(&ListParams::default()).await?.items.len(), 100);
    let node = Api::<Node>::all(plane.client()).get("node-7").await?;
    assert_eq!(node.spec.and_then(|spec| spec.taints), None);

    let object = reports.get("node-7").await?;
    let owners = object.metadata.owner_references.clone().unwrap_or_default();
    assert_eq!(owners.into_iter().map(|owner| Some(owner.uid)).collect::<Vec<_>>(), [node.metadata.uid]);
    let report = object.topology()?.context("no report")?;
    let made = MadeNode::new("dgx-h100", "node-7")?;
    assert_eq!(report.parts().gpus, made.topology(None)?.parts().gpus);
    assert_eq!(
        node.status.and_then(|status| status.node_info).map(|info| info.boot_id),
        Some(made.node_spec()?.boot_id)
    );

    let agents = ListParams::default().labels("app.kubernetes.io/component=agent").fields("spec.nodeName=node-7");
    let agents = Api::<Pod>::namespaced(plane.client(), "berth-system").list(&agents).await?;
    let ready = agents.items.first().and_then(|pod| pod.status.as_ref()?.conditions.as_ref()?.first());
    assert_eq!(ready.map(|one| (one.type_.as_str(), one.status.as_str())), Some(("Ready", "True")));
    Ok(())
}
