//! The loop over every capture at hand: capture, machine file, fake driver and kernel tree, the unmodified agent, its report, `berth topo -m`;
//! and what import makes of captures that were damaged.
//!
//! The tests read captures with a few lines of their own, so that a mistake of the importer is not repeated here.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by its attribute; this file has tests and what they share")]

mod damaged;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_machine::{Imported, Machine, Salt, import, topology};
use berth_model::PcieLevel;
use berth_tests::binaries::binaries;
use berth_tests::made_node::{MadeNode, machine_file};

/// Captures whose NODE and SYS cells contradict their own NUMA column: drivers print SYS inside a zone, or a job's cpuset hides a socket.
/// NODE may come back as SYS there and SYS as NODE, and import must say so.
const TOLERATED: [&str; 3] =
    ["eight-4090-dual-socket-2nic", "partial-8gpu-10nic-no-nvlink-one-nic-each", "h100-8gpu-6nic-cgroup-restricted"];

fn captures() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |file: &PathBuf| file.file_stem().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|file| (name(file), std::fs::read_to_string(file).unwrap())).collect()
}

/// A table as `nvidia-smi topo -m` prints it, whole or in part.
struct Table {
    devices: Vec<String>,
    /// Words by row and column; a row that is not there is empty.
    cells: Vec<Vec<String>>,
    /// The other columns of a GPU by heading.
    affinity: Vec<BTreeMap<String, String>>,
    /// Kernel names of the NICs, where the table has them.
    nics: Vec<String>,
}

impl Table {
    fn read(text: &str) -> Self {
        let text = text.replace("\u{1b}[4m", "").replace("\u{1b}[0m", "");
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let heading = lines.next().unwrap_or_default();
        let headings: Vec<String> =
            heading.strip_prefix('\t').unwrap_or(heading).split('\t').map(str::to_owned).collect();
        let device_count = headings.iter().position(|h| h.ends_with("Affinity")).unwrap_or(headings.len());
        let devices = headings[..device_count].to_vec();
        let mut table = Self {
            cells: vec![Vec::new(); device_count],
            affinity: vec![BTreeMap::new(); device_count],
            nics: devices.iter().filter(|d| d.starts_with("mlx5")).cloned().collect(),
            devices,
        };
        for line in lines {
            let mut cells: Vec<String> = line.split('\t').map(|cell| cell.trim().to_owned()).collect();
            let Some(row) = table.devices.iter().position(|device| *device == cells[0]) else {
                let named = line.split_once(": ").filter(|(nic, _)| nic.starts_with("  NIC"));
                table.nics.extend(named.map(|(_, name)| name.to_owned()));
                continue;
            };
            let mut rest = cells.split_off(cells.len().min(device_count + 1));
            if rest.len() == 4 {
                rest.remove(2);
            }
            let affinity = headings[device_count..].iter().cloned().zip(rest);
            table.affinity[row] = if cells[0].starts_with("GPU") { affinity.collect() } else { BTreeMap::new() };
            table.cells[row] = cells.split_off(1);
        }
        table
    }

    /// The word between two devices from either row.
    fn word(&self, a: usize, b: usize) -> Option<&str> {
        self.cells[a].get(b).or_else(|| self.cells[b].get(a)).map(String::as_str)
    }

    fn level(&self, a: usize, b: usize) -> Option<PcieLevel> {
        self.word(a, b).and_then(PcieLevel::from_word)
    }
}

/// What given levels imply: of three pairs among three devices the two farthest are equal.
fn implied(table: &Table) -> Vec<Vec<Option<PcieLevel>>> {
    let n = table.devices.len();
    let mut levels: Vec<Vec<_>> = (0..n).map(|a| (0..n).map(|b| table.level(a, b)).collect()).collect();
    loop {
        let mut changed = false;
        for (a, b, c) in (0..n).flat_map(|a| (0..n).flat_map(move |b| (0..n).map(move |c| (a, b, c)))) {
            let (Some(one), Some(other)) = (levels[a][c], levels[c][b]) else { continue };
            if a != b && levels[a][b].is_none() && (one != other || one == PcieLevel::Pix) {
                levels[a][b] = Some(one.min(other));
                changed = true;
            }
        }
        if !changed {
            return levels;
        }
    }
}

/// The whole loop for one capture, with the programs as users run them.
fn looped(name: &str, capture: &str) -> (Imported, Table) {
    let imported = import(capture, name).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(Machine::parse(&imported.text).unwrap(), imported.machine, "{name}");
    let made = MadeNode::of_text(&imported.text, "node-a").unwrap();
    let binaries = binaries().unwrap();
    let once = made.once(&binaries.fake_nvml).unwrap();
    assert!(once.status.success(), "{name}: {}", String::from_utf8_lossy(&once.stderr));
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    std::fs::write(&report, &once.stdout).unwrap();
    let printed = Command::new(&binaries.cli).args(["topo", "-m", "--report"]).arg(&report).output().unwrap();
    assert!(printed.status.success(), "{name}: {}", String::from_utf8_lossy(&printed.stderr));
    (imported, Table::read(&String::from_utf8(printed.stdout).unwrap()))
}

fn is_far(word: &str) -> bool {
    matches!(word, "NODE" | "SYS")
}

#[test]
fn every_capture_comes_back_from_the_agent_as_nvidia_smi_printed_it() {
    let captures = captures();
    assert_eq!(captures.len(), 28);
    for (name, text) in &captures {
        let given = Table::read(text);
        let (imported, back) = looped(name, text);
        let said = imported.assumptions.join("\n");
        assert_eq!(back.devices.len(), given.devices.len(), "{name}");
        assert!(given.nics.is_empty() || back.nics == given.nics, "{name}: {:?}", back.nics);
        let mut differing = 0;
        for a in 0..given.devices.len() {
            for b in 0..given.devices.len() {
                let (Some(captured), Some(got)) = (given.word(a, b), back.word(a, b)) else { continue };
                if captured == got {
                    continue;
                }
                let pair = format!("{}-{}", given.devices[a.min(b)], given.devices[a.max(b)]);
                assert!(
                    TOLERATED.contains(&name.as_str()) && is_far(captured) && is_far(got),
                    "{name}: {pair} is {captured}, comes back as {got}"
                );
                let line = format!("captured {captured}, comes back as {got}: ");
                let listed = said.lines().find(|l| l.starts_with(&line)).unwrap_or_default();
                assert!(listed[line.len()..].split(", ").any(|p| p == pair), "{name}: {pair} is not said in {said}");
                differing += 1;
            }
        }
        assert_eq!(differing > 0, TOLERATED.contains(&name.as_str()), "{name}: a tolerance that is not used");
        for (gpu, affinity) in given.affinity.iter().enumerate() {
            for (heading, captured) in affinity {
                assert_eq!(back.affinity[gpu].get(heading), Some(captured), "{name}: {heading} of GPU{gpu}");
            }
        }
    }
}

#[test]
fn what_a_partial_capture_lacks_comes_back_unknown_unless_the_rest_leaves_no_choice() {
    let mut unknown = BTreeMap::new();
    for (name, text) in captures().iter().filter(|(name, _)| name.starts_with("partial-")) {
        let given = Table::read(text);
        let (_, back) = looped(name, text);
        let implied = implied(&given);
        for (a, b) in (0..given.devices.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let (None, Some(got)) = (given.word(a, b), back.word(a, b)) else { continue };
            let switched = |c: usize| given.word(a, c) == Some(got) && given.word(b, c) == Some(got);
            let follows = match PcieLevel::from_word(got) {
                Some(_) if TOLERATED.contains(&name.as_str()) && is_far(got) => implied[a][b].is_some(),
                Some(level) => implied[a][b] == Some(level),
                // Two GPUs with NVLinks into switches reach each other.
                None if got.starts_with("NV") => (0..given.devices.len()).any(switched),
                None => true,
            };
            assert!(
                follows,
                "{name}: {}-{} was not captured and comes back as {got}",
                given.devices[a], given.devices[b]
            );
            *unknown.entry(name.clone()).or_insert(0) += usize::from(got == "?");
        }
    }
    let counts: Vec<(&str, usize)> = unknown.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    let expected = [
        ("partial-8gpu-10nic-no-nvlink-one-nic-each", 15),
        ("partial-a100-8gpu-6nic-nps4", 7),
        ("partial-b200-8gpu-12nic-one-gpu-without-nvlink", 19),
        ("partial-dgx2-16gpu-10nic", 125),
        ("partial-h100-8gpu-9nic-four-numa", 18),
        ("partial-pcie-8gpu-4-per-switch", 0),
    ];
    assert_eq!(counts, expected);
}

#[test]
fn machine_files_written_by_hand_show_what_import_makes_of_their_captures() {
    for (file, capture) in [
        ("dgx-h100", "dgx-h100-8gpu-12nic"),
        ("dgx-1v", "dgx-1v-8gpu-4nic"),
        ("pcie-8gpu-two-level", "pcie-8gpu-1nic-two-level-switch"),
    ] {
        let text = captures().into_iter().find(|(name, _)| name == capture).unwrap().1;
        let rows = |machine: &Machine| topology(machine, &machine.name, &Salt::default()).unwrap().parts().links.rows();
        let by_hand = Machine::parse(&std::fs::read_to_string(machine_file(file)).unwrap()).unwrap();
        assert_eq!(rows(&import(&text, capture).unwrap().machine), rows(&by_hand), "{file}");
    }
}
