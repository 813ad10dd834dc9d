//! Breaks and heals the hardware under the unmodified agent: each fault is told in the report, costs nothing else, and its end is told too.

mod silent;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_model::{Driver, Gpu, Health, LinkMatrix, NodeTopology as Topology, Parts};
use berth_proto::NodeTopology;
use berth_tests::controlplane::Process;
use berth_tests::installed::{Installed, on_agent_only};
use berth_tests::made_node::MadeNode;
use kube::api::Api;

/// A change is seen within one poll or at an event; this is for a machine that does much else.
const WITHIN: Duration = Duration::from_secs(30);
/// A fault that only the clock could find is found by no test that waits less than this: what is found was told by an event.
const NEVER: &str = "10m";
/// How long the tests' agent waits for a GPU. A healthy one answers within milliseconds.
const GPU_TIMEOUT: &str = "2s";

const MACHINE: &str = "dgx-h100";

/// A node of a name of its own: all tests here share one control plane.
fn node_name() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    format!("gpu-{}", MADE.fetch_add(1, Ordering::Relaxed))
}

fn made_node() -> Result<MadeNode> {
    MadeNode::new(MACHINE, &node_name())
}

/// A running agent on a made-up node of a real control plane.
struct Stage {
    installed: &'static Installed,
    node: MadeNode,
    agent: Process,
    /// The first report: everything works.
    whole: Parts,
}

impl Stage {
    async fn new(site: &'static Installed, poll_interval: &str, more: &[&str]) -> Result<Self> {
        Self::over(site, made_node()?, poll_interval, more).await
    }

    /// Starts the agent on a node that may be broken already.
    async fn over(installed: &'static Installed, node: MadeNode, poll_interval: &str, more: &[&str]) -> Result<Self> {
        installed.plane.create_node(&node.node_spec()?).await?;
        let kubeconfig = installed.plane.agent_identity(node.name()).await?;
        let patience: &[&str] = if more.contains(&"--gpu-timeout") { &[] } else { &["--gpu-timeout", GPU_TIMEOUT] };
        let spec = node.agent_polling(&kubeconfig, poll_interval)?.args(patience).args(more);
        let agent = installed.plane.spawn(spec)?;
        let whole = node.topology(None)?.into_parts();
        let mut stage = Self { installed, node, agent, whole };
        stage.whole = stage.when(|_| true).await?;
        Ok(stage)
    }

    /// The report once it is as wanted.
    async fn when(&self, wanted: impl Fn(&Parts) -> bool) -> Result<Parts> {
        let objects: Api<NodeTopology> = Api::all(self.installed.plane.client());
        let deadline = Instant::now() + WITHIN;
        loop {
            let object = objects.get_opt(self.node.name()).await?;
            let said = object.map(|object| object.topology()).transpose()?.flatten().map(Topology::into_parts);
            if let Some(said) = said.clone().filter(|said| wanted(said)) {
                return Ok(said);
            }
            ensure!(Instant::now() < deadline, "the report stays {said:#?}\n{}", self.agent.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The health of this GPU once it is no longer healthy, and the report with its health and its own links put back: the rest must be
    /// as before.
    async fn when_sick(&self, gpu: usize) -> Result<(Health, Parts)> {
        let mut said = self.when(|said| said.gpus.get(gpu).is_some_and(|gpu| gpu.health != Health::Healthy)).await?;
        said.links = LinkMatrix::build(said.links.device_count(), |a, b| {
            let links = if a == gpu || b == gpu { &self.whole.links } else { &said.links };
            links.link(a, b).unwrap_or_default()
        });
        let health = std::mem::replace(&mut said.gpus.get_mut(gpu).context("no such GPU")?.health, Health::Healthy);
        Ok((health, said))
    }

    /// Waits until the first report is back.
    async fn when_healed(&self) -> Result<()> {
        let whole = facts(self.whole.clone());
        self.when(|said| facts(said.clone()) == whole).await.map(|_| ())
    }
}

/// A report without its generation.
fn facts(mut parts: Parts) -> Parts {
    parts.generation = berth_model::Generation(0);
    parts
}

fn unhealthy(why: &str) -> Health {
    Health::Unhealthy(why.to_owned())
}

#[test]
fn an_xid_is_health_at_once_and_stays_until_the_gpu_was_reset() -> Result<()> {
    on_agent_only(async |site| {
        // By the clock nothing would be read again.
        let mut stage = Stage::new(site, NEVER, &[]).await?;
        let cases = [
            (1, 79, unhealthy("Xid 79: the GPU fell off the bus")),
            (2, 48, unhealthy("Xid 48: double-bit ECC error")),
            (3, 63, Health::Unknown("Xid 63: a row remap or page retirement was recorded".to_owned())),
            (4, 94, Health::Unknown("Xid 94: contained memory error".to_owned())),
            (5, 4711, unhealthy("Xid 4711")),
        ];
        let mut events = String::new();
        let mut expected = facts(stage.whole.clone());
        for (gpu, xid, health) in cases {
            events += &format!("{{id: {xid}, gpu: {gpu}, xid: {xid}}}, ");
            stage.node.set_faults(&format!("events: [{events}]"))?;
            expected.gpus[gpu].health = health;
            stage.when(|said| facts(said.clone()) == expected).await?;
        }
        // An application's fault is no news of the GPU, but a reason to look: GPU 1 is found silent.
        events += "{id: 13, gpu: 6, xid: 13}";
        stage.node.set_faults(&format!("events: [{events}]\nlost: [1]"))?;
        let both = unhealthy("NVML: the GPU is lost; Xid 79: the GPU fell off the bus");
        let said = stage.when(|said| said.gpus[1].health == both).await?;
        assert_eq!(said.gpus[6].health, Health::Healthy);
        // It was reset: it answers again.
        stage.node.set_faults(&format!("events: [{events}, {{id: 14, gpu: 6, xid: 13}}]"))?;
        expected.gpus[1].health = Health::Healthy;
        stage.when(|said| facts(said.clone()) == expected).await?;
        Ok(())
    })
}

#[test]
fn the_list_of_ignored_xids_is_the_operators() -> Result<()> {
    on_agent_only(async |site| {
        let mut stage = Stage::new(site, NEVER, &["--xids-ignored", "79"]).await?;
        stage.node.set_faults("events: [{id: 1, gpu: 1, xid: 79}, {id: 2, gpu: 2, xid: 13}]")?;
        let (health, rest) = stage.when_sick(2).await?;
        let told = unhealthy("Xid 13: an application made the graphics engine fault");
        assert_eq!((health, facts(rest)), (told, facts(stage.whole.clone())));
        Ok(())
    })
}

#[test]
fn an_xid_is_told_before_the_reading_that_a_hanging_gpu_holds_up() -> Result<()> {
    on_agent_only(async |site| {
        let mut stage = Stage::new(site, NEVER, &[]).await?;
        stage.node.set_faults("hangs: [2]\nevents: [{id: 1, gpu: 1, xid: 79}]")?;
        let fell = unhealthy("Xid 79: the GPU fell off the bus");
        // The reading finds both at once, so a report with one of them is not its.
        let said = stage.when(|said| said.gpus[1].health == fell).await?;
        assert_eq!(said.gpus[2].health, Health::Healthy);
        let said = stage.when(|said| said.gpus[2].health != Health::Healthy).await?;
        assert_eq!(said.gpus[1].health, fell);
        Ok(())
    })
}

#[test]
fn an_xid_of_no_certain_gpu_is_a_doubt_about_all_until_they_were_counted_anew() -> Result<()> {
    on_agent_only(async |site| {
        let mut stage = Stage::new(site, "4s", &[]).await?;
        stage.node.set_faults("events: [{id: 1, xid: 79}]")?;
        let why = Health::Unknown("Xid 79: the GPU fell off the bus, of no certain GPU".to_owned());
        let said = stage.when(|said| said.gpus.iter().all(|gpu| gpu.health == why)).await?;
        assert_eq!((said.nics, said.links), (stage.whole.nics.clone(), stage.whole.links.clone()));
        stage.when_healed().await
    })
}

#[test]
fn a_call_that_hangs_costs_its_gpu_only_and_the_rest_is_read_on() -> Result<()> {
    on_agent_only(async |site| {
        let mut stage = Stage::new(site, "100ms", &[]).await?;
        stage.node.set_faults("hangs: [2]")?;
        let (health, rest) = stage.when_sick(2).await?;
        assert_eq!(health, unhealthy("NVML: the driver does not return from a call about it"));
        assert_eq!(facts(rest), facts(stage.whole.clone()), "something else changed with it");
        // The others are still looked after.
        let name = stage.whole.nics[3].name.clone();
        stage.node.set_faults(&format!("hangs: [2]\nportsDown: [{name}]"))?;
        stage.when(|said| said.nics[3].state != stage.whole.nics[3].state).await?;
        stage.node.set_faults("hangs: [2, 5]")?;
        let said = stage.when(|said| said.gpus[5].health != Health::Healthy).await?;
        let healthy = said.gpus.iter().filter(|gpu| gpu.health == Health::Healthy).count();
        assert_eq!((healthy, said.gpus.len()), (6, 8));
        stage.node.set_faults("")?;
        stage.when_healed().await
    })
}

#[test]
fn a_gpu_that_hangs_from_the_start_is_a_finding() -> Result<()> {
    on_agent_only(async |site| {
        let mut node = made_node()?;
        node.set_faults("hangs: [2]")?;
        let mut stage = Stage::over(site, node, "100ms", &[]).await?;
        let codes: Vec<&str> = stage.whole.findings.iter().map(|finding| finding.code.as_str()).collect();
        assert_eq!((stage.whole.gpus.len(), codes), (7, vec!["gpu-unreadable"]));
        stage.node.set_faults("")?;
        let whole = stage.node.topology(None)?.into_parts();
        stage.when(|said| facts(said.clone()) == facts(whole.clone())).await?;
        Ok(())
    })
}

#[test]
fn a_driver_that_goes_and_comes_back_takes_only_the_gpus_along() -> Result<()> {
    on_agent_only(async |site| {
        let mut stage = Stage::new(site, "100ms", &[]).await?;
        for (id, fault, why) in [
            (1, "notLoaded", berth_probe::facts::DRIVER_NOT_LOADED),
            (2, "versionMismatch", berth_probe::facts::VERSION_MISMATCH),
            (3, "libraryNotFound", berth_probe::facts::LIBRARY_INCOMPLETE),
        ] {
            // A mark of before does not outlive the driver.
            stage.node.set_faults(&format!("events: [{{id: {id}, gpu: 1, xid: 48}}]"))?;
            stage.when_sick(1).await?;
            stage.node.set_faults(&format!("driver: {fault}"))?;
            let said = stage.when(|said| said.driver == Driver::Absent(why.to_owned())).await?;
            assert_eq!(
                (&said.nics, &said.zones, said.gpus.len()),
                (&stage.whole.nics, &stage.whole.zones, 0),
                "{fault}"
            );
            stage.node.set_faults("")?;
            stage.when_healed().await?;
        }
        Ok(())
    })
}

#[test]
fn a_gpu_off_the_bus_comes_back_with_its_events() -> Result<()> {
    on_agent_only(async |site| {
        let mut stage = Stage::new(site, "100ms", &[]).await?;
        stage.node.set_faults("unlisted: [3]")?;
        let missing = stage.whole.gpus[3].uuid.clone();
        let is_missing = |gpu: &Gpu| gpu.uuid == missing && gpu.health == unhealthy("the driver no longer lists it");
        let said = stage.when(|said| said.gpus.iter().any(is_missing)).await?;
        let others = |parts: &Parts| {
            let others = parts.gpus.iter().filter(|gpu| gpu.uuid != missing);
            others.map(|gpu| (gpu.uuid.clone(), gpu.pci, gpu.health.clone())).collect::<Vec<_>>()
        };
        assert_eq!((others(&said), said.gpus.len()), (others(&stage.whole), 8));
        stage.node.set_faults("")?;
        stage.when_healed().await?;
        stage.node.set_faults("events: [{id: 1, gpu: 3, xid: 48}]")?;
        let (health, _) = stage.when_sick(3).await?;
        assert_eq!(health, unhealthy("Xid 48: double-bit ECC error"));
        Ok(())
    })
}

#[test]
fn mig_that_is_reconfigured_under_us_is_told_by_its_event() -> Result<()> {
    on_agent_only(async |site| {
        let mut stage = Stage::new(site, NEVER, &[]).await?;
        let before = stage.whole.gpus[5].mig_enabled.context("the machine file says nothing of MIG")?;
        stage.node.set_faults("changed: [{gpu: 5, facts: {mig: true}}]\nevents: [{id: 1, gpu: 5, migConfig: true}]")?;
        let mut said = stage.when(|said| said.gpus[5].mig_enabled == Some(!before)).await?;
        said.gpus[5].mig_enabled = Some(before);
        assert_eq!(facts(said), facts(stage.whole.clone()), "something else changed with it");
        stage.node.set_faults("events: [{id: 2, gpu: 5, migConfig: true}]")?;
        stage.when_healed().await
    })
}

#[test]
fn a_port_that_goes_down_and_a_link_that_fails_change_nothing_else() -> Result<()> {
    on_agent_only(async |site| {
        let mut stage = Stage::new(site, "100ms", &[]).await?;
        let name = stage.whole.nics[0].name.clone();
        stage.node.set_faults(&format!("portsDown: [{name}]"))?;
        let mut said = stage.when(|said| said.nics[0].state != stage.whole.nics[0].state).await?;
        said.nics[0].state = stage.whole.nics[0].state;
        assert_eq!(facts(said), facts(stage.whole.clone()));
        stage.node.set_faults("nvlinksDown: [{gpu: 4, links: [0, 5]}]")?;
        let mut said = stage.when(|said| said.links != stage.whole.links).await?;
        assert_eq!(
            (said.links.link(4, 0).map(|l| l.nvlinks), said.links.link(1, 0).map(|l| l.nvlinks)),
            (Some(16), Some(18))
        );
        assert_eq!(std::mem::take(&mut said.gpus[4].detail.nvlinks_down), [0, 5]);
        let findings: Vec<_> = said.findings.drain(..).map(|f| (f.code, f.device)).collect();
        assert_eq!(findings, [("nvlink-down".to_owned(), stage.whole.gpus[4].pci.to_string())]);
        said.links = stage.whole.links.clone();
        assert_eq!(facts(said), facts(stage.whole.clone()), "something else changed with it");
        stage.node.set_faults("")?;
        stage.when_healed().await
    })
}

#[test]
fn a_link_that_fails_is_told_by_its_xid() -> Result<()> {
    on_agent_only(async |site| {
        let mut stage = Stage::new(site, NEVER, &[]).await?;
        stage.node.set_faults("nvlinksDown: [{gpu: 4, links: [7]}]\nevents: [{id: 1, gpu: 4, xid: 74}]")?;
        let said = stage.when(|said| said.gpus[4].detail.nvlinks_down == [7]).await?;
        assert_eq!(said.links.link(4, 0).map(|link| link.nvlinks), Some(17));
        let (health, mut rest) = stage.when_sick(4).await?;
        assert_eq!(health, unhealthy("Xid 74: NVLink error"));
        let findings: Vec<_> = rest.findings.drain(..).map(|f| (f.code, f.device)).collect();
        assert_eq!(findings, [("nvlink-down".to_owned(), stage.whole.gpus[4].pci.to_string())]);
        rest.gpus[4].detail.nvlinks_down.clear();
        assert_eq!(facts(rest), facts(stage.whole.clone()), "something else changed with it");
        Ok(())
    })
}

#[test]
fn a_nic_that_is_plugged_in_appears_and_goes_again() -> Result<()> {
    on_agent_only(async |site| {
        let stage = Stage::new(site, "100ms", &[]).await?;
        let name = stage.whole.nics[9].name.clone();
        let entry = stage.node.root().join("sys/class/infiniband").join(name.as_str());
        let aside = stage.node.root().join("unplugged");
        for _ in 0..2 {
            std::fs::rename(&entry, &aside)?;
            let said = stage.when(|said| said.nics.len() + 1 == stage.whole.nics.len()).await?;
            assert!(said.nics.iter().all(|nic| nic.name != name));
            assert_eq!(said.gpus, stage.whole.gpus);
            std::fs::rename(&aside, &entry)?;
            stage.when_healed().await?;
        }
        Ok(())
    })
}
