//! Holds the form of the sources: what STYLE.md says and no lint checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

const LINES_MAX: usize = 400;
const NAMES_THAT_SAY_NOTHING: [&str; 7] = ["mod.rs", "util", "utils", "common", "helper", "helpers", "manager"];
/// Where `unsafe` may stand: the driver's own calls, and the library that plays the driver.
const UNSAFE_HOMES: [&str; 2] = ["topology/probe/src/nvml", "tests/fake-nvml/src"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn files(ending: &str) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if name.ends_with(ending) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "no {ending} file below {}", root.display());
    found
}

fn complain(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_source_file_says_first_what_it_owns() {
    let silent = files(".rs").into_iter().filter(|(_, text)| !text.starts_with("//! "));
    complain(&silent.map(|(path, _)| path).collect::<Vec<_>>());
}

#[test]
fn no_source_file_is_longer_than_four_hundred_lines() {
    let long = files(".rs").into_iter().map(|(path, text)| (path, text.lines().count()));
    complain(&long.filter(|(_, lines)| *lines > LINES_MAX).map(|(p, n)| format!("{p}: {n}")).collect::<Vec<_>>());
}

#[test]
fn no_file_is_named_for_its_lack_of_meaning() {
    let paths = files(".rs").into_iter().map(|(path, _)| path);
    let says_nothing = |path: &String| {
        Path::new(path).components().any(|part| {
            let part = part.as_os_str().to_str().unwrap();
            NAMES_THAT_SAY_NOTHING.contains(&part) || NAMES_THAT_SAY_NOTHING.contains(&part.trim_end_matches(".rs"))
        })
    };
    complain(&paths.filter(says_nothing).collect::<Vec<_>>());
}

#[test]
fn unsafe_code_is_allowed_in_two_places_only() {
    let allows = |text: &str| text.lines().any(|l| l.contains("allow(unsafe_code") || l.contains("expect(unsafe_code"));
    let elsewhere = files(".rs").into_iter().filter(|(path, text)| {
        allows(text) && !UNSAFE_HOMES.iter().any(|home| path.starts_with(home)) && !path.ends_with("house/tidy.rs")
    });
    complain(&elsewhere.map(|(path, _)| path).collect::<Vec<_>>());
}

#[test]
fn nothing_left_to_do_is_hidden_in_the_sources() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let mut complaints = Vec::new();
    for (path, text) in files(".rs") {
        for (number, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                complaints.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn hardware_tables_carry_their_source() {
    // A capture or a machine file without its source is a claim without a proof.
    for ending in [".yaml", ".txt"] {
        let silent = files(ending).into_iter().filter(|(path, text)| {
            (path.starts_with("tests/machines") || path.starts_with("tests/captures"))
                && !text.lines().take(12).any(|l| l.contains("source:"))
                && !path.contains("faults")
        });
        complain(&silent.map(|(path, _)| path).collect::<Vec<_>>());
    }
}
