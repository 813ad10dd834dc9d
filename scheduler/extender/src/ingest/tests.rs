//! Claims about report streams, by clients over real sockets. The API server that reviews tokens is in this process; the real one is
//! in the workspace's integration tests.

mod rig;
mod tls;

use berth_proto::topology::v1alpha1::Report;
use tonic::Code;

use crate::fixture::{name, topology};
use rig::{Feed, report, start};

use super::serve::{MESSAGE_BYTES_MAX, Security, SecurityError};

#[tokio::test]
async fn a_report_is_in_force_when_its_answer_comes() {
    let rig = start().await;
    let mut feed = Feed::open(rig.address).await;
    let answer = feed.say(report(&topology("a", 7, 1))).await;
    assert!(answer.accepted, "{answer:?}");
    assert_eq!((answer.generation, answer.field.as_str()), (7, ""));
    assert_eq!(rig.in_force("a"), Some(topology("a", 7, 1)));
    let answer = feed.say(report(&topology("a", 8, 2))).await;
    assert_eq!((answer.accepted, answer.generation), (true, 8));
    assert_eq!(rig.in_force("a"), Some(topology("a", 8, 2)));
}

#[tokio::test]
async fn a_refused_report_is_named_by_its_field_and_leaves_the_last_good_one() {
    let rig = start().await;
    let mut feed = Feed::open(rig.address).await;
    feed.say(report(&topology("a", 7, 1))).await;
    let mut bad = report(&topology("a", 8, 0));
    bad.status.as_mut().unwrap().gpus[2].uuid = String::new();
    let answer = feed.say(bad).await;
    assert_eq!((answer.accepted, answer.generation), (false, 7));
    assert_eq!(answer.field, "status.gpus[2].uuid", "{answer:?}");
    assert!(!answer.text.is_empty());
    let answer = feed.say(Report { node: "a".to_owned(), status: None }).await;
    assert_eq!((answer.accepted, answer.field.as_str()), (false, "status"));
    assert_eq!(rig.in_force("a"), Some(topology("a", 7, 1)));
    let said = rig.cluster.metrics.encode().unwrap();
    assert!(said.contains("berth_topology_reports_rejected_total{reason=\"malformed\"} 2"), "{said}");
    assert!(feed.say(report(&topology("a", 9, 0))).await.accepted, "the stream goes on");
}

#[tokio::test]
async fn an_older_generation_is_refused_and_told_the_younger_one() {
    let rig = start().await;
    let mut feed = Feed::open(rig.address).await;
    feed.say(report(&topology("a", 7, 1))).await;
    for older in [topology("a", 6, 0), topology("a", 7, 0)] {
        let answer = feed.say(report(&older)).await;
        assert_eq!((answer.accepted, answer.generation, answer.field.as_str()), (false, 7, "status.generation"));
    }
    assert!(feed.say(report(&topology("a", 7, 1))).await.accepted, "the same again is no news and no fault");
    assert_eq!(rig.in_force("a"), Some(topology("a", 7, 1)));
}

#[tokio::test]
async fn a_stream_speaks_for_one_node() {
    let rig = start().await;
    let mut feed = Feed::open(rig.address).await;
    feed.say(report(&topology("a", 1, 0))).await;
    let answer = feed.say(report(&topology("b", 1, 0))).await;
    assert_eq!((answer.accepted, answer.field.as_str()), (false, "node"));
    assert!(answer.text.contains("node a's"), "{answer:?}");
    assert_eq!(rig.in_force("b"), None);
}

#[tokio::test]
async fn the_newest_stream_of_a_node_ends_the_one_before() {
    let rig = start().await;
    let (mut older, mut newer) = (Feed::open(rig.address).await, Feed::open(rig.address).await);
    older.say(report(&topology("a", 1, 0))).await;
    newer.say(report(&topology("a", 2, 1))).await;
    let end = older.end().await.unwrap();
    assert_eq!((end.code(), end.message()), (Code::Aborted, "a newer stream of this node took over"));
    assert!(newer.say(report(&topology("a", 3, 2))).await.accepted);
    assert_eq!(rig.cluster.carriers.live(), [name("a")]);
}

#[tokio::test]
async fn a_cut_stream_leaves_its_report_and_the_next_one_goes_on() {
    let rig = start().await;
    let mut feed = Feed::open(rig.address).await;
    feed.say(report(&topology("a", 1, 3))).await;
    drop(feed);
    rig.until(|rig| rig.cluster.carriers.live().is_empty()).await;
    assert_eq!(rig.in_force("a"), Some(topology("a", 1, 3)));
    // An agent that was cut off for an hour: whatever it missed to say is in one message.
    let mut feed = Feed::open(rig.address).await;
    assert!(feed.say(report(&topology("a", 99, 0))).await.accepted);
    assert_eq!(rig.in_force("a"), Some(topology("a", 99, 0)));
}

#[tokio::test]
async fn a_huge_message_ends_its_stream_and_no_other() {
    let rig = start().await;
    let (mut good, mut bad) = (Feed::open(rig.address).await, Feed::open(rig.address).await);
    good.say(report(&topology("a", 1, 0))).await;
    let mut huge = report(&topology("b", 1, 0));
    huge.status.as_mut().unwrap().agent_version = "x".repeat(MESSAGE_BYTES_MAX);
    bad.send(huge).await;
    let end = bad.end().await.unwrap();
    assert_eq!(end.code(), Code::OutOfRange, "{end:?}");
    assert!(good.say(report(&topology("a", 2, 0))).await.accepted);
    assert_eq!(rig.in_force("b"), None);
}

#[tokio::test]
async fn the_end_of_the_scheduler_ends_streams_in_order() {
    let rig = start().await;
    let mut feed = Feed::open(rig.address).await;
    feed.say(report(&topology("a", 1, 0))).await;
    rig.stop.cancel();
    assert_eq!(feed.end().await.unwrap().message(), "the scheduler is stopping");
}

#[test]
fn plain_text_beyond_loopback_is_refused() {
    for address in ["0.0.0.0:8890", "[::]:8890", "10.1.2.3:8890"] {
        let error = Security::new(address.parse().unwrap(), None, None).unwrap_err();
        assert!(matches!(error, SecurityError::PlainText(_)));
        assert!(error.to_string().contains("plain text is for loopback only: give --reports-cert"), "{error}");
    }
    for address in ["127.0.0.1:8890", "[::1]:8890"] {
        assert!(Security::new(address.parse().unwrap(), None, None).unwrap().is_plain());
    }
}
