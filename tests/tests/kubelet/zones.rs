//! Holds the prediction of a kubelet's answer to the kubelet itself: the cases of `tests/zones/`, to whose every line the scheduler's
//! core is held, are asked of a real one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod table;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use berth_tests::controlplane::{ControlPlane, Options};
use berth_tests::real_node::{RealNode, can_run};
use berth_tests::stock_plugin::{StockPlugin, Wish};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};

use table::{Case, cases, pairwise};

const SOON: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Asks the cases of one kubelet and returns how many pods were answered, and the answers that are not the table's.
async fn ask(cases: &[Case]) -> Result<(usize, Vec<String>)> {
    let plane = ControlPlane::start(Options::default()).await?;
    let mut node = RealNode::start(&plane, "cpu-only", "kn1", &json!({})).await?;
    let (mut asked, mut wrong) = (0, Vec::new());
    for case in cases {
        let answers = answers_of(&plane, &mut node, case).await?;
        for (pod, (told, expected)) in answers.iter().zip(case.answers()).enumerate() {
            asked += 1;
            if told != expected {
                wrong.push(format!(
                    "line {}, pod {pod}: {told:?}, predicted {expected:?} ({})",
                    case.line,
                    case.words()
                ));
            }
        }
        eprintln!("line {}: {}: {answers:?}", case.line, case.words());
    }
    Ok((asked, wrong))
}

/// The kubelet's answers to the pods of a case: empty, or the reason of the pod that failed.
async fn answers_of(plane: &ControlPlane, node: &mut RealNode, case: &Case) -> Result<Vec<String>> {
    node.set_machine(&case.machine()?)?;
    node.set_rules(plane, &case.rules()).await?;
    let folder = node.kubelet_folder().join("device-plugins");
    let mut plugins = Vec::new();
    for (resource, offers) in case.offers() {
        plugins.push(StockPlugin::start(&folder, &resource, &offers, Wish::None).await?);
        let healthy = offers.iter().filter(|offer| offer.is_healthy).count();
        until_allocatable(plane, node, &resource, healthy).await?;
    }
    until_allocatable(plane, node, "cpu", case.cpu_count()).await?;
    let pods: Api<Pod> = Api::default_namespaced(plane.client());
    let mut answers = Vec::new();
    for pod in case.pods() {
        answers.push(answer(plane, &pods, &pod).await?);
    }
    for pod in case.pods() {
        let name = pod["metadata"]["name"].as_str().unwrap();
        pods.delete(name, &DeleteParams::default().grace_period(0)).await?;
    }
    Ok(answers)
}

async fn answer(plane: &ControlPlane, pods: &Api<Pod>, pod: &Value) -> Result<String> {
    let name = pod["metadata"]["name"].as_str().unwrap();
    let deadline = Instant::now() + SOON;
    loop {
        pods.create(&PostParams::default(), &serde_json::from_value(pod.clone())?).await?;
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"kind": "Node", "name": "kn1"}});
        let _bound: Value = pods.create_subresource("binding", name, &PostParams::default(), &binding).await?;
        let told = verdict(plane, pods, name, deadline).await?;
        // The kubelet looks at its own copy of the node, which may be a moment older than what we saw: by count these pods fit.
        if !told.starts_with("OutOf") {
            return Ok(told);
        }
        pods.delete(name, &DeleteParams::default().grace_period(0)).await?;
    }
}

async fn verdict(plane: &ControlPlane, pods: &Api<Pod>, name: &str, deadline: Instant) -> Result<String> {
    loop {
        let status = pods.get(name).await?.status.unwrap_or_default();
        if status.phase.as_deref() == Some("Failed") {
            return Ok(status.reason.unwrap_or_default());
        }
        // Only an admitted pod gets as far as its containers; a status of a pod that is being looked at says nothing yet.
        let is_admitted =
            |condition: &PodCondition| condition.type_ == "PodReadyToStartContainers" && condition.status == "True";
        if status.conditions.iter().flatten().any(is_admitted) {
            return Ok(String::new());
        }
        if Instant::now() > deadline {
            bail!("no answer to {name}: {}", plane.kubectl(&["describe", "pod", name]).await?);
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn until_allocatable(plane: &ControlPlane, node: &RealNode, resource: &str, count: usize) -> Result<()> {
    let nodes: Api<Node> = Api::all(plane.client());
    let deadline = Instant::now() + SOON;
    loop {
        let status = nodes.get(node.name()).await?.status.unwrap_or_default();
        let there = status.allocatable.unwrap_or_default().remove(resource).map(|quantity| quantity.0);
        if there == Some(count.to_string()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{resource}: {there:?} allocatable, {count} expected; the kubelet said\n{}", node.kubelet.log_tail());
        }
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_kubelet_answers_as_predicted_under_every_pair_of_its_rules() -> Result<()> {
    if !can_run("a_real_kubelet_answers_as_predicted_under_every_pair_of_its_rules")? {
        return Ok(());
    }
    let chosen = pairwise(&cases()?);
    assert!(chosen.len() <= 12, "{} configurations", chosen.len());
    let (asked, wrong) = ask(&chosen).await?;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(asked >= 20, "{asked} pods");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour: every fitting case of the table, each with a start of the kubelet"]
async fn a_real_kubelet_answers_the_whole_table_as_predicted() -> Result<()> {
    if !can_run("a_real_kubelet_answers_the_whole_table_as_predicted")? {
        return Ok(());
    }
    let (asked, wrong) = ask(&cases()?).await?;
    eprintln!("{asked} pods asked");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
