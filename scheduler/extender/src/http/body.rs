//! Request bodies: read whole, but never past a size, a time and a share of memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Extender, Failure};

/// What every body may take without asking: a call with 5000 names of 42 characters fits, so the pool is for the rare ones.
const FREE_BYTES: usize = 256 * 1024;
/// Unit of the shared pool.
const CHUNK_BYTES: usize = 256 * 1024;
/// Size of the pool that all larger bodies share, 64 MiB: connections times the body limit would be gigabytes.
pub(super) const POOL_CHUNKS: usize = 256;
/// Most of a refused body that is read and thrown away. Without that the client, still writing, would see a reset connection and
/// not the answer that tells the limit.
const DISCARD_BYTES_MAX: usize = 128 * 1024 * 1024;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(2);

/// A body and its share of the pool.
pub(super) struct Held {
    bytes: BytesMut,
    _share: Option<OwnedSemaphorePermit>,
}

impl Held {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Extender {
    /// Reads a body to its end.
    pub(super) async fn read(&self, mut body: Incoming, deadline: Instant) -> Result<Held, Failure> {
        let limits = &self.0.settings.limits;
        let until = deadline.min(Instant::now() + limits.body_timeout);
        let read = fill(&mut body, limits.body_bytes_max, &self.0.body_pool);
        match tokio::time::timeout_at(until.into(), read).await {
            Ok(Ok(held)) => Ok(held),
            Ok(Err(failure)) => {
                self.0.tasks.spawn(discard(body));
                Err(failure)
            }
            Err(_) => Err(Failure::new("slow-body", "the request body did not arrive in time")),
        }
    }
}

async fn fill(body: &mut Incoming, bytes_max: usize, pool: &Arc<Semaphore>) -> Result<Held, Failure> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        return Err(too_large(bytes_max));
    }
    let mut bytes = BytesMut::with_capacity(announced.min(FREE_BYTES));
    let mut share: Option<OwnedSemaphorePermit> = None;
    while let Some(data) = next_data(body).await? {
        let size = bytes.len().saturating_add(data.len());
        if size > bytes_max {
            return Err(too_large(bytes_max));
        }
        let chunks = size.saturating_sub(FREE_BYTES).div_ceil(CHUNK_BYTES);
        let missing = chunks.saturating_sub(share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if missing > 0 {
            let more = u32::try_from(missing).ok().and_then(|n| Arc::clone(pool).try_acquire_many_owned(n).ok());
            let more = more.ok_or_else(|| Failure::new("busy", "too many large requests at once, try again"))?;
            match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            }
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Held { bytes, _share: share })
}

async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            // Trailers mean nothing to us.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(error)) => {
                let text = "the request body ended before its announced length";
                tracing::debug!(%error, text);
                return Err(Failure::new("broken-body", text));
            }
        }
    }
}

fn too_large(bytes_max: usize) -> Failure {
    let text = format!(
        "request body is larger than the limit of {bytes_max} bytes; \
         set nodeCacheCapable: true for this extender, so that names are sent instead of node objects"
    );
    Failure::new("too-large", text)
}

async fn discard(mut body: Incoming) {
    let read = async {
        let mut size = 0_usize;
        while let Ok(Some(data)) = next_data(&mut body).await {
            size = size.saturating_add(data.len());
            if size > DISCARD_BYTES_MAX {
                return;
            }
        }
    };
    // Running out of time is as good an end as any: the answer is long sent.
    let _ended = tokio::time::timeout(DISCARD_TIME_MAX, read).await;
}
