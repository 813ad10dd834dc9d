//! Claims about captures that are taken, and about texts that are none.

use super::*;

/// Two GPUs with a NIC each under a switch, one per zone, joined by NVLink.
const SMALL: &str = "\tGPU0\tGPU1\tNIC0\tNIC1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tNV4\tPIX\tSYS\t0-3\t0\t\tN/A
GPU1\tNV4\t X \tSYS\tPIX\t4-7\t1\t\tN/A
NIC0\tPIX\tSYS\t X \tSYS\t\t\t\t
NIC1\tSYS\tPIX\tSYS\t X \t\t\t\t

Legend:

  X    = Self
  NV#  = Connection traversing a bonded set of # NVLinks

NIC Legend:

  NIC0: mlx5_0
  NIC1: mlx5_1
";

fn rows(imported: &Imported) -> Vec<String> {
    let machine = &imported.machine;
    crate::topology(machine, &machine.name, &crate::Salt::default()).unwrap().parts().links.rows()
}

#[test]
fn a_capture_becomes_a_machine_that_shows_it() {
    let imported = import(SMALL, "My Node_1.txt").unwrap();
    assert_eq!(rows(&imported), ["X NV4/SYS PIX SYS", "NV4/SYS X SYS PIX", "PIX SYS X SYS", "SYS PIX SYS X"]);
    assert_eq!(imported.machine.name.as_str(), "my-node-1.txt");
    assert_eq!(Machine::parse(&imported.text).unwrap(), imported.machine);
    assert_eq!(imported.assumptions.len(), 2);
    assert_eq!(imported.assumptions[1], "NVLinks run from GPU to GPU: no GPU needs more than 4 for it");
}

#[test]
fn a_paste_with_blanks_and_a_prompt_is_the_same_capture() {
    let pasted = SMALL.replace("\t\t\t\t\n", "\n").replace("\t\tN/A", "\tN/A").replace('\t', "    ");
    let pasted = format!("root@node:~# nvidia-smi topo -m\n{pasted}");
    assert_eq!(import(&pasted, "n").unwrap().machine, import(SMALL, "n").unwrap().machine);
}

#[test]
fn what_is_no_capture_is_refused_with_line_and_column() {
    let cases: [(&str, &str, &str); 14] = [
        ("\tGPU0\tGPU1\t", "\tGPU1\tGPU0\t", "line 1, column 2: \"GPU1\" where the header with GPU0 first is right"),
        ("\tGPU1\tNIC0", "\tGPU2\tNIC0", "line 1, column 7: \"GPU2\" where the next GPU"),
        ("CPU Affinity", "CPU Affin", "line 1, column 22: \"CPU Affin\" where the next GPU"),
        ("X \tNV4\tPIX", "X \tNV4\tPIXX", "line 2, column 14: \"PIXX\" is none of X, NV1 to NV18"),
        ("X \tNV4\tPIX", "X \tNV19\tPIX", "line 2, column 10: \"NV19\" is none of"),
        ("X \tNV4\tPIX", "X \tNV4\tNV2", "line 2, column 14: NV2 with a NIC"),
        ("GPU1\tNV4", "GPU1\tNV3", "line 3, column 6: NV3 differs from the mirrored cell at line 2, column 10"),
        ("GPU0\t X \tNV4", "GPU0\tNV4\t X ", "line 2, column 6: \"NV4\": X is right where a device meets itself"),
        ("GPU1\tNV4", "GPU0\tNV4", "line 3, column 1: a second row GPU0"),
        ("GPU1\tNV4", "GPU7\tNV4", "line 3, column 1: \"GPU7\" is neither a device of the header"),
        ("\t4-7\t", "\t3-7\t", "line 3, column 22: CPU 3 is in zone 1 here and in zone 0 above"),
        ("\t4-7\t1", "\t4-7\t0", "line 3, column 22: CPUs 4-7 for a GPU of zone 0, another GPU of that zone has 0-3"),
        ("NIC1: mlx5_1", "NIC1: mlx5_0", "line 15, column 3: \"mlx5_0\" must be a device name that stands once"),
        ("\t4-7\t1\t\tN/A", "\t4-7\t1\t\tN/A\t9", "line 3, column 33: \"9\" has no column"),
    ];
    for (good, bad, said) in cases {
        assert!(SMALL.contains(good), "{good}");
        let error = import(&SMALL.replacen(good, bad, 1), "n").unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}, not {said}");
    }
    for (text, said) in
        [("", "line 1, column 1: no header"), ("\n\nhello", "line 3, column 1: \"hello\" where the header")]
    {
        let error = import(text, "n").unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn levels_that_no_tree_gives_are_refused_where_they_stand() {
    let text = "\tGPU0\tGPU1\tGPU2\tCPU Affinity\nGPU0\tX\tPIX\tPHB\t0\nGPU1\tPIX\tX\tPIX\t0\nGPU2\tPHB\tPIX\tX\t0\n";
    let error = import(text, "n").unwrap_err().to_string();
    assert!(error.starts_with("line 2, column 12: PHB between GPU0 and GPU2, though GPU1 is PIX"), "{error}");
}

#[test]
fn what_was_not_captured_stays_unknown_or_follows() {
    let cut = SMALL.lines().take(2).collect::<Vec<_>>().join("\n");
    let imported = import(&cut, "n").unwrap();
    // NIC0 hangs on GPU0; NIC1 is only known to be far from GPU0, and GPU1 not even that.
    assert_eq!(rows(&imported), ["X NV4/? PIX SYS", "NV4/? X ? ?", "PIX ? X SYS", "SYS ? SYS X"]);
    let said = imported.assumptions.join("\n");
    assert!(said.contains("cells not captured: 2 stay unknown, 1 follow"), "{said}");
}

#[test]
fn a_gpu_that_lost_its_nvlinks_is_told_from_links_that_fit_no_fabric() {
    let table = |odd: &str| {
        let header: String = (0..4).map(|i| format!("\tGPU{i}")).collect();
        let cell = |a: usize, b: usize| match (a, b) {
            _ if a == b => "X",
            (1, 2) | (2, 1) => odd,
            (2, _) | (_, 2) => "NODE",
            _ => "NV18",
        };
        let row = |a: usize| (0..4).map(|b| format!("\t{}", cell(a, b))).collect::<String>();
        let rows: String = (0..4).map(|a| format!("GPU{a}{}\t0-3\t0\n", row(a))).collect();
        format!("{header}\tCPU Affinity\tNUMA Affinity\n{rows}")
    };
    let imported = import(&table("NODE"), "n").unwrap();
    assert!(
        imported.text.contains("nvlink: {fabric: nvswitch, links: 18, except: [{gpu: 2, links: 0}]}"),
        "{}",
        imported.text
    );
    let error = import(&table("NV2"), "n").unwrap_err().to_string();
    assert!(error.starts_with("line 2, column 13: NVLinks of this pair fit neither switches"), "{error}");
}

#[test]
fn levels_without_nvlinks_leave_them_unknown() {
    let text = SMALL.replace("NV4", "SYS").replace("  NV#  = Connection traversing a bonded set of # NVLinks\n", "");
    let imported = import(&text, "n").unwrap();
    assert!(imported.text.contains("nvlink: {fabric: unknown}"), "{}", imported.text);
    assert_eq!(rows(&imported)[0], "X SYS PIX SYS");
}
