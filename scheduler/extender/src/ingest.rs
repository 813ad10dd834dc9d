//! The quick path of reports: streams of agents into the index, by the same event as the watch. Who may speak is decided in
//! [`identity`], how bytes come in [`serve`]; what a report may hold is decided by `berth_proto::decode`.

pub mod certificate;
pub mod identity;
pub mod serve;
mod service;

use std::sync::Arc;

use berth_index::Event;
use berth_model::NodeName;
use berth_proto::topology::v1alpha1::{Answer, Report};

use crate::carriers::Stream;
use crate::cluster::Cluster;
use crate::machines;
use crate::metrics::ByReason;
use crate::requeue::Requeue;

/// Takes what streams bring.
#[derive(Debug, Clone)]
pub struct Ingest {
    /// The shared state.
    pub cluster: Arc<Cluster>,
    /// Where growth is told; nobody listens where there is no API server.
    pub requeue: Arc<Requeue>,
    /// Who says that a node exists.
    pub nodes: Nodes,
}

/// Who says that a node exists and how much it can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nodes {
    /// The API server.
    ByApi,
    /// A report: there is no API server.
    ByReport,
}

impl Ingest {
    /// Takes one report of a stream. `None` when a newer stream of the node has taken over.
    fn take(&self, stream: &Stream, report: &Report) -> Option<Answer> {
        let node = stream.node();
        if report.node != node.as_str() {
            let text =
                format!("this stream is node {node}'s; a report of another node needs a stream with that node's token");
            return Some(self.refuse(node, "node", "node".to_owned(), text));
        }
        let Some(status) = &report.status else {
            return Some(self.refuse(node, "malformed", "status".to_owned(), "missing".to_owned()));
        };
        let topology = match berth_proto::decode(node.as_str(), status) {
            Ok(topology) => topology,
            Err(error) => {
                return Some(self.refuse(node, "malformed", format!("status.{}", error.field), error.problem));
            }
        };
        let generation = topology.parts().generation.0;
        let carriers = &self.cluster.carriers;
        let change = carriers.bring(stream, generation, || {
            let change = self.cluster.index.apply(Event::Report(Box::new(topology)));
            (change.refused.is_none(), change)
        })?;
        if change.has_grown {
            self.requeue.node_grew(node);
        }
        self.enter_node(node);
        let Some(refused) = change.refused else {
            return Some(Answer { accepted: true, generation: self.generation(node), ..Answer::default() });
        };
        let text = refused.strip_prefix("generation: ").unwrap_or(&refused).to_owned();
        Some(self.refuse(node, "generation", "status.generation".to_owned(), text))
    }

    /// Lets the report in force say what the node can take, where nobody else does.
    fn enter_node(&self, node: &NodeName) {
        if self.nodes == Nodes::ByApi {
            return;
        }
        let snapshot = self.cluster.index.snapshot();
        let slot = snapshot.node(node.as_str());
        if let Some(hardware) = slot.and_then(|slot| slot.view.hardware.as_ref()) {
            let facts = machines::facts(&hardware.topology, &self.cluster.policy());
            self.cluster.index.apply(Event::Node(facts));
        }
    }

    fn refuse(&self, node: &NodeName, reason: &'static str, field: String, text: String) -> Answer {
        self.cluster.metrics.topology_reports_rejected.get_or_create(&ByReason { reason }).inc();
        tracing::warn!(%node, reason, field, error = text, carrier = "stream", "a topology report is refused; the last good one stays");
        Answer { accepted: false, generation: self.generation(node), field, text }
    }

    /// Generation of the report in force.
    fn generation(&self, node: &NodeName) -> i64 {
        let snapshot = self.cluster.index.snapshot();
        let hardware = snapshot.node(node.as_str()).and_then(|slot| slot.view.hardware.as_ref());
        hardware.map_or(0, |h| i64::try_from(h.topology.parts().generation.0).unwrap_or(i64::MAX))
    }

    /// Ends a stream.
    fn close(&self, stream: &Stream) {
        self.cluster.carriers.close(stream, || {
            self.cluster.index.apply(Event::ReportGone(stream.node().clone()));
        });
    }
}

#[cfg(test)]
mod tests;
