//! How the server ends.

use std::time::Duration;

use tokio::net::TcpStream;

use super::rig::{bind_body, error_of, eventually, filter_body, rig, rig_with};
use crate::http::ServeEnd;

#[tokio::test]
async fn a_drain_lets_a_bind_in_flight_finish() {
    let rig = rig().await;
    let mut client = rig.client().await;
    let bind = tokio::spawn(async move { client.post("/bind", bind_body("p")).await.1 });
    rig.decide.binds_begun.acquire().await.unwrap().forget();
    let mut idle = rig.client().await;
    assert_eq!(error_of(&idle.post("/filter", filter_body("p", &["gpu-a"])).await.1), "");
    rig.shutdown.cancel();
    // Only the connection of the bind is left: accepting has stopped and the idle one was closed.
    rig.shows("berth_extender_connections 1").await;
    let address = rig.address;
    let refused = tokio::time::timeout(super::rig::PATIENCE, async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    refused.await.expect("new connections are refused");
    assert!(!bind.is_finished() && !rig.server.is_finished());
    rig.decide.bind_permits.add_permits(1);
    assert_eq!(error_of(&bind.await.unwrap()), "");
    assert_eq!(rig.ends().await, ServeEnd { unfinished: 0 });
}

#[tokio::test]
async fn a_drain_waits_for_a_bind_whose_caller_is_gone() {
    let rig = rig().await;
    let mut client = rig.client().await;
    let bind = tokio::spawn(async move { client.post("/bind", bind_body("p")).await.1 });
    rig.decide.binds_begun.acquire().await.unwrap().forget();
    bind.abort();
    rig.shows("berth_extender_connections 0").await;
    rig.shutdown.cancel();
    eventually("draining", || rig.gates.is_draining()).await;
    assert!(!rig.server.is_finished());
    rig.decide.bind_permits.add_permits(1);
    let decide = std::sync::Arc::clone(&rig.decide);
    assert_eq!(rig.ends().await, ServeEnd { unfinished: 0 });
    assert_eq!(decide.bound.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn readiness_goes_first_and_calls_are_served_on() {
    let rig = rig_with(|settings| settings.pre_stop_delay = Duration::from_secs(3600)).await;
    assert!(rig.gates.is_ready());
    rig.shutdown.cancel();
    eventually("not ready", || !rig.gates.is_ready()).await;
    assert_eq!(error_of(&rig.post("/filter", filter_body("p", &["gpu-a"])).await.1), "");
    assert!(!rig.server.is_finished());
    rig.server.abort();
}

#[tokio::test]
async fn a_bind_that_never_ends_is_reported_when_the_drain_time_is_over() {
    let rig = rig_with(|settings| settings.limits.drain_timeout = Duration::from_millis(100)).await;
    let mut client = rig.client().await;
    let bind = tokio::spawn(async move { client.post("/bind", bind_body("p")).await.1 });
    rig.decide.binds_begun.acquire().await.unwrap().forget();
    rig.shutdown.cancel();
    // The connection and the bind behind it.
    assert_eq!(rig.ends().await, ServeEnd { unfinished: 2 });
    assert!(bind.await.is_err(), "the connection was cut");
}
