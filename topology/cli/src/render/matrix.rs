//! `berth topo -m`: the matrix in the very layout of `nvidia-smi topo -m` (drivers from 530 on), tabs and legend included, so that
//! scripts and eyes trained on it need not learn anything.
//!
//! One thing differs: a pair whose distance is not known prints `?`, with a legend line of its own, and never SYS.

use std::fmt::Write as _;

use berth_model::{CpuSet, Gpu, Link, LinkClass, NodeTopology, ZoneId};

/// The legend of the driver generation, word for word.
const LEGEND: &str = "  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node
  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)
  PXB  = Connection traversing multiple PCIe bridges (without traversing the PCIe Host Bridge)
  PIX  = Connection traversing at most a single PCIe bridge
  NV#  = Connection traversing a bonded set of # NVLinks
";

const LEGEND_UNKNOWN: &str = "  ?    = Not known: the PCIe path or the NUMA node of one of the two could not be read\n";

/// The matrix of a node. A node without GPUs and NICs gives one sentence instead.
pub(crate) fn matrix(node: &NodeTopology) -> String {
    let parts = node.parts();
    let devices = parts.links.device_count();
    if devices == 0 {
        return format!("{} has no GPU and no RDMA NIC: there is no matrix to show\n", parts.node);
    }
    let names: Vec<String> = (0..parts.gpus.len())
        .map(|i| format!("GPU{i}"))
        .chain((0..parts.nics.len()).map(|i| format!("NIC{i}")))
        .collect();
    let mut out = String::new();
    for name in &names {
        out.push('\t');
        out.push_str(name);
    }
    out.push_str("\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n");

    let mut unknown = false;
    for (row, name) in names.iter().enumerate() {
        out.push_str(name);
        for column in 0..devices {
            let class = parts.links.link(row, column).map(Link::class);
            unknown |= class == Some(LinkClass::Unknown);
            out.push('\t');
            out.push_str(&class.map_or_else(|| " X ".to_owned(), |c| c.to_string()));
        }
        // Four tabs end a NIC's row: nvidia-smi leaves its affinity cells empty.
        out.push_str(&parts.gpus.get(row).map_or_else(|| "\t\t\t\t".to_owned(), affinity));
        out.push('\n');
    }
    out.push_str("\nLegend:\n\n");
    out.push_str(LEGEND);
    if unknown {
        out.push_str(LEGEND_UNKNOWN);
    }
    if !parts.nics.is_empty() {
        out.push_str("\nNIC Legend:\n\n");
        for (i, nic) in parts.nics.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "  NIC{i}: {}", nic.name);
        }
    }
    out
}

/// The last cells of a GPU's row. Two tabs stand before the last one, as nvidia-smi prints them.
fn affinity(gpu: &Gpu) -> String {
    let or_na = |zone: Option<ZoneId>| zone.map_or_else(|| "N/A".to_owned(), |z| z.to_string());
    let nearest = match &gpu.nearest_zones {
        None => or_na(gpu.zone),
        Some(zones) if zones.is_empty() => or_na(None),
        Some(zones) => CpuSet::from_cpus(zones.iter().map(|z| u32::from(z.0))).to_string(),
    };
    format!("\t{}\t{nearest}\t\t{}", gpu.cpus, or_na(gpu.memory_zone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::{Sample, dgx_h100};

    #[test]
    fn the_layout_is_that_of_nvidia_smi() {
        let node = Sample::new(&["X NV4/SYS PXB", "NV4/SYS X SYS", "PXB SYS X"], &[0, 1], &[0]).build();
        let expected = "\
\tGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tNV4\tPXB\t0-7,16-23\t0\t\tN/A
GPU1\tNV4\t X \tSYS\t8-15,24-31\t1\t\tN/A
NIC0\tPXB\tSYS\t X \t\t\t\t

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node
  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)
  PXB  = Connection traversing multiple PCIe bridges (without traversing the PCIe Host Bridge)
  PIX  = Connection traversing at most a single PCIe bridge
  NV#  = Connection traversing a bonded set of # NVLinks

NIC Legend:

  NIC0: mlx5_0
";
        assert_eq!(matrix(&node), expected);
    }

    #[test]
    fn the_fixture_has_as_many_columns_as_a_dgx() {
        let text = matrix(&dgx_h100());
        let widths: Vec<usize> = text.lines().take(21).map(|l| l.split('\t').count()).collect();
        // 20 device columns and the row name; a header without the doubled tab, GPU and NIC rows with it.
        assert_eq!(widths, [vec![24], vec![25; 20]].concat());
    }

    #[test]
    fn what_is_not_known_is_a_question_mark_with_a_legend_and_never_sys() {
        let mut sample = Sample::new(&["X ?", "? X"], &[0, 0], &[]);
        sample.parts.gpus[1].zone = None;
        sample.parts.gpus[1].cpus = CpuSet::default();
        let text = matrix(&sample.build());
        let rows: Vec<&str> = text.lines().take(3).collect();
        assert_eq!(rows[1], "GPU0\t X \t?\t0-7,16-23\t0\t\tN/A");
        assert_eq!(rows[2], "GPU1\t?\t X \t\tN/A\t\tN/A");
        assert!(text.contains("  ?    = Not known"), "{text}");
        assert!(!text.contains("NIC Legend"), "{text}");
    }

    #[test]
    fn zones_that_the_driver_names_stand_in_place_of_the_zone() {
        let mut sample = Sample::new(&["X SYS", "SYS X"], &[0, 1], &[]);
        sample.parts.gpus[0].nearest_zones = Some([0, 3, 4, 5, 9].map(ZoneId).to_vec());
        sample.parts.gpus[1].nearest_zones = Some(Vec::new());
        let text = matrix(&sample.build());
        assert!(text.contains("\t0-7,16-23\t0,3-5,9\t\tN/A\n"), "{text}");
        assert!(text.contains("\t8-15,24-31\tN/A\t\tN/A\n"), "{text}");
    }

    #[test]
    fn a_node_without_devices_gives_a_sentence() {
        let text = matrix(&Sample::new(&[], &[], &[]).build());
        assert_eq!(text, "sample has no GPU and no RDMA NIC: there is no matrix to show\n");
    }
}
