//! One watched kind: full lists are taken whole or not at all, changes one by one, failures are said and tried again.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admin::Gate;
use crate::metrics::{ByKind, Metrics};

/// Longest wait for the next page of a list.
const LIST_STALL: Duration = Duration::from_secs(60);
/// Pause before a watch is started afresh.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// What a watched kind is turned into.
pub(super) trait Sink<K>: Send + 'static {
    /// The kind, as metrics and logs name it.
    const KIND: &'static str;
    /// What has to be there for a list of it to work, said when the API server does not know the kind or refuses.
    const NEEDS: &'static str;
    /// What is kept of an object while a list is not complete.
    type Item: Send;

    /// Reads an object. Called in order, list or change.
    fn read(&mut self, object: K) -> Self::Item;
    /// A full list begins; nothing is asked of the API server before this ends.
    fn begin(&mut self) -> impl Future<Output = ()> + Send {
        ready(())
    }
    /// The list that began will not be completed.
    fn abandon(&mut self) {}
    /// A full list is complete: what it does not hold is gone. Says whether the gate may open.
    fn replace(&mut self, items: Vec<Self::Item>) -> bool;
    /// An object exists, or changed. Says whether the gate may open.
    fn take(&mut self, item: Self::Item) -> bool;
    /// An object is gone. Says whether the gate may open.
    fn lose(&mut self, item: Self::Item) -> bool;
    /// When to be woken without an event.
    fn wakes_at(&self) -> Option<Instant> {
        None
    }
    /// The time of [`Sink::wakes_at`] has come.
    fn wake(&mut self) {}
}

/// Where a kind comes from.
pub(super) struct Source<K> {
    pub(super) api: Api<K>,
    pub(super) config: watcher::Config,
    pub(super) gate: Gate,
    pub(super) metrics: Arc<Metrics>,
}

/// Follows a kind until `shutdown`, and then says its name.
pub(super) async fn follow<K, S>(source: Source<K>, sink: S, shutdown: CancellationToken) -> &'static str
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
    S: Sink<K>,
{
    let mut follower = Follower { sink, list: None, has_listed: false, gate: source.gate, metrics: source.metrics };
    loop {
        let stream = watcher(source.api.clone(), source.config.clone()).default_backoff();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return S::KIND,
            () = follower.drain(stream) => {}
        }
        follower.abandon();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return S::KIND,
            () = tokio::time::sleep(RESTART_PAUSE) => {}
        }
    }
}

struct Follower<K, S: Sink<K>> {
    sink: S,
    /// The list that is on its way.
    list: Option<Vec<S::Item>>,
    has_listed: bool,
    gate: Gate,
    metrics: Arc<Metrics>,
}

impl<K: kube::Resource, S: Sink<K>> Follower<K, S> {
    /// Takes events until the watch has to be started afresh.
    async fn drain(&mut self, stream: impl futures::Stream<Item = watcher::Result<watcher::Event<K>>>) {
        let mut stream = std::pin::pin!(stream);
        loop {
            // Between two pages, silence means a stalled list; after the list it means that nothing happens.
            let stalls_at = self.list.as_ref().map(|_| Instant::now() + LIST_STALL);
            let wakes_at = self.sink.wakes_at();
            tokio::select! {
                // In this order always: no flood of events puts off what is due, a page that came has not stalled, and a run that
                // is gone through again goes the same way.
                biased;
                () = sleep_until(wakes_at) => self.sink.wake(),
                event = stream.next() => match event {
                    Some(Ok(event)) => self.take(event).await,
                    Some(Err(error)) => if self.fail(&error) { return },
                    None => return,
                },
                () = sleep_until(stalls_at) => {
                    tracing::warn!(kind = S::KIND, seconds = LIST_STALL.as_secs(), "a list has stalled: listing again");
                    return;
                }
            }
        }
    }

    async fn take(&mut self, event: watcher::Event<K>) {
        let may_open = match event {
            watcher::Event::Init => {
                self.abandon();
                self.sink.begin().await;
                self.list = Some(Vec::new());
                false
            }
            watcher::Event::InitApply(object) => {
                let item = self.sink.read(object);
                self.list.get_or_insert_default().push(item);
                false
            }
            watcher::Event::InitDone => {
                let list = self.list.take().unwrap_or_default();
                let count = list.len();
                let may_open = self.sink.replace(list);
                if std::mem::replace(&mut self.has_listed, true) {
                    self.metrics.watch_relists.get_or_create(&ByKind { kind: S::KIND }).inc();
                }
                tracing::info!(kind = S::KIND, count, "listed");
                may_open
            }
            watcher::Event::Apply(object) => {
                let item = self.sink.read(object);
                self.sink.take(item)
            }
            watcher::Event::Delete(object) => {
                let item = self.sink.read(object);
                self.sink.lose(item)
            }
        };
        if may_open {
            self.gate.open();
        }
    }

    fn abandon(&mut self) {
        if self.list.take().is_some() {
            self.sink.abandon();
        }
    }

    /// Says what went wrong; `true` when the watch must be started afresh.
    fn fail(&mut self, error: &watcher::Error) -> bool {
        self.abandon();
        let code = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code,
            watcher::Error::WatchError(status) => status.code,
            _ => 0,
        };
        if matches!(code, 401 | 403 | 404) {
            tracing::error!(kind = S::KIND, code, needs = S::NEEDS, %error, "cannot be watched, trying again");
            self.gate.say(format!("needs {}; the API server answered {code}", S::NEEDS));
        } else {
            tracing::warn!(kind = S::KIND, code, %error, "the watch failed, trying again");
            self.gate.say(error.to_string());
        }
        // An object that could not be read is lost to this watch: only a list brings it back. kube takes such a line for a Status,
        // which any JSON object is to it, so it comes as an answer of the API server without code or text.
        let is_unread = matches!(error, watcher::Error::WatchFailed(kube::Error::SerdeError(_) | kube::Error::Api(_)));
        if is_unread {
            tracing::error!(kind = S::KIND, "an object of the watch could not be read: listing all again");
        }
        is_unread
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
