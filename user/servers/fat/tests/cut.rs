//! Power failures: the disk contains everything written before some write of a script, and nothing after it. What was
//! synced must be there, and the host's fsck must find only defects that such a disk may have.

mod common;

use common::{checked, made, mounted};
use quire_abi::Errno;

fn content(name: &str, len: usize) -> Vec<u8> {
    name.bytes().cycle().take(len).collect()
}

/// Defects that must not occur: clusters of two files, and the like.
const FORBIDDEN: [&str; 4] = ["share clusters", "Bad short file name", "Start does point to root", "loop"];

#[test]
fn a_power_cut_at_any_write_leaves_what_was_synced() {
    for (kind, kib, arguments) in [("12", 1440, &["-F", "12"][..]), ("16", 5000, &["-F", "16", "-s", "1"])] {
        let image = format!("cut-{kind}.img");
        let mut served = mounted(made(&image, kib, arguments)).unwrap();
        for name in ["kept one", "kept two", "old name"] {
            served.put(name, &content(name, 5000)).unwrap();
        }
        served.mkdir("directory").unwrap();
        served.put("directory/kept three", &content("three", 3000)).unwrap();
        let synced = served.is_clean(&image);
        let script = |served: &mut common::Served| -> Result<(), Errno> {
            served.put("directory/a new file with a long name", &content("new", 9000))?;
            served.mkdir("directory/another")?;
            served.put("directory/another/small", b"small")?;
            served.rename("old name", "directory/another/new name", 0)?;
            let number = served.put("to be cut", &content("cut", 9000))?;
            served.cut(number, 100)?;
            served.unlink("to be cut")?;
            served.rename("directory/a new file with a long name", "replaced", 0)?;
            served.sync()
        };
        let mut whole = mounted(synced.clone()).unwrap();
        script(&mut whole).unwrap();
        let writes = whole.image.0.borrow().writes;
        for after in 0..writes {
            let mut cut = mounted(synced.clone()).unwrap();
            // (Whatever is written after the power failure fails, so nothing else reaches the disk.)
            cut.image.0.borrow_mut().fails_after = Some(after);
            let _ = script(&mut cut);
            let bytes = cut.bytes();
            let (_, report) = checked(&image, &bytes);
            for line in FORBIDDEN {
                // (A rename may leave both names, which then have the same clusters.)
                let report = report.to_lowercase();
                let both = report.contains("new name") || report.contains("replaced");
                assert!(!report.contains(line) || both, "FAT{kind}, cut after {after} writes:\n{report}");
            }
            let mut next = mounted(bytes).unwrap();
            for (name, as_what, len) in [
                ("kept one", "kept one", 5000),
                ("kept two", "kept two", 5000),
                ("directory/kept three", "three", 3000),
            ] {
                let there = next.content(name);
                assert!(there == Ok(content(as_what, len)), "FAT{kind}, cut after {after} writes: {name} {report}");
            }
            let moved = ["old name", "directory/another/new name"].map(|name| next.content(name));
            assert!(moved.contains(&Ok(content("old name", 5000))), "FAT{kind}, cut after {after}: {moved:?}");
        }
    }
}
