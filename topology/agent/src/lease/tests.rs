//! Leases in memory and on disk: names, order, restarts, and files that are none.

use std::collections::BTreeSet;
use std::fs;

use super::*;

const GPU: &str = "nvidia.com/gpu";

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn every_grant_has_a_name_of_its_own_and_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let leases = Leases::open(&folder.path().join("berth/leases")).unwrap();
    let names: BTreeSet<String> =
        (0..20).map(|_| leases.grant(GPU, &ids(&["GPU-b", "GPU-a"])).unwrap().as_str().to_owned()).collect();
    assert_eq!(names.len(), 20);
    assert!(names.iter().all(|name| name.starts_with("berth.dev/gpu=lease-")), "{names:?}");
    let again = Leases::open(&folder.path().join("berth/leases")).unwrap();
    assert_eq!(again.known().leases, leases.known().leases);
    again.grant(GPU, &ids(&["GPU-c"])).unwrap();
    let known = again.known();
    let last = known.leases.values().max_by_key(|lease| lease.sequence).unwrap();
    assert_eq!((last.sequence, last.ids.as_slice()), (20, ids(&["GPU-c"]).as_slice()), "the order goes on");
    assert!(known.leases.values().all(|lease| lease.sequence == 20 || lease.ids == ids(&["GPU-a", "GPU-b"])));
}

#[test]
fn what_is_left_of_leases_is_found_and_no_folder_is_made_for_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("leases");
    assert!(Leases::left(&path).unwrap().is_none() && !path.exists());
    let leases = Leases::open(&path).unwrap();
    assert!(Leases::left(&path).unwrap().is_none());
    leases.grant(GPU, &ids(&["GPU-a"])).unwrap();
    assert_eq!(Leases::left(&path).unwrap().unwrap().known().leases, leases.known().leases);
}

#[test]
fn a_bad_file_loses_itself_only() {
    let folder = tempfile::tempdir().unwrap();
    let leases = Leases::open(folder.path()).unwrap();
    leases.grant(GPU, &ids(&["GPU-a"])).unwrap();
    let good = leases.known().leases.clone();
    let name = |digit: &str| format!("lease-{}.json", digit.repeat(32));
    let (_, lease) = good.first_key_value().unwrap();
    let json = String::from_utf8(lease.to_json().unwrap()).unwrap();
    let long = " ".repeat(100_000);
    let bad = [
        ("1", String::new()),
        ("2", "{".to_owned()),
        ("3", json.replace("\"v\":1", "\"v\":2")),
        ("4", json.clone()),
        ("5", json.replace("[\"GPU-a\"]", "[]")),
        ("6", format!("{json}{long}")),
        ("7", json.replace("\"sequence\"", "\"since\"")),
    ];
    for (digit, text) in &bad {
        fs::write(folder.path().join(name(digit)), text).unwrap();
    }
    fs::write(folder.path().join("lease-0.json"), "x").unwrap();
    fs::write(folder.path().join("README"), "x").unwrap();
    fs::write(folder.path().join("lease-1.tmp"), "x").unwrap();
    fs::create_dir(folder.path().join(name("8"))).unwrap();
    assert_eq!(Leases::open(folder.path()).unwrap().known().leases, good);
    assert!(!folder.path().join("lease-1.tmp").exists(), "half a write");
    assert!(folder.path().join(name("2")).exists(), "what cannot be read is left for a person");
}

#[test]
fn what_no_kubelet_asks_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let leases = Leases::open(folder.path()).unwrap();
    let (long, many) = ("x".repeat(400), vec!["GPU-a".to_owned(); 200]);
    for (resource, ids) in [
        ("", ids(&["GPU-a"])),
        (long.as_str(), ids(&["GPU-a"])),
        (GPU, Vec::new()),
        (GPU, ids(&[""])),
        (GPU, ids(&[&long])),
        (GPU, many),
    ] {
        let error = leases.grant(resource, &ids).unwrap_err().to_string();
        assert!(error.contains("right"), "{error}");
    }
    assert!(leases.known().leases.is_empty());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_grant_that_cannot_be_kept_is_not_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("leases");
    let leases = Leases::open(&path).unwrap();
    fs::remove_dir(&path).unwrap();
    let error = leases.grant(GPU, &ids(&["GPU-a"])).unwrap_err();
    assert!(matches!(&error, LeaseError::Folder { .. }), "{error}");
    assert!(leases.known().leases.is_empty());
    fs::write(&path, "a file").unwrap();
    assert!(matches!(Leases::open(&path).unwrap_err(), LeaseError::Folder { .. }));
}
