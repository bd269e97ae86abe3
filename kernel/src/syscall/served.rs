//! Files that are read and written by messages, such as those of /proc: the server answers what is there now.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::names::op;

use super::Answer;
use super::buffers::Buffers;
use super::lookup::{request_of, text_of};
use crate::ipc::ask::ROOM;
use crate::ipc::descriptor::OpenFile;
use crate::names::found::Name;
use crate::names::walk::{Reached, Request, Served};

fn ask(name: &Name, request: &Request<'_>) -> Result<Served, Errno> {
    match request_of(name.place, request)? {
        Reached::Server(served) => Ok(served),
        Reached::Archive(_) | Reached::Held(_) => Err(Errno::EIO),
    }
}

/// Reads from the open file's position, which then advances, or from `position`.
pub(super) fn read(file: &OpenFile, name: &Name, to: &mut Buffers<'_>, position: Option<u64>) -> Answer {
    let start = position.unwrap_or_else(|| file.offset.load(Ordering::Relaxed));
    let mut done = 0;
    while to.left() > 0 {
        let room = to.left().min(ROOM);
        let argument = start + done as u64;
        let asked = Request { op: op::READ, argument, mode: room as u64, room, ..Request::LOOKUP };
        // What was read counts, whatever comes then.
        let served = match ask(name, &asked) {
            Err(_) if done > 0 => break,
            asked => asked?,
        };
        let text = text_of(&served)?;
        if text.is_empty() {
            break;
        }
        let n = match to.put(text) {
            Err(_) if done > 0 => break,
            put => put?,
        };
        done += n;
        if n < text.len() || text.len() < room {
            break;
        }
    }
    if position.is_none() {
        file.offset.store(start + done as u64, Ordering::Relaxed);
    }
    Ok(done)
}

/// Writes at the open file's position, which then advances, or at `position`: as much as one message takes.
pub(super) fn write(file: &OpenFile, name: &Name, from: &mut Buffers<'_>, position: Option<u64>) -> Answer {
    const MOST: usize = 1024;
    let argument = position.unwrap_or_else(|| file.offset.load(Ordering::Relaxed));
    let mut text = [0; MOST];
    let len = from.left().min(MOST);
    let len = from.take(&mut text[..len])?;
    let served = ask(name, &Request { op: op::WRITE, argument, text: &text[..len], ..Request::LOOKUP })?;
    let done = usize::try_from(served.answer.words[0]).ok().filter(|done| *done <= len).ok_or(Errno::EIO)?;
    if position.is_none() {
        file.offset.store(argument + done as u64, Ordering::Relaxed);
    }
    Ok(done)
}
