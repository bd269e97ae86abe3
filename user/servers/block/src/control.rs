//! Requests of ioctl for a disk, with Linux's numbers ([`quire_abi::block`]).

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::block as request;
use quire_fs::request::Answer;

use crate::disk::{Disk, SECTOR};
use crate::volume::Disks;

/// The block size that programs use; it has no further meaning here.
const BLOCK: u32 = 4096;

/// Answers the request with the number `which`, whose argument is `text`, for the volume `number`; `user` is the
/// requesting user. ENOTTY.
pub fn control(disks: &mut Disks<'_>, number: u64, which: u64, text: &[u8], user: u32) -> Result<Answer, Errno> {
    let needs_root = matches!(which as usize, request::FLSBUF | request::RRPART);
    if needs_root && user != 0 {
        return Err(Errno::EACCES);
    }
    match which as usize {
        request::RRPART => disks.scan_again(number).map(|()| Answer::default()),
        request::FLSBUF => disks.with(number, |disk| disk.flush()).map(|()| Answer::default()),
        request::DISCARD => disks.with(number, |disk| discard(disk, text)).map(|()| Answer::default()),
        which => disks.with(number, |disk| property(disk, which)).map(Answer::text),
    }
}

/// A property of the disk, in the format for the program.
fn property(disk: &mut dyn Disk, which: usize) -> Result<Vec<u8>, Errno> {
    let word = |word: u32| copy(&word.to_ne_bytes());
    let long = |long: u64| copy(&long.to_ne_bytes());
    match which {
        request::ROGET => word(disk.is_read_only().into()),
        request::GETSIZE => long(disk.sectors()),
        request::GETSIZE64 => long(disk.sectors() * SECTOR as u64),
        request::SSZGET => word(SECTOR as u32),
        request::BSZGET => word(BLOCK),
        request::PBSZGET | request::IOMIN => word(disk.physical()),
        request::IOOPT | request::ALIGNOFF | request::DISCARDZEROES => word(0),
        request::ROTATIONAL => copy(&0u16.to_ne_bytes()),
        _ => Err(Errno::ENOTTY),
    }
}

fn copy(bytes: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| Errno::ENOMEM)?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Discards the bytes that the argument names by their start and number. EINVAL if they are not whole sectors of the
/// disk.
fn discard(disk: &mut dyn Disk, text: &[u8]) -> Result<(), Errno> {
    let word = |at: usize| text.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_ne_bytes);
    let (start, len) = word(0).zip(word(8)).ok_or(Errno::EINVAL)?;
    let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
    let sector = SECTOR as u64;
    if !start.is_multiple_of(sector) || !len.is_multiple_of(sector) || end > disk.sectors() * sector {
        return Err(Errno::EINVAL);
    }
    if disk.is_read_only() {
        return Err(Errno::EROFS);
    }
    if len == 0 { Ok(()) } else { disk.discard(start / sector, len / sector) }
}
