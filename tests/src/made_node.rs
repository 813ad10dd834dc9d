//! Owns one made-up node on disk: a machine file's kernel tree and the fake driver library's files, for unmodified programs to read.
//! The machine may break and heal while they run.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result};
use berth_core::place::mig::name::resource_form;
use berth_machine::{Faults, Machine, Salt, render, topology_with};
use berth_model::{NodeName, NodeTopology};
use berth_probe::sysfs::kubelet::CONFIG;
use berth_probe::tree::Entry;

use crate::binaries::binaries;
use crate::controlplane::{Folder, NodeSpec, Process, ProcessSpec};

/// How often a made node's agent reads the hardware: as fast as a test wants to see a change.
const POLL_INTERVAL: &str = "100ms";

/// A program that was just started on a busy machine says its first words within this.
const FIRST_WORDS_WITHIN: Duration = Duration::from_secs(20);

/// A node made from a machine file.
#[derive(Debug)]
pub struct MadeNode {
    name: NodeName,
    machine: Machine,
    salt: Salt,
    faults: Faults,
    /// The kubelet's configuration where it is not the machine file's.
    kubelet_config: Option<String>,
    folder: Folder,
}

impl MadeNode {
    /// Writes the node of this name from `tests/machines/<machine>.yaml`. Nodes of other names get other UUIDs and boot ids.
    ///
    /// # Errors
    /// There is no such machine file, or it cannot be written out.
    pub fn new(machine: &str, name: &str) -> Result<Self> {
        let path = machine_file(machine);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Self::of_text(&text, name)
    }

    /// As [`MadeNode::new`], from the text of a machine file.
    ///
    /// # Errors
    /// The text is no machine file, or cannot be written out.
    pub fn of_text(text: &str, name: &str) -> Result<Self> {
        let folder = Folder::new("berth-node-")?;
        std::fs::write(folder.path().join("machine.yaml"), text)?;
        std::fs::write(folder.path().join("calls"), [])?;
        let made = Self {
            name: NodeName::parse(name)?,
            machine: Machine::parse(text)?,
            salt: Salt::new(name),
            faults: Faults::default(),
            kubelet_config: None,
            folder,
        };
        made.write_tree()?;
        Ok(made)
    }

    /// Breaks the machine as a faults file says, also under a running agent; the text of no faults heals it.
    ///
    /// # Errors
    /// The text is no faults file of this machine, or it cannot be written.
    pub fn set_faults(&mut self, faults: &str) -> Result<()> {
        let text = format!("apiVersion: {}\n{faults}\n", Faults::API_VERSION);
        self.faults = Faults::parse(&text, &self.machine)?;
        self.write_tree()?;
        let fresh = self.folder.path().join("faults.new");
        std::fs::write(&fresh, text)?;
        // Renamed, so that the library never reads half of it.
        std::fs::rename(fresh, self.faults_path())?;
        Ok(())
    }

    /// Gives the node another kubelet's configuration than its machine file has: that of a kubelet which really runs.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_kubelet_config(&mut self, text: String) -> Result<()> {
        self.kubelet_config = Some(text);
        self.write_tree()
    }

    /// Gives the node another boot id, as a reboot does.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn reboot(&self, boot_id: &str) -> Result<()> {
        std::fs::write(self.boot_id_path(), format!("{boot_id}\n"))?;
        Ok(())
    }

    /// The file of its boot id.
    pub(crate) fn boot_id_path(&self) -> PathBuf {
        self.root().join("proc/sys/kernel/random/boot_id")
    }

    /// The machine that it is of.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What an agent must report of it now.
    ///
    /// # Errors
    /// The machine makes no topology.
    pub fn topology(&self, previous: Option<&NodeTopology>) -> Result<NodeTopology> {
        Ok(topology_with(&self.machine, &self.name, &self.salt, &self.faults, previous)?)
    }

    /// Its Node object, with the boot id that its agent reports, and what a device plugin of strategy mixed offers of its GPUs.
    ///
    /// # Errors
    /// As [`MadeNode::topology`].
    pub fn node_spec(&self) -> Result<NodeSpec> {
        let parts = self.topology(None)?.into_parts();
        let whole = parts.gpus.iter().filter(|gpu| gpu.mig_enabled != Some(true)).count();
        let mut spec = NodeSpec::gpus(self.name.as_str(), u32::try_from(whole)?);
        let mut instances: BTreeMap<String, u32> = BTreeMap::new();
        for instance in parts.gpus.iter().flat_map(|gpu| &gpu.detail.mig_instances) {
            *instances.entry(format!("nvidia.com/mig-{}", resource_form(&instance.profile))).or_default() += 1;
        }
        spec.allocatable.extend(instances.into_iter().map(|(name, count)| (name, count.to_string())));
        spec.boot_id = parts.boot_id.to_string();
        Ok(spec)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The folder that stands for the host's `/`.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// A driver library of this node alone, for a probe inside the test's own process: it takes the machine, its faults and its name
    /// from the files beside it, not from the environment.
    ///
    /// # Errors
    /// The fake library is not built, or cannot be copied.
    pub fn library(&self) -> Result<PathBuf> {
        let library = self.folder.path().join("libnvidia-ml.so.1");
        std::fs::write(self.folder.path().join("node"), self.name())?;
        // A copy, not a link: the loader takes files of one inode for one library, and that has one state. Made once: the file
        // must not change under a process that has it open.
        if !library.exists() {
            std::fs::copy(library_beside_test()?, &library).context("copy the fake driver library")?;
        }
        Ok(library)
    }

    /// The unmodified agent on this node, over the fake driver library, on a port of its own.
    ///
    /// # Errors
    /// Berth's programs do not build.
    pub fn agent(&self, kubeconfig: &Path) -> Result<ProcessSpec> {
        self.agent_polling(kubeconfig, POLL_INTERVAL)
    }

    /// As [`MadeNode::agent`], of an agent that reads the hardware as often as said.
    ///
    /// # Errors
    /// As [`MadeNode::agent`].
    pub fn agent_polling(&self, kubeconfig: &Path, interval: &str) -> Result<ProcessSpec> {
        Ok(self.agent_by_default(kubeconfig)?.args(["--poll-interval", interval]))
    }

    /// As [`MadeNode::agent`], of an agent that reads the hardware as often as it does by default.
    ///
    /// # Errors
    /// As [`MadeNode::agent`].
    pub fn agent_by_default(&self, kubeconfig: &Path) -> Result<ProcessSpec> {
        let spec = ProcessSpec::new(format!("agent-{}", self.name), &binaries()?.agent)
            .args(["--admin-listen", "127.0.0.1:0"])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(self.arguments(&binaries()?.fake_nvml));
        Ok(self.variables().into_iter().fold(spec, |spec, (key, value)| spec.env(key, value)))
    }

    /// The unmodified agent on this node without an API server: streams alone carry its report.
    ///
    /// # Errors
    /// As [`MadeNode::agent`].
    pub fn agent_without_api(&self) -> Result<ProcessSpec> {
        let spec = ProcessSpec::new(format!("agent-{}", self.name), &binaries()?.agent)
            .args(["--no-object", "--admin-listen", "127.0.0.1:0", "--poll-interval", POLL_INTERVAL])
            .args(self.arguments(&binaries()?.fake_nvml));
        Ok(self.variables().into_iter().fold(spec, |spec, (key, value)| spec.env(key, value)))
    }

    /// What `berth-agent --once -o json` prints on this node over any driver library, also one that is not there.
    ///
    /// # Errors
    /// Berth's programs do not build, or the agent cannot be started.
    pub fn once(&self, library: &Path) -> Result<Output> {
        let mut command = Command::new(&binaries()?.agent);
        command.args(["--once", "-o", "json"]).args(self.arguments(library)).envs(self.variables());
        command.output().context("start berth-agent --once")
    }

    fn arguments(&self, library: &Path) -> [OsString; 6] {
        let [node_name, root, nvml_library] = ["--node-name", "--root", "--nvml-library"].map(OsString::from);
        [node_name, self.name.as_str().into(), root, self.root().into(), nvml_library, library.into()]
    }

    /// How often each call to the fake driver library was made on this node, by all programs and in all their runs.
    ///
    /// # Errors
    /// The file of counts cannot be read.
    pub fn nvml_calls(&self) -> Result<BTreeMap<&'static str, u64>> {
        Ok(berth_fake_nvml::calls::counted(&self.calls_path())?)
    }

    fn calls_path(&self) -> PathBuf {
        self.folder.path().join("calls")
    }

    fn variables(&self) -> [(&'static str, OsString); 4] {
        [
            ("BERTH_FAKE_MACHINE", self.folder.path().join("machine.yaml").into()),
            ("BERTH_FAKE_FAULTS", self.faults_path().into()),
            ("BERTH_FAKE_NODE", self.name.as_str().into()),
            ("BERTH_FAKE_CALLS", self.calls_path().into()),
        ]
    }

    /// The file that the fake driver library reads at every call, if it is there.
    pub fn faults_path(&self) -> PathBuf {
        self.folder.path().join("faults.yaml")
    }

    fn write_tree(&self) -> Result<()> {
        let mut tree = render::tree(&self.machine, &self.salt, &self.faults);
        if let Some(text) = &self.kubelet_config {
            tree.put(CONFIG, Entry::File(text.clone()));
        }
        render::write(&tree, &self.root()).with_context(|| format!("write {}", self.root().display()))
    }
}

/// The fake driver library as cargo built it for the running test.
fn library_beside_test() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let library = program.with_file_name("libberth_fake_nvml.so");
    anyhow::ensure!(library.is_file(), "{} is not there: only tests of this package have it", library.display());
    Ok(library)
}

/// Takes a call out of a copy of the library, as if it had never had it.
///
/// # Errors
/// The library does not export it, or cannot be written.
pub fn hide_symbol(library: &Path, symbol: &str) -> Result<()> {
    let mut bytes = std::fs::read(library)?;
    let name: Vec<u8> = [b"\0", symbol.as_bytes(), b"\0"].concat();
    let place = bytes.windows(name.len()).position(|window| window == name);
    let place = place.with_context(|| format!("the fake library has no {symbol}"))?;
    // The loader finds symbols by a hash of their names: under another name nothing is found any more.
    if let Some(first) = bytes.get_mut(place.saturating_add(1)) {
        *first = b'X';
    }
    std::fs::write(library, bytes)?;
    Ok(())
}

/// The path of a machine file of the repository.
pub fn machine_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("machines").join(format!("{name}.yaml"))
}

/// The `http://` address of a running agent's admin endpoint, from its own log.
///
/// # Errors
/// It ends before it says so.
pub async fn admin_url(agent: &mut Process) -> Result<String> {
    let line = agent.wait_for_log("\"agent started\"", FIRST_WORDS_WITHIN).await?;
    let event: serde_json::Value = serde_json::from_str(&line)?;
    let address = event["admin"].as_str().context("the first log line without an address")?;
    Ok(format!("http://{address}"))
}

#[cfg(test)]
mod tests {
    use berth_probe::sysfs::kubelet::CONFIG;

    use super::MadeNode;

    #[test]
    fn a_machine_that_breaks_and_heals_keeps_the_configuration_of_the_kubelet_that_runs() {
        let mut made = MadeNode::new("dgx-h100", "kn1").unwrap();
        let written = |made: &MadeNode| std::fs::read_to_string(made.root().join(CONFIG)).unwrap();
        assert!(written(&made).contains("topologyManagerPolicy: restricted"));
        made.set_kubelet_config("topologyManagerPolicy: none\n".to_owned()).unwrap();
        for faults in ["lost: [3]", ""] {
            made.set_faults(faults).unwrap();
            assert_eq!(written(&made), "topologyManagerPolicy: none\n", "{faults:?}");
        }
    }
}
