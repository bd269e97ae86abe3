//! The host's tools read what was written, and find no errors.

mod common;

use common::{NOW, checked, made, mounted, mounted_as, mtype, news, path_of, tool};
use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::mode;
use quire_abi::names::{Change, node, op, statfs};

/// The three kinds: a name, KiB, arguments.
const KINDS: [(&str, usize, &[&str]); 3] =
    [("12", 1440, &["-F", "12"]), ("16", 16 << 10, &["-F", "16"]), ("32", 40 << 10, &["-F", "32", "-s", "1"])];

/// Bytes that do not repeat for a long time.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(step).collect()
}

#[test]
fn what_is_written_the_host_reads() {
    for (kind, kib, arguments) in KINDS {
        let image = format!("written-{kind}.img");
        let mut served = mounted(made(&image, kib, arguments)).unwrap();
        let large = noise(300_000, 1);
        served.put("large.bin", &large).unwrap();
        served.put("A file with a long name, and spaces.text", b"long").unwrap();
        served.put("Übung – Ελληνικά – 日本語.txt", "grüß".as_bytes()).unwrap();
        served.mkdir("Directory").unwrap();
        served.mkdir("Directory/below it").unwrap();
        served.put("Directory/below it/EMPTY", b"").unwrap();
        served.put("Directory/below it/small", &noise(513, 2)).unwrap();
        let bytes = served.is_clean(&image);
        assert!(mtype(&image, &bytes, "/large.bin") == large, "FAT{kind}");
        assert_eq!(mtype(&image, &bytes, "/A file with a long name, and spaces.text"), b"long");
        assert_eq!(mtype(&image, &bytes, "/Übung – Ελληνικά – 日本語.txt"), "grüß".as_bytes());
        assert_eq!(mtype(&image, &bytes, "/Directory/below it/small"), noise(513, 2));
        assert_eq!(mtype(&image, &bytes, "/Directory/below it/EMPTY"), b"");
        // And with a new server, from the beginning.
        let mut again = mounted(bytes).unwrap();
        assert!(again.content("large.bin").unwrap() == large);
        assert_eq!(again.list("Directory/below it").unwrap(), [".", "..", "EMPTY", "small"]);
        assert_eq!(again.content("Übung – Ελληνικά – 日本語.txt").unwrap(), "grüß".as_bytes());
    }
}

#[test]
fn what_the_host_writes_is_read() {
    for (kind, kib, arguments) in KINDS {
        let image = format!("host-{kind}.img");
        made(&image, kib, arguments);
        let at = path_of(&image);
        let at = at.to_str().unwrap();
        let file = path_of(&format!("host-{kind}.bin"));
        let large = noise(200_000, 3);
        std::fs::write(&file, &large).unwrap();
        let file = file.to_str().unwrap();
        for arguments in [
            &["mmd", "-i", at, "::/Sub directory", "::/Sub directory/second"][..],
            &["mcopy", "-i", at, file, "::/Sub directory/second/Large File.bin"],
            &["mcopy", "-i", at, file, "::/SHORT.BIN"],
            &["mattrib", "-i", at, "+r", "::/SHORT.BIN"],
        ] {
            let done = tool(arguments[0], &arguments[1..]);
            assert!(done.status.success(), "{done:?}");
        }
        let mut served = mounted(std::fs::read(at).unwrap()).unwrap();
        assert!(served.content("Sub directory/second/Large File.bin").unwrap() == large);
        // Names are found in any case.
        assert!(served.content("SUB DIRECTORY/Second/large file.BIN").unwrap() == large);
        assert!(served.content("short.bin").unwrap() == large);
        let words = served.lookup("SHORT.BIN").unwrap();
        assert_eq!(words[node::MODE] as u32, mode::REG | 0o555 | node::STORED);
        assert_eq!(served.lookup("Sub directory").unwrap()[node::MODE] as u32, mode::DIR | 0o755);
    }
}

#[test]
fn files_grow_and_are_cut() {
    let mut served = mounted(made("cut.img", 16 << 10, &["-F", "16"])).unwrap();
    let number = served.open("file", Open::CREAT | Open::RDWR).unwrap();
    assert_eq!(served.append(number, b"hello").unwrap(), (5, 0));
    assert_eq!(served.append(number, b" world").unwrap(), (6, 5));
    // A gap is zeros.
    assert_eq!(served.write(number, 5000, b"x"), Ok(1));
    let mut expected = b"hello world".to_vec();
    expected.resize(5000, 0);
    expected.push(b'x');
    assert_eq!(served.content("file").unwrap(), expected);
    for len in [5, 100_000, 2048, 0, 1] {
        served.cut(number, len).unwrap();
        expected.resize(len as usize, 0);
        assert_eq!(served.size("file"), Ok(len));
        assert_eq!(served.content("file").unwrap(), expected);
    }
    assert_eq!(served.cut(number, 1 << 32), Err(Errno::EFBIG));
    assert_eq!(served.write(number, u32::MAX.into(), b"x"), Err(Errno::EFBIG));
    // A program that opens it with O_TRUNC truncates it.
    served.open("file", Open::TRUNC | Open::WRONLY).unwrap();
    assert_eq!(served.size("file"), Ok(1));
    served.is_clean("cut.img");
}

#[test]
fn names_are_moved_and_removed() {
    let mut served = mounted(made("moved.img", 16 << 10, &["-F", "16"])).unwrap();
    served.mkdir("a").unwrap();
    served.mkdir("b").unwrap();
    let number = served.put("a/first file", b"first").unwrap();
    let replaced = served.put("b/second file", b"second").unwrap();
    // An open file keeps its identity when its name moves.
    served.rename("a/first file", "b/moved file", 0).unwrap();
    assert_eq!(served.read(number, 0), Ok(b"first".to_vec()));
    assert_eq!(served.lookup("a/first file"), Err(Errno::ENOENT));
    assert_eq!(served.rename("b/moved file", "b/second file", 1), Err(Errno::EEXIST));
    served.rename("b/moved file", "b/second file", 0).unwrap();
    assert_eq!(served.content("b/second file").unwrap(), b"first");
    assert_eq!(served.read(number, 0), Ok(b"first".to_vec()));
    // The replaced file is gone, and its number is not reused.
    assert_eq!(served.read(replaced, 0), Err(Errno::ESTALE));
    served.put("b/third file", b"third").unwrap();
    assert_eq!(served.read(replaced, 0), Err(Errno::ESTALE));
    assert_eq!(served.write(replaced, 0, b"x"), Err(Errno::ESTALE));
    // The case of a name.
    served.rename("b/second file", "b/Second File", 0).unwrap();
    assert_eq!(served.list("b").unwrap()[2..], ["third file", "Second File"].map(String::from));
    // Directories.
    assert_eq!(served.rename("b", "b/below", 0), Err(Errno::EINVAL));
    assert_eq!(served.rename("a", "b", 0), Err(Errno::ENOTEMPTY));
    assert_eq!(served.rename("b/third file", "a", 0), Err(Errno::EISDIR));
    assert_eq!(served.rename("a", "b/third file", 0), Err(Errno::ENOTDIR));
    served.mkdir("c").unwrap();
    served.rename("b", "c", 0).unwrap();
    served.mkdir("d").unwrap();
    served.rename("c", "d/within", 0).unwrap();
    assert_eq!(served.content("d/within/../within/third file").unwrap(), b"third");
    let place = served.open("d/within", Open::DIRECTORY).unwrap();
    assert_eq!(served.ask(op::PATH, place, "", 0).unwrap().text, b"/d/within");
    assert_eq!(served.rmdir("d/within"), Err(Errno::ENOTEMPTY));
    assert_eq!(served.unlink("d/within"), Err(Errno::EISDIR));
    assert_eq!(served.rmdir("d/within/third file"), Err(Errno::ENOTDIR));
    let file = served.open("d/within/third file", Open::RDWR).unwrap();
    served.unlink("d/within/third file").unwrap();
    assert_eq!(served.read(file, 0), Err(Errno::ESTALE));
    served.unlink("d/within/Second File").unwrap();
    served.rmdir("d/within").unwrap();
    assert_eq!(served.ask(op::LOOKUP, place, "", 0), Err(Errno::ENOENT));
    assert_eq!(served.ask(op::OPEN, place, "new", Open::CREAT.bits().into()), Err(Errno::ENOENT));
    assert_eq!(served.list("").unwrap()[2..], ["a", "d"].map(String::from));
    served.is_clean("moved.img");
}

#[test]
fn many_files_and_a_full_disk() {
    let mut served = mounted(made("full.img", 2048, &["-F", "12"])).unwrap();
    served.mkdir("many").unwrap();
    for n in 0..500 {
        served.put(&format!("many/a file with number {n}"), format!("{n}").as_bytes()).unwrap();
    }
    for n in (0..500).step_by(2) {
        served.unlink(&format!("many/a file with number {n}")).unwrap();
    }
    let names = served.list("many").unwrap();
    assert_eq!(names.len(), 2 + 250);
    assert_eq!(served.content("many/A FILE WITH NUMBER 251").unwrap(), b"251");
    let number = served.open("all", Open::CREAT | Open::RDWR).unwrap();
    let mut len = 0;
    let error = loop {
        match served.write(number, len, &noise(64 << 10, 5)) {
            Ok(done) => len += done as u64,
            Err(error) => break error,
        }
    };
    assert_eq!(error, Errno::ENOSPC);
    let free = served.ask(op::STATFS, 0, "", 0).unwrap().words[statfs::FREE];
    assert_eq!(free, 0);
    assert_eq!(served.size("all"), Ok(len));
    assert_eq!(served.mkdir("none"), Err(Errno::ENOSPC));
    served.is_clean("full.img");
    served.unlink("all").unwrap();
    assert!(served.ask(op::STATFS, 0, "", 0).unwrap().words[statfs::FREE] * 4096 > len - 8192);
    served.put("again", &noise(100_000, 6)).unwrap();
    served.is_clean("full.img");
    // FAT12's and FAT16's root has a fixed size.
    let full = (0..1000).find_map(|n| served.put(&format!("a long name in the root {n}"), b"").err());
    assert_eq!(full, Some(Errno::ENOSPC));
    served.is_clean("full.img");
}

#[test]
fn attributes_and_times() {
    let mut served = mounted(made("times.img", 16 << 10, &["-F", "16"])).unwrap();
    served.put("file", b"x").unwrap();
    assert_eq!(served.lookup("file").unwrap()[node::MODIFIED], NOW as u64 * 1_000_000_000);
    let modified = 1_700_000_002_000_000_000;
    served.set("file", Change { what: Change::MODIFIED | Change::ACCESSED, modified, ..Change::default() }).unwrap();
    assert_eq!(served.lookup("file").unwrap()[node::MODIFIED], modified);
    for (asked, shown) in [(0o444, 0o555), (0o644, 0o755), (0o600, 0o755)] {
        served.set("file", Change { what: Change::MODE, mode: asked, ..Change::default() }).unwrap();
        assert_eq!(served.lookup("file").unwrap()[node::MODE] as u32 & 0o7777, shown);
    }
    let to_user = Change { what: Change::USER, user: 5, ..Change::default() };
    assert_eq!(served.set("file", to_user), Err(Errno::EPERM));
    served.set("file", Change { what: Change::USER | Change::GROUP, ..Change::default() }).unwrap();
    // Everybody may read, and only root may write.
    served.user = 1000;
    assert_eq!(served.content("file").unwrap(), b"x");
    assert_eq!(served.open("file", Open::WRONLY), Err(Errno::EACCES));
    assert_eq!(served.put("other", b""), Err(Errno::EACCES));
    assert_eq!(served.set("file", Change { what: Change::MODE, mode: 0o444, ..Change::default() }), Err(Errno::EPERM));
    served.user = 0;
    served.is_clean("times.img");
}

#[test]
fn what_cannot_be_is_refused() {
    let mut served = mounted(made("refused.img", 16 << 10, &["-F", "16"])).unwrap();
    for name in ["a:b", "a*b", "what?", "a\\b", "end.", "end ", "a\"b", "a|b", "a<b"] {
        assert_eq!(served.put(name, b""), Err(Errno::EINVAL), "{name}");
        assert_eq!(served.lookup(name), Err(Errno::ENOENT), "{name}");
    }
    let longest = "x".repeat(255);
    served.put(&longest, b"long").unwrap();
    assert_eq!(served.content(&longest.to_uppercase()).unwrap(), b"long");
    assert_eq!(served.put(&"x".repeat(256), b""), Err(Errno::ENAMETOOLONG));
    let wide = "語".repeat(255);
    served.put(&wide, b"wide").unwrap();
    assert_eq!(served.content(&wide).unwrap(), b"wide");
    assert_eq!(served.ask(op::SYMLINK, 0, "link", 0), Err(Errno::EPERM));
    assert_eq!(served.lookup("file/x"), Err(Errno::ENOENT));
    served.put("file", b"").unwrap();
    assert_eq!(served.lookup("file/x"), Err(Errno::ENOTDIR));
    assert_eq!(served.lookup("file/"), Err(Errno::ENOTDIR));
    assert_eq!(served.open("file", Open::CREAT | Open::EXCL), Err(Errno::EEXIST));
    assert_eq!(served.open("FILE", Open::CREAT | Open::EXCL), Err(Errno::EEXIST));
    assert_eq!(served.mkdir("File"), Err(Errno::EEXIST));
    served.is_clean("refused.img");
}

#[test]
fn fsync_reaches_the_disk_and_marks_it_clean() {
    let mut served = mounted(made("sync.img", 40 << 10, &["-F", "32", "-s", "1"])).unwrap();
    served.put("file", &noise(3000, 7)).unwrap();
    let before = served.image.0.borrow().flushes;
    served.sync().unwrap();
    assert!(served.image.0.borrow().flushes > before);
    let (writes, flushes) = (served.image.0.borrow().writes, served.image.0.borrow().flushes);
    // Nothing to do, nothing done.
    served.sync().unwrap();
    assert_eq!((served.image.0.borrow().writes, served.image.0.borrow().flushes), (writes, flushes));
    served.is_clean("sync.img");
}

#[test]
fn what_is_for_reading_is_not_written() {
    let mut writable = mounted(made("reading.img", 16 << 10, &["-F", "16"])).unwrap();
    writable.put("file", b"text").unwrap();
    let bytes = writable.is_clean("reading.img");
    let mut served = mounted_as(bytes.clone(), true).unwrap();
    assert_eq!(served.content("file").unwrap(), b"text");
    assert_eq!(served.put("new", b""), Err(Errno::EROFS));
    assert_eq!(served.open("file", Open::WRONLY), Err(Errno::EROFS));
    assert_eq!(served.unlink("file"), Err(Errno::EROFS));
    assert_eq!(served.rename("file", "other", 0), Err(Errno::EROFS));
    assert_eq!(served.mkdir("new"), Err(Errno::EROFS));
    served.sync().unwrap();
    assert!(served.bytes() == bytes);
    assert_eq!(news(), []);
}

#[test]
fn what_is_no_file_system_is_not_mounted() {
    assert_eq!(mounted(vec![0; 1 << 20]).err(), Some(Errno::EINVAL));
    assert_eq!(mounted(noise(1 << 20, 9)).err(), Some(Errno::EINVAL));
    assert_eq!(mounted(vec![]).err(), Some(Errno::EIO));
    // Larger than the disk.
    let bytes = made("larger.img", 16 << 10, &["-F", "16"]);
    assert_eq!(mounted(bytes[..8 << 20].to_vec()).err(), Some(Errno::EIO));
    let (status, _) = checked("larger.img", &bytes);
    assert_eq!(status, 0);
}

#[test]
fn a_file_that_is_removed_while_it_is_open_stays_until_it_is_closed() {
    let mut served = mounted(made("aside.img", 16 << 10, &["-F", "16"])).unwrap();
    let free = |served: &mut common::Served| served.ask(op::STATFS, 0, "", 0).unwrap().words[statfs::FREE];
    served.sync().unwrap();
    let before = free(&mut served);
    served.mkdir("dir").unwrap();
    let removed = served.put("dir/removed", &noise(50_000, 1)).unwrap();
    let replaced = served.put("dir/replaced", b"old").unwrap();
    served.put("dir/new", b"new").unwrap();
    served.opened.0.borrow_mut().extend([removed, replaced]);
    served.unlink("dir/removed").unwrap();
    served.rename("dir/new", "dir/replaced", 0).unwrap();
    assert_eq!(served.list("dir").unwrap(), [".", "..", "replaced"]);
    assert_eq!(served.list("").unwrap()[2..], ["dir"]);
    assert_eq!(served.content("dir/replaced").unwrap(), b"new");
    served.unlink("dir/replaced").unwrap();
    served.rmdir("dir").unwrap();
    for _ in 0..2 {
        assert_eq!(served.read(removed, 0).unwrap(), noise(4096, 1));
        assert_eq!(served.read(replaced, 0).unwrap(), b"old");
        served.is_clean("aside.img");
    }
    assert_eq!(served.append(removed, b"more"), Ok((4, 50_000)));
    assert_eq!(served.ask(op::LOOKUP, removed, "", 0).unwrap().words[node::MODE] >> 32, 0);
    assert_eq!(served.ask(op::PATH, removed, "", 0), Err(Errno::ENOENT));
    assert_eq!(served.lookup(".quire-removed"), Err(Errno::ENOENT));
    // The machine crashes now: the next server finds what was left, and removes it.
    served.sync().unwrap();
    let mut next = mounted(served.bytes()).unwrap();
    next.put("file", b"x").unwrap();
    assert_eq!(next.list("").unwrap()[2..], ["file"]);
    next.unlink("file").unwrap();
    next.is_clean("aside.img");
    assert_eq!(free(&mut next), before);
    // Here they are closed.
    served.opened.0.borrow_mut().clear();
    served.sync().unwrap();
    assert_eq!(served.read(removed, 0), Err(Errno::ESTALE));
    assert_eq!(free(&mut served), before);
    served.is_clean("aside.img");
}

/// Data that was read ahead is not used after a change; a name's old node is not found when the name leads elsewhere.
#[test]
fn nothing_old_is_read_or_found() {
    let mut served = mounted(made("old.img", 16 << 10, &["-F", "16"])).unwrap();
    let number = served.put("file", &noise(40_000, 1)).unwrap();
    let mut expected = noise(40_000, 1);
    assert_eq!(served.content("file").unwrap(), expected);
    for at in [4096, 8192, 12_288] {
        assert_eq!(served.read(number, at - 4096).unwrap(), expected[at as usize - 4096..at as usize]);
        served.write(number, at + 10, b"changed").unwrap();
        expected[at as usize + 10..at as usize + 17].copy_from_slice(b"changed");
        assert_eq!(served.read(number, at).unwrap(), expected[at as usize..at as usize + 4096]);
    }
    served.cut(number, 20_000).unwrap();
    assert_eq!(served.content("file").unwrap(), expected[..20_000]);
    let reads = served.image.0.borrow().reads;
    assert_eq!(served.content("file").unwrap(), expected[..20_000]);
    assert!(served.image.0.borrow().reads <= reads + 3, "it reads ahead");
    served.mkdir("dir").unwrap();
    served.put("dir/other", b"other").unwrap();
    served.rename("file", "dir/file", 0).unwrap();
    assert_eq!(served.lookup("file"), Err(Errno::ENOENT));
    served.put("file", b"another").unwrap();
    assert_eq!(served.content("FILE").unwrap(), b"another");
    served.rename("dir/other", "file", 0).unwrap();
    assert_eq!(
        (served.content("file").unwrap(), served.content("FILE").unwrap()),
        (b"other".to_vec(), b"other".to_vec())
    );
    served.rename("file", "File", 0).unwrap();
    assert_eq!(served.content("file").unwrap(), b"other");
    served.unlink("file").unwrap();
    assert_eq!(served.lookup("file"), Err(Errno::ENOENT));
    served.is_clean("old.img");
}

/// Removed files that are not open any more make room.
#[test]
fn removed_files_make_room_when_they_are_closed() {
    let mut served = mounted(made("room.img", 1440, &["-F", "12"])).unwrap();
    let number = served.put("large", &noise(1_000_000, 1)).unwrap();
    served.opened.0.borrow_mut().push(number);
    served.unlink("large").unwrap();
    let again = served.open("again", Open::CREAT | Open::RDWR).unwrap();
    assert_eq!(served.cut(again, 1_000_000), Err(Errno::ENOSPC));
    served.opened.0.borrow_mut().clear();
    served.put("again", &noise(1_000_000, 2)).unwrap();
    served.is_clean("room.img");
}
