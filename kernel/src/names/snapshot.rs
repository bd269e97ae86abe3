//! Copies of what stored files have, in memory: a program is executed from one, and a private mapping is of one. What is written to the
//! file later does not show in it, as POSIX leaves open for private mappings; what two programs execute or map are two copies.
//!
//! No lock is held, and only a kill ends the wait for the server.

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::access::EXECUTE;
use quire_abi::flags::seal;
use quire_abi::names::{TRANSFER_MAX, node, op};
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::{KArc, try_zeroed};
use quire_mm::object::ObjectError;
use quire_mm::object::file::Turn;
use quire_mm::supply::Supply;

use super::Place;
use super::found::Name;
use super::mounts;
use super::walk::{Request, ask_at};
use crate::arch::mem;
use crate::ipc::memory_file::MemoryFile;
use crate::task::point::resched_point;
use crate::task::wait::Sleep;
use crate::vm::{Cpu, Object, SPACES};

/// Permissions of a program's copy: nobody writes to it.
const PROGRAM: u32 = 0o555;

/// A stored file as a program that the caller may execute: EACCES. ENOMEM for one that is larger than memory.
pub fn program(name: &Name) -> Result<KArc<MemoryFile>, Errno> {
    ask_at(name.place, &Request { op: op::ACCESS, argument: EXECUTE.into(), ..Request::LOOKUP }, &mut [])?;
    let words = ask_at(name.place, &Request::LOOKUP, &mut [])?.words;
    let content = Object::file(Cpu, 0)?;
    let owner = (words[node::OWNER] as u32, (words[node::OWNER] >> 32) as u32);
    let file = MemoryFile::named(content, PROGRAM, owner, name.place.number() + 1)?;
    file.note_mount(mounts::device(name.place.mount));
    file.set_links(1);
    fill(&file.content, name.place, 0, words[node::SIZE])?;
    Ok(file)
}

/// Part of a stored file, from a multiple of a page on; as much of it as the file has.
pub fn part(name: &Name, at: u64, len: usize) -> Result<KArc<Object>, Errno> {
    let size = ask_at(name.place, &Request::LOOKUP, &mut [])?.words[node::SIZE];
    let content = Object::file(Cpu, 0)?;
    let len = len.next_multiple_of(PAGE_SIZE) as u64;
    fill(&content, name.place, at, size.saturating_sub(at).min(len))?;
    Ok(content)
}

/// Fills a new object with bytes of a file, and has nobody write to it from then on. A file that ends earlier than it said is as long as it is.
fn fill(content: &KArc<Object>, place: Place, at: u64, len: u64) -> Result<(), Errno> {
    let pages = usize::try_from(len).map_err(|_| Errno::ENOMEM)?.div_ceil(PAGE_SIZE);
    if pages > SPACES.commit().total() {
        return Err(Errno::ENOMEM);
    }
    let mut turn = Object::turn(content)?;
    let mut piece: Vec<u8> = try_zeroed((len as usize).min(TRANSFER_MAX))?;
    let supply = Supply::new(Cpu);
    let mut done = 0;
    while done < len {
        let room = piece.len().min((len - done) as usize);
        let asked = Request { op: op::READ, argument: at + done, mode: room as u64, ..Request::LOOKUP };
        let got = ask_at(place, &asked, &mut piece[..room])?.words[0] as usize;
        let bytes = piece[..room].get(..got).ok_or(Errno::EIO)?;
        if bytes.is_empty() {
            break;
        }
        put(&mut turn, done, bytes, &supply)?;
        done += got as u64;
    }
    turn.seal(seal::WRITE | seal::GROW | seal::SHRINK);
    Ok(())
}

fn put(turn: &mut Turn<'_, Cpu>, at: u64, bytes: &[u8], supply: &Supply<Cpu>) -> Result<(), Errno> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        let written = turn.write(at + done as u64, rest.len(), supply, |to, n| {
            let n = n.min(rest.len());
            // SAFETY: the page's bytes may be written, and there are as many of ours.
            unsafe { mem::copy_shared(to, rest.as_ptr(), n) };
            n
        });
        match written {
            Ok(n) => done += n,
            Err(ObjectError::OutOfMemory) if supply.is_short() => supply.refill()?,
            Err(ObjectError::NoRoom) => return Err(Errno::ENOSPC),
            Err(_) => return Err(Errno::ENOMEM),
        }
        resched_point(Sleep::Killable)?;
    }
    Ok(())
}
