//! The API server as the commands use it: connect, get, list in pages, each with a deadline and with errors that say what to do.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;

use crate::args::ClusterFlags;

mod error;

pub(crate) use error::{ApiError, Right};

/// One request and its answer. Long enough for a busy API server, short enough for a waiting person.
const CALL_SECONDS_MAX: u64 = 15;
/// Objects in a page of a list: kubectl's own size.
const PAGE_OBJECTS: u32 = 500;
/// Most pages of a list: a million objects, more than any cluster holds. Bounds a server that always says "more".
const PAGES_MAX: usize = 2000;

/// A connection to one cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    url: String,
    namespace: String,
}

impl Cluster {
    /// Reads the kubeconfig, or the service account where there is none and we run in a pod.
    pub(crate) async fn connect(flags: &ClusterFlags) -> Result<Self, ApiError> {
        let mut config = load(flags).await?;
        config.connect_timeout = Some(Duration::from_secs(CALL_SECONDS_MAX));
        config.read_timeout = Some(Duration::from_secs(CALL_SECONDS_MAX));
        config.write_timeout = Some(Duration::from_secs(CALL_SECONDS_MAX));
        if let Some(user) = &flags.impersonate {
            config.auth_info.impersonate = Some(user.clone());
        }
        let url = config.cluster_url.to_string();
        let namespace = flags.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client =
            Client::try_from(config).map_err(|e| ApiError::Client { url: url.clone(), source: Box::new(e) })?;
        Ok(Self { client, url, namespace })
    }

    /// The namespace of `-n`, else of the context.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The client, to make an [`Api`] of.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Gets one object.
    pub(crate) async fn get<K>(&self, api: &Api<K>, name: &str, right: &Right) -> Result<K, ApiError>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        self.within_deadline(right, api.get(name)).await
    }

    /// Lists all objects, page by page, and gives each to `take`: the whole list is never in memory.
    pub(crate) async fn list<K>(
        &self,
        api: &Api<K>,
        mut params: ListParams,
        right: &Right,
        mut take: impl FnMut(K),
    ) -> Result<(), ApiError>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        params.limit = Some(PAGE_OBJECTS);
        for _ in 0..PAGES_MAX {
            let page = self.within_deadline(right, api.list(&params)).await?;
            page.items.into_iter().for_each(&mut take);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(());
            }
        }
        Err(ApiError::Endless { right: right.clone() })
    }

    /// Awaits an answer of the API server, at most for the deadline.
    pub(crate) async fn within_deadline<T>(
        &self,
        right: &Right,
        answer: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApiError> {
        match tokio::time::timeout(Duration::from_secs(CALL_SECONDS_MAX), answer).await {
            Ok(answer) => answer.map_err(|e| ApiError::of_call(e, right, &self.url)),
            Err(_) => Err(ApiError::Late { url: self.url.clone(), right: right.clone(), seconds: CALL_SECONDS_MAX }),
        }
    }
}

async fn load(flags: &ClusterFlags) -> Result<Config, ApiError> {
    let options = KubeConfigOptions { context: flags.context.clone(), ..KubeConfigOptions::default() };
    let is_default = flags.kubeconfig.is_none() && flags.context.is_none();
    let found = match &flags.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let error = match found {
        Ok(kubeconfig) => match Config::from_custom_kubeconfig(kubeconfig, &options).await {
            Ok(config) => return Ok(config),
            Err(error) => error,
        },
        Err(error) => error,
    };
    // In a pod there is a service account and no kubeconfig. A kubeconfig that was asked for is never passed over.
    if is_default && let Ok(config) = Config::incluster() {
        return Ok(config);
    }
    Err(ApiError::of_kubeconfig(error))
}
