//! What to publish next, decided from values alone: what was read, and what the API server says was published.

use berth_model::{Generation, NodeTopology};
use berth_proto::{Status, encode};

/// Version that the agent writes into its reports.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The report that must be written, or `None` where the published one says the same already.
///
/// `published` is what the API server holds. Its generation is outdone whatever else it says, and so is `generation_seen`, the highest
/// one ever met: an object that was deleted and made again must not start over.
pub(crate) fn next(published: Option<&Status>, generation_seen: Generation, read: &NodeTopology) -> Option<Status> {
    let published_generation = Generation(published.map_or(0, generation_of));
    let highest = published_generation.max(generation_seen);
    let mut report = encode(&read.clone().with_generation(published_generation), VERSION);
    if published == Some(&report) && published_generation == highest {
        return None;
    }
    report.generation = i64::try_from(highest.0.saturating_add(1)).unwrap_or(i64::MAX);
    Some(report)
}

/// The generation of a report; 0 where it is none.
pub(crate) fn generation_of(report: &Status) -> u64 {
    u64::try_from(report.generation).unwrap_or_default()
}

/// Numbers of a topology for the log and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    /// GPUs that may get pods.
    pub(crate) healthy: usize,
    /// GPUs that may not.
    pub(crate) unhealthy: usize,
    /// GPUs that could not be judged.
    pub(crate) unknown: usize,
}

impl Summary {
    /// Counts the GPUs of a topology by health.
    pub(crate) fn of(topology: &NodeTopology) -> Self {
        let count = |word: &str| topology.parts().gpus.iter().filter(|g| g.health.word() == word).count();
        Self { healthy: count("healthy"), unhealthy: count("unhealthy"), unknown: count("unknown") }
    }
}

#[cfg(test)]
mod tests {
    use berth_model::{BootId, Driver, LinkMatrix, NodeName, Parts};

    use super::*;

    fn read(boot_id: &str) -> NodeTopology {
        NodeTopology::try_new(Parts {
            node: NodeName::parse("n").unwrap(),
            boot_id: BootId::parse(boot_id).unwrap(),
            generation: Generation(0),
            driver: Driver::Absent("no library".to_owned()),
            zones: Vec::new(),
            gpus: Vec::new(),
            nics: Vec::new(),
            links: LinkMatrix::default(),
            findings: Vec::new(),
        })
        .unwrap()
    }

    #[test]
    fn the_first_report_of_a_node_has_generation_one() {
        assert_eq!(next(None, Generation(0), &read("a")).unwrap().generation, 1);
    }

    #[test]
    fn what_is_published_already_is_not_written_again() {
        let published = next(None, Generation(0), &read("a")).unwrap();
        assert_eq!(next(Some(&published), Generation(1), &read("a")), None);
        assert_eq!(next(Some(&published), Generation(0), &read("a")), None);
    }

    #[test]
    fn a_reboot_goes_on_from_the_generation_of_the_last_boot() {
        let mut published = next(None, Generation(0), &read("a")).unwrap();
        published.generation = 41;
        let after = next(Some(&published), Generation(0), &read("b")).unwrap();
        assert_eq!((after.generation, after.boot_id.as_str()), (42, "b"));
    }

    #[test]
    fn an_object_made_anew_does_not_start_over() {
        assert_eq!(next(None, Generation(7), &read("a")).unwrap().generation, 8);
    }

    #[test]
    fn a_report_put_back_to_an_older_one_is_outdone() {
        let old = next(None, Generation(0), &read("a")).unwrap();
        assert_eq!(next(Some(&old), Generation(5), &read("a")).unwrap().generation, 6);
    }

    #[test]
    fn another_agents_version_or_a_forged_field_is_corrected() {
        let mut published = next(None, Generation(0), &read("a")).unwrap();
        published.agent_version = "0.0.1".to_owned();
        assert_eq!(next(Some(&published), Generation(1), &read("a")).unwrap().generation, 2);
        let mut published = next(None, Generation(0), &read("a")).unwrap();
        published.gpu_count = 8;
        assert_eq!(next(Some(&published), Generation(1), &read("a")).unwrap().gpu_count, 0);
        published.generation = -3;
        assert_eq!(next(Some(&published), Generation(1), &read("a")).unwrap().generation, 2);
    }
}
