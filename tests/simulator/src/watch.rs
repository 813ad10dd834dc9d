//! Watches: what each has been told so far, and how the next event reaches it.

use std::io;

use bytes::Bytes;
use futures::StreamExt;
use http::Response;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Frame;
use tokio::sync::mpsc;

use crate::api::{Answer, Api, Entry, Kind, Life, Verb, cut, refusal};
use crate::step::Delivery;

/// One open watch.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) life: Life,
    pub(crate) kind: Kind,
    /// Position of the next event in the log of the kind.
    pub(crate) at: usize,
    pub(crate) opened_ms: u64,
    lines: mpsc::UnboundedSender<io::Result<Frame<Bytes>>>,
}

impl Watch {
    /// Whether its reader is gone.
    pub(crate) fn is_over(&self) -> bool {
        self.lines.is_closed()
    }

    fn tell(&self, line: String) {
        // A reader that has just gone is swept out.
        drop(self.lines.send(Ok(Frame::data(Bytes::from(line)))));
    }
}

fn line(entry: &Entry) -> String {
    let verb = match entry.verb {
        Verb::Added => "ADDED",
        Verb::Modified => "MODIFIED",
        Verb::Deleted => "DELETED",
    };
    format!("{{\"type\":\"{verb}\",\"object\":{}}}\n", entry.text)
}

fn gone() -> String {
    format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", refusal(410))
}

impl Api {
    /// Opens a watch of what came after a version.
    pub(crate) fn open(&mut self, life: Life, kind: Kind, from: u64) -> Answer {
        let (lines, receiver) = mpsc::unbounded_channel();
        let body = futures::stream::unfold(receiver, |mut receiver| async {
            let line = receiver.recv().await?;
            Some((line, receiver))
        });
        let shelf = self.shelf(kind);
        let at = shelf.log.partition_point(|entry| entry.version <= from);
        let watch = Watch { life, kind, at, opened_ms: self.now_ms(), lines };
        if from < shelf.floor || self.cheated.contains(&(life, kind)) {
            watch.tell(gone());
        } else {
            self.watches.push(watch);
        }
        Response::new(UnsyncBoxBody::new(StreamBody::new(body.boxed())))
    }

    /// Whether a watch has not been told all.
    pub(crate) fn is_behind(&self, watch: &Watch) -> bool {
        watch.at < self.shelf(watch.kind).log.len()
    }

    /// Lets something come out of a watch.
    pub(crate) fn deliver(&mut self, nth: usize, how: Delivery) {
        let now = self.now_ms();
        let Some(watch) = self.watches.get_mut(nth) else { return };
        let log = &self.shelves[watch.kind as usize].log;
        let next = log.get(watch.at);
        match how {
            Delivery::Next => {
                let Some(entry) = next else { return };
                watch.tell(line(entry));
                watch.at += 1;
            }
            Delivery::Twice => {
                let Some(entry) = next else { return };
                watch.tell(line(entry));
                watch.tell(line(entry));
                watch.at += 1;
            }
            Delivery::Skip => {
                if next.is_some() {
                    watch.at += 1;
                    self.cheated.insert((watch.life, watch.kind));
                }
            }
            Delivery::Swap => {
                let (Some(first), Some(second)) = (next, log.get(watch.at + 1)) else { return };
                if first.key == second.key {
                    return;
                }
                watch.tell(line(second));
                watch.tell(line(first));
                watch.at += 2;
            }
            Delivery::Again(back) => {
                // An event of before, once more.
                let Some(entry) = watch.at.checked_sub(1 + usize::from(back)).and_then(|at| log.get(at)) else {
                    return;
                };
                watch.tell(line(entry));
                // Who believes it is wrong until it lists again.
                self.cheated.insert((watch.life, watch.kind));
            }
            Delivery::Bookmark => {
                let version = log.get(watch.at.wrapping_sub(1)).map_or(1, |entry| entry.version);
                watch.tell(format!(
                    "{{\"type\":\"BOOKMARK\",\"object\":{{\"apiVersion\":\"v1\",\"kind\":\"X\",\"metadata\":{{\"resourceVersion\":\"{version}\"}}}}}}\n"
                ));
            }
            Delivery::End => drop(self.watches.remove(nth)),
            Delivery::Gone => {
                watch.tell(gone());
                self.watches.remove(nth);
            }
            Delivery::Cut => {
                drop(watch.lines.send(Err(cut())));
                self.watches.remove(nth);
            }
            Delivery::Garbage => watch.tell("{\"type\":\"MODIFIED\",\"object\":{\"metadata\":7}}\n".to_owned()),
            Delivery::Expire => {
                if now.saturating_sub(watch.opened_ms) >= 60_000 {
                    self.watches.remove(nth);
                }
            }
        }
    }
}
