//! Claims about certificates and tokens.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

use super::rig::{Feed, Rig, report, start_with};
use crate::fixture::topology;
use crate::ingest::certificate::{CertificateError, Files, Rotating};
use crate::ingest::identity::Tokens;
use crate::ingest::serve::{Security, SecurityError};
use crate::metrics::Metrics;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(called: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, called);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a certificate for `berth-reports` and its key into a folder.
fn write_certificate(folder: &Path, authority: &Authority) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["berth-reports".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
}

fn files(folder: &Path) -> Files {
    Files { certificate: folder.join("tls.crt"), key: folder.join("tls.key") }
}

/// Reviews of an API server that knows these tokens, and how many were asked for.
#[derive(Clone, Default)]
struct Reviewer {
    known: Arc<Mutex<BTreeMap<String, Value>>>,
    asked: Arc<Mutex<usize>>,
}

impl Reviewer {
    /// Knows a token of an account, of a pod on that node.
    fn knows(&self, token: &str, account: &str, audience: &str, node: Option<&str>) {
        let extra = node.map_or(json!({}), |node| json!({"authentication.kubernetes.io/node-name": [node]}));
        let user = json!({"username": format!("system:serviceaccount:berth-system:{account}"), "extra": extra});
        let status = json!({"authenticated": true, "audiences": [audience], "user": user});
        self.known.lock().unwrap().insert(token.to_owned(), status);
    }

    fn tokens(&self) -> Tokens {
        let reviewer = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let reviewer = reviewer.clone();
            async move {
                let bytes = request.into_body().collect_bytes().await?;
                let review: Value = serde_json::from_slice(&bytes)?;
                assert_eq!(review["spec"]["audiences"], json!(["berth"]));
                *reviewer.asked.lock().unwrap() += 1;
                let token = review["spec"]["token"].as_str().unwrap_or_default();
                let unknown = json!({"authenticated": false, "error": "invalid bearer token"});
                let status = reviewer.known.lock().unwrap().get(token).cloned().unwrap_or(unknown);
                let answer = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {}, "status": status});
                Ok::<_, tower::BoxError>(
                    Response::builder().status(201).body(Body::from(serde_json::to_vec(&answer)?))?,
                )
            }
        });
        Tokens::new(Client::new(service, "default"), "berth", "berth-system", "berth-agent")
    }
}

/// A port with TLS and tokens.
async fn secured(folder: &Path, reviewer: &Reviewer) -> Rig {
    let _installed_by_another_test = rustls::crypto::aws_lc_rs::default_provider().install_default();
    start_with(|address| Security::new(address, Some(files(folder)), Some(reviewer.tokens())).unwrap()).await
}

async fn connect(address: SocketAddr, trusted: &Authority) -> Result<Channel, tonic::transport::Error> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trusted.pem())).domain_name("berth-reports");
    Channel::from_shared(format!("https://{address}")).unwrap().tls_config(tls)?.connect().await
}

async fn refusal(channel: &Channel, token: Option<&str>) -> (Code, String) {
    let status = Feed::over(channel.clone(), token).await.err().unwrap();
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn the_node_is_the_one_that_the_token_names() {
    let (folder, authority, reviewer) = (tempfile::tempdir().unwrap(), authority("berth"), Reviewer::default());
    write_certificate(folder.path(), &authority);
    reviewer.knows("of-a", "berth-agent", "berth", Some("a"));
    let rig = secured(folder.path(), &reviewer).await;
    let channel = connect(rig.address, &authority).await.unwrap();
    let mut feed = Feed::over(channel.clone(), Some("of-a")).await.unwrap();
    let answer = feed.say(report(&topology("b", 1, 0))).await;
    assert_eq!((answer.accepted, answer.field.as_str()), (false, "node"), "{answer:?}");
    assert_eq!(rig.in_force("b"), None);
    assert!(feed.say(report(&topology("a", 1, 0))).await.accepted);
    // Remembered, so that a cluster that reconnects is no flood of reviews.
    Feed::over(channel, Some("of-a")).await.unwrap();
    assert_eq!(*reviewer.asked.lock().unwrap(), 1);
}

#[tokio::test]
async fn every_other_token_is_turned_away_and_told_why() {
    let (folder, authority, reviewer) = (tempfile::tempdir().unwrap(), authority("berth"), Reviewer::default());
    write_certificate(folder.path(), &authority);
    reviewer.knows("other-account", "default", "berth", Some("a"));
    reviewer.knows("other-audience", "berth-agent", "https://kubernetes.default.svc", Some("a"));
    reviewer.knows("no-node", "berth-agent", "berth", None);
    let rig = secured(folder.path(), &reviewer).await;
    let channel = connect(rig.address, &authority).await.unwrap();
    let long = "x".repeat(9000);
    for (token, code, words) in [
        (None, Code::Unauthenticated, "authorization is missing"),
        (Some("unknown-or-expired"), Code::Unauthenticated, "invalid bearer token"),
        (Some("other-audience"), Code::Unauthenticated, "not for audience berth"),
        (Some(long.as_str()), Code::Unauthenticated, "at most 8192"),
        (Some("other-account"), Code::PermissionDenied, "system:serviceaccount:berth-system:berth-agent is right"),
        (Some("no-node"), Code::PermissionDenied, "names no node"),
    ] {
        let (said, text) = refusal(&channel, token).await;
        assert_eq!(said, code, "{token:?}: {text}");
        assert!(text.contains(words), "{text}");
    }
    assert!(rig.cluster.carriers.live().is_empty());
    let said = rig.cluster.metrics.encode().unwrap();
    assert!(said.contains("berth_report_streams_refused_total{reason=\"bad-token\"} 3"), "{said}");
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_believed() {
    let (folder, reviewer) = (tempfile::tempdir().unwrap(), Reviewer::default());
    let (ours, other) = (authority("berth"), authority("somebody"));
    write_certificate(folder.path(), &ours);
    let rig = secured(folder.path(), &reviewer).await;
    assert!(connect(rig.address, &ours).await.is_ok());
    assert!(connect(rig.address, &other).await.is_err());
    let plain = Channel::from_shared(format!("http://{}", rig.address)).unwrap().connect().await;
    let spoke = match plain {
        Ok(channel) => Feed::over(channel, Some("of-a")).await.is_ok(),
        Err(_) => false,
    };
    assert!(!spoke, "plain text was taken on a port with a certificate");
}

#[tokio::test(start_paused = true)]
async fn a_new_certificate_is_taken_and_a_half_written_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (authority("first"), authority("second"));
    write_certificate(folder.path(), &first);
    let rotating = Arc::new(Rotating::read(files(folder.path())).unwrap());
    let metrics = Arc::new(Metrics::new("test"));
    let (follower, seen) = (Arc::clone(&rotating), Arc::clone(&metrics));
    tokio::spawn(async move { follower.follow(Duration::from_secs(10), &seen).await });
    let old = rotating.in_force();
    let look = || tokio::time::sleep(Duration::from_secs(21));
    look().await;
    assert_eq!(rotating.in_force(), old);

    // The certificate is there, its key not yet.
    let key = std::fs::read(folder.path().join("tls.key")).unwrap();
    write_certificate(folder.path(), &second);
    let new_key = std::fs::read(folder.path().join("tls.key")).unwrap();
    std::fs::write(folder.path().join("tls.key"), key).unwrap();
    look().await;
    assert_eq!(rotating.in_force(), old);
    std::fs::write(folder.path().join("tls.key"), "").unwrap();
    look().await;
    std::fs::remove_file(folder.path().join("tls.key")).unwrap();
    look().await;
    assert_eq!(rotating.in_force(), old);

    std::fs::write(folder.path().join("tls.key"), new_key).unwrap();
    look().await;
    assert_ne!(rotating.in_force(), old);
    let said = metrics.encode().unwrap();
    for line in ["{result=\"rejected\"} 2", "{result=\"applied\"} 1"] {
        assert!(said.contains(&format!("berth_report_certificate_reloads_total{line}")), "{said}");
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_serve_keeps_the_process_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let address = "0.0.0.0:8890".parse().unwrap();
    let start = || Security::new(address, Some(files(folder.path())), Some(Reviewer::default().tokens()));
    let error = |error: SecurityError| match error {
        SecurityError::Certificate(error) => error,
        other => panic!("{other}"),
    };
    assert!(matches!(error(start().unwrap_err()), CertificateError::Unreadable { .. }));
    write_certificate(folder.path(), &authority("a"));
    assert!(start().is_ok());
    assert!(matches!(Security::new(address, Some(files(folder.path())), None).unwrap_err(), SecurityError::NoReview));
    std::fs::write(folder.path().join("tls.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(matches!(error(start().unwrap_err()), CertificateError::Mismatch { .. }));
    std::fs::write(folder.path().join("tls.crt"), "no certificate").unwrap();
    assert!(matches!(error(start().unwrap_err()), CertificateError::Form { what: "certificate", .. }));
}
