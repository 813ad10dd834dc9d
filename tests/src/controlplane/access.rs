//! Owns the ways to reach one API server: kubeconfig files and clients, for the
//! administrator or for any token. Makes no accounts; `identity` does.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kube::config::AuthInfo;
use kube::{Client, Config};
use serde_json::json;

/// The static token of the administrator, in group `system:masters`. Every plane has it: what
/// keeps planes apart is their authority, which no other plane's clients trust.
pub(super) const ADMIN_TOKEN: &str = "berth-tests-admin";

/// Address and authority of one API server.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) server: String,
    pub(super) authority_path: PathBuf,
    pub(super) authority_der: Vec<u8>,
}

impl Access {
    /// Writes a kubeconfig for one token. JSON is YAML, so every client reads it.
    pub(super) fn write_kubeconfig(&self, path: &Path, token: &str) -> Result<()> {
        let name = "berth-tests";
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": {
                "server": self.server, "certificate-authority": self.authority_path,
            }}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        });
        fs::write(path, serde_json::to_vec_pretty(&config)?).with_context(|| format!("write {}", path.display()))
    }

    /// A client without a token.
    pub(super) fn anonymous(&self) -> Result<Client> {
        let mut config = Config::new(self.server.parse()?);
        config.root_cert = Some(vec![self.authority_der.clone()]);
        // Watches are as quiet as who asks for them.
        config.read_timeout = None;
        config.default_retry = false;
        Ok(Client::try_from(config)?)
    }

    /// A client for one token; `impersonate` is a user and its groups.
    pub(super) fn client(&self, token: &str, impersonate: Option<(&str, &[&str])>) -> Result<Client> {
        let mut auth: AuthInfo = serde_json::from_value(json!({"token": token}))?;
        if let Some((user, groups)) = impersonate {
            auth.impersonate = Some(user.to_owned());
            auth.impersonate_groups = Some(groups.iter().map(|&group| group.to_owned()).collect());
        }
        // Not by way of a kubeconfig: that would pick up the caller's proxy variables.
        let mut config = Config::new(self.server.parse()?);
        config.root_cert = Some(vec![self.authority_der.clone()]);
        config.auth_info = auth;
        Ok(Client::try_from(config)?)
    }
}
