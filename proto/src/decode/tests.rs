//! Claims about the way between model and wire: nothing is lost, nothing absurd is taken.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::encode;
use crate::sample::{eight_gpus_ten_nics, topology};

proptest! {
    #[test]
    fn a_topology_comes_back_as_it_was_reported(given in topology()) {
        let report = encode(&given, "0.1.0");
        prop_assert_eq!(decode("node", &report).unwrap(), given);
    }

    #[test]
    fn json_and_protobuf_carry_the_same_report(given in topology()) {
        let report = encode(&given, "0.1.0");
        let json = serde_json::to_string(&report).unwrap();
        prop_assert_eq!(&serde_json::from_str::<wire::Status>(&json).unwrap(), &report);
        prop_assert_eq!(&wire::Status::decode(report.encode_to_vec().as_slice()).unwrap(), &report);
    }

    #[test]
    fn a_text_that_is_too_long_never_costs_the_report(given in topology(), length in 0_usize..5000) {
        let long = "é".repeat(length);
        let mut parts = given.into_parts();
        parts.driver = Driver::Absent(long.clone());
        parts.findings = vec![Finding { code: long.clone(), device: long.clone(), text: long.clone() }; 1 + length % 300];
        let drift = Drift { pod: long.clone(), pod_uid: format!("u{long}"), resource: long.clone(), devices: vec![long.clone(); 1 + length % 300] };
        parts.drifts = vec![drift; 1 + length % 300];
        let refusal = Refusal { pod: long.clone(), pod_uid: format!("u{long}"), container: long.clone(), reason: RefusalReason::NoPlan, text: long.clone() };
        parts.refusals = vec![refusal; 1 + length % 300];
        for gpu in &mut parts.gpus {
            gpu.product.clone_from(&long);
            gpu.health = Health::Unhealthy(long.clone());
        }
        let report = encode(&NodeTopology::try_new(parts).unwrap(), &long);
        prop_assert!(decode("node", &report).is_ok());
    }

    #[test]
    fn no_bytes_make_decode_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(report) = wire::Status::decode(bytes.as_slice()) {
            let _refused_or_taken = decode("node", &report);
        }
    }
}

type Break = fn(&mut wire::Status);

fn refused(break_it: Break) -> DecodeError {
    let mut report = encode(&eight_gpus_ten_nics(), "0.1.0");
    break_it(&mut report);
    decode("n", &report).unwrap_err()
}

#[test]
fn a_refused_report_names_the_field_and_what_would_be_right() {
    let cases: &[(&str, Break)] = &[
        ("bootID: boot id \"\" is not valid: it needs 1 to 253", |r| r.boot_id.clear()),
        ("generation: -1 is not within 0 to 9223372036854775807", |r| r.generation = -1),
        ("driver: missing, an object with a state is right", |r| r.driver = None),
        ("drifts[0].podUID: missing, the UID of a pod is right", |r| r.drifts = vec![wire::Drift::default()]),
        ("refusals[0].podUID: missing, the UID of a pod is right", |r| r.refusals = vec![wire::Refusal::default()]),
        ("refusals: 300 entries, at most 128 are taken", |r| r.refusals = vec![wire::Refusal::default(); 300]),
        ("drifts: 300 entries, at most 256 are taken", |r| r.drifts = vec![wire::Drift::default(); 300]),
        ("drifts[0].devices: 300 entries, at most 128 are taken", |r| {
            r.drifts = vec![wire::Drift { devices: vec![String::new(); 300], ..wire::Drift::default() }];
        }),
        ("driver.state: \"maybe\" is neither loaded nor absent", |r| {
            r.driver.as_mut().unwrap().state = "maybe".to_owned();
        }),
        ("zones[1].id: 70000 is not within 0 to 65535", |r| r.zones[1].id = 70_000),
        ("zones[1].id: zones must be in ascending order", |r| r.zones[1].id = 0),
        ("zones[0].cpus: CPU list part \"9-3\"", |r| r.zones[0].cpus = "9-3".to_owned()),
        ("zones[0].memoryMiB: -5 is not within", |r| r.zones[0].memory_mib = Some(-5)),
        ("zones[1].distances: -1 is not within 0 to 65535", |r| r.zones[1].distances[0] = -1),
        ("products[0].name: 129 bytes, at most 128 are taken", |r| r.products[0].name = "x".repeat(129)),
        ("gpus[3].uuid: GPU UUID \"\" is not valid", |r| r.gpus[3].uuid.clear()),
        ("gpus[3].uuid: GPU-", |r| r.gpus[3].uuid = r.gpus[2].uuid.clone()),
        ("gpus[2].pci: PCI address \"1b\" is not of the form", |r| r.gpus[2].pci = "1b".to_owned()),
        ("gpus[7].productIndex: 4 is no position in products, which has 1", |r| r.gpus[7].product_index = 4),
        ("gpus[0].zone: zone 9 is not among zones", |r| r.gpus[0].zone = Some(9)),
        ("gpus[0].health: missing, one of healthy", |r| r.gpus[0].health.clear()),
        ("products[0].nvlinks: 19 is not within 0 to 18", |r| r.products[0].nvlinks = Some(19)),
        ("products[0].pcieMax: \"fast\" is no link like 5x16", |r| r.products[0].pcie_max = "fast".to_owned()),
        ("products[0].migProfiles[0]: \"1g\" is no MIG profile", |r| {
            r.products[0].mig_profiles = vec!["1g".to_owned()];
        }),
        ("serials: 2 words, 8 are right", |r| r.serials = "a b".to_owned()),
        ("gpus[1].eccVolatile: -1 is not within", |r| r.gpus[1].ecc_volatile = -1),
        ("gpus[1].nvlinksDown: 18 is not within 0 to 17", |r| r.gpus[1].nvlinks_down = vec![18]),
        ("gpus[1].nvlinkErrors: \"3\" is no link:count", |r| r.gpus[1].nvlink_errors = vec!["3".to_owned()]),
        ("gpus[1].pcie: \"0x0\" is no link", |r| r.gpus[1].pcie = "0x0".to_owned()),
        ("gpus[1].migInstances[0]: \"1g.10gb@0+1\" is at no placement of migProfiles", |r| {
            r.gpus[1].mig_instances = vec!["1g.10gb@0+1".to_owned()];
        }),
        ("nics[9].rateGbps: -4 is not within", |r| r.nics[9].rate_gbps = Some(-4)),
        ("links[1]: row 1 has 1 cells, 18 are right", |r| r.links[1] = "X".to_owned()),
        ("links[1]: 2000 bytes, at most 1280 are taken", |r| r.links[1] = "x".repeat(2000)),
        ("links: 0 rows, 18 are right", |r| r.links.clear()),
    ];
    for (said, break_it) in cases.iter().copied() {
        let error = refused(break_it).to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn lists_beyond_their_limits_are_refused_before_they_are_read() {
    let cases: [(&str, Break); 6] = [
        ("zones: 5000 entries, at most 1024", |r| r.zones.resize_with(5000, Default::default)),
        ("products: 33 entries, at most 32", |r| r.products.resize_with(33, Default::default)),
        ("gpus: 33 entries, at most 32", |r| r.gpus.resize_with(33, Default::default)),
        ("nics: 97 entries, at most 96", |r| r.nics.resize_with(97, Default::default)),
        ("links: 5000 entries, at most 128", |r| r.links.resize_with(5000, Default::default)),
        ("findings: 129 entries, at most 128", |r| r.findings.resize_with(129, Default::default)),
    ];
    for (said, break_it) in cases {
        let error = refused(break_it).to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn overlapping_instances_are_refused_and_what_is_not_told_is_unknown_not_zero() {
    let mut report = encode(&eight_gpus_ten_nics(), "0.1.0");
    report.products[0].mig_profiles =
        vec!["1g.10gb 19 1 9984 7 1@0,1".to_owned(), "2g.20gb 14 2 20096 3 2@0".to_owned()];
    report.gpus[0].mig_instances = vec!["1g.10gb@1+1".to_owned(), "2g.20gb@0+2".to_owned()];
    let error = decode("n", &report).unwrap_err().to_string();
    assert_eq!(error, "gpus[0].migInstances: two instances share a memory slot");

    report.gpus[0].mig_instances.clear();
    report.products[0].read = "mr".to_owned();
    let detail = decode("n", &report).unwrap().into_parts().gpus.remove(0).detail;
    assert_eq!((detail.wear.ecc_volatile, detail.board.ecc, detail.pcie), (None, None, None));
    assert_eq!((detail.minor, detail.wear.remap), (Some(0), Some(Default::default())));
}

#[test]
fn a_newer_agents_words_and_fields_do_not_cost_the_report() {
    let report = encode(&eight_gpus_ten_nics(), "9.0.0");
    let mut json = serde_json::to_value(&report).unwrap();
    json["rackUnit"] = 7.into();
    json["gpus"][0]["vgpu"] = serde_json::json!({"mode": "host"});
    json["gpus"][0]["health"] = "throttled".into();
    json["nics"][0]["linkLayer"] = "ultra-ethernet".into();
    let taken = decode("n", &serde_json::from_value(json).unwrap()).unwrap().into_parts();
    assert_eq!(taken.gpus[0].health.reason(), "reported as \"throttled\", a word of a newer agent");
    assert!(!taken.gpus[0].health.is_usable());
    assert_eq!(taken.nics[0].link_layer, berth_model::LinkLayer::Unknown);
}
