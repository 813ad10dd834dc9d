//! What `berth topo lint` says of every capture at hand: each finding stands here and was read against its capture, and there is no other.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use berth_tests::binaries::binaries;
use serde_json::Value;

/// Capture, code, device, and how the text begins.
const FINDINGS: &[(&str, &str, &str, &str)] = &[
    // `topo -mp` leaves NVLinks out, so the imported machine's driver does not answer for them.
    ("dgx-1v-8gpu-4nic-mp", "nvlink-unreadable", "GPU0-7", "NVLinks are not all counted"),
    // GPU0 to GPU3 are in zone 0 by their row and SYS by their cells; so are 4 to 7 in zone 1, and both NICs with them.
    ("eight-4090-dual-socket-2nic", "cells-contradicted", "", "SYS inside one zone: GPU0-GPU1 GPU0-GPU2 GPU0-GPU3"),
    // Taken in a job with one CPU of zone 1: the CPU cells of GPU0 to GPU3 are empty, and NICs of the other socket are NODE.
    ("h100-8gpu-6nic-cgroup-restricted", "affinity-not-known", "GPU0-3", "no CPUs are known"),
    ("h100-8gpu-6nic-cgroup-restricted", "cells-contradicted", "", "NODE between zones: GPU0-NIC3 GPU0-NIC4 GPU0-NIC5"),
    // Rows of GPU6 and GPU7 are missing; all other pairs of one zone are SYS.
    ("partial-8gpu-10nic-no-nvlink-one-nic-each", "affinity-not-known", "GPU6-7", "no CPUs are known"),
    ("partial-8gpu-10nic-no-nvlink-one-nic-each", "cells-contradicted", "", "SYS inside one zone: GPU0-GPU1 GPU0-GPU2"),
    ("partial-8gpu-10nic-no-nvlink-one-nic-each", "link-unknown", "GPU6-7", "distance not known: GPU6-GPU7"),
    // The row of GPU7 is missing, and no cell of another row places it.
    ("partial-a100-8gpu-6nic-nps4", "zone-not-known", "GPU7", "which zone is nearest is not known"),
    // Its own row and every other say NODE or SYS where the other GPUs have NV18.
    ("partial-b200-8gpu-12nic-one-gpu-without-nvlink", "nvlink-missing", "GPU2", "has no NVLink; 7 of its 7 peers"),
    // Rows end with GPU4.
    ("partial-dgx2-16gpu-10nic", "zone-not-known", "GPU5-15", "which zone is nearest is not known"),
    // Rows end with GPU5.
    ("partial-h100-8gpu-9nic-four-numa", "zone-not-known", "GPU6-7", "which zone is nearest is not known"),
];

fn lint(file: &Path) -> Result<Vec<Value>> {
    let output = Command::new(&binaries()?.cli).args(["topo", "lint", "-o", "json"]).arg(file).output()?;
    ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout)?;
    Ok(document["items"].as_array().context("no items")?.clone())
}

#[test]
fn every_finding_on_the_captures_is_one_that_was_checked() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures");
    let mut files = std::fs::read_dir(captures)?.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    ensure!(files.len() == 28, "{} captures", files.len());
    let mut expected = FINDINGS.iter();
    for capture in files {
        let name = capture.file_stem().and_then(|n| n.to_str()).context("no name")?;
        let machine = folder.path().join(name).with_extension("yaml");
        let imported =
            Command::new(&binaries()?.cli).args(["topo", "import", "-o"]).arg(&machine).arg(&capture).output()?;
        ensure!(imported.status.success(), "{name}: {}", String::from_utf8_lossy(&imported.stderr));
        let found = lint(&machine)?;
        ensure!(found == lint(&capture)?, "{name}: a capture and its machine file differ in findings");
        for item in &found {
            let text = |key: &str| item[key].as_str().unwrap_or_default();
            let (capture, code, device, said) = expected.next().with_context(|| format!("{name}: {item}"))?;
            assert_eq!((name, text("code"), text("device")), (*capture, *code, *device), "{item}");
            ensure!(text("text").starts_with(said), "{item}");
        }
    }
    assert_eq!(expected.next(), None);
    Ok(())
}
