//! Claims about trees: what is missing is no error, and nothing leads out.

use super::*;

#[test]
fn links_are_joined_by_hand_and_never_lead_out() {
    let at = "sys/bus/pci/devices/0000:1b:00.0";
    let inside = resolve(at, "../../../devices/pci0000:15/0000:1b:00.0").unwrap();
    assert_eq!(inside, "sys/devices/pci0000:15/0000:1b:00.0");
    assert_eq!(resolve("a/b", "./c//d").unwrap(), "a/c/d");
    for out in ["/etc/passwd", "../../../../../etc/passwd", "../../../..", "x/../../../../../../.."] {
        assert!(matches!(resolve(at, out), Err(TreeError::Path)), "{out:?} was taken");
    }
    let endless = "a/".repeat(COMPONENTS_MAX + 1);
    assert!(matches!(resolve(at, &endless), Err(TreeError::Path)));
}

#[test]
fn what_is_missing_is_none_and_no_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    let trees: [&dyn Tree; 2] = [&SysRoot::new(folder.path()), &MemoryTree::default()];
    for tree in trees {
        for path in ["none", "none/deeper", "file/below"] {
            assert_eq!(tree.read(path).unwrap(), None);
            assert_eq!(tree.read_link(path).unwrap(), None);
            assert_eq!(tree.list(path).unwrap(), None);
        }
    }
}

#[test]
fn both_trees_answer_alike() {
    let mut memory = MemoryTree::default();
    memory.put_line("a/b/file", "text");
    memory.put("a/b-c/other", Entry::File("x".to_owned()));
    memory.put("a/link", Entry::Link("b/file".to_owned()));
    memory.put("a/empty", Entry::Directory);
    let folder = tempfile::tempdir().unwrap();
    for (path, entry) in memory.entries() {
        let at = folder.path().join(path);
        match entry {
            Entry::Directory => std::fs::create_dir(at).unwrap(),
            Entry::File(text) => std::fs::write(at, text).unwrap(),
            Entry::Link(text) => std::os::unix::fs::symlink(text, at).unwrap(),
        }
    }
    let disk = SysRoot::new(folder.path());
    assert_eq!(disk.list("a").unwrap().unwrap(), ["b", "b-c", "empty", "link"]);
    for path in ["a", "a/b", "a/b-c", "a/empty", "a/link", "a/b/file"] {
        assert_eq!(disk.read_link(path).unwrap(), memory.read_link(path).unwrap(), "{path}");
        assert_eq!(disk.read(path).ok(), memory.read(path).ok(), "{path}");
        assert_eq!(disk.list(path).ok(), memory.list(path).ok(), "{path}");
    }
}

#[test]
fn a_directory_that_is_a_link_is_not_walked_through() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc", folder.path().join("sys")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", folder.path().join("file")).unwrap();
    let tree = SysRoot::new(folder.path());
    assert!(matches!(tree.read("sys/hostname"), Err(TreeError::Link(part)) if part == "sys"));
    assert!(matches!(tree.list("sys"), Err(TreeError::Link(_))));
    assert!(matches!(tree.read("file"), Err(TreeError::Link(_))));
    for path in ["../etc/hostname", "/etc/hostname", "a//b", "./a", ""] {
        assert!(matches!(tree.read(path), Err(TreeError::Path)), "{path:?} was taken");
    }
}

#[test]
fn what_is_too_large_or_no_file_is_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let limit = usize::try_from(FILE_BYTES_MAX).unwrap();
    std::fs::write(folder.path().join("fits"), vec![b'x'; limit]).unwrap();
    std::fs::write(folder.path().join("large"), vec![b'x'; limit + 1]).unwrap();
    std::fs::write(folder.path().join("bytes"), [0xff]).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    let tree = SysRoot::new(folder.path());
    assert_eq!(tree.read("fits").unwrap().unwrap().len(), limit);
    assert!(matches!(tree.read("large"), Err(TreeError::Large)));
    assert!(matches!(tree.read("bytes"), Err(TreeError::Text)));
    assert!(matches!(tree.read("socket"), Err(TreeError::Text)));
}
