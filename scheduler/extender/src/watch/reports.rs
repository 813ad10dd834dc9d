//! NodeTopology objects: reports into the index. A refused report leaves the last good one in force and says which field is wrong.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use berth_index::{Event, Kind};
use berth_model::{NodeName, NodeTopology};
use berth_proto::Status;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};

use super::Sinks;
use super::follow::Sink;
use crate::events::Told;
use crate::metrics::ByReason;

/// A NodeTopology whose status may be of any form: one object that a version of the schema wrote and we cannot read must not
/// fail the list of all others.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct WatchedReport {
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "any_form")]
    status: Option<Result<Status, String>>,
}

fn any_form<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Result<Status, String>>, D::Error> {
    let status = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(status.map(|status| Status::deserialize(status).map_err(|error| error.to_string())))
}

impl Resource for WatchedReport {
    type DynamicType = ();
    type Scope = <berth_proto::NodeTopology as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        berth_proto::NodeTopology::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        berth_proto::NodeTopology::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        berth_proto::NodeTopology::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        berth_proto::NodeTopology::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What is kept of an object until its list is complete.
pub(super) struct Seen {
    node: NodeName,
    about: ObjectReference,
    report: Report,
}

enum Report {
    /// The object is there, its first report is not.
    None,
    Good(Box<NodeTopology>),
    Bad(Refusal),
}

/// Why a report is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    /// `malformed` or `generation`.
    code: &'static str,
    text: String,
}

/// Takes reports into the index.
#[derive(Debug)]
pub(super) struct Reports {
    sinks: Sinks,
    known: BTreeMap<NodeName, Known>,
}

#[derive(Debug)]
struct Known {
    /// UID of the object: a new object starts its generations afresh.
    uid: Option<String>,
    /// What was told of it last.
    refused: Option<Refusal>,
}

impl Reports {
    pub(super) fn new(sinks: Sinks) -> Self {
        Self { sinks, known: BTreeMap::new() }
    }

    /// The report that is in force for a node.
    fn in_force(&self, node: &NodeName) -> Option<Event> {
        let snapshot = self.sinks.cluster.index.snapshot();
        let hardware = snapshot.node(node.as_str())?.view.hardware.as_ref()?;
        Some(Event::Report(Box::new((*hardware.topology).clone())))
    }

    /// Whether the object took the place of one that is gone without that being seen.
    fn is_another(&self, seen: &Seen) -> bool {
        self.known.get(&seen.node).is_some_and(|known| known.uid != seen.about.uid)
    }

    /// Remembers the verdict on a report and tells it, once for each text.
    fn judge(&mut self, node: &NodeName, about: ObjectReference, refused: Option<Refusal>) {
        let known = Known { uid: about.uid.clone(), refused: refused.clone() };
        let before = self.known.insert(node.clone(), known).and_then(|k| k.refused);
        let Some(Refusal { code, text }) = refused.filter(|r| before.as_ref() != Some(r)) else { return };
        self.sinks.cluster.metrics.topology_reports_rejected.get_or_create(&ByReason { reason: code }).inc();
        tracing::warn!(%node, reason = code, error = text, "a topology report is refused; the last good one stays");
        let note = format!("{text}. The last good report stays in force.");
        self.sinks.events.tell(Told {
            about,
            is_warning: true,
            reason: "TopologyReportRejected",
            action: "ReadReport",
            note,
        });
    }

    /// The object that was known is gone: so is its report, unless the node's stream speaks for it.
    fn gone(&self, node: &NodeName) {
        let cluster = &self.sinks.cluster;
        cluster.carriers.object_gone(node, || drop(cluster.index.apply(Event::ReportGone(node.clone()))));
    }

    /// Applies what one object says; `Err` says why it was refused.
    fn apply(&mut self, node: &NodeName, report: Report) -> Result<(), Refusal> {
        let cluster = &self.sinks.cluster;
        let generation = if let Report::Good(topology) = &report { Some(topology.parts().generation.0) } else { None };
        let is_behind = cluster.carriers.object_seen(node, generation);
        let topology = match report {
            Report::Bad(refusal) => return Err(refusal),
            Report::None => {
                self.gone(node);
                return Ok(());
            }
            // The node's stream was quicker; that is no fault of the object.
            Report::Good(_) if is_behind => return Ok(()),
            Report::Good(topology) => topology,
        };
        let change = cluster.index.apply(Event::Report(topology));
        if change.has_grown {
            self.sinks.requeue.node_grew(node);
        }
        change.refused.map_or(Ok(()), |text| Err(Refusal { code: "generation", text }))
    }
}

impl Sink<WatchedReport> for Reports {
    const KIND: &'static str = "NodeTopology";
    const NEEDS: &'static str = "the CustomResourceDefinition nodetopologies.topology.berth.dev (kubectl apply -k manifests/crd), and get, list and watch on nodetopologies";
    type Item = Option<Seen>;

    fn read(&mut self, object: WatchedReport) -> Self::Item {
        let about = ObjectReference {
            api_version: Some(WatchedReport::api_version(&()).into_owned()),
            kind: Some(berth_proto::KIND.to_owned()),
            name: object.metadata.name.clone(),
            uid: object.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        let name = object.metadata.name.unwrap_or_default();
        let node = NodeName::parse(&name)
            .inspect_err(|error| tracing::error!(name, %error, "a NodeTopology is left out: its name is no node's"))
            .ok()?;
        let malformed = |text: String| Report::Bad(Refusal { code: "malformed", text });
        let report = match object.status {
            None => Report::None,
            Some(Err(text)) => malformed(format!("status: {text}")),
            Some(Ok(status)) => match berth_proto::decode(&name, &status) {
                Ok(topology) => Report::Good(Box::new(topology)),
                Err(error) => malformed(error.to_string()),
            },
        };
        Some(Seen { node, about, report })
    }

    fn replace(&mut self, items: Vec<Self::Item>) -> bool {
        let mut live = Vec::new();
        let mut judged = Vec::new();
        let streaming = self.sinks.cluster.carriers.live();
        for seen in items.into_iter().flatten() {
            let is_another = self.is_another(&seen);
            if is_another && !streaming.contains(&seen.node) {
                live.push(Event::ReportGone(seen.node.clone()));
            }
            let generation = if let Report::Good(t) = &seen.report { Some(t.parts().generation.0) } else { None };
            let is_behind = self.sinks.cluster.carriers.object_seen(&seen.node, generation);
            let refused = match seen.report {
                Report::None => {
                    live.extend(self.in_force(&seen.node).filter(|_| streaming.contains(&seen.node)));
                    None
                }
                // The node's stream was quicker; naming what it brought keeps it.
                Report::Good(_) if is_behind => {
                    live.extend(self.in_force(&seen.node));
                    None
                }
                Report::Good(topology) => {
                    live.push(Event::Report(topology));
                    None
                }
                Report::Bad(refusal) => {
                    // Naming the one in force keeps it: what the list does not name is gone.
                    live.extend(self.in_force(&seen.node).filter(|_| !is_another));
                    Some(refusal)
                }
            };
            judged.push((seen.node, seen.about, refused));
        }
        // What a node's open stream brought stays, whether or not there is an object.
        let listed: BTreeSet<NodeName> = judged.iter().map(|(node, ..)| node.clone()).collect();
        live.extend(streaming.iter().filter(|node| !listed.contains(*node)).filter_map(|node| self.in_force(node)));
        self.sinks.cluster.carriers.listed(|node| listed.contains(node));
        let mut too_old: BTreeMap<NodeName, String> = BTreeMap::new();
        let nodes: Vec<Option<NodeName>> = live.iter().map(subject).collect();
        let changes = self.sinks.cluster.index.reset(Kind::Reports, live);
        // Losses come first in the answer, what the list named last.
        let named = changes.len().saturating_sub(nodes.len());
        for (change, node) in changes.into_iter().skip(named).zip(nodes) {
            if let (Some(text), Some(node)) = (change.refused, node) {
                too_old.insert(node, text);
            } else if let Some(node) = change.node.filter(|_| change.has_grown) {
                self.sinks.requeue.node_grew(&node);
            }
        }
        self.known.retain(|node, _| listed.contains(node));
        for (node, about, refused) in judged {
            let late = too_old.remove(&node).map(|text| Refusal { code: "generation", text });
            self.judge(&node, about, refused.or(late));
        }
        self.sinks.cluster.reports_listed();
        true
    }

    fn take(&mut self, item: Self::Item) -> bool {
        let Some(seen) = item else { return false };
        if self.is_another(&seen) {
            self.gone(&seen.node);
        }
        let refused = self.apply(&seen.node, seen.report).err();
        self.judge(&seen.node, seen.about, refused);
        false
    }

    fn lose(&mut self, item: Self::Item) -> bool {
        let Some(seen) = item else { return false };
        self.known.remove(&seen.node);
        self.gone(&seen.node);
        false
    }
}

fn subject(event: &Event) -> Option<NodeName> {
    match event {
        Event::Report(topology) => Some(topology.parts().node.clone()),
        Event::ReportGone(node) => Some(node.clone()),
        _ => None,
    }
}
