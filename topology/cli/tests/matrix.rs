//! `berth topo -m --machine` against what nvidia-smi printed on the real machines.

#![expect(clippy::unwrap_used, reason = "clippy takes what these tests share for code outside tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// A cell under the names of its row and column.
type Cells = BTreeMap<(String, String), String>;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests")).join(name)
}

fn printed(machine: &str) -> String {
    let file = fixture(&format!("machines/{machine}.yaml"));
    let output =
        Command::new(env!("CARGO_BIN_EXE_berth")).args(["topo", "-m", "--machine"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn captured(name: &str) -> String {
    let text = std::fs::read_to_string(fixture(&format!("captures/{name}.txt"))).unwrap();
    text.lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect()
}

/// Reads a matrix of any driver: newer ones call the NICs NIC0 and name them in a legend.
fn cells(text: &str) -> Cells {
    let legend: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|l| l.strip_prefix("  NIC").map(|_| l.trim()))
        .filter_map(|l| l.split_once(": "))
        .collect();
    let named = |word: &str| (*legend.get(word).unwrap_or(&word)).to_owned();
    let mut lines = text.lines();
    let columns: Vec<String> = lines.next().unwrap().split('\t').skip(1).map(named).collect();
    let mut cells = Cells::new();
    for line in lines.take_while(|l| !l.is_empty()) {
        let mut words = line.split('\t');
        let row = named(words.next().unwrap());
        for (column, cell) in columns.iter().zip(words) {
            cells.insert((row.clone(), column.clone()), cell.to_owned());
        }
    }
    cells
}

#[test]
fn every_cell_is_the_captured_one() {
    for (machine, capture, device_count) in [
        ("dgx-h100", "dgx-h100-8gpu-12nic", 20),
        ("dgx-1v", "dgx-1v-8gpu-4nic", 12),
        ("pcie-8gpu-two-level", "pcie-8gpu-1nic-two-level-switch", 9),
    ] {
        let (ours, theirs) = (cells(&printed(machine)), cells(&captured(capture)));
        assert!(theirs.len() > device_count * device_count, "{capture} was not read whole: {} cells", theirs.len());
        for (place, cell) in &theirs {
            assert_eq!(ours.get(place), Some(cell), "{machine} {place:?}");
        }
        let rows: std::collections::BTreeSet<&String> = ours.keys().map(|(row, _)| row).collect();
        assert_eq!(rows.len(), device_count, "{machine} has rows that the capture has not");
    }
}

#[test]
fn a_recent_driver_is_matched_to_the_byte() {
    assert_eq!(printed("dgx-h100"), captured("dgx-h100-8gpu-12nic"));
}
