//! The life of the extender's listener, from the first call to the last bind.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Extender, ServeEnd, listen};

/// Serves until `shutdown`, then drains: readiness is withdrawn first, calls are still served for the pre-stop delay (the load
/// balancer or kube-scheduler needs that long to notice), accepting stops, and calls and binds in flight may end.
pub async fn serve(listener: TcpListener, extender: Extender, shutdown: CancellationToken) -> ServeEnd {
    let shared = Arc::clone(&extender.0);
    let settings = &shared.settings;
    let metrics = Some(Arc::clone(&shared.metrics));
    let listening = listen(listener, extender, settings.limits.clone(), metrics, CancellationToken::new());
    shutdown.cancelled().await;
    shared.gates.begin_drain();
    tracing::info!(delay = ?settings.pre_stop_delay, "draining: readiness withdrawn");
    tokio::time::sleep(settings.pre_stop_delay).await;
    let until = Instant::now() + settings.limits.drain_timeout;
    let connections = listening.drain(settings.limits.drain_timeout).await;
    shared.tasks.close();
    // A bind whose caller is gone is in no connection any more, but its write may be under way.
    let binds = match tokio::time::timeout_at(until, shared.tasks.wait()).await {
        Ok(()) => 0,
        Err(_) => shared.tasks.len(),
    };
    ServeEnd { unfinished: connections.unfinished.saturating_add(binds) }
}
