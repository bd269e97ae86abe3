//! What a user puts over the boot archive: a whole tree, Debian's packages.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::harness::Machine;

/// A new directory of the host with these files.
fn tree(name: &str, files: &[(&str, &str, u32)], links: &[(&str, &str)]) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&root);
    for (path, text, mode) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("there is room");
        fs::write(&path, text).expect("there is room");
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).expect("an own file");
    }
    for (path, target) in links {
        symlink(target, root.join(path)).expect("there is room");
    }
    root
}

#[test]
fn a_tree_lies_over_the_archive_with_its_links_and_modes() {
    let files = [
        ("data/deep/one", "one\n", 0o640),
        ("etc/motd", "over the built one\n", 0o644),
        ("bin/hello", "#!/bin/sh\necho hello\n", 0o755),
    ];
    let links =
        [("data/link", "deep/one"), ("data/up", "../data/deep/../link"), ("data/round", "round"), ("d", "/data/deep")];
    let root = tree("root", &files, &links);
    let machine = Machine::virt().root(&root);
    let outcome = machine
        .exec("cat /data/link /data/up /d/one /d/../link /etc/motd; hello; ls -l /data/deep/one; cat /data/round");
    let output = outcome.ended_with(1);
    assert!(output.starts_with("one\none\none\none\nover the built one\nhello\n-rw-r-----"), "{outcome}");
    assert!(outcome.all().contains("/data/round: too many symbolic links"), "{outcome}");
}

#[test]
fn a_tree_that_is_none_is_refused() {
    let outcome = Machine::virt().root(Path::new("/nonexistent")).exec("true");
    assert!(outcome.log.contains("--root /nonexistent: not a directory"), "{outcome}");
    let outcome = Machine::virt().deb("no such package").exec("true");
    assert!(outcome.log.contains("--deb no such package: not a name"), "{outcome}");
}

#[test]
#[ignore = "matrix"]
fn a_package_runs_with_what_it_depends_on() {
    // (The second run takes what the first has locked.)
    for _ in 0..2 {
        let outcome = Machine::virt().deb("hello").exec("hello; cat /etc/passwd | head -n 1");
        let wanted = "Hello, world!\nroot:x:0:0:root:/root:/bin/sh\n";
        assert_eq!(outcome.succeeded(), wanted, "{outcome}");
    }
}
