//! The order between full lists of all pods and what binds learn from lists of one node's pods.
//!
//! A full list replaces what is known. What a bind learned while that list was on its way may be newer than the list, and would
//! be thrown away as gone; what it learned before is older. So the two never overlap: while a full list runs, binds wait.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::Instant;

/// Shared by the pod watcher and the binder.
#[derive(Debug, Default)]
pub struct PodOrder {
    lists: Arc<RwLock<()>>,
    first_list_at: OnceLock<Instant>,
}

/// Why a bind cannot have its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoTurn {
    /// Nothing was listed yet.
    #[error("the pods of the cluster have not been listed yet")]
    NotListed,
    /// The scheduler that ran before may still have a bind on its way.
    #[error("just started: a bind of the scheduler that ran before may still be on its way")]
    JustStarted,
    /// A full list runs.
    #[error("the pods of the cluster are being listed again")]
    Listing,
}

impl PodOrder {
    /// A full list begins. Binds that have their turn end it first: that takes at most as long as one list of one node.
    pub(crate) async fn begin_list(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.lists).write_owned().await
    }

    /// A full list has been taken.
    pub(crate) fn listed(&self) {
        self.first_list_at.get_or_init(Instant::now);
    }

    /// The turn of a bind: no full list begins while it is held. Not before `quiet` has passed since the first list; waits for
    /// all that until `until`.
    ///
    /// # Errors
    /// [`NoTurn`] when it does not come in time.
    pub async fn turn(&self, quiet: Duration, until: Instant) -> Result<OwnedRwLockReadGuard<()>, NoTurn> {
        let listed_at = *self.first_list_at.get().ok_or(NoTurn::NotListed)?;
        let opens_at = listed_at + quiet;
        if opens_at > until {
            return Err(NoTurn::JustStarted);
        }
        tokio::time::sleep_until(opens_at).await;
        let turn = Arc::clone(&self.lists).read_owned();
        tokio::time::timeout_at(until, turn).await.map_err(|_| NoTurn::Listing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn no_bind_before_the_window_of_two_binders_is_over() {
        let order = PodOrder::default();
        let soon = || Instant::now() + Duration::from_millis(900);
        assert_eq!(order.turn(QUIET, soon()).await.unwrap_err(), NoTurn::NotListed);
        order.listed();
        let listed_at = Instant::now();
        assert_eq!(order.turn(QUIET, soon()).await.unwrap_err(), NoTurn::JustStarted);
        tokio::time::advance(Duration::from_millis(2500)).await;
        order.turn(QUIET, soon()).await.unwrap();
        assert!(listed_at.elapsed() >= QUIET);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_list_and_a_turn_exclude_each_other() {
        let order = PodOrder::default();
        order.listed();
        tokio::time::advance(QUIET).await;
        let soon = || Instant::now() + Duration::from_millis(900);
        let list = order.begin_list().await;
        assert_eq!(order.turn(QUIET, soon()).await.unwrap_err(), NoTurn::Listing);
        drop(list);
        let turn = order.turn(QUIET, soon()).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(9), order.begin_list()).await.is_err());
        drop(turn);
        order.begin_list().await;
    }
}
