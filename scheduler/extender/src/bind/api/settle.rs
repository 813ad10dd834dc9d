//! After a write that did not simply succeed: find out what it did. The pod itself is the only witness.

use std::time::Duration;

use tokio::time::Instant;

use super::call::{Api, CallError, Target};
use super::{Hold, READ_MAX};
use crate::http::Failure;
use crate::wire::Pod;

/// Pause between two looks; doubled each time.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// What the answer to the write allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// The API server refused it: it was not applied, and never will be.
    No,
    /// It was not applied by this call, but maybe by an earlier one.
    NotNow,
    /// It may be applied, even later than now.
    Unknown,
}

fn judge(error: &CallError) -> Written {
    match error {
        // The pod is bound, leaving or gated, or has another UID; or the server was too busy to begin.
        CallError::Refused { code: 409 | 429, .. } => Written::NotNow,
        CallError::Refused { code: 400..=499, .. } => Written::No,
        CallError::Refused { .. } | CallError::Late(_) | CallError::Broken(_) => Written::Unknown,
    }
}

/// `Ok` when the pod is bound to its node after all. The hold, which is kept so far, is released when it surely is not.
pub(super) async fn settle(
    api: &Api,
    target: &Target,
    error: &CallError,
    mut hold: Hold,
    ends_at: Instant,
) -> Result<(), Failure> {
    let written = judge(error);
    if written == Written::No {
        hold.release();
        return Err(refused(target, error));
    }
    let mut pause = LOOK_PAUSE;
    loop {
        match api.pod(target, READ_MAX, ends_at).await {
            Ok(pod) => match verdict(pod.as_ref(), target, error, written) {
                Some(Ok(())) => return Ok(()),
                Some(Err(failure)) => {
                    hold.release();
                    return Err(failure);
                }
                None => {}
            },
            Err(look) => tracing::debug!(%target, error = %look, "the pod could not be read after its bind"),
        }
        if Instant::now() + pause >= ends_at {
            break;
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2);
    }
    let text = format!("it is not known whether {target} was bound to {}: {error}", target.node);
    Err(Failure::new("unknown", format!("{text}; its GPUs stay held for half a minute")))
}

/// What the pod says of the write; `None` when it says nothing yet.
fn verdict(pod: Option<&Pod>, target: &Target, error: &CallError, written: Written) -> Option<Result<(), Failure>> {
    let Some(pod) = pod.filter(|pod| pod.metadata.uid == target.uid) else { return Some(Err(target.gone())) };
    match pod.spec.node_name.as_str() {
        "" if !pod.metadata.deletion_timestamp.is_empty() => Some(Err(target.leaving())),
        "" if written == Written::Unknown => None,
        "" => Some(Err(refused(target, error))),
        node if node == target.node.as_str() => Some(Ok(())),
        node => Some(Err(target.elsewhere(node))),
    }
}

fn refused(target: &Target, error: &CallError) -> Failure {
    let (code, hint) = match error {
        CallError::Refused { code: 401 | 403, .. } => {
            ("forbidden", " (the scheduler's account needs create on pods/binding, and no admission policy against it)")
        }
        CallError::Refused { code: 404, .. } => return target.gone(),
        CallError::Refused { code: 409, .. } => ("conflict", ""),
        CallError::Refused { code: 429, .. } => ("api-busy", ""),
        CallError::Refused { .. } | CallError::Late(_) | CallError::Broken(_) => ("api-refused", ""),
    };
    Failure::new(code, format!("{target} was not bound to {}: {error}{hint}", target.node))
}
