//! ppoll and pselect6: waiting for any of several descriptors.
//!
//! The call's signal mask is in effect while it sleeps. It is undone at once, unless a signal ended the sleep: then
//! after the handler. The remaining time is stored, so that a restarted call waits no longer than the first.

use alloc::vec::Vec;
use quire_abi::Errno;
use quire_abi::layout::{PollFd, poll as bits};
use quire_mm::UserAddr;
use quire_mm::fallible::{KArc, TryVec};

use super::file::{limit, table};
use super::{Answer, Args, signal, time};
use crate::arch::{timer, uaccess};
use crate::ipc::descriptor::OpenFile;
use crate::ipc::poll;
use crate::task::point::{ENTRIES, resched_point};
use crate::task::wait::Sleep;

/// Events that are always reported, requested or not.
const ALWAYS: u16 = bits::ERR | bits::HUP;

struct Watched {
    fd: PollFd,
    /// Events that end the wait.
    wanted: u16,
    file: Option<KArc<OpenFile>>,
}

/// All that a call watches. There may be thousands, so they go a few at a time.
struct Watching(Vec<Watched>);

impl Drop for Watching {
    fn drop(&mut self) {
        while let Some(last) = self.0.pop() {
            drop(last);
            if self.0.len().is_multiple_of(ENTRIES) {
                let _ = resched_point(Sleep::Killable);
            }
        }
    }
}

impl Watched {
    fn look(&mut self) -> bool {
        self.fd.revents = match &self.file {
            Some(file) => poll::ready(file) & self.wanted,
            None if self.fd.fd >= 0 => bits::NVAL,
            None => 0,
        };
        self.fd.revents != 0
    }
}

/// Passes a point now and then between entries of a list whose length a program sets.
pub(super) fn pass(index: usize) -> Result<(), Errno> {
    if index.is_multiple_of(ENTRIES) { Ok(resched_point(Sleep::Killable)?) } else { Ok(()) }
}

/// Waits with the mask at `mask`; the timeout is the timespec at `time`.
fn wait(watched: &mut [Watched], time: Option<UserAddr>, mask: Option<u64>) -> Answer {
    let deadline = match time {
        Some(at) => Some(timer::now_ns().saturating_add(time::to_ns(uaccess::get(at)?)?)),
        None => None,
    };
    if let Some(mask) = mask {
        signal::with_mask(mask);
    }
    let ready = poll::wait(deadline, || {
        let mut ready = 0;
        for (i, watched) in watched.iter_mut().enumerate() {
            pass(i)?;
            ready += usize::from(watched.look());
        }
        Ok(ready)
    });
    if mask.is_some() && ready != Err(Errno::EINTR) {
        signal::restore_mask();
    }
    if let (Some(at), Some(deadline)) = (time, deadline) {
        // As on Linux, a failure to store the time is ignored.
        let _ = uaccess::put(at, &time::from_ns(deadline.saturating_sub(timer::now_ns())));
    }
    ready
}

pub fn ppoll(a: Args) -> Answer {
    let count = a.word(1);
    if count as u64 > limit() {
        return Err(Errno::EINVAL);
    }
    let mut watched = Watching(TryVec::try_with_capacity(count).map_err(Errno::from)?);
    let table = table()?;
    for i in 0..count {
        pass(i)?;
        let fd: PollFd = uaccess::get(a.addr(0) + i * size_of::<PollFd>())?;
        let file = if fd.fd < 0 { None } else { table.get(fd.fd).ok().map(|d| d.file) };
        watched.0.try_push(Watched { fd, wanted: fd.events | ALWAYS, file }).map_err(Errno::from)?;
    }
    let mask = a.opt_addr(3).map(uaccess::get).transpose()?;
    if mask.is_some() && a.word(4) != signal::SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let ready = wait(&mut watched.0, a.opt_addr(2), mask)?;
    for (i, watched) in watched.0.iter().enumerate() {
        pass(i)?;
        uaccess::put(a.addr(0) + i * size_of::<PollFd>(), &watched.fd)?;
    }
    Ok(ready)
}

/// For each of pselect6's sets: the events requested, and the events that set a bit in it.
const SETS: [(u16, u16); 3] =
    [(bits::IN, bits::IN | bits::HUP | bits::ERR), (bits::OUT, bits::OUT | bits::ERR), (bits::PRI, bits::PRI)];

/// Bits of a word of a set.
const WORD: usize = u64::BITS as usize;

pub fn pselect6(a: Args) -> Answer {
    let count = usize::try_from(a.int(0)).map_err(|_| Errno::EINVAL)?.min(limit() as usize);
    let sets = [1, 2, 3].map(|i| a.opt_addr(i));
    let table = table()?;
    let mut watched = Watching(Vec::new());
    for first in (0..count).step_by(WORD) {
        pass(first)?;
        let words = read_words(&sets, first)?;
        for fd in (first..count.min(first + WORD)).filter(|fd| words.iter().any(|w| w >> (fd - first) & 1 != 0)) {
            let asked = SETS.iter().zip(words).filter(|(_, w)| w >> (fd - first) & 1 != 0);
            let (events, wanted) = asked.fold((0, 0), |(e, w), ((asks, answers), _)| (e | asks, w | answers));
            let file = Some(table.get(fd as i32)?.file);
            let fd = PollFd { fd: fd as i32, events, revents: 0 };
            watched.0.try_push(Watched { fd, wanted, file }).map_err(Errno::from)?;
        }
    }
    // The last argument points to a pair: the mask's address and its length.
    let [mask, size] = a.opt_addr(5).map(uaccess::get::<[u64; 2]>).transpose()?.unwrap_or_default();
    if mask != 0 && size as usize != signal::SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let mask = (mask != 0).then(|| uaccess::get(UserAddr::new(mask as usize))).transpose()?;
    wait(&mut watched.0, a.opt_addr(4), mask)?;
    let mut found = 0;
    let mut rest = &watched.0[..];
    for first in (0..count).step_by(WORD) {
        pass(first)?;
        // They are sorted by descriptor.
        let n = rest.iter().take_while(|w| (w.fd.fd as usize) < first + WORD).count();
        let (here, later) = rest.split_at(n);
        rest = later;
        for ((asks, answers), set) in SETS.iter().zip(sets) {
            let Some(set) = set else { continue };
            let ready = here.iter().filter(|w| w.fd.events & asks != 0 && w.fd.revents & answers != 0);
            let word = ready.fold(0u64, |word, w| word | 1 << (w.fd.fd as usize - first));
            found += word.count_ones() as usize;
            uaccess::put(set + first / 8, &word)?;
        }
    }
    Ok(found)
}

/// The words of the three sets that begin with descriptor `first`; 0 for a set that is not given.
fn read_words(sets: &[Option<UserAddr>; 3], first: usize) -> Result<[u64; 3], Errno> {
    let mut words = [0; 3];
    for (word, set) in words.iter_mut().zip(sets) {
        if let Some(set) = set {
            *word = uaccess::get(set.checked_add(first / 8).ok_or(Errno::EFAULT)?)?;
        }
    }
    Ok(words)
}
