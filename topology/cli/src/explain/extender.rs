//! Asks berth-scheduler's `/explain`: through a port-forward to one of its pods, or directly where a URL is given.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::api::{ApiError, Cluster, Right};

const NAMESPACE: &str = "berth-system";
const LABELS: &str = "app.kubernetes.io/name=berth,app.kubernetes.io/component=scheduler";
const PORT: u16 = 8888;
/// Largest answer taken: a reason for each of 5000 nodes takes about a tenth of it.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// The scheduler answers from memory; what takes longer is not the answer's making.
const ANSWER_SECONDS_MAX: u64 = 10;

/// What the scheduler says of the pod.
pub(super) async fn ask(
    cluster: &Cluster,
    url: Option<&str>,
    namespace: &str,
    pod: &str,
) -> anyhow::Result<serde_json::Value> {
    let path = format!("/explain?namespace={namespace}&pod={pod}");
    let asked = async {
        match url {
            Some(url) => direct(url, &path).await,
            None => forwarded(cluster, &path).await,
        }
    };
    match tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS_MAX), asked).await {
        Ok(answer) => answer,
        Err(_) => bail!("berth-scheduler did not answer within {ANSWER_SECONDS_MAX} s"),
    }
}

async fn direct(url: &str, path: &str) -> anyhow::Result<serde_json::Value> {
    let uri: http::Uri = url.parse().with_context(|| format!("--extender-url {url}"))?;
    if uri.scheme_str() != Some("http") {
        bail!(
            "--extender-url {url}: only http:// is spoken here; for a remote scheduler leave it out and use the port-forward"
        );
    }
    let host = uri.host().ok_or_else(|| anyhow!("--extender-url {url}: names no host"))?;
    let address = format!("{host}:{}", uri.port_u16().unwrap_or(PORT));
    let stream = TcpStream::connect(&address).await.with_context(|| format!("berth-scheduler at {address}"))?;
    get(stream, &address, path).await
}

async fn forwarded(cluster: &Cluster, path: &str) -> anyhow::Result<serde_json::Value> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), NAMESPACE);
    let mut ready = Vec::new();
    let take = |pod: Pod| ready.extend(if is_ready(&pod) { pod.metadata.name } else { None });
    cluster.list(&pods, ListParams::default().labels(LABELS), &Right::within("list", "pods", NAMESPACE), take).await?;
    let Some(name) = ready.first() else {
        bail!("no ready pod of berth-scheduler in namespace {NAMESPACE} (labels {LABELS})");
    };
    // Over WebSockets the API server asks for get, and since 1.35 for create as well: both are named at once.
    let right = Right::within("get and create", "pods/portforward", NAMESPACE);
    let mut forward = match cluster.within_deadline(&right, pods.portforward(name, &[PORT])).await {
        Err(ApiError::Forbidden { .. }) => return Err(ApiError::Forbidden { right }.into()),
        forward => forward?,
    };
    let stream = forward.take_stream(PORT).ok_or_else(|| anyhow!("port-forward to {name}: no stream"))?;
    let answer =
        get(stream, "127.0.0.1", path).await.with_context(|| format!("port-forward to pod {NAMESPACE}/{name}"));
    forward.abort();
    answer
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// One GET over one stream.
async fn get<S>(stream: S, host: &str, path: &str) -> anyhow::Result<serde_json::Value>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The connection ends with the sender; its error, if any, is the request's too.
    let driven = tokio::spawn(connection);
    let request = http::Request::get(path).header(http::header::HOST, host).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.context("no answer from berth-scheduler")?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    drop(sender);
    driven.abort();
    let body = body.map_err(|e| anyhow!("the answer of berth-scheduler broke off: {e}"))?.to_bytes();
    let value: serde_json::Value = serde_json::from_slice(&body)
        .with_context(|| format!("berth-scheduler answered {status} with what is no JSON"))?;
    if !status.is_success() {
        let said = value.get("error").and_then(|e| e.as_str()).unwrap_or("no reason");
        bail!("berth-scheduler answered {status}: {said}");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A scheduler that answers the first request with these bytes; gives back what it was asked.
    async fn answered(answer: &str) -> (anyhow::Result<serde_json::Value>, String) {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let answer = answer.to_owned();
        let scheduler = tokio::spawn(async move {
            let mut asked = vec![0; 1 << 12];
            let read = theirs.read(&mut asked).await.unwrap();
            theirs.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(asked[..read].to_vec()).unwrap()
        });
        let got = get(ours, "127.0.0.1", "/explain?namespace=n&pod=p").await;
        (got, scheduler.await.unwrap())
    }

    fn response(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn the_answer_is_the_json_of_the_body() {
        let (got, asked) = answered(&response("200 OK", r#"{"summary": "fits"}"#)).await;
        assert_eq!(got.unwrap(), serde_json::json!({"summary": "fits"}));
        assert!(asked.starts_with("GET /explain?namespace=n&pod=p HTTP/1.1\r\nhost: 127.0.0.1\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_told_apart() {
        for (answer, said) in [
            (
                response("404 Not Found", r#"{"error": "pod n/p is not waiting"}"#),
                "404 Not Found: pod n/p is not waiting",
            ),
            (response("503 Service Unavailable", "{}"), "503 Service Unavailable: no reason"),
            (response("200 OK", "<html>"), "answered 200 OK with what is no JSON"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_owned(), "broke off"),
            ("SSH-2.0-OpenSSH\r\n".to_owned(), "no answer from berth-scheduler"),
        ] {
            let error = format!("{:#}", answered(&answer).await.0.unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }

    #[tokio::test]
    async fn only_plain_http_is_spoken_directly() {
        for (url, said) in
            [("https://s:1", "only http://"), ("s:1", "only http://"), ("http://[", "--extender-url http://[")]
        {
            let error = format!("{:#}", direct(url, "/explain").await.unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }
}
