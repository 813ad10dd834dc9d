//! Holds the prober of a running agent to its rhythm, by counts and not by time: what it asks when nothing changes, and after how many
//! readings it sees what changed without an event.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_model::{NodeName, NodeTopology};
use berth_probe::rhythm::{ROUND_OF, WHOLE_OF};
use berth_probe::sysfs::glance::Places;
use berth_probe::sysfs::{BootFacts, read_rest};
use berth_probe::tree::{SysRoot, Tree, TreeError};
use berth_probe::{ProbeConfig, Prober};
use berth_tests::made_node::MadeNode;

/// After news the next rounds are whole readings; by then all is calm.
const CALM_AFTER: u32 = 3 * ROUND_OF;
/// Questions about one GPU that a look may ask.
const LOOK_CALLS_PER_GPU: u64 = 10;
/// An event on a machine that does much else.
const EVENT_WITHIN: Duration = Duration::from_secs(30);

/// A prober in the middle of its work on a node of eight GPUs, 144 NVLinks and twelve NICs.
struct Stage {
    node: MadeNode,
    prober: Prober,
    last: NodeTopology,
    woken: Receiver<()>,
}

impl Stage {
    fn calm() -> Result<Self> {
        let node = MadeNode::new("dgx-h100", "quiet")?;
        let config = ProbeConfig {
            nvml_library: Some(node.library()?),
            ..ProbeConfig::new(node.root(), NodeName::parse(node.name())?)
        };
        let (wake, woken) = channel();
        let wake = Mutex::new(wake);
        let told = move || drop(wake.lock().map(|wake| wake.send(())));
        let mut prober = Prober::with_events(config, Arc::new(told));
        let last = prober.follow(None)?;
        let mut stage = Self { node, prober, last, woken };
        stage.calm_down()?;
        assert_eq!(stage.last, stage.node.topology(None)?);
        Ok(stage)
    }

    fn follow(&mut self) -> Result<&NodeTopology> {
        self.last = self.prober.follow(Some(&self.last))?;
        Ok(&self.last)
    }

    fn calm_down(&mut self) -> Result<()> {
        (0..CALM_AFTER).try_for_each(|_| self.follow().map(|_| ()))
    }

    /// Readings until the report is another one.
    fn readings_until_seen(&mut self) -> Result<u32> {
        let before = self.last.clone();
        for reading in 1..=WHOLE_OF {
            if *self.follow()? != before {
                return Ok(reading);
            }
        }
        anyhow::bail!("it is never seen")
    }

    /// Calls to the driver during so many readings.
    fn calls_during(&mut self, readings: u32) -> Result<BTreeMap<&'static str, u64>> {
        let before = self.node.nvml_calls()?;
        for _ in 0..readings {
            self.follow()?;
        }
        let mut calls = self.node.nvml_calls()?;
        for (name, count) in &mut calls {
            *count = count.saturating_sub(before.get(name).copied().unwrap_or_default());
        }
        calls.retain(|name, count| *count > 0 && !name.starts_with("nvmlEventSet"));
        Ok(calls)
    }
}

fn of_links(calls: &BTreeMap<&'static str, u64>) -> u64 {
    calls.iter().filter(|(name, _)| name.contains("NvLink")).map(|(_, count)| count).sum()
}

#[test]
fn while_nothing_changes_no_link_is_asked_for_and_next_to_nothing_else() -> Result<()> {
    let mut stage = Stage::calm()?;
    let whole = stage.last.clone();
    // The next whole reading, so that none is due for as long as can be.
    let calls = stage.calls_during(WHOLE_OF)?;
    ensure!(of_links(&calls) > 0, "links are never asked for again: {calls:?}");
    while of_links(&stage.calls_during(1)?) == 0 {}

    let looks = stage.calls_during(ROUND_OF - 1)?;
    assert_eq!(of_links(&looks), 0, "{looks:?}");
    let per_look = looks.values().sum::<u64>() / u64::from(ROUND_OF - 1);
    assert!(per_look <= 8 * LOOK_CALLS_PER_GPU, "{per_look} calls a look: {looks:?}");
    let rest = stage.calls_during(WHOLE_OF - ROUND_OF)?;
    assert_eq!(of_links(&rest), 0, "{rest:?}");
    assert_eq!(stage.last, whole);
    Ok(())
}

#[test]
fn what_takes_a_gpu_or_nic_from_pods_is_seen_by_the_next_look() -> Result<()> {
    let mut stage = Stage::calm()?;
    let port = format!("portsDown: [{}]", stage.last.parts().nics[4].name);
    for fault in ["lost: [3]", "unreadable: [2]", "unlisted: [1]", "changed: [{gpu: 5, facts: {mig: true}}]", &port] {
        stage.node.set_faults(fault)?;
        assert_eq!(stage.readings_until_seen()?, 1, "{fault}");
        stage.node.set_faults("")?;
        assert_eq!(stage.readings_until_seen()?, 1, "the end of {fault}");
        assert_eq!(stage.last, stage.node.topology(None)?, "{fault}");
        stage.calm_down()?;
    }
    Ok(())
}

#[test]
fn a_nic_that_is_pulled_or_plugged_in_is_seen_by_the_next_look() -> Result<()> {
    let mut stage = Stage::calm()?;
    let entry = stage.node.root().join("sys/class/infiniband").join(stage.last.parts().nics[9].name.as_str());
    let aside = stage.node.root().join("unplugged");
    std::fs::rename(&entry, &aside)?;
    assert_eq!((stage.readings_until_seen()?, stage.last.parts().nics.len()), (1, 11));
    stage.calm_down()?;
    std::fs::rename(&aside, &entry)?;
    assert_eq!((stage.readings_until_seen()?, stage.last.parts().nics.len()), (1, 12));
    Ok(())
}

#[test]
fn what_an_administrator_sets_is_seen_within_a_round() -> Result<()> {
    let mut stage = Stage::calm()?;
    for (file, text) in [
        ("sys/kernel/mm/ksm/run", "1\n"),
        ("sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages", "7\n"),
        ("sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "powersave\n"),
        ("var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\n"),
    ] {
        std::fs::write(stage.node.root().join(file), text).with_context(|| file.to_owned())?;
        assert!(stage.readings_until_seen()? <= ROUND_OF, "{file}");
    }
    Ok(())
}

#[test]
fn a_link_that_fails_is_seen_at_its_event_and_without_one_by_the_next_whole_reading() -> Result<()> {
    let mut stage = Stage::calm()?;
    // An Xid that is ignored is a reason to look all the same: 13 blames the application.
    stage.node.set_faults("nvlinksDown: [{gpu: 4, links: [0]}]\nevents: [{id: 1, gpu: 4, xid: 13}]")?;
    stage.woken.recv_timeout(EVENT_WITHIN).context("no event")?;
    assert_eq!(stage.readings_until_seen()?, 1);
    stage.calm_down()?;
    stage.node.set_faults("events: [{id: 1, gpu: 4, xid: 13}]")?;
    let readings = stage.readings_until_seen()?;
    assert!((2..=WHOLE_OF).contains(&readings), "{readings}");
    assert_eq!(stage.last, stage.node.topology(None)?);
    Ok(())
}

/// A kernel tree that notes every path it is asked for.
struct Noted<'a> {
    tree: &'a dyn Tree,
    paths: RefCell<Vec<String>>,
}

impl<'a> Noted<'a> {
    fn of(tree: &'a dyn Tree) -> Self {
        Self { tree, paths: RefCell::default() }
    }

    fn note(&self, path: &str) {
        self.paths.borrow_mut().push(path.to_owned());
    }

    /// What was asked for since the last call.
    fn taken(&self) -> Vec<String> {
        self.paths.take()
    }
}

impl Tree for Noted<'_> {
    fn read(&self, path: &str) -> Result<Option<String>, TreeError> {
        self.note(path);
        self.tree.read(path)
    }

    fn read_start(&self, path: &str) -> Result<Option<String>, TreeError> {
        self.note(path);
        self.tree.read_start(path)
    }

    fn read_link(&self, path: &str) -> Result<Option<String>, TreeError> {
        self.note(path);
        self.tree.read_link(path)
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>, TreeError> {
        self.note(path);
        self.tree.list(path)
    }
}

#[test]
fn a_look_reads_one_file_a_port_and_a_round_leaves_out_what_a_boot_settles() -> Result<()> {
    let node = MadeNode::new("dgx-h100", "quiet")?;
    let disk = SysRoot::new(node.root());
    let tree = Noted::of(&disk);
    let boot = BootFacts::read(&tree);
    let whole = read_rest(&tree, &boot, &BTreeMap::new());
    let whole_count = tree.taken().len();
    let places = Places::find(&tree);
    tree.taken();
    assert_eq!(places.glance(&tree), places.glance(&disk));
    let look = tree.taken();
    assert_eq!(look.len(), whole.rdma.len() + 3, "{look:?}");

    let round = read_rest(&tree, &boot, &whole.pci);
    let paths = tree.taken();
    assert_eq!(round, whole);
    let settled = |path: &&String| path.contains("/topology/") || path.contains("/cache/") || path.contains("cpuinfo");
    assert_eq!(paths.iter().find(settled), None);
    let bridge = whole.pci.values().find(|device| device.class.is_some_and(|class| class >> 16 == 0x06));
    let bridge = bridge.context("no bridge")?.path.device.to_string();
    assert_eq!(paths.iter().find(|path| path.ends_with(&format!("{bridge}/class"))), None);
    assert!(paths.len() < whole_count, "{} of {whole_count}", paths.len());
    Ok(())
}
