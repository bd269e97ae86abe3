//! A call that waits for any of several open files once: ppoll and pselect6 (see `docs/readiness.md`).
//!
//! The call keeps references to the files that it waits for. Each check, however, looks up the descriptors again, as on
//! Linux: a descriptor that another thread has closed is found to be invalid at the next check, whatever causes that
//! check.

use alloc::boxed::Box;

use quire_abi::Errno;
use quire_abi::layout::poll;
use quire_mm::fallible::{KArc, try_box_with};

use super::descriptor::OpenFile;
use super::table::Descriptors;
use crate::arch::timer;
use crate::task::point::resched_point;
use crate::task::wait::{Place, Poller, Sleep};

/// Files per chunk.
const CHUNK: usize = 32;

/// A file that a call waits for.
pub struct Watched {
    fd: i32,
    /// The file that the descriptor referred to at first. The thread sleeps for it.
    file: Option<KArc<OpenFile>>,
    place: Place,
    /// Events that end the wait.
    wanted: u16,
    /// Events found by the last check.
    pub found: u16,
    /// The caller's.
    pub tag: u64,
}

impl Watched {
    /// Enters the watched file into the file's source, unless it is there.
    fn enter(&self) {
        if let Some(source) = self.file.as_ref().and_then(|file| file.object.source()) {
            source.sleepers.enter_place(&self.place);
        }
    }

    fn look(&mut self, table: &Descriptors) -> bool {
        self.found = match table.get(self.fd) {
            Ok(descriptor) => descriptor.file.object.told(descriptor.file.object.ready_by_now() & self.wanted),
            Err(_) => poll::NVAL,
        };
        self.found != 0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(source) = self.file.as_ref().and_then(|file| file.object.source()) {
            source.sleepers.leave_place(&self.place);
        }
    }
}

/// Watched files, which do not move.
struct Chunk {
    files: [Option<Watched>; CHUNK],
    next: Option<Box<Chunk>>,
}

/// All files that a call waits for. There may be a million.
pub struct PollSet<'a> {
    poller: &'a Poller,
    table: &'a Descriptors,
    /// The last chunk first.
    chunks: Option<Box<Chunk>>,
    len: usize,
}

impl<'a> PollSet<'a> {
    /// An empty set. The poller is the calling thread, the descriptors are its own.
    pub fn new(poller: &'a Poller, table: &'a Descriptors) -> Self {
        Self { poller, table, chunks: None, len: 0 }
    }

    /// Adds a descriptor, which need not be open.
    pub fn push(&mut self, fd: i32, wanted: u16, tag: u64) -> Result<(), Errno> {
        let file = self.table.get(fd).ok().map(|descriptor| descriptor.file);
        file.as_ref().map_or(Ok(()), |file| file.object.prepare())?;
        let at = self.len % CHUNK;
        if at == 0 {
            let next = self.chunks.take();
            let made = try_box_with(|| Chunk { files: [const { None }; CHUNK], next: None });
            match made {
                Ok(mut chunk) => {
                    chunk.next = next;
                    self.chunks = Some(chunk);
                }
                Err(e) => {
                    self.chunks = next;
                    return Err(e.into());
                }
            }
        }
        // SAFETY: `Watched` only enters it into the source of its file, and leaves when it is dropped; a chunk does not
        // move; the set outlives neither the poller nor, with its reference, the file, and stays with the thread that
        // made it.
        let place = unsafe { Place::new(self.poller) };
        if let Some(chunk) = &mut self.chunks {
            chunk.files[at] = Some(Watched { fd, file, place, wanted, found: 0, tag });
        }
        self.len += 1;
        Ok(())
    }

    /// Calls `visit` for each entry, with a point after each chunk; the last chunk's entries come first. EINTR if the
    /// thread is killed.
    pub fn each(&mut self, mut visit: impl FnMut(&mut Watched) -> Result<(), Errno>) -> Result<(), Errno> {
        let mut next = self.chunks.as_deref_mut();
        while let Some(chunk) = next {
            chunk.files.iter_mut().flatten().try_for_each(&mut visit)?;
            next = chunk.next.as_deref_mut();
            resched_point(Sleep::Killable)?;
        }
        Ok(())
    }

    /// Sleeps until a file is ready, or until the deadline; returns how many files are ready. EINTR.
    pub fn wait(&mut self, deadline: Option<u64>) -> Result<usize, Errno> {
        loop {
            self.poller.reset();
            let mut ready = 0;
            let table = self.table;
            self.each(|watched| {
                watched.enter();
                ready += usize::from(watched.look(table));
                Ok(())
            })?;
            let is_over = deadline.is_some_and(|at| timer::now_ns() >= at);
            if ready > 0 || is_over {
                return Ok(ready);
            }
            match self.poller.sleep(deadline) {
                Ok(()) | Err(Errno::ETIMEDOUT) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Drop for PollSet<'_> {
    fn drop(&mut self) {
        while let Some(mut chunk) = self.chunks.take() {
            self.chunks = chunk.next.take();
            drop(chunk);
            let _ = resched_point(Sleep::Killable);
        }
    }
}
