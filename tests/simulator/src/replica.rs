//! One scheduler process: the real watchers, index, decisions and binder, with a clock that the simulator moves.

use std::sync::Arc;
use std::time::Duration;

use berth_extender::admin::Gates;
use berth_extender::bind::api::ApiBinder;
use berth_extender::cluster::Cluster;
use berth_extender::decide::{Decider, Mode};
use berth_extender::events;
use berth_extender::metrics::Metrics;
use berth_extender::requeue::Requeue;
use berth_extender::watch::{self, PodOrder, Settings, Sinks};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::api::{Life, Shared};
use crate::mutant::Mutant;

/// A running process.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) life: Life,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) decider: Arc<Decider>,
    pub(crate) gates: Gates,
    /// Binds that go on; they die with the process.
    pub(crate) binds: JoinSet<()>,
    _tasks: JoinSet<()>,
    _watchers: JoinSet<&'static str>,
    _telling: events::Writer,
}

impl Replica {
    pub(crate) fn start(api: &Shared, life: Life, mutant: Mutant) -> Self {
        let cluster = Arc::new(Cluster::new(Arc::new(Metrics::new("sim"))));
        let (gates, order, requeue) = (Gates::new(), Arc::new(PodOrder::default()), Arc::new(Requeue::default()));
        let (events, telling) = events::channel();
        let sinks =
            Sinks { cluster: Arc::clone(&cluster), requeue: Arc::clone(&requeue), events, order: Arc::clone(&order) };
        let settings = Settings { scheduler_name: Some("berth".to_owned()), ..Settings::default() };
        let client = api.client(life);
        let stop = CancellationToken::new();
        let watchers = watch::start(&client, &sinks, &gates, &settings, &stop);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&requeue).run(client.clone(), Arc::clone(&cluster), stop));
        if mutant != Mutant::HoldsNeverEnd {
            tasks.spawn(keep_house(Arc::clone(&cluster), requeue));
        }
        let name = Some("berth".to_owned());
        let binder = Arc::new(ApiBinder::new(Arc::clone(&cluster), client, order, name));
        let decider = Arc::new(Decider::new(Arc::clone(&cluster), binder, Mode::Allocate, false));
        let binds = JoinSet::new();
        Self { life, cluster, decider, gates, binds, _tasks: tasks, _watchers: watchers, _telling: telling }
    }
}

/// As the process does it, without its gauges.
async fn keep_house(cluster: Arc<Cluster>, requeue: Arc<Requeue>) {
    let mut timer = tokio::time::interval(Duration::from_secs(1));
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        if cluster.index.expire_holds(cluster.now_ms()) > 0 {
            requeue.something_grew();
        }
    }
}
