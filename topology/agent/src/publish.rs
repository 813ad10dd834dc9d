//! The agent's way to its own NodeTopology object: what it says now, and the writes that change it. Retrying is the caller's.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_proto::{GROUP, NodeTopology, PLURAL};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::args::Args;
use crate::report;
use crate::statement::Statement;

/// Owner of the fields that the agent writes.
const FIELD_MANAGER: &str = "berth-agent";

/// Own deadline of every call: kube has none, and would retry one call for minutes.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest silence of a watch: the API server ends each after 290 s, which kube asks for.
const WATCH_SILENCE: Duration = Duration::from_secs(295);

/// Conflicts in a row that one publish bears before it backs off: one follows from a deleted object, more from a second writer.
const CONFLICTS_MAX: usize = 3;

/// Why the object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// Asking again will not help; somebody must change a right, a policy or the CRD.
    #[error("{call}: the API server refuses with {code}: {message}")]
    Refused {
        /// What was tried.
        call: &'static str,
        /// HTTP status.
        code: u16,
        /// The server's own words.
        message: String,
    },
    /// There is no owner for the object, so it would outlive its node.
    #[error("node {0} is not known to the API server; --node-name or NODE_NAME must be the node's name there")]
    NoNode(String),
    /// Somebody else wrote in between, time and again.
    #[error("{call}: somebody else writes the same object")]
    Conflict {
        /// What was tried.
        call: &'static str,
    },
    /// The server is away, overloaded or in trouble.
    #[error("{call}: no good answer from the API server")]
    Unreachable {
        /// What was tried.
        call: &'static str,
        #[source]
        source: kube::Error,
    },
    /// The server takes too long.
    #[error("{call}: no answer from the API server within {CALL_TIMEOUT:?}")]
    TimedOut {
        /// What was tried.
        call: &'static str,
    },
}

impl PublishError {
    /// The word of the metric.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Refused { .. } | Self::NoNode(_) => "refused",
            Self::Conflict { .. } => "conflict",
            Self::Unreachable { .. } | Self::TimedOut { .. } => "unreachable",
        }
    }

    /// Whether only a person can change the answer, so that asking often is no use.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::NoNode(_))
    }

    fn of(call: &'static str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict { call },
            // An object that is missing is no error of these calls, so what is missing is the kind.
            kube::Error::Api(status) if status.code == 404 => {
                let message = format!("{}; is the CRD {PLURAL}.{GROUP} installed?", status.message.trim());
                Self::Refused { call, code: 404, message }
            }
            kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
                Self::Refused { call, code: status.code, message: status.message }
            }
            source => Self::Unreachable { call, source },
        }
    }
}

/// What a publish did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// Nothing: the object says the same already.
    Unchanged,
    /// The report was written.
    Written,
}

/// Holds the object as the API server last showed it.
#[derive(Debug)]
pub(crate) struct Publisher {
    node: String,
    objects: Api<NodeTopology>,
    nodes: Api<Node>,
    object: Option<NodeTopology>,
    statement: Arc<Statement>,
}

impl Publisher {
    pub(crate) fn new(node: String, client: Client, statement: Arc<Statement>) -> Self {
        Self { node, objects: Api::all(client.clone()), nodes: Api::all(client), object: None, statement }
    }

    /// Generation of the report that the API server last showed.
    pub(crate) fn generation(&self) -> u64 {
        let status = self.object.as_ref().and_then(|o| o.status.as_ref());
        status.map_or(0, report::generation_of)
    }

    /// Forgets what the server showed, so that the next publish looks again.
    pub(crate) fn forget(&mut self) {
        self.remember(None);
    }

    /// Reads the object; `None` when there is none.
    ///
    /// # Errors
    /// [`PublishError`]; what was known before is forgotten.
    pub(crate) async fn look(&mut self) -> Result<Option<&NodeTopology>, PublishError> {
        self.forget();
        let found = call("read the own NodeTopology", self.objects.get_opt(&self.node)).await?;
        self.remember(found);
        Ok(self.object.as_ref())
    }

    /// Makes the object say what is true now, unless it does.
    ///
    /// # Errors
    /// [`PublishError`]; nothing or an earlier step (an object without status) was written.
    pub(crate) async fn publish(&mut self) -> Result<Published, PublishError> {
        let mut tries = 0;
        loop {
            match self.publish_once().await {
                Err(PublishError::Conflict { .. }) if tries < CONFLICTS_MAX => {
                    tries += 1;
                    self.forget();
                }
                done => return done,
            }
        }
    }

    async fn publish_once(&mut self) -> Result<Published, PublishError> {
        if self.object.is_none() && self.look().await?.is_none() {
            self.create().await?;
        }
        // What was read while the calls before took their time is newer than what they were made for.
        let Some(status) = self.statement.settle() else { return Ok(Published::Unchanged) };
        let version = self.object.as_ref().and_then(|object| object.metadata.resource_version.clone());
        if self.object.as_ref().and_then(|object| object.status.as_ref()) == Some(&status) {
            return Ok(Published::Unchanged);
        }
        let mut object = NodeTopology::new(&self.node, Some(status));
        // The version makes the server refuse when somebody wrote since we looked: a generation must not be given twice.
        object.metadata.resource_version = version;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&object);
        let write = self.objects.patch_status(&self.node, &params, &patch);
        let written = match call("write the report", write).await {
            // Deleted since we looked.
            Err(PublishError::Refused { call, code: 404, .. }) => return Err(PublishError::Conflict { call }),
            other => other?,
        };
        self.remember(Some(written));
        Ok(Published::Written)
    }

    async fn create(&mut self) -> Result<(), PublishError> {
        let mut object = NodeTopology::new(&self.node, None);
        object.metadata.owner_references = Some(vec![self.owner().await?]);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let created = call("create the NodeTopology", self.objects.create(&params, &object)).await?;
        self.remember(Some(created));
        Ok(())
    }

    /// The node that the object belongs to: the garbage collector deletes the report with it.
    async fn owner(&self) -> Result<OwnerReference, PublishError> {
        let node = call("read the own Node", async { self.nodes.get_metadata_opt(&self.node).await }).await?;
        let uid = node.and_then(|n| n.metadata.uid).ok_or_else(|| PublishError::NoNode(self.node.clone()))?;
        Ok(OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.node.clone(),
            uid,
            ..OwnerReference::default()
        })
    }

    fn remember(&mut self, object: Option<NodeTopology>) {
        self.object = object.map(|mut object| {
            let ObjectMeta { name, resource_version, .. } = object.metadata;
            // Without its name the report could not be read back.
            object.metadata = ObjectMeta { name, resource_version, ..ObjectMeta::default() };
            object
        });
        self.statement.published(self.object.as_ref().and_then(|object| object.status.clone()));
    }
}

async fn call<T>(what: &'static str, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, PublishError> {
    match tokio::time::timeout(CALL_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| PublishError::of(what, error)),
        Err(_) => Err(PublishError::TimedOut { call: what }),
    }
}

/// A client with our deadlines instead of kube's.
///
/// # Errors
/// There is no usable configuration; nothing is sent yet.
pub(crate) async fn client(args: &Args) -> Result<Client> {
    client_within(args, CALL_TIMEOUT).await
}

/// As [`client`], for watches: these are silent until something happens.
///
/// # Errors
/// As [`client`].
pub(crate) async fn watching_client(args: &Args) -> Result<Client> {
    client_within(args, WATCH_SILENCE).await
}

async fn client_within(args: &Args, read_timeout: Duration) -> Result<Client> {
    let mut config = match &args.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.context(
            "neither a kubeconfig nor a pod's service account is there; --no-object streams reports without an API server",
        )?,
    };
    config.default_retry = false;
    config.connect_timeout = Some(CALL_TIMEOUT);
    config.read_timeout = Some(read_timeout);
    Client::try_from(config).context("the API server's address or credentials are not usable")
}

#[cfg(test)]
mod tests;
