//! What to publish next, decided from values alone: what was read, and what the API server says was published.

use berth_model::{Generation, NodeTopology};
use berth_proto::{Status, encode};

/// Version that the agent writes into its reports.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The report that is true now, for both carriers.
///
/// `published` is what the API server was last seen to hold, `said` what was last said on the streams. The one of them that has the
/// highest generation ever met and the facts of `read` stays; else the highest generation is outdone, whatever its report says: an object
/// that was deleted and made again must not start over.
pub(crate) fn next(
    published: Option<&Status>,
    said: Option<&Status>,
    generation_seen: Generation,
    read: &NodeTopology,
) -> Status {
    let highest = [published, said].into_iter().flatten().map(|r| Generation(generation_of(r))).max();
    let highest = highest.unwrap_or(Generation(0)).max(generation_seen);
    let mut report = encode(&read.clone().with_generation(highest), VERSION);
    let newest = || [published, said].into_iter().flatten().filter(|r| generation_of(r) == highest.0);
    // All of them: two reports of one generation that differ are both outdone.
    if newest().next().is_some() && newest().all(|newest| *newest == report) {
        return report;
    }
    report.generation = i64::try_from(highest.0.saturating_add(1)).unwrap_or(i64::MAX);
    report
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
            host: berth_model::Host::default(),
            findings: Vec::new(),
            drifts: Vec::new(),
            refusals: Vec::new(),
            device_plugin: None,
        })
        .unwrap()
    }

    fn first() -> Status {
        next(None, None, Generation(0), &read("a"))
    }

    #[test]
    fn the_first_report_of_a_node_has_generation_one() {
        assert_eq!(first().generation, 1);
    }

    #[test]
    fn what_is_published_already_is_not_outdone() {
        for (published, said) in [(Some(first()), None), (None, Some(first())), (Some(first()), Some(first()))] {
            let report = next(published.as_ref(), said.as_ref(), Generation(1), &read("a"));
            assert_eq!(report, first());
        }
    }

    #[test]
    fn a_reboot_goes_on_from_the_generation_of_the_last_boot() {
        let mut published = first();
        published.generation = 41;
        let after = next(Some(&published), None, Generation(0), &read("b"));
        assert_eq!((after.generation, after.boot_id.as_str()), (42, "b"));
    }

    #[test]
    fn an_object_made_anew_does_not_start_over() {
        assert_eq!(next(None, None, Generation(7), &read("a")).generation, 8);
    }

    #[test]
    fn a_report_put_back_to_an_older_one_is_outdone() {
        assert_eq!(next(Some(&first()), None, Generation(5), &read("a")).generation, 6);
    }

    #[test]
    fn what_was_said_on_the_streams_is_what_the_object_gets_with_the_same_generation() {
        let said = next(Some(&first()), Some(&first()), Generation(1), &read("b"));
        assert_eq!(said.generation, 2);
        assert_eq!(
            next(Some(&first()), Some(&said), Generation(2), &read("b")),
            said,
            "a write that failed is tried again"
        );
        // What was read before it was written is one more report.
        assert_eq!(next(Some(&first()), Some(&said), Generation(2), &read("a")).generation, 3);
    }

    #[test]
    fn another_agents_version_or_a_forged_field_is_corrected() {
        for said in [None, Some(first())] {
            let mut published = first();
            published.agent_version = "0.0.1".to_owned();
            assert_eq!(next(Some(&published), said.as_ref(), Generation(1), &read("a")).generation, 2);
            let mut published = first();
            published.gpu_count = 8;
            let corrected = next(Some(&published), said.as_ref(), Generation(1), &read("a"));
            assert_eq!((corrected.generation, corrected.gpu_count), (2, 0));
        }
        let published = Status { generation: -3, ..first() };
        assert_eq!(next(Some(&published), None, Generation(1), &read("a")).generation, 2);
    }
}
