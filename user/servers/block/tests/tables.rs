//! Partition tables that ordinary tools make, and what remains of them when they are damaged.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use quire_abi::Errno;
use quire_block::disk::{Disk, SECTOR};
use quire_block::table::{Damage, Table};
use quire_block::volume::find;

/// A disk in memory, some of whose sectors cannot be read.
struct Image {
    bytes: Vec<u8>,
    bad: Vec<u64>,
    reads: usize,
}

impl Disk for Image {
    fn sectors(&self) -> u64 {
        (self.bytes.len() / SECTOR) as u64
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn most(&self) -> usize {
        64 << 10
    }
    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), Errno> {
        self.reads += 1;
        let at = sector as usize * SECTOR;
        let end = sector + (to.len() / SECTOR) as u64;
        if self.bad.iter().any(|bad| (sector..end).contains(bad)) {
            return Err(Errno::EIO);
        }
        to.copy_from_slice(self.bytes.get(at..at + to.len()).ok_or(Errno::EINVAL)?);
        Ok(())
    }
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Errno> {
        panic!("a table is only read");
    }
    fn flush(&mut self) -> Result<(), Errno> {
        Ok(())
    }
}

const MIB: usize = 1 << 20;

/// The contents of a disk of `bytes` bytes with the table that this sfdisk script makes.
fn disk(name: &str, bytes: usize, script: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, vec![0; bytes]).unwrap();
    let sbin = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let mut child = Command::new("/usr/bin/env")
        .env("PATH", sbin)
        .args(["sfdisk", "--quiet"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("`cargo xtask setup` installs sfdisk");
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "sfdisk {script}");
    fs::read(&path).unwrap()
}

fn table_of(bytes: Vec<u8>) -> Table {
    let mut image = Image { bytes, bad: Vec::new(), reads: 0 };
    let table = find(&mut image).unwrap();
    assert!(image.reads < 200, "{} reads", image.reads);
    table
}

/// Number, first sector and number of sectors of each partition.
fn ranges(table: &Table) -> Vec<(u32, u64, u64)> {
    let range = |p: &quire_block::table::Partition| (p.number, p.sectors.start, p.sectors.end - p.sectors.start);
    table.partitions.iter().map(range).collect()
}

const LOGICAL: &str = "label: dos\n2048,2048,0c\n4096,2048,83\n8192,,05\n\n10240,2048,83\n14336,4096,0c\n20480,,83\n";

#[test]
fn primary_and_logical_partitions_of_sfdisk_are_found() {
    let table = table_of(disk("logical.img", 16 * MIB, LOGICAL));
    assert_eq!(table.damage, []);
    let expected =
        [(1, 2048, 2048), (2, 4096, 2048), (3, 8192, 2), (5, 10240, 2048), (6, 14336, 4096), (7, 20480, 12288)];
    assert_eq!(ranges(&table), expected);
}

const GUIDS: &str = "label: gpt\nfirst-lba: 34\n2048,4096,U\n6144,8192,L\n3: start=20480,size=1\n";

#[test]
fn partitions_of_a_table_of_guids_are_found() {
    let table = table_of(disk("guids.img", 16 * MIB, GUIDS));
    assert_eq!(table.damage, []);
    assert_eq!(ranges(&table), [(1, 2048, 4096), (2, 6144, 8192), (3, 20480, 1)]);
}

/// If any byte of the first table is wrong, the second one provides everything.
#[test]
fn a_damaged_first_table_of_guids_is_replaced_by_the_second() {
    let whole = disk("first.img", 4 * MIB, "label: gpt\n2048,1024,L\n4096,100,L\n");
    let good = ranges(&table_of(whole.clone()));
    assert_eq!(good.len(), 2);
    let (header, array) = (SECTOR, 2 * SECTOR);
    for at in (header..header + 92).chain([array, array + 32, array + 40, array + 127, array + 128 * 127]) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        let table = table_of(bytes.clone());
        assert_eq!((ranges(&table), &table.damage[..]), (good.clone(), &[Damage::FirstTable][..]), "byte {at}");
        // If the second one is damaged too, there are no partitions, and an older table is not used.
        let last = bytes.len() - SECTOR;
        bytes[last + 16] ^= 1;
        let table = table_of(bytes);
        assert_eq!((ranges(&table), &table.damage[..]), (vec![], &[Damage::BothTables][..]), "byte {at}");
    }
}

#[test]
fn a_table_that_cannot_be_read_leaves_the_disk() {
    let bytes = disk("unreadable.img", 4 * MIB, "label: gpt\n2048,1024,L\n");
    let mut image = Image { bytes, bad: vec![0], reads: 0 };
    let expected = Table { partitions: vec![], damage: vec![Damage::Unreadable(0)] };
    assert_eq!(find(&mut image).unwrap(), expected);
    image.bad = vec![3];
    let table = find(&mut image).unwrap();
    assert_eq!((table.partitions.len(), table.damage), (1, vec![Damage::Unreadable(2), Damage::FirstTable]));
}

/// The four bytes of a word in a sector.
fn set(bytes: &mut [u8], sector: usize, at: usize, word: u32) {
    bytes[sector * SECTOR + at..][..4].copy_from_slice(&word.to_le_bytes());
}

#[test]
fn chains_that_go_nowhere_end() {
    let whole = disk("chain.img", 16 * MIB, LOGICAL);
    let good = ranges(&table_of(whole.clone()));
    // Each logical partition's own sector precedes it; the second entry leads to the next one.
    let own: Vec<usize> = (8192..32768).filter(|n| whole[n * SECTOR + 510..][..2] == [0x55, 0xaa]).collect();
    assert_eq!(own.len(), 3);
    let second = 446 + 16;
    let damaged = |what: &str, sector: usize, at: usize, word: u32, left: usize, damage: Damage| {
        let mut bytes = whole.clone();
        set(&mut bytes, sector, at, word);
        let table = table_of(bytes);
        assert_eq!(table.damage.last(), Some(&damage), "{what}");
        assert_eq!(ranges(&table)[..left], good[..left], "{what}");
    };
    damaged("to itself", own[1], second + 8, (own[1] - own[0]) as u32, 5, Damage::Chain(own[1] as u64));
    damaged("to the beginning", own[1], second + 8, 0, 5, Damage::Chain(own[1] as u64));
    damaged("out of it", own[1], second + 8, 1 << 24, 5, Damage::Chain(own[1] as u64));
    damaged("to no table", own[0], second + 8, 7, 4, Damage::Chain(own[0] as u64 + 7));
    damaged("a partition beyond it", own[0], 446 + 12, 1 << 30, 3, Damage::Outside(5));
    damaged("an extended one beyond the disk", 0, 446 + 32 + 12, 1 << 30, 2, Damage::Outside(3));
    // Two sectors that lead to each other.
    let mut bytes = whole.clone();
    set(&mut bytes, own[2], second + 8, (own[1] - own[0]) as u32);
    bytes[own[2] * SECTOR + second + 4] = 5;
    set(&mut bytes, own[2], second + 12, 100);
    let table = table_of(bytes);
    assert_eq!(ranges(&table)[..6], good);
    assert!(matches!(table.damage.last(), Some(Damage::Chain(_))), "{table:?}");
}

#[test]
fn what_overlaps_or_lies_outside_is_left_out() {
    let mut bytes = disk("overlap.img", 8 * MIB, "label: dos\n2048,2048,83\n4096,2048,83\n8192,2048,83\n");
    set(&mut bytes, 0, 446 + 16 + 8, 4095);
    set(&mut bytes, 0, 446 + 32 + 12, 8193);
    let table = table_of(bytes);
    assert_eq!(ranges(&table), [(1, 2048, 2048)]);
    assert_eq!(table.damage, [Damage::Overlaps(2), Damage::Outside(3)]);
}

/// The first sector of a file system ends like a table.
#[test]
fn a_file_system_is_no_table() {
    let mut bytes = vec![0; MIB];
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes[446..510].fill(b'x');
    assert_eq!(table_of(bytes), Table::default());
    assert_eq!(table_of(vec![0; MIB]), Table::default());
    assert_eq!(table_of(vec![0xff; SECTOR]), Table::default());
}
