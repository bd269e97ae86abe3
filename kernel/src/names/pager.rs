//! The pagers of stored files: their servers, which receive requests as messages (docs/page-cache.md).
//!
//! The window of a message consists of the frames themselves, up to 64 KiB, so bytes are copied once between the
//! server's memory and the page. Only [`MOST`] threads at a time ask a mount's server for pages; others wait, killably.

use core::sync::atomic::{AtomicUsize, Ordering};

use quire_abi::Errno;
use quire_abi::names::{node, op};
use quire_mm::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn};
use quire_mm::object::paged::Pager;

use super::mounts::MOST_MOUNTS;
use super::walk::{Request, ask_about, ask_at};
use super::{Place, flusher};
use crate::ipc::ask::Run;
use crate::task::wait::{Sleep, WaitQueue};

/// The maximum number of threads that ask for pages of one mount at a time.
const MOST: usize = 32;

struct Gate {
    inside: AtomicUsize,
    waiting: WaitQueue,
}

static GATES: [Gate; MOST_MOUNTS] =
    [const { Gate { inside: AtomicUsize::new(0), waiting: WaitQueue::new() } }; MOST_MOUNTS];

/// A thread that asks.
struct Inside(&'static Gate);

impl Inside {
    fn enter(mount: u16) -> Result<Self, Errno> {
        let gate = &GATES[usize::from(mount) % MOST_MOUNTS];
        let enter = || {
            let more = |inside: usize| (inside < MOST).then_some(inside + 1);
            gate.inside.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()
        };
        if enter().is_none() {
            gate.waiting.wait_until(Sleep::Killable, None, enter)?;
        }
        Ok(Self(gate))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::AcqRel);
        self.0.waiting.wake_one();
    }
}

/// The pager of one file.
pub struct ServerPager {
    place: Place,
}

impl ServerPager {
    /// The pager of the file at this place.
    pub fn new(place: Place) -> Self {
        Self { place }
    }
}

/// Requests for pages are made as the kernel: whether a file may be opened was decided when it was opened.
const KERNEL: Option<(u32, u32)> = Some((0, 0));

impl Pager for ServerPager {
    fn read(&self, first: usize, frames: &[Pfn]) -> Result<usize, Errno> {
        let _inside = Inside::enter(self.place.mount)?;
        let len = frames.len() * PAGE_SIZE;
        let argument = (first as u64) << PAGE_SHIFT;
        let request = Request { op: op::READ, argument, mode: len as u64, identity: KERNEL, ..Request::LOOKUP };
        let answer = ask_about(self.place, &request, &Run { frames, skip: 0 }, len, true)?;
        usize::try_from(answer.words[0]).ok().filter(|read| *read <= len).ok_or(Errno::EIO)
    }

    fn write(&self, at: u64, frames: &[Pfn], len: usize, _grows: bool) -> Result<usize, Errno> {
        let request = Request { op: op::WRITE, argument: at, identity: KERNEL, ..Request::LOOKUP };
        let run = Run { frames, skip: at as usize % PAGE_SIZE };
        let answer = ask_about(self.place, &request, &run, len, false)?;
        usize::try_from(answer.words[0]).ok().filter(|written| *written <= len).ok_or(Errno::EIO)
    }

    fn length(&self) -> Result<u64, Errno> {
        Ok(ask_at(self.place, &Request { identity: KERNEL, ..Request::LOOKUP }, &mut [])?.words[node::SIZE])
    }

    fn set_len(&self, len: u64) -> Result<(), Errno> {
        let request = Request { op: op::CUT, argument: len, identity: KERNEL, ..Request::LOOKUP };
        ask_at(self.place, &request, &mut []).map(drop)
    }

    fn sync(&self) -> Result<(), Errno> {
        ask_at(self.place, &Request { op: op::SYNC, identity: KERNEL, ..Request::LOOKUP }, &mut []).map(drop)
    }

    fn note_marked(&self) {
        flusher::wake(self.place.mount);
    }
}
