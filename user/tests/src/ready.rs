//! Waiting for one of several objects, and counters to wait for.

use alloc::vec::Vec;

use quire_rt::abi::layout::{EpollEvent, PollFd};
use quire_rt::abi::nr;
use quire_rt::{Errno, io, time};

use crate::raw;

/// A counter (eventfd).
pub fn counter(value: u32, flags: u32) -> Result<i32, Errno> {
    raw(nr::EVENTFD2, [value as usize, flags as usize]).map(|fd| fd as i32)
}

/// Adds to a counter.
pub fn add(fd: i32, more: u64) -> Result<usize, Errno> {
    io::write(fd, &more.to_ne_bytes())
}

/// Takes all of it.
pub fn take(fd: i32) -> Result<u64, Errno> {
    let mut value = [0; 8];
    io::read(fd, &mut value).map(|_| u64::from_ne_bytes(value))
}

/// Waits for any of these, at most so long.
pub fn ppoll(fds: &mut [PollFd], ns: Option<u64>) -> Result<usize, Errno> {
    let time = time::timespec(ns.unwrap_or(0));
    let at = if ns.is_some() { &raw const time as usize } else { 0 };
    raw(nr::PPOLL, [fds.as_mut_ptr() as usize, fds.len(), at, 0, 0])
}

/// What is found without waiting.
pub fn look<const N: usize>(fds: &mut [PollFd; N]) -> [u16; N] {
    let _ = ppoll(fds, Some(0));
    fds.each_ref().map(|fd| fd.revents)
}

/// An empty set (epoll); −1 on failure.
pub fn set() -> i32 {
    raw(nr::EPOLL_CREATE1, [0]).map_or(-1, |fd| fd as i32)
}

/// Changes a set.
pub fn control(set: i32, what: i32, fd: i32, events: u32, data: u64) -> Result<usize, Errno> {
    let event = EpollEvent { events, pad: 0, data };
    raw(nr::EPOLL_CTL, [set as usize, what as usize, fd as usize, &raw const event as usize])
}

/// Waits for items of a set, whose events go to an address.
pub fn wait_to(set: i32, at: usize, most: usize, ms: i32) -> Result<usize, Errno> {
    raw(nr::EPOLL_PWAIT, [set as usize, at, most, ms as usize, 0, 8])
}

/// (events, data) of up to `most` items, in order of data.
pub fn wait(set: i32, most: usize, ms: i32) -> Result<Vec<(u32, u64)>, Errno> {
    let mut events = [EpollEvent::default(); 40];
    let found = wait_to(set, events.as_mut_ptr() as usize, most, ms)?;
    let mut found: Vec<_> = events[..found].iter().map(|event| (event.events, event.data)).collect();
    found.sort_by_key(|(_, data)| *data);
    Ok(found)
}
