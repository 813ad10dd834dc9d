//! Owns one plain GET or POST, for readiness, metrics and the extender: `http`, or `https` under the
//! plane's own authority. Not an API client; that is `kube::Client`.

use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use kube::client::Body;
use kube::{Client, Config};

/// A server that answers nothing for this long counts as not there; the caller asks again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// One URL that can be fetched again and again.
pub(super) struct Getter {
    client: Client,
    url: String,
    path: String,
}

impl Getter {
    /// For an `http://` URL. Must be called inside a Tokio runtime.
    pub(super) fn plain(url: &str) -> Result<Self> {
        Self::new(url, None)
    }

    /// For an `https://` URL of a server whose certificate this authority signed.
    pub(super) fn trusting(url: &str, authority_der: &[u8]) -> Result<Self> {
        Self::new(url, Some(vec![authority_der.to_vec()]))
    }

    fn new(url: &str, roots: Option<Vec<Vec<u8>>>) -> Result<Self> {
        let uri: http::Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let mut parts = uri.into_parts();
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        let mut config = Config::new(http::Uri::from_parts(parts)?);
        config.root_cert = roots;
        config.read_timeout = Some(ANSWER_TIMEOUT);
        config.default_retry = false;
        Ok(Self { client: Client::try_from(config)?, url: url.to_owned(), path })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The status and the body.
    pub(super) async fn get(&self) -> Result<(u16, String)> {
        self.send(http::Request::get(&self.path).body(Body::empty())?).await
    }

    /// The status and the body of the answer to this JSON.
    pub(super) async fn post(&self, body: &serde_json::Value) -> Result<(u16, String)> {
        let request = http::Request::post(&self.path).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string().into_bytes()))?).await
    }

    async fn send(&self, request: http::Request<Body>) -> Result<(u16, String)> {
        let answer =
            tokio::time::timeout(ANSWER_TIMEOUT, self.client.send(request)).await.context("no answer in time")??;
        let status = answer.status().as_u16();
        let body: Bytes = answer.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}
