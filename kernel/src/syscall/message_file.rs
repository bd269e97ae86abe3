//! Files that are read and written by messages, such as those of /proc, and disks: the server returns their present
//! content.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use quire_abi::names::{TRANSFER_MAX, node, op, state, trigger as said};
use quire_abi::{Errno, block};
use quire_mm::UserAddr;
use quire_mm::fallible::try_zeroed;

use super::Answer;
use super::buffers::Buffers;
use super::content::Place;
use crate::arch::uaccess;
use crate::ipc::ask::{ROOM, Room};
use crate::ipc::descriptor::{OpenFile, Rights};
use crate::ipc::trigger::Trigger;
use crate::names::target::Name;
use crate::names::walk::{Request, ask_at};
use crate::names::{Place as Where, mounts};

/// Memory for the bytes of a message.
enum Piece {
    /// The thread's own, [`ROOM`] bytes.
    Small(Room),
    /// More.
    Large(Vec<u8>),
}

impl Piece {
    /// For a transfer of `bytes` bytes: as many of them as one message takes, or fewer if memory is lacking. ENOMEM.
    fn new(bytes: usize) -> Result<Self, Errno> {
        if bytes > ROOM
            && let Ok(large) = try_zeroed(bytes.min(TRANSFER_MAX))
        {
            return Ok(Self::Large(large));
        }
        Room::take().map(Self::Small)
    }

    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Small(room) => room,
            Self::Large(bytes) => bytes,
        }
    }
}

/// The number of bytes in an answer about `asked` bytes. EIO if it is impossible.
fn count(word: u64, asked: usize) -> Result<usize, Errno> {
    usize::try_from(word).ok().filter(|done| *done <= asked).ok_or(Errno::EIO)
}

/// Reads from the open file's position, which then advances, or from `position`.
pub(super) fn read(file: &OpenFile, name: &Name, to: &mut Buffers<'_>, position: Option<u64>) -> Answer {
    let start = position.unwrap_or_else(|| file.offset.load(Ordering::Relaxed));
    let mut piece = Piece::new(to.left())?;
    let mut done = 0;
    while to.left() > 0 {
        let bytes = piece.bytes();
        let room = to.left().min(bytes.len());
        let argument = start.checked_add(done as u64).ok_or(Errno::EOVERFLOW)?;
        let request = Request { op: op::READ, argument, mode: room as u64, ..Request::LOOKUP };
        // Bytes that were read count, whatever happens next.
        let words = match ask_at(name.place, &request, &mut bytes[..room]) {
            Err(_) if done > 0 => break,
            answer => answer?.words,
        };
        let got = count(words[state::LEN], room)?;
        if let Some(trigger) = name.trigger.as_ref().filter(|_| words[state::GROUP] != 0) {
            trigger.saw(words[state::GROUP], words[state::CHANGES]);
        }
        if got == 0 {
            break;
        }
        let n = match to.put(&bytes[..got]) {
            Err(_) if done > 0 => break,
            put => put?,
        };
        done += n;
        if n < got || got < room {
            break;
        }
    }
    if position.is_none() {
        file.offset.store(start + done as u64, Ordering::Relaxed);
    }
    Ok(done)
}

/// Writes to a file that supports triggers: an open file has one trigger, as on Linux, whatever else is written.
fn set_trigger(trigger: &Trigger, name: &Name, from: &mut Buffers<'_>) -> Answer {
    if trigger.is_set() {
        return Err(Errno::EBUSY);
    }
    let mut piece = Room::take()?;
    let len = from.left().min(piece.len());
    let taken = from.take(&mut piece[..len])?;
    let request = Request { op: op::WRITE, text: &piece[..taken], ..Request::LOOKUP };
    let words = ask_at(name.place, &request, &mut [])?.words;
    let done = count(words[said::LEN], taken)?;
    if words[said::WINDOW] != 0 {
        trigger.set(words[said::GROUP], words[said::IS_FULL] != 0, words[said::THRESHOLD], words[said::WINDOW])?;
    }
    Ok(done)
}

/// Writes at a place: the end is the open file's position.
pub(super) fn write(file: &OpenFile, name: &Name, from: &mut Buffers<'_>, place: Place) -> Answer {
    if let Some(trigger) = &name.trigger {
        return set_trigger(trigger, name, from);
    }
    let start = match place {
        Place::At(at) => at,
        _ => file.offset.load(Ordering::Relaxed),
    };
    let mut piece = Piece::new(from.left())?;
    let mut done = 0;
    while from.left() > 0 {
        let bytes = piece.bytes();
        let len = from.left().min(bytes.len());
        let taken = match from.take(&mut bytes[..len]) {
            Err(_) if done > 0 => break,
            taken => taken?,
        };
        let argument = start.checked_add(done as u64).ok_or(Errno::EOVERFLOW)?;
        let request = Request { op: op::WRITE, argument, text: &bytes[..taken], ..Request::LOOKUP };
        let n = match ask_at(name.place, &request, &mut []) {
            Err(_) if done > 0 => break,
            answer => count(answer?.words[0], taken)?,
        };
        done += n;
        if n < taken || taken < len {
            break;
        }
    }
    if matches!(place, Place::Position | Place::End { moves: true }) {
        file.offset.store(start.saturating_add(done as u64), Ordering::Relaxed);
    }
    if done > 0 && file.writes_through() && mounts::stores(name.place.mount) {
        sync(name.place)?;
    }
    Ok(done)
}

/// Makes permanent what was written to the disk, the file, or the file system of a place.
pub(super) fn sync(place: Where) -> Result<(), Errno> {
    ask_at(place, &Request { op: op::SYNC, ..Request::LOOKUP }, &mut []).map(drop)
}

/// A request of ioctl for a disk. ENOTTY; EBADF if it changes the disk and the descriptor does not allow that.
pub(super) fn control(name: &Name, rights: Rights, which: usize, at: UserAddr) -> Answer {
    const MOST: usize = 16;
    let carries = block::carries(which).ok_or(Errno::ENOTTY)?;
    if carries.writes && !rights.contains(Rights::WRITE) {
        return Err(Errno::EBADF);
    }
    let (mut given, mut room) = ([0; MOST], [0; MOST]);
    let (given, room) = (&mut given[..carries.from], &mut room[..carries.to]);
    uaccess::get_all(at, given)?;
    let request = Request { op: op::CONTROL, argument: which as u64, text: given, ..Request::LOOKUP };
    let answer = ask_at(name.place, &request, room)?;
    if answer.words[0] != carries.to as u64 {
        return Err(Errno::EIO);
    }
    if uaccess::copy_to_user(at, room)? == carries.to { Ok(0) } else { Err(Errno::EFAULT) }
}

/// How many bytes it has.
pub(super) fn len(name: &Name) -> Result<u64, Errno> {
    Ok(ask_at(name.place, &Request::LOOKUP, &mut [])?.words[node::SIZE])
}
