//! Kubernetes Events about our own decisions: policies taken or refused, reports refused, drift.
//!
//! Telling must never slow or stop deciding: [`Events::tell`] puts the Event into a bounded queue and goes on; one task writes.
//! What does not fit is dropped and counted in the log. The log and the metrics always have what an Event says.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait to be written. A whole cluster's reports refused at once must not fill the memory.
const QUEUE_MAX: usize = 256;
/// Time for one write. An Event is worth no more.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest note in bytes. The API server refuses 1024 and more.
const NOTE_BYTES_MAX: usize = 1000;
/// Who tells, as `kubectl describe` shows it.
const CONTROLLER: &str = "berth-scheduler";

/// What to tell.
#[derive(Debug, Clone)]
pub struct Told {
    /// The object it is about.
    pub about: ObjectReference,
    /// Whether somebody should act.
    pub is_warning: bool,
    /// One word in `UpperCamelCase`, of a closed set.
    pub reason: &'static str,
    /// What was done or refused, as a word such as `Reload`.
    pub action: &'static str,
    /// One sentence or two.
    pub note: String,
}

/// The reference of a pod, for telling about it.
#[must_use]
pub(crate) fn about_pod(namespace: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

/// The hand that tells. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events {
    queue: mpsc::Sender<Told>,
}

/// The task that writes.
#[derive(Debug)]
pub struct Writer {
    queue: mpsc::Receiver<Told>,
}

/// Both ends of a queue.
#[must_use]
pub fn channel() -> (Events, Writer) {
    let (queue, receiver) = mpsc::channel(QUEUE_MAX);
    (Events { queue }, Writer { queue: receiver })
}

impl Events {
    /// Tells, or drops what cannot be told now. Never waits.
    pub fn tell(&self, told: Told) {
        if let Err(error) = self.queue.try_send(told) {
            let (why, told) = match error {
                mpsc::error::TrySendError::Full(told) => ("the queue is full", told),
                mpsc::error::TrySendError::Closed(told) => ("the writer has ended", told),
            };
            tracing::warn!(reason = told.reason, about = told.about.name, why, "an event was dropped");
        }
    }
}

impl Writer {
    /// Writes until `shutdown`. Needs create and patch on `events` of `events.k8s.io` in the namespaces of the objects; Events
    /// about cluster-scoped objects go to `default`.
    pub async fn run(mut self, client: Client, shutdown: CancellationToken) {
        let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: std::env::var("HOSTNAME").ok() };
        let recorder = Recorder::new(client, reporter);
        loop {
            let told = tokio::select! {
                () = shutdown.cancelled() => return,
                told = self.queue.recv() => told,
            };
            let Some(told) = told else {
                // Nobody is left to tell anything; the task ends with the others.
                shutdown.cancelled().await;
                return;
            };
            let (reason, about) = (told.reason, told.about.clone());
            let event = event(told);
            let error = match tokio::time::timeout(WRITE_TIMEOUT, recorder.publish(&event, &about)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer in {} s", WRITE_TIMEOUT.as_secs()),
            };
            tracing::warn!(reason, about = about.name, error, "an event could not be written");
        }
    }
}

fn event(told: Told) -> Event {
    let mut note = told.note;
    let mut end = note.len().min(NOTE_BYTES_MAX);
    while !note.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    note.truncate(end);
    Event {
        type_: if told.is_warning { EventType::Warning } else { EventType::Normal },
        reason: told.reason.to_owned(),
        note: Some(note),
        action: told.action.to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(note: &str) -> Told {
        let about = ObjectReference { name: Some("n1".to_owned()), ..ObjectReference::default() };
        Told { about, is_warning: true, reason: "PolicyRejected", action: "Reload", note: note.to_owned() }
    }

    #[test]
    fn telling_more_than_the_queue_holds_drops_and_does_not_wait() {
        let (events, mut writer) = channel();
        for _ in 0..QUEUE_MAX + 10 {
            events.tell(told("x"));
        }
        let mut queued = 0;
        while writer.queue.try_recv().is_ok() {
            queued += 1;
        }
        assert_eq!(queued, QUEUE_MAX);
        drop(writer);
        events.tell(told("nobody listens"));
    }

    #[test]
    fn a_long_note_is_cut_at_a_character() {
        let note = event(told(&"ä".repeat(NOTE_BYTES_MAX))).note.unwrap();
        assert!(note.len() <= NOTE_BYTES_MAX && note.ends_with('ä'));
    }
}
