//! Owns one REST call as a test writes it down, and who refused it: the caller's rights, or a guard (a
//! ValidatingAdmissionPolicy). Raw on purpose: what is checked is what the API server lets through, not what a typed client can say.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::{Method, Request};
use kube::Client;
use serde_json::Value;
use tokio::time::Instant;

/// A policy bites only after the API server's own watch has seen it; a busy machine takes a second or two.
const POLICY_WITHIN: Duration = Duration::from_secs(30);

/// How often a call is sent again while waiting for a policy.
const POLL: Duration = Duration::from_millis(50);

/// One request to the API server.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    path: String,
    content_type: &'static str,
    body: Option<Value>,
}

impl Call {
    fn new(method: Method, path: impl Into<String>, content_type: &'static str, body: Option<Value>) -> Self {
        Self { method, path: path.into(), content_type, body }
    }

    /// GET: read, list or watch, as path and query say.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path, "application/json", None)
    }

    /// POST.
    pub fn create(path: impl Into<String>, body: Value) -> Self {
        Self::new(Method::POST, path, "application/json", Some(body))
    }

    /// PUT.
    pub fn replace(path: impl Into<String>, body: Value) -> Self {
        Self::new(Method::PUT, path, "application/json", Some(body))
    }

    /// PATCH with a merge patch.
    pub fn merge(path: impl Into<String>, body: Value) -> Self {
        Self::new(Method::PATCH, path, "application/merge-patch+json", Some(body))
    }

    /// PATCH as server-side apply does, which creates what is not there.
    pub fn apply(path: impl Into<String>, body: Value) -> Self {
        let path = format!("{}?fieldManager=berth-tests&force=true", path.into());
        Self::new(Method::PATCH, path, "application/apply-patch+yaml", Some(body))
    }

    /// DELETE at once, without a grace period.
    pub fn delete(path: impl Into<String>) -> Self {
        let path = format!("{}?gracePeriodSeconds=0", path.into());
        Self::new(Method::DELETE, path, "application/json", None)
    }

    /// The same call with everything checked and nothing stored.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str("dryRun=All");
        self
    }

    async fn send(&self, client: &Client) -> Result<std::result::Result<String, Box<kube::core::Status>>> {
        let body = self.body.as_ref().map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(self.method.clone())
            .uri(&self.path)
            .header("content-type", self.content_type)
            .body(body.into_bytes())?;
        match client.request_text(request).await {
            Ok(text) => Ok(Ok(text)),
            Err(kube::Error::Api(status)) => Ok(Err(status)),
            Err(error) => Err(error).with_context(|| self.to_string()),
        }
    }

    /// Sends it and demands success. The answer is null where it is not one JSON document, as of a watch.
    ///
    /// # Errors
    /// It was refused; the text says what and why.
    pub async fn done(&self, client: &Client) -> Result<Value> {
        match self.send(client).await? {
            Ok(text) => Ok(serde_json::from_str(&text).unwrap_or_default()),
            Err(status) => bail!("{self} was refused: {} {}", status.code, status.message),
        }
    }

    /// Sends it and demands that RBAC refuses it.
    ///
    /// # Errors
    /// It went through, or something else refused it.
    pub async fn refused_by_rights(&self, client: &Client) -> Result<()> {
        match self.send(client).await? {
            Ok(_) => bail!("{self} went through"),
            Err(status) => {
                let by_rights = status.code == 403 && status.message.contains(" cannot ");
                ensure!(by_rights, "{self} was refused, but not for want of a right: {}", status.message);
                Ok(())
            }
        }
    }

    /// Sends it and demands that the named policy refuses it, with a message that holds `text`.
    ///
    /// # Errors
    /// It went through, or something else refused it, or in other words.
    pub async fn refused_by_policy(&self, client: &Client, policy: &str, text: &str) -> Result<()> {
        match self.send(client).await? {
            Ok(_) => bail!("{self} went through"),
            Err(status) => {
                let by_policy = status.code == 403
                    && status.message.contains(&format!("ValidatingAdmissionPolicy '{policy}'"))
                    && status.message.contains(text);
                ensure!(by_policy, "{self} was refused, but not by {policy} with {text:?}: {}", status.message);
                Ok(())
            }
        }
    }

    /// Sends it, stored nowhere, until the named policy refuses it.
    ///
    /// # Errors
    /// The policy does not bite in time; the text says how the last call ended.
    pub async fn until_refused_by_policy(&self, client: &Client, policy: &str) -> Result<()> {
        let probe = self.clone().dry_run();
        let deadline = Instant::now() + POLICY_WITHIN;
        loop {
            let Err(error) = probe.refused_by_policy(client, policy, "").await else {
                return Ok(());
            };
            if Instant::now() > deadline {
                return Err(error).with_context(|| format!("{policy} does not bite after {POLICY_WITHIN:?}"));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        self.body.as_ref().map_or(Ok(()), |body| write!(f, " {body}"))
    }
}
