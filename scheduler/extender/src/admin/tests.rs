//! The admin listener over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Admin, Gates, Watchdog, serve};
use crate::http::{Limits, ServeEnd};
use crate::metrics::Metrics;

struct Rig {
    address: SocketAddr,
    admin: Admin,
    shutdown: CancellationToken,
    server: JoinHandle<ServeEnd>,
}

async fn rig() -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let admin = Admin { gates: Gates::new(), watchdog: Watchdog::new(), metrics: Arc::new(Metrics::new("test")) };
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve(listener, admin.clone(), Limits::default(), shutdown.clone()));
    Rig { address, admin, shutdown, server }
}

impl Rig {
    /// Status line and body.
    async fn call(&self, method: &str, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (String, String) {
        self.call("GET", path).await
    }
}

fn ok(body: &str) -> (String, String) {
    ("HTTP/1.1 200 OK".into(), body.into())
}

fn unavailable(body: &str) -> (String, String) {
    ("HTTP/1.1 503 Service Unavailable".into(), body.into())
}

#[tokio::test]
async fn readiness_names_every_gate() {
    let rig = rig().await;
    let (nodes, policy) = (rig.admin.gates.add("nodes listed"), rig.admin.gates.add("policy loaded"));
    nodes.open();
    let failed = "[+]nodes listed ok\n[-]policy loaded failed: not yet\n[+]serving ok\nreadyz check failed\n";
    assert_eq!(rig.get("/readyz").await, unavailable(failed));
    policy.say("line 3, column 1: no".to_owned());
    assert_eq!(rig.get("/readyz").await, unavailable(&failed.replace("not yet", "line 3, column 1: no")));
    policy.open();
    assert_eq!(rig.get("/readyz").await, ok("ok"));
    let passed = "[+]nodes listed ok\n[+]policy loaded ok\n[+]serving ok\nreadyz check passed\n";
    assert_eq!(rig.get("/readyz?verbose").await, ok(passed));
    rig.admin.gates.begin_drain();
    let draining = "[+]nodes listed ok\n[+]policy loaded ok\n[-]serving failed: draining\nreadyz check failed\n";
    assert_eq!(rig.get("/readyz").await, unavailable(draining));
    assert!(rig.admin.gates.missing().is_empty(), "a drain closes no gate");
}

#[tokio::test]
async fn liveness_follows_the_pulses_and_not_the_gates() {
    let rig = rig().await;
    let _closed = rig.admin.gates.add("nodes listed");
    let steady = rig.admin.watchdog.add("watch", Duration::from_secs(3600));
    steady.beat();
    for path in ["/livez", "/healthz"] {
        assert_eq!(rig.get(path).await, ok("ok"));
    }
    assert_eq!(rig.get("/livez?verbose").await, ok("[+]watch ok\nlivez check passed\n"));
    let _silent = rig.admin.watchdog.add("bind", Duration::ZERO);
    let stuck = "[+]watch ok\n[-]bind failed: no sign of life\nlivez check failed\n";
    assert_eq!(rig.get("/livez").await, unavailable(stuck));
}

#[tokio::test(start_paused = true)]
async fn a_beat_brings_a_pulse_back() {
    let watchdog = Watchdog::new();
    let pulse = watchdog.add("watch", Duration::from_secs(30));
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(watchdog.states(), [("watch", true)]);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(watchdog.states(), [("watch", false)]);
    pulse.beat();
    assert_eq!(watchdog.states(), [("watch", true)]);
}

#[tokio::test]
async fn metrics_are_openmetrics_text() {
    let rig = rig().await;
    let (status, body) = rig.get("/metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.contains("berth_build_info{version=\"test\"} 1\n") && body.ends_with("# EOF\n"), "{body}");
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let rig = rig().await;
    let (status, body) = rig.get("/filter").await;
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    assert_eq!(body, "unknown path \"/filter\"; known: /livez /readyz /healthz /metrics\n");
    assert_eq!(rig.call("POST", "/readyz").await.0, "HTTP/1.1 405 Method Not Allowed");
}

#[tokio::test]
async fn shutdown_ends_the_listener() {
    let rig = rig().await;
    let _open = TcpStream::connect(rig.address).await.unwrap();
    assert_eq!(rig.get("/livez").await, ok("ok"));
    rig.shutdown.cancel();
    let end = tokio::time::timeout(Duration::from_secs(20), rig.server).await.unwrap().unwrap();
    assert_eq!(end, ServeEnd { unfinished: 0 });
}
