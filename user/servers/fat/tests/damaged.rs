//! Damaged file systems: correct answers or errors, no endless loops, and never a write that destroys the contents of
//! another file.

mod common;

use std::sync::OnceLock;

use common::{Served, made, mounted, news};
use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::names::op;
use quire_fat::volume::News;
use quire_fs::request::Request;

/// Where the first table of the FAT16 begins (without `-a`, mkfs.vfat aligns it), and the size of a cluster.
const TABLE: usize = 512;
const CLUSTER: usize = 2048;

/// Files of known content, of four clusters each.
fn original() -> Vec<u8> {
    static ORIGINAL: OnceLock<Vec<u8>> = OnceLock::new();
    ORIGINAL.get_or_init(make).clone()
}

fn make() -> Vec<u8> {
    let mut served =
        mounted(made("damaged.img", 16 << 10, &["-F", "16", "-a", "-R", "1", "-s", "4", "-f", "1"])).unwrap();
    for name in ["one", "two", "three"] {
        served.put(name, &content(name)).unwrap();
    }
    served.mkdir("sub").unwrap();
    served.put("sub/four", &content("four")).unwrap();
    let bytes = served.is_clean("damaged.img");
    assert_eq!(bytes[14..16], [1, 0], "reserved sectors");
    bytes
}

fn content(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(4 * CLUSTER).collect()
}

fn entry(bytes: &[u8], cluster: u16) -> u16 {
    let at = TABLE + 2 * usize::from(cluster);
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn set(bytes: &mut [u8], cluster: u16, value: u16) {
    let at = TABLE + 2 * usize::from(cluster);
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// The first cluster of a file in the root.
fn first(bytes: &[u8], name: &str) -> u16 {
    let name = format!("{:11}", name.to_uppercase());
    let at = bytes.windows(11).position(|window| window == name.as_bytes()).expect("an entry");
    u16::from_le_bytes([bytes[at + 26], bytes[at + 27]])
}

/// No request changes it.
#[track_caller]
fn is_never_written(mut served: Served, found: u64) {
    let before = served.bytes();
    news();
    assert_eq!(served.put("new", b"text"), Err(Errno::EROFS));
    assert_eq!(served.open("two", Open::WRONLY), Err(Errno::EROFS));
    assert_eq!(served.open("two", Open::TRUNC), Err(Errno::EROFS));
    assert_eq!(served.unlink("two"), Err(Errno::EROFS));
    assert_eq!(served.rename("two", "new", 0), Err(Errno::EROFS));
    served.sync().unwrap();
    assert!(served.bytes() == before);
    let said = news();
    assert!(matches!(said[..], [News::Damaged(n)] if n >= found), "{said:?}");
}

#[test]
fn a_chain_that_loops_is_an_error() {
    let mut bytes = original();
    let start = first(&bytes, "one");
    let second = entry(&bytes, start);
    set(&mut bytes, second, start);
    let mut served = mounted(bytes).unwrap();
    assert_eq!(served.content("one"), Err(Errno::EIO));
    assert_eq!(served.content("two").unwrap(), content("two"));
    is_never_written(served, 1);
}

#[test]
fn a_directory_that_loops_ends() {
    let mut bytes = original();
    let start = first(&bytes, "sub");
    set(&mut bytes, start, start);
    // (Full, so that the search continues.)
    let table = u16::from_le_bytes([bytes[22], bytes[23]]) as usize * 512;
    let data = TABLE + table + 512 * 32;
    let at = data + (usize::from(start) - 2) * CLUSTER;
    for slot in 3..CLUSTER / 32 {
        bytes.copy_within(at + 64..at + 96, at + 32 * slot);
        bytes[at + 32 * slot + 1] = b'0' + (slot % 10) as u8;
        bytes[at + 32 * slot + 2] = b'0' + (slot / 10) as u8;
    }
    let mut served = mounted(bytes).unwrap();
    assert_eq!(served.list("sub"), Err(Errno::EIO));
    assert_eq!(served.lookup("sub/none"), Err(Errno::EIO));
    assert_eq!(served.content("sub/four").unwrap(), content("four"));
    is_never_written(served, 1);
}

#[test]
fn clusters_that_are_none_are_errors() {
    for value in [1, 0xfff0, 60_000, 0, 0xfff7] {
        let mut bytes = original();
        let start = first(&bytes, "one");
        let second = entry(&bytes, start);
        set(&mut bytes, second, value);
        let mut served = mounted(bytes).unwrap();
        assert_eq!(served.content("one"), Err(Errno::EIO), "{value}");
        assert_eq!(served.content("three").unwrap(), content("three"));
        is_never_written(served, 1);
    }
    let mut bytes = original();
    let name = bytes.windows(11).position(|window| window == b"ONE        ").expect("an entry");
    bytes[name + 26..name + 28].copy_from_slice(&60_000u16.to_le_bytes());
    let mut served = mounted(bytes).unwrap();
    assert_eq!(served.content("one"), Err(Errno::EIO));
    is_never_written(served, 1);
}

/// A cluster that belongs to two files: writing one of them would write the other one.
#[test]
fn cross_links_are_never_written() {
    let mut bytes = original();
    let (one, two) = (first(&bytes, "one"), first(&bytes, "two"));
    let last = entry(&bytes, entry(&bytes, entry(&bytes, two)));
    set(&mut bytes, one, last);
    let mut served = mounted(bytes).unwrap();
    assert_eq!(served.content("two").unwrap(), content("two"));
    is_never_written(served, 1);
}

/// A chain that is too short for its file is an error where it ends, and what an interrupted change leaves does not
/// prevent writing.
#[test]
fn what_does_no_harm_may_be_written() {
    let mut bytes = original();
    let start = first(&bytes, "one");
    let last = entry(&bytes, entry(&bytes, entry(&bytes, start)));
    // Lost clusters at the end of the disk.
    set(&mut bytes, 4000, 0xffff);
    let mut served = mounted(bytes.clone()).unwrap();
    served.put("new", b"text").unwrap();
    for name in ["one", "two", "three", "sub/four"] {
        assert_eq!(served.content(name).unwrap(), content(name.trim_start_matches("sub/")));
    }
    set(&mut bytes, start, 0xffff);
    let mut served = mounted(bytes).unwrap();
    let number = served.open("one", Open::empty()).unwrap();
    assert_eq!(served.read(number, 0).err(), Some(Errno::EIO));
    assert!(last != 0);
}

/// Any byte of the metadata may be wrong.
#[test]
fn random_damage_ends_and_destroys_nothing() {
    let bytes = original();
    let table = u16::from_le_bytes([bytes[22], bytes[23]]) as usize * 512;
    let root = TABLE + table;
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut random = |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % most
    };
    let (mut written, mut refused, mut unmounted) = (0, 0, 0);
    for _ in 0..600 {
        let mut bytes = bytes.clone();
        for _ in 0..=random(3) {
            let at = match random(8) {
                0 => random(62),
                1..4 => TABLE + random(64),
                4 => TABLE + random(table),
                _ => root + random(32 * 8),
            };
            bytes[at] = if random(2) == 0 { random(256) as u8 } else { bytes[at] ^ 1 << random(8) };
        }
        let Ok(mut served) = mounted(bytes) else {
            unmounted += 1;
            continue;
        };
        let names = served.list("").unwrap_or_default();
        let before: Vec<_> = names.iter().map(|name| served.content(name)).collect();
        let _ = (served.list("sub"), served.content("sub/four"));
        match served.put("a new file", &content("new")) {
            Ok(_) => written += 1,
            Err(Errno::EROFS) => refused += 1,
            Err(_) => {}
        }
        let _ = (served.unlink("two"), served.mkdir("sub/new"), served.rename("three", "sub/3", 0), served.sync());
        for (name, before) in names.iter().zip(before).filter(|(name, _)| !["two", "three"].contains(&name.as_str())) {
            if before.is_ok() {
                assert!(served.content(name) == before, "{name} was changed");
            }
        }
    }
    // (The shares depend on the numbers above.)
    assert!(written > 100 && refused > 100 && unmounted > 5, "{written} {refused} {unmounted}");
}

/// After writes that fail, readable data stays readable, and failed writes are errors.
#[test]
fn a_disk_that_fails_gives_errors() {
    let all = |served: &mut Served| {
        [
            served.put("new", &content("new")).map(drop),
            served.mkdir("sub/dir"),
            served.rename("one", "sub/one", 0),
            served.unlink("two"),
            served.sync(),
        ]
    };
    let mut served = mounted(original()).unwrap();
    assert_eq!(all(&mut served), [Ok(()); 5]);
    let writes = served.image.0.borrow().writes;
    assert!(writes > 10, "{writes}");
    for after in 0..writes {
        let mut served = mounted(original()).unwrap();
        served.image.0.borrow_mut().fails_after = Some(after);
        let done = all(&mut served);
        assert!(done.contains(&Err(Errno::EIO)), "{after}: {done:?}");
        for name in ["three", "sub/four"] {
            assert_eq!(served.content(name).unwrap(), content(name.trim_start_matches("sub/")), "{after}");
        }
        // And when it works again, so does everything.
        served.image.0.borrow_mut().fails_after = None;
        served.put("later", &content("later")).unwrap();
        served.is_clean("failing.img");
        assert_eq!(served.content("later").unwrap(), content("later"));
    }
}

/// A sector that cannot be read is an error for the file that contains it, and for no other one.
#[test]
fn a_sector_that_cannot_be_read_is_one_file_s() {
    let bytes = original();
    let at = bytes.windows(12).position(|window| window == b"twotwotwotwo").expect("the file");
    let mut served = mounted(bytes).unwrap();
    served.image.0.borrow_mut().bad = Some(at as u64 + 4 * 512);
    assert_eq!(served.content("two"), Err(Errno::EIO));
    for name in ["one", "three", "sub/four"] {
        assert_eq!(served.content(name).unwrap(), content(name.trim_start_matches("sub/")));
    }
    let number = served.open("two", Open::empty()).unwrap();
    assert_eq!(served.read(number, 4096).unwrap(), content("two")[4096..]);
}

/// Data that is read ahead may be damaged; the requested data is read.
#[test]
fn what_lies_before_damage_is_read() {
    let mut bytes = original();
    let second = entry(&bytes, first(&bytes, "one"));
    set(&mut bytes, second, 0);
    let mut served = mounted(bytes).unwrap();
    let number = served.open("one", Open::empty()).unwrap();
    let mut read = |at: usize| {
        let asked = Request { op: op::READ, directory: number, argument: at as u64, ..served.blank() };
        let answer = served.tree.serve(&asked, 1024);
        Errno::from_ret(answer.label as isize).map(|_| answer.text)
    };
    for at in (0..2 * CLUSTER).step_by(1024) {
        assert_eq!(read(at).unwrap(), content("one")[at..at + 1024]);
    }
    assert_eq!(read(2 * CLUSTER), Err(Errno::EIO));
}
