//! Clients that are slow, large, many, or broken.

use std::time::Duration;

use hyper::StatusCode;
use tokio::io::AsyncWriteExt;

use super::rig::{PATIENCE, error_of, filter_body, rig, rig_with};

const MIB: usize = 1024 * 1024;

fn head(length: usize) -> String {
    format!("POST /filter HTTP/1.1\r\nhost: b\r\ncontent-length: {length}\r\n\r\n")
}

/// Largest memory of this process so far.
fn peak_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_announced_50_mb_body_is_refused_before_it_is_sent() {
    let rig = rig().await;
    let mut raw = rig.raw().await;
    raw.send(head(50_000_000)).await;
    let answer = raw.read_until("\"}").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("larger than the limit of 16777216 bytes; set nodeCacheCapable: true"), "{answer}");
    rig.shows("berth_extender_request_duration_seconds_count{verb=\"filter\",result=\"too-large\"} 1").await;
}

#[tokio::test]
async fn a_50_mb_body_sent_whole_still_hears_the_answer() {
    let rig = rig().await;
    let mut raw = rig.raw().await;
    raw.send(head(50_000_000)).await;
    // A client that reads only after it has written everything: a reset connection would lose it the answer.
    let piece = vec![b' '; 1_000_000];
    for _ in 0..50 {
        raw.send(&piece).await;
    }
    let answer = raw.read_until("\"}").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("16777216"), "{answer}");
    assert_eq!(rig.post("/prioritize", vec![b' '; 17 * MIB]).await, (StatusCode::OK, "[]".into()));
    assert_eq!(error_of(&rig.post("/filter", filter_body("p", &["gpu-a"])).await.1), "");
}

#[tokio::test]
async fn an_endless_chunked_body_is_refused_in_bounded_memory() {
    let rig = rig().await;
    let before = peak_kib();
    let mut raw = rig.raw().await;
    raw.send("POST /filter HTTP/1.1\r\nhost: b\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let chunk = [format!("{MIB:x}\r\n").into_bytes(), vec![b' '; MIB], b"\r\n".to_vec()].concat();
    let mut sent = 0_usize;
    // The server takes and throws away at most 128 MiB of it, then stops: the writes fail or stall.
    for _ in 0..400 {
        match tokio::time::timeout(Duration::from_secs(4), raw.0.write_all(&chunk)).await {
            Ok(Ok(())) => sent += 1,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    assert!((16..300).contains(&sent), "{sent} MiB were taken");
    rig.shows("berth_extender_request_duration_seconds_count{verb=\"filter\",result=\"too-large\"} 1").await;
    // Other tests of this process hold some 50 MB bodies of their own at the same time.
    let grown = peak_kib().saturating_sub(before) / 1024;
    assert!(grown < 200, "grew by {grown} MiB");
}

#[tokio::test]
async fn large_bodies_share_a_pool_and_are_refused_when_it_is_empty() {
    let rig = rig().await;
    let mut large = filter_body("p", &["gpu-a"]);
    large.extend(std::iter::repeat_n(' ', 2 * MIB));
    let pool = std::sync::Arc::clone(&rig.extender.0.body_pool);
    let taken = pool.acquire_many_owned(250).await.unwrap();
    let error = error_of(&rig.post("/filter", large.clone()).await.1);
    assert_eq!(error, "too many large requests at once, try again");
    assert_eq!(error_of(&rig.post("/filter", filter_body("p", &["gpu-a"])).await.1), "", "small ones need no share");
    drop(taken);
    assert_eq!(error_of(&rig.post("/filter", large).await.1), "");
    assert_eq!(rig.extender.0.body_pool.available_permits(), crate::http::body::POOL_CHUNKS, "shares are given back");
}

#[tokio::test]
async fn a_body_cut_short_is_counted_and_the_server_goes_on() {
    let rig = rig().await;
    let mut raw = rig.raw().await;
    raw.send(head(1000) + "{\"Pod\":").await;
    raw.0.shutdown().await.unwrap();
    let answer = raw.read_to_end().await;
    assert!(answer.is_empty() || answer.contains("ended before its announced length"), "{answer}");
    rig.shows("berth_extender_connections 0").await;
    assert_eq!(error_of(&rig.post("/filter", filter_body("p", &["gpu-a"])).await.1), "");
    assert!(rig.decide.asked.lock().unwrap().len() == 1);
}

#[tokio::test]
async fn a_body_longer_than_announced_is_an_error_and_the_connection_ends() {
    let rig = rig().await;
    let mut raw = rig.raw().await;
    let body = filter_body("p", &["gpu-a"]);
    raw.send(head(body.len() - 5) + &body).await;
    let answer = raw.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("ExtenderArgs: "), "{answer}");
    assert!(rig.decide.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_stalled_body_is_answered_at_the_body_timeout() {
    let rig = rig_with(|settings| settings.limits.body_timeout = Duration::from_millis(100)).await;
    let mut raw = rig.raw().await;
    raw.send(head(1000) + "{").await;
    let answer = raw.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("the request body did not arrive in time"), "{answer}");
}

#[tokio::test]
async fn a_stalled_body_is_answered_at_the_deadline_when_that_is_sooner() {
    let rig = rig_with(|settings| settings.deadline = Duration::from_millis(100)).await;
    let mut raw = rig.raw().await;
    raw.send(head(1000) + "{").await;
    assert!(raw.read_to_end().await.contains("the request body did not arrive in time"));
}

#[tokio::test]
async fn a_slow_head_is_cut_while_an_idle_connection_lives_on() {
    let rig = rig_with(|settings| settings.limits.header_timeout = Duration::from_millis(200)).await;
    let mut idle = rig.client().await;
    assert_eq!(error_of(&idle.post("/filter", filter_body("p", &["gpu-a"])).await.1), "");
    let mut slow = rig.raw().await;
    // One byte at a time: activity alone must not keep it alive.
    let dribble = async {
        for byte in head(5).bytes().cycle() {
            if slow.0.write_all(&[byte.max(b'a')]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dribble).await.expect("the slow client is cut");
    rig.shows("berth_extender_connections_cut_total{reason=\"slow-head\"} 1").await;
    assert_eq!(error_of(&idle.post("/filter", filter_body("p", &["gpu-a"])).await.1), "");
}

#[tokio::test]
async fn a_half_sent_head_is_cut() {
    let rig = rig_with(|settings| settings.limits.header_timeout = Duration::from_millis(50)).await;
    let mut raw = rig.raw().await;
    raw.send("POST /filter HTTP/1.1\r\nhost:").await;
    assert_eq!(raw.read_to_end().await, "");
    rig.shows("berth_extender_connections_cut_total{reason=\"slow-head\"} 1").await;
}

#[tokio::test]
async fn an_idle_connection_ends_at_the_idle_timeout() {
    let short = |settings: &mut crate::http::Settings| {
        settings.limits.header_timeout = Duration::from_millis(50);
        settings.limits.idle_timeout = Duration::from_millis(150);
    };
    let rig = rig_with(short).await;
    assert_eq!(rig.raw().await.read_to_end().await, "");
    rig.shows("berth_extender_connections_cut_total{reason=\"idle\"} 1").await;
}

#[tokio::test]
async fn the_idle_timeout_is_above_that_of_go() {
    assert!(crate::http::Limits::default().idle_timeout > Duration::from_secs(90));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let short = |settings: &mut crate::http::Settings| {
        settings.limits.header_timeout = Duration::from_millis(50);
        settings.limits.write_timeout = Duration::from_millis(100);
    };
    let rig = rig_with(short).await;
    let names = vec![
        "gpu-with-a-name-of-a-hundred-characters-to-fill-the-buffers-of-the-socket-quickly-and-more-of-it-x";
        90_000
    ];
    let body = filter_body("p", &names);
    let mut raw = rig.raw().await;
    raw.send(head(body.len()) + &body).await;
    rig.shows("berth_extender_connections_cut_total{reason=\"slow-reader\"} 1").await;
    rig.shows("berth_extender_connections 0").await;
}

#[tokio::test]
async fn a_hundred_requests_share_one_connection() {
    let rig = rig().await;
    let mut client = rig.client().await;
    for _ in 0..100 {
        assert_eq!(error_of(&client.post("/filter", filter_body("p", &["gpu-a"])).await.1), "");
    }
    rig.shows("berth_extender_connections 1").await;
    rig.shows("berth_extender_request_duration_seconds_count{verb=\"filter\",result=\"ok\"} 100").await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let rig = rig().await;
    let mut raw = rig.raw().await;
    let (first, second) = (filter_body("p", &["gpu-1"]), filter_body("p", &["gpu-2"]));
    raw.send(head(first.len()) + &first + &head(second.len()) + &second).await;
    let answer = raw.read_until("gpu-2").await;
    assert!(answer.find("gpu-1") < answer.find("gpu-2"), "{answer}");
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_slot() {
    let rig = rig_with(|settings| settings.limits.connections_max = 1).await;
    let mut first = rig.client().await;
    assert_eq!(error_of(&first.post("/filter", filter_body("p", &["gpu-a"])).await.1), "");
    let mut second = rig.client().await;
    let second = tokio::spawn(async move { second.post("/filter", filter_body("p", &["gpu-b"])).await.1 });
    for _ in 0..20 {
        assert_eq!(error_of(&first.post("/filter", filter_body("p", &["gpu-a"])).await.1), "");
    }
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(error_of(&second.await.unwrap()), "");
}

#[tokio::test]
async fn an_oversized_head_is_refused_by_the_transport() {
    let rig = rig().await;
    let mut raw = rig.raw().await;
    raw.send(format!("POST /filter HTTP/1.1\r\nhost: b\r\nx: {}\r\n\r\n", "a".repeat(20_000))).await;
    let answer = raw.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}
