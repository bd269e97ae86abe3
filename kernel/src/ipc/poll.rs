//! A call that waits for any of several open files once: ppoll and pselect6 (see `docs/readiness.md`).

use alloc::boxed::Box;

use quire_abi::Errno;
use quire_mm::fallible::{KArc, try_box_with};

use super::descriptor::OpenFile;
use crate::arch::timer;
use crate::task::point::resched_point;
use crate::task::wait::{Place, Poller, Sleep};

/// Files per chunk.
const CHUNK: usize = 32;

/// A file that a call waits for.
pub struct Watched {
    file: Option<KArc<OpenFile>>,
    place: Place,
    /// Events that end the wait.
    wanted: u16,
    /// Events found by the last look.
    pub found: u16,
    /// The caller's.
    pub tag: u64,
}

impl Watched {
    /// Enters the file's source, unless it is there.
    fn enter(&self) {
        if let Some(source) = self.file.as_ref().and_then(|file| file.object.source()) {
            source.sleepers.enter_place(&self.place);
        }
    }

    fn look(&mut self) -> bool {
        if let Some(file) = &self.file {
            self.found = file.object.ready() & self.wanted;
        }
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
    /// The last chunk first.
    chunks: Option<Box<Chunk>>,
    len: usize,
}

impl<'a> PollSet<'a> {
    /// Empty. The poller is the calling thread.
    pub fn new(poller: &'a Poller) -> Self {
        Self { poller, chunks: None, len: 0 }
    }

    /// Adds a file, or for `None` an entry with the events `found`.
    pub fn push(&mut self, file: Option<KArc<OpenFile>>, wanted: u16, found: u16, tag: u64) -> Result<(), Errno> {
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
        // SAFETY: `Watched` enters it into the source of its file only, and leaves when it is dropped; a chunk does not move, the
        // set outlives neither the poller nor, with its reference, the file, and stays with the thread that made it.
        let place = unsafe { Place::new(self.poller) };
        if let Some(chunk) = &mut self.chunks {
            chunk.files[at] = Some(Watched { file, place, wanted, found, tag });
        }
        self.len += 1;
        Ok(())
    }

    /// Calls `visit` for each entry, with a point after each chunk; the last chunk's come first. EINTR if the thread is killed.
    pub fn each(&mut self, mut visit: impl FnMut(&mut Watched) -> Result<(), Errno>) -> Result<(), Errno> {
        let mut next = self.chunks.as_deref_mut();
        while let Some(chunk) = next {
            chunk.files.iter_mut().flatten().try_for_each(&mut visit)?;
            next = chunk.next.as_deref_mut();
            resched_point(Sleep::Killable)?;
        }
        Ok(())
    }

    /// Sleeps until a file is ready, or until the deadline; returns how many are. EINTR.
    pub fn wait(&mut self, deadline: Option<u64>) -> Result<usize, Errno> {
        loop {
            self.poller.reset();
            let mut ready = 0;
            self.each(|watched| {
                watched.enter();
                ready += usize::from(watched.look());
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
