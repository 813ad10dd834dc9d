//! A report port at work, and streams to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_model::NodeTopology;
use berth_proto::encode;
use berth_proto::topology::v1alpha1::reports_client::ReportsClient;
use berth_proto::topology::v1alpha1::{Answer, Report};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::cluster::Cluster;
use crate::fixture;
use crate::ingest::serve::{Limits, Security, serve};
use crate::ingest::{Ingest, Nodes};

/// For a machine that does much else.
const WITHIN: Duration = Duration::from_secs(20);

/// A port, and what it writes to. The port closes with it.
pub(super) struct Rig {
    pub(super) cluster: Arc<Cluster>,
    pub(super) address: SocketAddr,
    pub(super) stop: CancellationToken,
}

/// A plain port on loopback.
pub(super) async fn start() -> Rig {
    start_with(|address| Security::new(address, None, None).unwrap()).await
}

pub(super) async fn start_with(security: impl FnOnce(SocketAddr) -> Security) -> Rig {
    let (cluster, stop) = (fixture::cluster(), CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ingest = Ingest { cluster: Arc::clone(&cluster), requeue: Arc::default(), nodes: Nodes::ByApi };
    tokio::spawn(serve(listener, security(address), ingest, Limits::default(), stop.clone()));
    Rig { cluster, address, stop }
}

impl Rig {
    /// The report in force.
    pub(super) fn in_force(&self, node: &str) -> Option<NodeTopology> {
        let snapshot = self.cluster.index.snapshot();
        Some((*snapshot.node(node)?.view.hardware.as_ref()?.topology).clone())
    }

    pub(super) async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let looking = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(WITHIN, looking).await.unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What an agent on the node would send.
pub(super) fn report(topology: &NodeTopology) -> Report {
    Report { node: topology.parts().node.to_string(), status: Some(encode(topology, "test")) }
}

/// One stream.
pub(super) struct Feed {
    reports: mpsc::Sender<Report>,
    answers: Streaming<Answer>,
}

impl Feed {
    pub(super) async fn open(address: SocketAddr) -> Self {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self::over(channel, None).await.unwrap()
    }

    /// A stream over a connection, with a token.
    pub(super) async fn over(channel: Channel, token: Option<&str>) -> Result<Self, Status> {
        let (reports, sent) = mpsc::channel(1);
        let mut request = Request::new(ReceiverStream::new(sent));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let answers = ReportsClient::new(channel).publish(request).await?.into_inner();
        Ok(Self { reports, answers })
    }

    pub(super) async fn send(&self, report: Report) {
        self.reports.send(report).await.unwrap();
    }

    /// Sends a report and waits for its answer.
    pub(super) async fn say(&mut self, report: Report) -> Answer {
        self.send(report).await;
        tokio::time::timeout(WITHIN, self.answers.message()).await.unwrap().unwrap().unwrap()
    }

    /// Waits for the end; why, where it is a failure.
    pub(super) async fn end(&mut self) -> Option<Status> {
        let ending = async {
            loop {
                match self.answers.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(status) => return Some(status),
                }
            }
        };
        tokio::time::timeout(WITHIN, ending).await.unwrap()
    }
}
