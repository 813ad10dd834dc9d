//! Holds the builder of the control plane's programs to its promises, with a Go
//! that is not there, one that fails and one that only pretends.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use berth_tests::controlplane::{BuildOptions, programs};

#[test]
fn a_missing_go_is_an_error_that_names_what_to_install() {
    let cache = tempfile::tempdir().unwrap();
    let options = BuildOptions {
        search_path: Some(OsString::from("/nonexistent/bin:/also/not")),
        cache_folder: Some(cache.path().join("not/yet/there")),
    };
    let text = format!("{:#}", programs(&options).unwrap_err());
    assert!(text.contains("install Go 1.26") && text.contains("https://go.dev/dl/"), "{text}");
    assert!(text.contains("PATH"), "{text}");
}

#[test]
fn a_go_that_fails_leaves_no_programs_behind() {
    let folder = tempfile::tempdir().unwrap();
    write_program(
        &folder.path().join("go"),
        "#!/bin/sh\n[ \"$1\" = env ] && { echo go1.26; exit; }\necho 'no space left' >&2; exit 1\n",
    )
    .unwrap();
    let options =
        BuildOptions { search_path: Some(folder.path().into()), cache_folder: Some(folder.path().join("cache")) };
    for _ in 0..2 {
        let text = format!("{:#}", programs(&options).unwrap_err());
        assert!(text.contains("no space left"), "{text}");
    }
}

#[test]
fn programs_are_built_once_and_then_only_found() {
    let folder = tempfile::tempdir().unwrap();
    // A Go that writes what was asked for, and counts how often it was asked to build.
    let counter = folder.path().join("builds");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = env ] && {{ echo go1.26; exit; }}\necho build >> {}\n\
         while [ \"$1\" != -o ]; do shift; done\nsleep 0.2\n\
         for name in server kube-apiserver kube-scheduler kubectl kubelet; do : > \"$2/$name\"; done\n",
        counter.display()
    );
    write_program(&folder.path().join("go"), &script).unwrap();
    let options =
        BuildOptions { search_path: Some(folder.path().into()), cache_folder: Some(folder.path().join("cache")) };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(programs(&options).unwrap().etcd().is_file()));
        }
    });
    assert_eq!(std::fs::read_to_string(counter).unwrap(), "build\n");
}

fn write_program(path: &Path, text: &str) -> io::Result<()> {
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}
