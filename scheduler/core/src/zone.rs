//! What a node's kubelet will say to a pod: whether its Topology, CPU and Memory Manager admit it, and in which zones each container
//! will then be. A pod that the kubelet refuses is lost, not retried, so no plan may send it there.
//!
//! [`admit`] goes through the very steps of the kubelet, container by container. Source: `pkg/kubelet/cm` of Kubernetes 1.36.3;
//! `tests/zones/` holds what those sources answered for thousands of pods.

mod ask;
mod hint;
mod mask;
mod offer;
mod reported;
mod seat;
mod site;
mod take;

use std::collections::{BTreeMap, BTreeSet};

use berth_model::kubelet::{TopologyManagerPolicy, TopologyManagerScope};

pub use ask::{ContainerAsk, Phase, PodAsk};
pub use hint::Hint;
pub use mask::ZoneMask;
pub use seat::{Seat, seats};
pub use site::{Device, Memory, MemoryName, Rules, Site, ZONES_MAX, ZoneSite};
pub use take::{FirstOnes, Steer};

use hint::Merger;
use offer::offers;
use take::{Reuse, take};

/// Why the kubelet refuses a pod for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// `TopologyAffinityError`: no zones that its policy takes.
    Affinity,
    /// `SMTAlignmentError`: not a multiple of a core's threads, or too few whole cores.
    SmtAlignment,
    /// `UnexpectedAdmissionError`: too few CPUs that are free.
    Cpus,
    /// `UnexpectedAdmissionError`: no zones whose memory may be given together.
    Memory,
    /// `UnexpectedAdmissionError`: too few devices.
    Devices,
    /// The machine has more zones than the kubelet takes by itself, so that nobody can tell.
    TooManyZones,
}

impl Refusal {
    /// The reason in the status of the pod that failed.
    #[must_use]
    pub fn api_reason(self) -> &'static str {
        match self {
            Self::Affinity | Self::TooManyZones => "TopologyAffinityError",
            Self::SmtAlignment => "SMTAlignmentError",
            Self::Cpus | Self::Memory | Self::Devices => "UnexpectedAdmissionError",
        }
    }
}

/// What one container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Where.
    pub hint: Hint,
    /// Devices by resource: positions in the site's lists.
    pub devices: BTreeMap<String, BTreeSet<usize>>,
}

/// Whether the kubelet admits the pod; if so, what each container gets, and the site is without it. After a refusal the site is of no use.
///
/// # Errors
/// [`Refusal`] with the number of the container where the kubelet stops; zero for the pod as a whole.
pub fn admit(site: &mut Site, pod: &PodAsk, steer: &mut dyn Steer) -> Result<Vec<Admitted>, (usize, Refusal)> {
    let policy = site.rules.policy;
    if policy != TopologyManagerPolicy::None && site.zones.len() > ZONES_MAX {
        return Err((0, Refusal::TooManyZones));
    }
    let mut reuse = Reuse::default();
    let whole = match (policy, site.rules.scope) {
        (TopologyManagerPolicy::None, _) => Some(Hint { zones: None, is_preferred: false }),
        (_, TopologyManagerScope::Pod) => Some(hinted(site, &pod.whole(), &reuse).ok_or((0, Refusal::Affinity))?),
        (_, TopologyManagerScope::Container | TopologyManagerScope::Other) => None,
    };
    let mut admitted = Vec::with_capacity(pod.containers.len());
    for (number, ask) in pod.containers.iter().enumerate() {
        let hint = match whole {
            Some(hint) => hint,
            None => hinted(site, ask, &reuse).ok_or((number, Refusal::Affinity))?,
        };
        let devices = take(site, (number, ask), hint, &mut reuse, steer).map_err(|refusal| (number, refusal))?;
        admitted.push(Admitted { hint, devices });
    }
    Ok(admitted)
}

/// The hint under which the kubelet admits this, if it does.
fn hinted(site: &Site, ask: &ContainerAsk, reuse: &Reuse) -> Option<Hint> {
    let distance = |mask: ZoneMask| site.distance(mask);
    let is_near_first = site.rules.prefers_closest && site.rules.policy != TopologyManagerPolicy::SingleNumaNode;
    let merger =
        Merger { policy: site.rules.policy, all: site.all_zones(), distance: is_near_first.then_some(&distance) };
    let (hint, is_admitted) = merger.merge(&offers(site, ask, reuse));
    is_admitted.then_some(hint)
}

#[cfg(test)]
mod tests;
