//! The partition table of a PC's disk: four entries in the first sector. One of them may be an extended partition, in
//! which a chain of sectors of the same format defines logical ones, numbered from 5. The crate `gpt_disk_types`
//! implements the format.

use gpt_disk_types::{MasterBootRecord, MbrPartitionRecord};
use quire_abi::Errno;

use crate::disk::Disk;
use crate::table::{Damage, Sector, Table, read};

/// Types of partitions: three types of an extended one, and the one that covers a disk with a GUID partition table.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
const PROTECTIVE: u8 = 0xee;

/// The number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;

/// The maximum number of links of a chain that are followed. (Linux numbers as many.)
const LONGEST: usize = 60;

/// The part of an extended partition that is accessible: its first two sectors, as on Linux, so that nobody makes a
/// file system on it by mistake.
const SHOWN: u64 = 2;

/// Four entries.
pub(crate) type Entries = [MbrPartitionRecord; 4];

/// The entries in a sector; `None` if it contains no table.
pub(crate) fn parse(sector: &Sector) -> Option<Entries> {
    let record: MasterBootRecord = bytemuck::pod_read_unaligned(sector);
    // (The first sector of a file system ends with the same two bytes, and has a program in place of the entries.)
    let is_table =
        record.signature == [0x55, 0xaa] && record.partitions.iter().all(|entry| entry.boot_indicator & 0x7f == 0);
    is_table.then_some(record.partitions)
}

/// Whether the disk has a GUID partition table.
pub(crate) fn protects(entries: &Entries) -> bool {
    entries.iter().any(|entry| entry.os_indicator == PROTECTIVE)
}

fn start(entry: &MbrPartitionRecord) -> u64 {
    entry.starting_lba.to_u32().into()
}

fn len(entry: &MbrPartitionRecord) -> u64 {
    entry.size_in_lba.to_u32().into()
}

fn is_used(entry: &MbrPartitionRecord) -> bool {
    entry.os_indicator != 0 && len(entry) != 0
}

/// Enters the partitions of a table.
pub(crate) fn find(disk: &mut dyn Disk, entries: &Entries, table: &mut Table) -> Result<(), Errno> {
    let sectors = disk.sectors();
    let mut extended = None;
    for (number, entry) in (1..).zip(entries).filter(|(_, entry)| is_used(entry)) {
        let (start, len) = (start(entry), len(entry));
        if !EXTENDED.contains(&entry.os_indicator) {
            table.enter(number, start..start + len, sectors)?;
        } else if start == 0 || start + len > sectors {
            table.note(Damage::Outside(number))?;
        } else {
            table.enter(number, start..start + len.min(SHOWN), sectors)?;
            // (There are no numbers for a second one.)
            extended.get_or_insert(start..start + len);
        }
    }
    let Some(extended) = extended else { return Ok(()) };
    let mut number = FIRST_LOGICAL;
    let mut at = extended.start;
    let mut seen = [0; LONGEST];
    for link in 0..LONGEST {
        seen[link] = at;
        let Some(sector) = read(disk, at, table)? else { return Ok(()) };
        let Some([logical, next, ..]) = parse(&sector) else { return table.note(Damage::Chain(at)) };
        if is_used(&logical) && !EXTENDED.contains(&logical.os_indicator) {
            let first = at + start(&logical);
            // (It ends at the end of the extended partition at the latest.)
            table.enter(number, first..first + len(&logical), extended.end)?;
            number += 1;
        }
        if !is_used(&next) || !EXTENDED.contains(&next.os_indicator) {
            return Ok(());
        }
        let there = extended.start + start(&next);
        // (Tools may write chains in an order that differs from that on the disk.)
        if seen[..=link].contains(&there) || there >= extended.end {
            return table.note(Damage::Chain(at));
        }
        at = there;
    }
    table.note(Damage::Chain(at))
}
