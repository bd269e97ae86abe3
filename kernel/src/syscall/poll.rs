//! ppoll and pselect6: waiting for any of several descriptors.
//!
//! The call's signal mask is in effect while it sleeps. The remaining time is stored, so that a restarted call waits no
//! longer than the first.

use quire_abi::Errno;
use quire_abi::layout::{PollFd, poll as bits};
use quire_mm::UserAddr;

use super::file::{limit, table};
use super::{Answer, Args, signal, time};
use crate::arch::{timer, uaccess};
use crate::ipc::poll::PollSet;
use crate::ipc::table::Descriptors;
use crate::task::point::{ENTRIES, resched_point};
use crate::task::wait::{Poller, Sleep};

/// Events that are always reported, requested or not.
const ALWAYS: u16 = bits::ERR | bits::HUP;

/// How many entries are examined under one hold of the table's lock.
const BATCH: usize = 16;

/// Passes a point regularly between entries of a list whose length a program determines.
pub(super) fn pass(index: usize) -> Result<(), Errno> {
    if index.is_multiple_of(ENTRIES) { Ok(resched_point(Sleep::Killable)?) } else { Ok(()) }
}

/// The deadline for the timespec at `time`, and whether the call must not wait at all.
fn deadline(time: Option<UserAddr>) -> Result<(Option<u64>, bool), Errno> {
    let Some(at) = time else { return Ok((None, false)) };
    let span = time::to_ns(uaccess::get(at)?)?;
    Ok((Some(timer::now_ns().saturating_add(span)), span == 0))
}

/// Waits with the signal mask. The remaining time is stored at `time`.
fn wait(set: &mut PollSet<'_>, deadline: Option<u64>, time: Option<UserAddr>, mask: Option<u64>) -> Answer {
    let ready = signal::sleep_with(mask, || set.wait(deadline));
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
    let (deadline, is_look) = deadline(a.opt_addr(2))?;
    let mask = signal::mask_at(a.opt_addr(3), a.word(4))?;
    let table = table()?;
    let ready = look(table, a.addr(0), count)?;
    if mask.is_none() && (ready > 0 || is_look) {
        return Ok(ready);
    }
    let poller = Poller::new();
    let mut set = PollSet::new(&poller, table);
    watch(a.addr(0), count, &mut set)?;
    let ready = wait(&mut set, deadline, a.opt_addr(2), mask);
    set.each(|watched| {
        let place = a.addr(0) + watched.tag as usize * size_of::<PollFd>() + core::mem::offset_of!(PollFd, revents);
        uaccess::put(place, &watched.found)
    })?;
    ready
}

/// Examines all entries at `at` and stores the events found; returns how many entries are ready.
fn look(table: &Descriptors, at: UserAddr, count: usize) -> Answer {
    let mut ready = 0;
    for first in (0..count).step_by(BATCH) {
        pass(first)?;
        let mut batch = [PollFd::default(); BATCH];
        let fds = &mut batch[..BATCH.min(count - first)];
        let place = at + first * size_of::<PollFd>();
        uaccess::get_all(place, fds)?;
        look_at(table, fds);
        ready += fds.iter().filter(|fd| fd.revents != 0).count();
        uaccess::put_all(place, fds)?;
    }
    Ok(ready)
}

fn look_at(table: &Descriptors, fds: &mut [PollFd]) {
    /// Not known yet. (No event.)
    const LATER: u16 = 1 << 15;
    let mut any_later = 0;
    let held = table.hold();
    for fd in &mut *fds {
        fd.revents = match held.get(fd.fd) {
            Some(descriptor) => match descriptor.file.object.ready_now() {
                Some(events) => descriptor.file.object.told(events & (fd.events | ALWAYS)),
                None => LATER,
            },
            None if fd.fd >= 0 => bits::NVAL,
            None => 0,
        };
        any_later |= fd.revents & LATER;
    }
    drop(held);
    if any_later != 0 {
        for fd in fds.iter_mut().filter(|fd| fd.revents == LATER) {
            fd.revents = match table.get(fd.fd) {
                Ok(descriptor) => descriptor.file.object.ready_by_now() & (fd.events | ALWAYS),
                Err(_) => bits::NVAL,
            };
        }
    }
}

/// Adds all entries at `at`.
fn watch(at: UserAddr, count: usize, set: &mut PollSet<'_>) -> Result<(), Errno> {
    for i in 0..count {
        pass(i)?;
        let fd: PollFd = uaccess::get(at + i * size_of::<PollFd>())?;
        if fd.fd >= 0 {
            set.push(fd.fd, fd.events | ALWAYS, i as u64)?;
        }
    }
    Ok(())
}

/// For each of pselect6's sets: the events requested, and the events that set a bit in it.
const SETS: [(u16, u16); 3] = [
    (bits::IN, bits::IN | bits::HUP | bits::ERR | bits::NVAL),
    (bits::OUT, bits::OUT | bits::ERR | bits::NVAL),
    (bits::PRI, bits::PRI | bits::NVAL),
];

/// The number of bits in a word of a set.
const WORD: usize = u64::BITS as usize;

pub fn pselect6(a: Args) -> Answer {
    let table = table()?;
    // Descriptors beyond the table are not examined, as on Linux, whose tables have at least one word.
    let most = table.capacity().max(WORD);
    let count = usize::try_from(a.int(0)).map_err(|_| Errno::EINVAL)?.min(most);
    let sets = [1, 2, 3].map(|i| a.opt_addr(i));
    let (deadline, _) = deadline(a.opt_addr(4))?;
    // The last argument points to a pair: the mask's address and its length.
    let [mask, size] = a.opt_addr(5).map(uaccess::get::<[u64; 2]>).transpose()?.unwrap_or_default();
    let mask = signal::mask_at((mask != 0).then(|| UserAddr::new(mask as usize)), size as usize)?;
    let poller = Poller::new();
    let mut set = PollSet::new(&poller, table);
    for first in (0..count).step_by(WORD) {
        pass(first)?;
        let words = read_words(&sets, first)?;
        for fd in (first..count.min(first + WORD)).filter(|fd| words.iter().any(|w| w >> (fd - first) & 1 != 0)) {
            let asked = SETS.iter().zip(words).enumerate().filter(|(_, (_, w))| w >> (fd - first) & 1 != 0);
            let (wanted, tag) = asked
                .fold((0, fd as u64), |(wanted, tag), (i, ((_, answers), _))| (wanted | answers, tag | 1 << (32 + i)));
            // A descriptor that is not open at the beginning is an error.
            table.get(fd as i32)?;
            set.push(fd as i32, wanted, tag)?;
        }
    }
    wait(&mut set, deadline, a.opt_addr(4), mask)?;
    store(&mut set, &sets, count)
}

/// Stores the sets of the events found, one complete set after the other, so that if a set was passed twice the last
/// one remains, as on Linux; returns how many bits are set.
fn store(watched: &mut PollSet<'_>, sets: &[Option<UserAddr>; 3], count: usize) -> Answer {
    let mut found = 0;
    for (i, ((_, answers), set)) in SETS.iter().zip(sets).enumerate() {
        let Some(set) = *set else { continue };
        for first in (0..count).step_by(WORD) {
            pass(first)?;
            uaccess::put(set + first / 8, &0u64)?;
        }
        watched.each(|watched| {
            let is_asked = watched.tag >> (32 + i) & 1 != 0;
            if is_asked && watched.found & answers != 0 {
                let fd = watched.tag as u32 as usize;
                let place = set + fd / WORD * size_of::<u64>();
                let word: u64 = uaccess::get(place)?;
                uaccess::put(place, &(word | 1 << (fd % WORD)))?;
                found += 1;
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// The words of the three sets that begin with descriptor `first`; 0 for a set that was not passed.
fn read_words(sets: &[Option<UserAddr>; 3], first: usize) -> Result<[u64; 3], Errno> {
    let mut words = [0; 3];
    for (word, set) in words.iter_mut().zip(sets) {
        if let Some(set) = set {
            *word = uaccess::get(set.checked_add(first / 8).ok_or(Errno::EFAULT)?)?;
        }
    }
    Ok(words)
}
