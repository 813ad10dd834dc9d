//! Claims about pictures: kept files, nothing overlaps, foreign text stays text.

use std::path::PathBuf;

use berth_machine::{Machine, Salt};
use berth_model::Finding;

use super::*;
use crate::render::sample::{Sample, dgx_h100};

/// Machines whose pictures are kept, so that a change of the layout is seen in review.
const KEPT: [&str; 6] = ["dgx-h100", "dgx-1v", "pcie-8gpu-two-level", "bridged-pairs", "mig-a100", "cpu-only"];

fn machine(name: &str) -> NodeTopology {
    let file = format!("{}/../../tests/machines/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let machine = Machine::parse(&std::fs::read_to_string(file).unwrap()).unwrap();
    berth_machine::topology(&machine, &machine.name, &Salt::default()).unwrap()
}

fn apart(a: Place, b: Place) -> bool {
    a.x + a.width <= b.x || b.x + b.width <= a.x || a.y + a.height <= b.y || b.y + b.height <= a.y
}

fn inside(a: Place, b: Place) -> bool {
    a.x >= b.x && a.y >= b.y && a.x + a.width <= b.x + b.width && a.y + a.height <= b.y + b.height
}

#[test]
fn the_kept_pictures_are_those_of_today() {
    for name in KEPT {
        let file = PathBuf::from(format!("{}/pictures/{name}.svg", env!("CARGO_MANIFEST_DIR")));
        let drawn = svg(&machine(name));
        if std::env::var_os("BERTH_UPDATE").is_some() {
            std::fs::write(&file, drawn).unwrap();
        } else {
            let kept = std::fs::read_to_string(&file).unwrap();
            assert!(kept == drawn, "{name}.svg is out of date: BERTH_UPDATE=1 cargo test -p berth-cli draws it anew");
        }
    }
}

#[test]
fn boxes_are_apart_and_frames_are_apart_or_nested() {
    for node in KEPT.map(machine).into_iter().chain([dgx_h100()]) {
        let gpus_and_nics = node.parts().links.device_count();
        let sheet = Sheet::lay(frames(&node).0, MARGIN, 60, ZONE_GAP);
        assert_eq!(sheet.devices.len(), gpus_and_nics, "every device is drawn once");
        for (i, (device, place)) in sheet.devices.iter().enumerate() {
            for (other, elsewhere) in sheet.devices.iter().skip(i + 1) {
                assert!(device != other && apart(*place, *elsewhere), "{device} {other}");
            }
            for (frame, around) in &sheet.frames {
                assert!(apart(*place, *around) || inside(*place, *around), "{device} {:?}", frame.title);
            }
        }
        for (i, (a, place)) in sheet.frames.iter().enumerate() {
            for (b, other) in sheet.frames.iter().skip(i + 1) {
                let is_apart = apart(*place, *other) || inside(*other, *place);
                assert!(is_apart, "{:?} {:?}", a.title, b.title);
            }
        }
        let gpus = sheet.devices.iter().filter(|(d, _)| *d < node.parts().gpus.len());
        assert!(gpus.into_iter().all(|(_, p)| p.y + p.height == sheet.foot), "all GPUs stand on one line");
    }
}

#[test]
fn a_switched_node_has_a_bar_and_a_mesh_an_arc_per_pair() {
    let arcs = |text: &str| text.matches("<path class=\"nv ").count();
    let switched = svg(&machine("dgx-h100"));
    assert_eq!((arcs(&switched), switched.matches("class=\"bar\"").count()), (8, 1));
    let mesh = svg(&machine("dgx-1v"));
    assert_eq!((arcs(&mesh), mesh.matches("class=\"bar\"").count()), (16, 0));
}

#[test]
fn slots_of_a_gpu_under_mig_are_boxes_inside_it() {
    let text = svg(&machine("mig-a100"));
    let boxes = |class: &str| text.matches(&format!("<rect class=\"{class}\"")).count();
    // Seven 1g, then 3g and two 1g, and none; a box more of each kind in the legend.
    assert_eq!((boxes("mig"), boxes("slot")), (7 + 3 + 1, 1 + 2 + 8 + 1));
    assert!(text.contains("slots 4-7 3g.20gb MIG-"), "{text}");
}

#[test]
fn what_is_wrong_is_coloured_and_said() {
    let rows = ["X NV2/SYS SYS", "NV2/SYS X SYS", "SYS SYS X"];
    let mut sample = Sample::new(&rows, &[0, 0, 1], &[]);
    sample.parts.gpus[0].health = Health::Unhealthy("Xid 79".to_owned());
    sample.parts.gpus[1].health = Health::Unknown("no answer".to_owned());
    let text = svg(&sample.build());
    for said in ["class=\"bad\"", "class=\"doubt\"", ">GPU0: Xid 79<", ">GPU1: no answer<", ">no NVLink<"] {
        assert!(text.contains(said), "no {said} in\n{text}");
    }
}

#[test]
fn foreign_text_does_not_become_markup() {
    let mut sample = Sample::new(&["X"], &[0], &[]);
    sample.parts.gpus[0].product = "</text><script>\u{7}\"&".to_owned();
    sample.parts.findings = vec![Finding { code: "a".to_owned(), device: "<b>".to_owned(), text: "c & d".to_owned() }];
    let text = svg(&sample.build());
    assert!(!text.contains("<script") && !text.contains("<b>") && !text.contains('\u{7}'), "{text}");
    assert!(text.contains("&lt;b&gt;: c &amp; d"), "{text}");
}

#[test]
fn many_findings_are_cut_with_their_count() {
    let mut sample = Sample::new(&["X"], &[0], &[]);
    sample.parts.findings = (0..20)
        .map(|i| Finding { code: format!("code-{i:02}"), device: "d".to_owned(), text: "t".to_owned() })
        .collect();
    let list = notes(&sample.build());
    assert_eq!((list.len(), list[12].as_str()), (13, "and 8 more: see berth topo"));
}
