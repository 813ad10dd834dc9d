//! The gRPC service: lets a stream in, takes its reports one by one, answers each, and ends it when its time is over.

use std::pin::pin;
use std::time::Duration;

use berth_model::NodeName;
use berth_proto::topology::v1alpha1::reports_server::Reports;
use berth_proto::topology::v1alpha1::{Answer, Report};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::Ingest;
use super::identity::{Identity, Refusal};
use crate::carriers::Stream;
use crate::metrics::ByReason;

/// An agent sends its report as soon as its stream is open.
const FIRST_REPORT_WITHIN: Duration = Duration::from_secs(10);
/// Least time between two reports of one stream. An agent polls ten times a second at most; a flood is slowed down by HTTP/2 itself.
const REPORT_INTERVAL: Duration = Duration::from_millis(10);
/// A stream must show its token again after this long: the API server has ended stolen tokens and those of deleted pods by then.
const STREAM_AGE_MAX: Duration = Duration::from_secs(30 * 60);
/// Answers that an agent may leave unread.
const ANSWERS_MAX: usize = 4;

/// The service behind one port.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) ingest: Ingest,
    pub(super) identity: Identity,
    pub(super) stop: CancellationToken,
}

#[tonic::async_trait]
impl Reports for Service {
    type PublishStream = ReceiverStream<Result<Answer, Status>>;

    async fn publish(&self, request: Request<Streaming<Report>>) -> Result<Response<Self::PublishStream>, Status> {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let node = match self.identity.node_of(authorization).await {
            Ok(node) => node,
            Err(refusal) => return Err(self.turn_away(&refusal)),
        };
        let (answers, answered) = mpsc::channel(ANSWERS_MAX);
        let service = self.clone();
        tokio::spawn(async move {
            if let Err(end) = service.follow(node, request.into_inner(), &answers).await {
                // The agent may be gone already.
                let _ = answers.send(Err(end)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(answered)))
    }
}

impl Service {
    fn turn_away(&self, refusal: &Refusal) -> Status {
        let metrics = &self.ingest.cluster.metrics;
        metrics.report_streams_refused.get_or_create(&ByReason { reason: refusal.reason }).inc();
        tracing::warn!(reason = refusal.reason, error = refusal.text, "a report stream is not let in");
        refusal.status()
    }

    /// Follows a stream to its end. `allowed` is the node of its token; `None` on plain loopback, where the first report names it.
    async fn follow(
        &self,
        allowed: Option<NodeName>,
        mut reports: Streaming<Report>,
        answers: &mpsc::Sender<Result<Answer, Status>>,
    ) -> Result<(), Status> {
        let first = tokio::select! {
            first = timeout(FIRST_REPORT_WITHIN, reports.message()) => first,
            () = self.stop.cancelled() => return Err(stopping()),
        };
        let Some(first) = first.map_err(|_| Status::deadline_exceeded("no report came"))?? else { return Ok(()) };
        let node = match allowed {
            Some(node) => node,
            None => NodeName::parse(&first.node).map_err(|e| Status::invalid_argument(format!("node: {e}")))?,
        };
        let Some(stream) = self.ingest.cluster.carriers.open(&node) else {
            let text = "reports of too many nodes are known".to_owned();
            return Err(self.turn_away(&Refusal { reason: "busy", text }));
        };
        let metrics = &self.ingest.cluster.metrics;
        metrics.report_streams.inc();
        let end = self.pump(&stream, first, reports, answers).await;
        metrics.report_streams.dec();
        self.ingest.close(&stream);
        tracing::debug!(%node, end = ?end.as_ref().err().map(Status::message), "a report stream ended");
        end
    }

    async fn pump(
        &self,
        stream: &Stream,
        first: Report,
        mut reports: Streaming<Report>,
        answers: &mpsc::Sender<Result<Answer, Status>>,
    ) -> Result<(), Status> {
        let over = Instant::now() + lifetime(stream.node());
        let mut over = pin!(sleep_until(over));
        let mut report = first;
        loop {
            let Some(answer) = self.ingest.take(stream, &report) else { return Err(replaced()) };
            let sent = async {
                let is_read = answers.send(Ok(answer)).await.is_ok();
                tokio::time::sleep(REPORT_INTERVAL).await;
                if is_read { reports.message().await } else { Ok(None) }
            };
            let next = tokio::select! {
                next = sent => next?,
                () = stream.replaced.cancelled() => return Err(replaced()),
                () = self.stop.cancelled() => return Err(stopping()),
                () = &mut over => return Err(Status::unavailable("the stream's time is over; open another")),
            };
            let Some(next) = next else { return Ok(()) };
            report = next;
        }
    }
}

/// Spread by the node's name, so that a scheduler's restart does not make all tokens come for review at once half an hour later.
fn lifetime(node: &NodeName) -> Duration {
    let sum = node.as_str().bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    STREAM_AGE_MAX - STREAM_AGE_MAX / 3 / 1000 * (sum % 1000)
}

fn replaced() -> Status {
    Status::aborted("a newer stream of this node took over")
}

fn stopping() -> Status {
    Status::unavailable("the scheduler is stopping")
}
