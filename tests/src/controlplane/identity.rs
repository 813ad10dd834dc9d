//! Owns the accounts that Berth's programs run under in tests: service accounts,
//! their tokens, and the Pod object that ties an agent's token to its node. Grants
//! no right; the manifests do.

use std::path::PathBuf;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, Namespace, Pod, PodSpec, SeccompProfile, SecurityContext, ServiceAccount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;

use super::ControlPlane;

/// Where Berth lives.
pub const NAMESPACE: &str = "berth-system";

/// The agents' service account.
pub const AGENT_ACCOUNT: &str = "berth-agent";

/// The scheduler's service account: kube-scheduler and the extender share it, as they share a pod.
pub const SCHEDULER_ACCOUNT: &str = "berth-scheduler";

/// Whom the agents' tokens for report streams are for, as overlay `stream` says.
const REPORTS_AUDIENCE: &str = "berth";

/// The API server ends tokens after this; no test lives so long.
const TOKEN_SECONDS: i64 = 24 * 3600;

impl ControlPlane {
    /// A fresh token of a service account, bound to a pod where one is named. The account must exist,
    /// and so must the pod, which must run under that account.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn service_account_token(&self, namespace: &str, name: &str, pod: Option<&str>) -> Result<String> {
        self.token_for(namespace, name, pod, self.server()).await
    }

    /// A token by which node `node`'s agent shows itself to schedulers, bound to its pod; `None` for one that is bound to no pod.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn reports_token(&self, node: Option<&str>) -> Result<String> {
        self.token_for(NAMESPACE, AGENT_ACCOUNT, node.map(agent_pod).as_deref(), REPORTS_AUDIENCE).await
    }

    async fn token_for(&self, namespace: &str, name: &str, pod: Option<&str>, audience: &str) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![audience.to_owned()],
                expiration_seconds: Some(TOKEN_SECONDS),
                bound_object_ref: pod.map(|pod| BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(pod.to_owned()),
                    uid: None,
                }),
            },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("token of {namespace}/{name}"))?;
        Ok(answer.status.context("a token request without a status")?.token)
    }

    /// What node `node`'s agent would have in a cluster: its account, a Ready pod
    /// `berth-agent-<node>` on that node, and a kubeconfig with a token bound to that pod, which
    /// therefore carries the node's name. Called again, it makes a new token and sets the pod Ready.
    ///
    /// # Errors
    /// The API server refuses one of them.
    pub async fn agent_identity(&self, node: &str) -> Result<PathBuf> {
        self.ensure_account(AGENT_ACCOUNT).await?;
        self.agent_pod(node).await?;
        let pod_name = agent_pod(node);
        let token = self.service_account_token(NAMESPACE, AGENT_ACCOUNT, Some(&pod_name)).await?;
        self.kubeconfig_for(&pod_name, &token)
    }

    /// Makes the Ready pod `berth-agent-<node>` on that node, or sets the one that is there Ready. Its namespace must exist.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn agent_pod(&self, node: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client(), NAMESPACE);
        let pod = Pod {
            metadata: ObjectMeta {
                name: Some(agent_pod(node)),
                labels: Some(
                    [("app.kubernetes.io/name", "berth"), ("app.kubernetes.io/component", "agent")]
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .into(),
                ),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                node_name: Some(node.to_owned()),
                service_account_name: Some(AGENT_ACCOUNT.to_owned()),
                containers: vec![Container {
                    name: "agent".to_owned(),
                    image: Some("berth-agent".to_owned()),
                    security_context: Some(unprivileged()),
                    ..Container::default()
                }],
                ..PodSpec::default()
            }),
            ..Pod::default()
        };
        ensure(&pods, &pod).await?;
        self.set_agent_ready(node, true).await
    }

    /// Sets the Ready condition of node `node`'s agent pod, as its kubelet would.
    ///
    /// # Errors
    /// There is no such pod.
    pub async fn set_agent_ready(&self, node: &str, ready: bool) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client(), NAMESPACE);
        let state = if ready { "True" } else { "False" };
        let now = jiff::Timestamp::now().to_string();
        let status = json!({"status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": state, "lastTransitionTime": now},
        ]}});
        pods.patch_status(&agent_pod(node), &PatchParams::default(), &Patch::Merge(status))
            .await
            .with_context(|| format!("set the agent of {node} ready: {ready}"))?;
        Ok(())
    }

    /// A kubeconfig for the account that kube-scheduler and the extender share.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn scheduler_identity(&self) -> Result<PathBuf> {
        self.ensure_account(SCHEDULER_ACCOUNT).await?;
        let token = self.service_account_token(NAMESPACE, SCHEDULER_ACCOUNT, None).await?;
        self.kubeconfig_for(SCHEDULER_ACCOUNT, &token)
    }

    pub(crate) async fn ensure_account(&self, name: &str) -> Result<()> {
        let namespace = Namespace { metadata: named(NAMESPACE), ..Namespace::default() };
        ensure(&Api::all(self.client()), &namespace).await?;
        let account = ServiceAccount { metadata: named(name), ..ServiceAccount::default() };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), NAMESPACE);
        ensure(&accounts, &account).await
    }
}

/// The name of the pod that stands for node `node`'s agent.
fn agent_pod(node: &str) -> String {
    format!("{AGENT_ACCOUNT}-{node}")
}

/// As the manifests have it; more is refused in their namespace, whose pod security level is `restricted`.
fn unprivileged() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        run_as_non_root: Some(true),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
        ..SecurityContext::default()
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

/// Creates the object unless one of that name is there, made by the manifests for instance.
async fn ensure<K>(api: &Api<K>, object: &K) -> Result<()>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    match api.create(&PostParams::default(), object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("create {:?}", object.meta().name)),
    }
}
