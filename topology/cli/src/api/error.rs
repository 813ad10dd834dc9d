//! What can go wrong with an API server, in one sentence each that says what to do about it.

use std::fmt;
use std::io::ErrorKind;

use kube::config::KubeconfigError;

/// What a call needs to be allowed, in the words of RBAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Right {
    verb: String,
    resource: String,
    namespace: Option<String>,
}

impl Right {
    /// A right on objects without namespace, or on those of all namespaces.
    pub(crate) fn everywhere(verb: &str, resource: &str) -> Self {
        Self { verb: verb.to_owned(), resource: resource.to_owned(), namespace: None }
    }

    /// A right inside one namespace.
    pub(crate) fn within(verb: &str, resource: &str, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..Self::everywhere(verb, resource) }
    }

    /// The right that a refusal of the API server names. It may be another one than the call's own: impersonation needs one, too.
    ///
    /// Source: k8s.io/apiserver `responsewriters.forbiddenMessage`.
    fn refused(message: &str) -> Option<Self> {
        let (verb, rest) = message.split_once("cannot ")?.1.split_once(" resource \"")?;
        let (resource, rest) = rest.split_once("\" in API group \"")?;
        let (group, scope) = rest.split_once('"')?;
        let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        let namespace = scope.split_once("in the namespace \"").and_then(|(_, n)| n.split_once('"'));
        Some(Self { verb: verb.to_owned(), resource, namespace: namespace.map(|(name, _)| name.to_owned()) })
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The kubeconfig cannot be used.
    #[error("{0}")]
    Kubeconfig(String),
    /// Its content makes no client.
    #[error("cannot make a client for the API server {url}")]
    Client { url: String, source: Box<kube::Error> },
    /// RBAC says no.
    #[error("missing right: {right}")]
    Forbidden { right: Right },
    /// The credentials are not taken.
    #[error("the API server {url} does not accept the credentials of this kubeconfig context")]
    Unauthorized { url: String },
    /// No such object.
    #[error("{0}")]
    Missing(String),
    /// The resource itself is unknown.
    #[error(
        "the API server {url} does not know {resource}: Berth's CRD is not installed (kubectl apply -k manifests/crd)"
    )]
    NoSuchResource { url: String, resource: String },
    /// No connection.
    #[error("the API server {url} cannot be reached: {cause}")]
    Unreachable { url: String, cause: String },
    /// No answer in time.
    #[error("the API server {url} did not answer \"{right}\" within {seconds} s")]
    Late { url: String, right: Right, seconds: u64 },
    /// A list without end.
    #[error("the API server gives no end to \"{right}\"")]
    Endless { right: Right },
    /// Whatever else the server says.
    #[error("\"{right}\" failed: {said}")]
    Other { right: Right, said: String },
}

impl ApiError {
    /// The error of a kubeconfig.
    pub(super) fn of_kubeconfig(error: KubeconfigError) -> Self {
        Self::Kubeconfig(match error {
            KubeconfigError::ReadConfig(cause, path) if cause.kind() == ErrorKind::NotFound => {
                format!("no kubeconfig at {}: name one with --kubeconfig or KUBECONFIG", path.display())
            }
            KubeconfigError::ReadConfig(cause, path) => {
                format!("kubeconfig {} cannot be read: {cause}", path.display())
            }
            KubeconfigError::FindPath => "no kubeconfig: name one with --kubeconfig or KUBECONFIG".to_owned(),
            KubeconfigError::CurrentContextNotSet => {
                "the kubeconfig has no current context: choose one with --context".to_owned()
            }
            KubeconfigError::LoadContext(name) => format!("the kubeconfig has no context {name:?}"),
            // The first line only: the next ones quote the file, which holds secrets.
            other => format!("kubeconfig: {}", other.to_string().lines().next().unwrap_or_default()),
        })
    }

    /// The error of a call to the API server at `url`.
    pub(super) fn of_call(error: kube::Error, right: &Right, url: &str) -> Self {
        let url = url.to_owned();
        match error {
            kube::Error::Api(status) if status.code == 401 => Self::Unauthorized { url },
            kube::Error::Api(status) if status.code == 403 => {
                Self::Forbidden { right: Right::refused(&status.message).unwrap_or_else(|| right.clone()) }
            }
            kube::Error::Api(status) if status.code == 404 => {
                let names_an_object = status.details.as_ref().is_some_and(|d| !d.name.is_empty());
                if names_an_object {
                    Self::Missing(status.message)
                } else {
                    Self::NoSuchResource { url, resource: right.resource.clone() }
                }
            }
            kube::Error::Api(status) => Self::Other { right: right.clone(), said: status.message },
            kube::Error::HyperError(_) | kube::Error::Service(_) => Self::Unreachable { url, cause: innermost(&error) },
            other => Self::Other { right: right.clone(), said: innermost(&other) },
        }
    }
}

/// The text of the first cause: the layers above it repeat each other.
fn innermost(error: &kube::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    // A chain longer than this would be a cycle.
    for _ in 0..16 {
        match cause.source() {
            Some(deeper) => cause = deeper,
            None => break,
        }
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn said(code: u16, object: &str) -> String {
        let mut status = Status::failure(&format!("x {object:?} not found"), "NotFound");
        status.code = code;
        if !object.is_empty() {
            let details = serde_json::json!({"name": object});
            status.details = Some(serde_json::from_value(details).unwrap());
        }
        let right = Right::within("get", "pods", "team");
        ApiError::of_call(kube::Error::Api(Box::new(status)), &right, "https://api:6443").to_string()
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        assert_eq!(said(403, ""), "missing right: get pods in namespace team");
        assert_eq!(said(404, "pod-1"), "x \"pod-1\" not found");
        assert!(said(404, "").contains("does not know pods: Berth's CRD is not installed"));
        assert!(said(401, "").contains("does not accept the credentials"));
    }

    #[test]
    fn the_right_is_the_one_that_the_server_names() {
        for (message, right) in [
            (
                r#"pods "p" is forbidden: User "u" cannot create resource "pods/portforward" in API group "" in the namespace "n""#,
                "create pods/portforward in namespace n",
            ),
            (
                r#"nodetopologies.topology.berth.dev is forbidden: User "u" cannot list resource "nodetopologies" in API group "topology.berth.dev" at the cluster scope"#,
                "list nodetopologies.topology.berth.dev",
            ),
            (
                r#"users "bob" is forbidden: User "u" cannot impersonate resource "users" in API group "" at the cluster scope"#,
                "impersonate users",
            ),
        ] {
            assert_eq!(Right::refused(message).unwrap().to_string(), right);
        }
        assert_eq!(Right::refused("no"), None);
    }

    #[test]
    fn a_kubeconfig_that_is_not_there_is_named_with_the_way_out() {
        let cause = std::io::Error::from(ErrorKind::NotFound);
        let error = ApiError::of_kubeconfig(KubeconfigError::ReadConfig(cause, "/nowhere/config".into()));
        assert_eq!(error.to_string(), "no kubeconfig at /nowhere/config: name one with --kubeconfig or KUBECONFIG");
    }
}
