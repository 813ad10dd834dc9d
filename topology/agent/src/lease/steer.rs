//! Steers leases: asks the kubelet who holds what while any is pending, writes the specs of those that are given, and takes away those of
//! pods that are over. Decides nothing itself; a kubelet, API server or folder that is away leaves leases as they are.

mod tidy;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_model::{NodeName, Refusal, RefusalReason};
use berth_proto::kubelet::podresources::ListPodResourcesRequest;
use berth_proto::kubelet::podresources::pod_resources_lister_client::PodResourcesListerClient;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::transport::Channel;

use super::book::{self, Listing, Look, Verdict};
use super::cards::Cards;
use super::edits::{Signature, Sources};
use super::listing::listing;
use super::pace::Pace;
use super::record::{Holder, Lease, LeaseName};
use super::running::running;
use super::spec::Specs;
use super::unleased::Unleased;
use super::witness::{Witness, WitnessFile};
use super::{LeaseError, Leases};
use crate::holders;
use crate::metrics::Metrics;
use crate::pods::OnNode;
use crate::statement::Statement;

/// A kubelet answers within milliseconds; one that takes longer is in trouble, and so is its node.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often held leases are looked through, and their specs compared with what they should be.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// A refusal is told once it has stood so long: most that are shorter are a kubelet that was asked between two of its steps, and every
/// one told is a write of the report.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// A pending lease that the kubelet does not name in so many looks in a row, most of them a second apart, is nobody's: its answer was lost,
/// or its pod has gone.
const UNSEEN_LOOKS_MAX: u32 = 75;

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// This node.
    pub(crate) node: NodeName,
    /// Socket of the kubelet's PodResources service.
    pub(crate) pod_resources: PathBuf,
    /// The kubelet's file of devices.
    pub(crate) checkpoint: PathBuf,
    /// Where the runtime reads CDI specs, and ours are written.
    pub(crate) cdi_dir: PathBuf,
    /// Where nvidia-ctk's specs may be, in the order of the runtime.
    pub(crate) cdi_sources: Vec<PathBuf>,
    /// Where the host's device files are seen.
    pub(crate) dev_root: PathBuf,
    /// Where processes are.
    pub(crate) proc: PathBuf,
}

/// The loop, and what it remembers.
#[derive(Debug)]
pub(crate) struct Steering {
    leases: Arc<Leases>,
    places: Places,
    pods: watch::Receiver<Arc<OnNode>>,
    statement: Arc<Statement>,
    metrics: Arc<Metrics>,
    specs: Specs,
    witness: WitnessFile,
    unleased: Unleased,
    /// As last read, and the state of their folders then.
    sources: (Option<Signature>, Sources),
    /// Since when each lease is refused, and with what.
    refused: BTreeMap<LeaseName, (Instant, Refusal)>,
    /// What the report says of it.
    told_refusals: Vec<Refusal>,
    /// In how many looks in a row the kubelet did not name a pending lease.
    unseen: BTreeMap<LeaseName, u32>,
    tidied_at: Option<Instant>,
    /// What the log was told of the kubelet.
    told: Option<String>,
    /// Whether it was said that the runtime ignores leases.
    is_runtime_told: bool,
}

impl Steering {
    /// Takes away specs without a lease, at once: a stale one must match no container of this start.
    ///
    /// # Errors
    /// The folder of CDI specs does not work.
    pub(crate) fn new(
        leases: Arc<Leases>,
        places: Places,
        pods: watch::Receiver<Arc<OnNode>>,
        statement: Arc<Statement>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, LeaseError> {
        let specs = Specs::open(&places.cdi_dir)?;
        let held = leases.book().0.into_values().filter(|lease| lease.holder.is_some()).map(|lease| lease.name);
        let stale = specs.sweep(&held.collect());
        if stale > 0 {
            tracing::info!(stale, "specs without a lease are removed");
        }
        let (witness, sources) = (WitnessFile::new(&places.checkpoint), (None, Sources::default()));
        let (refused, told_refusals, unseen, tidied_at, told) =
            (BTreeMap::new(), Vec::new(), BTreeMap::new(), None, None);
        Ok(Self {
            leases,
            places,
            pods,
            statement,
            metrics,
            specs,
            witness,
            unleased: Unleased::default(),
            sources,
            refused,
            told_refusals,
            unseen,
            tidied_at,
            told,
            is_runtime_told: false,
        })
    }

    /// Steers for ever.
    pub(crate) async fn run(mut self) -> Infallible {
        let mut kubelet = holders::lister(&self.places.pod_resources);
        let mut pace = Pace::new(Instant::now());
        let leases = Arc::clone(&self.leases);
        loop {
            sleep_until(pace.admit(Instant::now())).await;
            let is_pending = self.look(&mut kubelet).await;
            let wait = if is_pending { pace.wait() } else { TIDY_EVERY };
            tokio::select! {
                () = leases.granted() => pace.hurry(),
                // The watch lives as long as this.
                Ok(()) = self.pods.changed() => pace.hurry(),
                () = sleep(wait) => {}
            }
        }
    }

    /// Looks once; says whether any lease is pending.
    async fn look(&mut self, kubelet: &mut PodResourcesListerClient<Channel>) -> bool {
        // In this order: what the kubelet says counts for leases that were there when it was asked.
        let asked_at = self.leases.book().1;
        let answer = timeout(CALL_TIMEOUT, kubelet.list(ListPodResourcesRequest {})).await;
        let listing = match answer.map(|answer| answer.map_err(|status| holders::reason(&status))) {
            Ok(Ok(list)) => listing(list.into_inner()),
            Ok(Err(error)) => {
                self.tell(Some(error));
                return true;
            }
            Err(_) => {
                self.tell(Some(format!("no answer within {CALL_TIMEOUT:?}")));
                return true;
            }
        };
        self.tell(None);
        let witness = self.witness.read();
        let (pods, cards) = (Arc::clone(&self.pods.borrow_and_update()), self.statement.cards());
        let node = self.places.node.clone();
        let unleased = self.unleased(&witness, &listing, &pods, cards.as_ref()).await;
        let look = Look {
            node: &node,
            asked_at,
            listing: &listing,
            witness: &witness,
            pods: &pods,
            cards: cards.as_ref(),
            unleased: &unleased,
        };
        self.release(&look).await;
        let (mut refusals, mut unseen) = (BTreeMap::new(), BTreeMap::new());
        for lease in self.pending() {
            // Each against the book as those before have left it.
            let (book, _) = self.leases.book();
            let refusal = match book::judge(&book, &lease, &look) {
                Verdict::Give(holder) => self.give(&lease, &holder, cards.as_ref()).err(),
                Verdict::Refuse(refusal) => Some(*refusal),
                Verdict::Drop => {
                    tracing::info!(lease = %lease.name, "a lease that no container has is dropped");
                    self.leases.release(&lease.name);
                    None
                }
                Verdict::Wait => None,
                Verdict::Unseen => {
                    unseen.insert(
                        lease.name.clone(),
                        self.unseen.get(&lease.name).map_or(1, |looks| looks.saturating_add(1)),
                    );
                    None
                }
            };
            refusals.extend(refusal.map(|refusal| (lease.name.clone(), refusal)));
        }
        for (lease, _) in unseen.iter().filter(|(_, looks)| **looks >= UNSEEN_LOOKS_MAX) {
            tracing::info!(%lease, "a lease that the kubelet never names is dropped");
            self.leases.release(lease);
        }
        self.unseen = unseen;
        refusals.extend(self.tidy(cards.as_ref()));
        let (book, _) = self.leases.book();
        if let Some(refusal) = refusals.values().find(|refusal| book::is_ignored(&book, refusal, &pods)) {
            self.say_ignored(refusal);
        }
        self.refuse(refusals);
        let pending = book.values().filter(|lease| lease.holder.is_none()).count();
        self.metrics.lease.live(pending, book.len().saturating_sub(pending));
        pending > 0
    }

    /// Says that the runtime starts containers without their leases: no pod that comes could get its devices.
    fn say_ignored(&mut self, refusal: &Refusal) {
        if std::mem::replace(&mut self.is_runtime_told, true) {
            return;
        }
        let Refusal { pod, container, .. } = refusal;
        tracing::error!(
            pod,
            container,
            "the container runtime started a container without its lease: no more pods are accepted"
        );
        self.metrics.lease.lacks_cdi();
        self.statement.lacks_cdi(format!(
            "container {container} of pod {pod} runs though it has no lease: the container runtime looks for no CDI specs"
        ));
    }

    fn pending(&self) -> Vec<Lease> {
        let (book, _) = self.leases.book();
        let mut pending: Vec<Lease> = book.into_values().filter(|lease| lease.holder.is_none()).collect();
        // The first lease wins.
        pending.sort_by_key(|lease| lease.sequence);
        pending
    }

    /// Gives a lease: into the book, and then to the runtime.
    fn give(&mut self, lease: &Lease, holder: &Holder, cards: Option<&Cards>) -> Result<(), Refusal> {
        self.reread();
        let refuse = |text: String| Refusal {
            pod: format!("{}/{}", holder.namespace, holder.pod),
            pod_uid: holder.pod_uid.clone(),
            container: holder.container.clone(),
            reason: RefusalReason::NoEdits,
            text,
        };
        let cards = cards.ok_or_else(|| refuse("the cards were not read yet".to_owned()))?;
        let (version, edits) = self.sources.1.of(&holder.devices, cards).map_err(refuse)?;
        let (book, _) = self.leases.book();
        // Whoever reads the folder after a crash must find no spec of a lease that may go elsewhere.
        let given_at = self.leases.hold(&lease.name, holder.clone()).map_err(|error| refuse(chain(&error)))?;
        let path = self.places.cdi_dir.display();
        let written = self.specs.write(&lease.name, &version, &edits);
        // Held all the same: the next look writes it.
        written.map_err(|error| refuse(format!("{path}: {error}")))?;
        for earlier in book::superseded(&book, lease, holder) {
            self.end(&earlier);
        }
        let is_permuted = book::is_permuted(lease, holder);
        let waited = given_at.map(|given_at| given_at.elapsed());
        self.metrics.lease.given(is_permuted, waited);
        tracing::info!(
            lease = %lease.name,
            namespace = holder.namespace,
            pod = holder.pod,
            container = holder.container,
            devices = ?holder.devices.iter().map(super::cards::id).collect::<Vec<_>>(),
            is_permuted,
            waited_us = waited.and_then(|waited| u64::try_from(waited.as_micros()).ok()),
            "leased"
        );
        Ok(())
    }

    /// Who holds what without a lease, as far as it matters: to leases that are pending.
    async fn unleased(
        &mut self,
        witness: &Witness,
        listing: &Listing,
        pods: &OnNode,
        cards: Option<&Cards>,
    ) -> Vec<Holder> {
        // Of what the file said before the list was asked for: the list may lack what the file says now.
        let is_pending = !self.pending().is_empty();
        let over = if is_pending { self.unleased.over(pods, listing) } else { BTreeSet::new() };
        let running = self.running(&over).await;
        self.unleased.see(witness, &self.leases.book().0);
        self.unleased.forget(&over.difference(&running).cloned().collect());
        let cards = cards.filter(|_| is_pending);
        cards.map(|cards| self.unleased.holders(pods, &self.places.node, cards)).unwrap_or_default()
    }

    /// Those of the pods of which a process runs; all, where that cannot be known.
    async fn running(&self, uids: &BTreeSet<String>) -> BTreeSet<String> {
        let (proc, asked) = (self.places.proc.clone(), uids.clone());
        // Thousands of small files where a node is busy.
        let running = tokio::task::spawn_blocking(move || running(&proc, &asked)).await;
        running.unwrap_or_else(|_| uids.clone())
    }

    /// Ends the leases of pods that are over, and of which no process runs.
    async fn release(&self, look: &Look<'_>) {
        let (book, _) = self.leases.book();
        let over = book::over(&book, look);
        if over.is_empty() {
            return;
        }
        let running = self.running(&over.iter().map(|(_, uid)| uid.clone()).collect()).await;
        for (lease, uid) in over.into_iter().filter(|(_, uid)| !running.contains(uid)) {
            tracing::info!(%lease, uid, "released");
            self.end(&lease);
        }
    }

    /// The spec first: without it no container gets the devices, whatever happens next.
    fn end(&self, lease: &LeaseName) {
        self.specs.remove(lease);
        self.leases.release(lease);
    }

    /// Says what is refused, once it has stood a while.
    fn refuse(&mut self, refusals: BTreeMap<LeaseName, Refusal>) {
        let now = Instant::now();
        let mut refused = BTreeMap::new();
        for (lease, refusal) in refusals {
            let before = self.refused.remove(&lease);
            let since = before.map_or(now, |(since, _)| since);
            if now.duration_since(since) >= TOLD_AFTER && !self.told_refusals.contains(&refusal) {
                let Refusal { pod, container, reason, text, .. } = &refusal;
                tracing::warn!(pod, container, reason = reason.word(), text, "no devices for a container");
            }
            refused.insert(lease, (since, refusal));
        }
        self.refused = refused;
        let standing = self.refused.values().filter(|(since, _)| now.duration_since(*since) >= TOLD_AFTER);
        let mut standing: Vec<Refusal> = standing.map(|(_, refusal)| refusal.clone()).collect();
        standing.sort();
        standing.dedup();
        standing.truncate(Refusal::REFUSALS_MAX);
        self.told_refusals.clone_from(&standing);
        self.metrics.lease.refused(&standing);
        self.statement.refused(standing);
    }

    /// Logs a trouble with the kubelet once, and its end.
    fn tell(&mut self, error: Option<String>) {
        match &error {
            Some(error) if self.told.as_ref() != Some(error) => {
                tracing::warn!(error, "the kubelet does not say who holds what; pending leases wait");
            }
            None if self.told.is_some() => tracing::info!("the kubelet says again who holds what"),
            _ => {}
        }
        self.told = error;
    }
}

/// An error and its causes in one line.
fn chain(error: &LeaseError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
