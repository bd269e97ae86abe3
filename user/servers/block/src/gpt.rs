//! The GUID partition table: a header in the second sector, with an array of entries, and copies of both at the disk's
//! end. Each has a checksum. The crate `gpt_disk_types` implements the format and the checksums. (UEFI Specification
//! 2.10, 5.3.)

use alloc::vec::Vec;

use gpt_disk_types::{BlockSize, GptHeader, GptPartitionEntryArray};
use quire_abi::Errno;

use crate::disk::{self, Disk, SECTOR};
use crate::table::{Damage, Table, read};

/// The sector of the first header.
const FIRST: u64 = 1;

/// The maximum size of an array in bytes.
const ARRAY_MOST: u64 = 128 << 10;

/// Enters the partitions of the first intact table.
pub(crate) fn find(disk: &mut dyn Disk, table: &mut Table) -> Result<(), Errno> {
    let last = disk.sectors().saturating_sub(1);
    if enter(disk, FIRST, table)? {
        return Ok(());
    }
    let is_there = last > FIRST && enter(disk, last, table)?;
    table.note(if is_there { Damage::FirstTable } else { Damage::BothTables })
}

/// Enters the partitions of the table with the header in this sector. `false` if the table is not intact.
fn enter(disk: &mut dyn Disk, at: u64, table: &mut Table) -> Result<bool, Errno> {
    let sectors = disk.sectors();
    if at >= sectors {
        return Ok(false);
    }
    let Some(sector) = read(disk, at, table)? else { return Ok(false) };
    let header: GptHeader = bytemuck::pod_read_unaligned(&sector[..size_of::<GptHeader>()]);
    let (first, last) = (header.first_usable_lba.to_u64(), header.last_usable_lba.to_u64());
    let is_whole = header.is_signature_valid()
        && header.header_size.to_u32() as usize == size_of::<GptHeader>()
        && header.header_crc32 == header.calculate_header_crc32()
        && header.my_lba.to_u64() == at
        && first <= last
        && last < sectors;
    if !is_whole {
        return Ok(false);
    }
    let Ok(layout) = header.get_partition_entry_array_layout() else { return Ok(false) };
    let array = header.partition_entry_lba.to_u64();
    let bytes = layout.num_bytes_rounded_to_block(BlockSize::BS_512).filter(|bytes| *bytes <= ARRAY_MOST);
    let Some(bytes) = bytes else { return Ok(false) };
    let lies_apart = array > FIRST && array.checked_add(bytes / SECTOR as u64).is_some_and(|end| end <= sectors);
    if !lies_apart {
        return Ok(false);
    }
    let mut storage: Vec<u8> = match disk::read(disk, array * SECTOR as u64, bytes as usize) {
        Err(Errno::ENOMEM) => return Err(Errno::ENOMEM),
        Err(_) => return table.note(Damage::Unreadable(array)).map(|()| false),
        Ok(storage) => storage,
    };
    let Ok(entries) = GptPartitionEntryArray::new(layout, BlockSize::BS_512, &mut storage) else { return Ok(false) };
    if entries.calculate_crc32() != header.partition_entry_array_crc32 {
        return Ok(false);
    }
    for index in 0..layout.num_entries {
        let Some(entry) = entries.get_partition_entry(index).filter(|entry| entry.is_used()) else { continue };
        let (start, end) = ({ entry.starting_lba }.to_u64(), { entry.ending_lba }.to_u64());
        match start >= first && end <= last {
            true => table.enter(index + 1, start..end + 1, sectors)?,
            false => table.note(Damage::Outside(index + 1))?,
        }
    }
    Ok(true)
}
