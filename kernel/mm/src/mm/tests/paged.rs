//! Paged objects, with a pager whose disk is a vector of bytes, and which fails on demand.

mod beside;
mod growth;
mod mappings;
mod out;
mod random;
mod reads;
mod writes;

use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec;
use std::vec::Vec;

use super::*;
use crate::addr::Pfn;
use crate::mm::Stays;
use crate::mm::page_out::{Out, page_out};
use crate::object::paged::Pager;
use crate::object::{Object, ObjectError};
use crate::pte::Pte;
use crate::seeded::{self, Bug};
use crate::sim::turns;
use crate::supply::Supply;

pub(super) use mappings::run_script;

type File = KArc<Object<&'static Sim>>;
type Hook = Box<dyn FnOnce() + Send>;

const AT: usize = 0x4000_0000;
const THERE: usize = 0x5000_0000;
const OUT: Out = Out { shadow: 3, even_raw: true, if_unused: false, if_given_up: false };

/// A call that the pager got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Read(usize, usize),
    Write(u64, usize, bool),
    Len,
    SetLen(u64),
    Sync,
}

/// What the pager has, and what it does wrong.
struct Faults {
    bytes: Vec<u8>,
    /// A page that cannot be read.
    unreadable: Option<(usize, Errno)>,
    /// Of the next read: what it says that there is.
    answer: Option<usize>,
    /// Of all writes.
    refuses: Option<Errno>,
    /// Calls that change the length end so after they have changed it.
    ends: Option<Errno>,
    /// The most bytes that a write takes.
    most: usize,
    /// The file does not become longer than that.
    room: usize,
    /// What happens in the middle of the next read or write.
    during_read: Option<Hook>,
    during_write: Option<Hook>,
    asked: Vec<Asked>,
    /// How often it was told that a page is marked.
    noted: usize,
}

struct Disk {
    sim: &'static Sim,
    faults: Mutex<Faults>,
}

impl Disk {
    fn new(sim: &'static Sim, bytes: Vec<u8>) -> Arc<Self> {
        let faults = Faults {
            bytes,
            unreadable: None,
            answer: None,
            refuses: None,
            ends: None,
            most: usize::MAX,
            room: usize::MAX,
            during_read: None,
            during_write: None,
            asked: Vec::new(),
            noted: 0,
        };
        Arc::new(Self { sim, faults: Mutex::new(faults) })
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it was asked since the last time.
    fn asked(&self) -> Vec<Asked> {
        core::mem::take(&mut self.lock().asked)
    }

    fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// A byte of the disk.
    fn at(&self, at: usize) -> u8 {
        self.lock().bytes[at]
    }
}

/// The bytes of a frame, which others may store to meanwhile.
fn bytes_of(sim: &'static Sim, pfn: Pfn) -> Vec<u8> {
    let words = sim.direct_map(pfn.addr()).cast::<AtomicU64>();
    // SAFETY: a frame has 512 words, and all accesses here that may be at the same time are to atomics.
    let word = |n| unsafe { &*words.add(n) }.load(core::sync::atomic::Ordering::Relaxed);
    let mut bytes = vec![0; PAGE];
    bytes.chunks_exact_mut(8).enumerate().for_each(|(n, to)| to.copy_from_slice(&word(n).to_ne_bytes()));
    bytes
}

struct TestPager(Arc<Disk>);

impl Pager for TestPager {
    fn read(&self, first: usize, frames: &[Pfn]) -> Result<usize, Errno> {
        assert!(!frames.is_empty() && frames.len() <= crate::object::paged::RUN);
        let disk = &self.0;
        let hook = {
            let mut faults = disk.lock();
            faults.asked.push(Asked::Read(first, frames.len()));
            faults.during_read.take()
        };
        // What is read is from before.
        let bytes = {
            let faults = disk.lock();
            let at = (first * PAGE).min(faults.bytes.len());
            faults.bytes[at..(at + frames.len() * PAGE).min(faults.bytes.len())].to_vec()
        };
        if let Some(hook) = hook {
            hook();
        }
        for (n, pfn) in frames.iter().enumerate() {
            turns::point();
            let at = (n * PAGE).min(bytes.len());
            let piece = &bytes[at..(at + PAGE).min(bytes.len())];
            let to = disk.sim.direct_map(pfn.addr());
            // SAFETY: the frame is the pager's to fill.
            unsafe {
                to.write_bytes(0xee, PAGE);
                to.copy_from_nonoverlapping(piece.as_ptr(), piece.len());
            }
            disk.sim.note_content(pfn.addr());
        }
        let mut faults = disk.lock();
        match faults.unreadable {
            Some((page, error)) if (first..first + frames.len()).contains(&page) => return Err(error),
            _ => {}
        }
        Ok(faults.answer.take().unwrap_or(bytes.len()))
    }

    fn write(&self, at: u64, frames: &[Pfn], len: usize, grows: bool) -> Result<usize, Errno> {
        const MOST: usize = crate::object::paged::RUN * PAGE;
        let disk = &self.0;
        let offset = at as usize % PAGE;
        assert!(len != 0 && len <= MOST && (offset + len).div_ceil(PAGE) == frames.len(), "{len} bytes at {at:#x}");
        let hook = {
            let mut faults = disk.lock();
            faults.asked.push(Asked::Write(at, len, grows));
            faults.during_write.take()
        };
        if let Some(hook) = hook {
            hook();
        }
        let mut bytes = Vec::new();
        for pfn in frames {
            turns::point();
            bytes.extend(bytes_of(disk.sim, *pfn));
        }
        let mut faults = disk.lock();
        if let Some(error) = faults.refuses {
            return Err(error);
        }
        let (start, room) = (at as usize, faults.room);
        let most = if grows { room.saturating_sub(start) } else { faults.bytes.len().saturating_sub(start) };
        let taken = len.min(most).min(faults.most);
        if grows && taken != 0 {
            let end = faults.bytes.len().max(start + taken);
            faults.bytes.resize(end, 0);
        }
        if taken != 0 {
            faults.bytes[start..start + taken].copy_from_slice(&bytes[offset..offset + taken]);
        }
        match faults.ends.filter(|_| grows) {
            Some(error) => Err(error),
            // (What lies behind the end is left out, and is no error.)
            None if grows => Ok(taken),
            None => Ok(len.min(faults.most)),
        }
    }

    fn length(&self) -> Result<u64, Errno> {
        let mut faults = self.0.lock();
        faults.asked.push(Asked::Len);
        Ok(faults.bytes.len() as u64)
    }

    fn set_len(&self, len: u64) -> Result<(), Errno> {
        let mut faults = self.0.lock();
        faults.asked.push(Asked::SetLen(len));
        match faults.refuses {
            Some(error) => Err(error),
            None if len as usize > faults.room => Err(Errno::ENOSPC),
            None => {
                faults.bytes.resize(len as usize, 0);
                faults.ends.map_or(Ok(()), Err)
            }
        }
    }

    fn sync(&self) -> Result<(), Errno> {
        self.0.lock().asked.push(Asked::Sync);
        Ok(())
    }

    fn note_marked(&self) {
        self.0.lock().noted += 1;
    }
}

/// A machine, a file, and who has its bytes.
struct Scene {
    rig: Rig,
    disk: Arc<Disk>,
    file: File,
}

/// What a page begins with.
fn word_of(page: usize) -> u64 {
    0x0101_0101_0101_0101 * (page as u64 % 200 + 1)
}

/// The bytes of `count` pages, each full of a byte of its own, and `more` bytes after them.
fn pages(count: usize, more: usize) -> Vec<u8> {
    (0..count * PAGE + more).map(|at| (at / PAGE % 200 + 1) as u8).collect()
}

impl Scene {
    fn new(bytes: Vec<u8>) -> Self {
        Self::on(Rig::new(16), bytes)
    }

    fn on(rig: Rig, bytes: Vec<u8>) -> Self {
        let disk = Disk::new(rig.sim, bytes);
        let file = Object::paged(rig.sim, Box::new(TestPager(disk.clone()))).unwrap();
        Object::turn(&file).unwrap().agree().unwrap();
        disk.asked();
        Self { rig, disk, file }
    }

    fn space(&self) -> Space {
        self.rig.space()
    }

    /// Maps the first pages of the file.
    fn map(&self, mm: &Space, at: usize, pages: usize, flags: Map) {
        self.map_with(mm, at, pages, flags, RW);
    }

    fn map_with(&self, mm: &Space, at: usize, pages: usize, flags: Map, prot: Prot) {
        let request = MapRequest {
            addr: at,
            len: pages * PAGE,
            prot,
            flags: flags | Map::FIXED,
            object: Some((self.file.clone(), 0)),
            max_prot: Prot::all(),
        };
        mm.map(&request).unwrap();
    }

    fn read(&self, at: usize, len: usize) -> Result<Vec<u8>, ObjectError> {
        read(&self.file, at as u64, len)
    }

    /// The first word of a page, as a call reads it.
    fn word(&self, page: usize) -> Result<u64, ObjectError> {
        let bytes = self.read(page * PAGE, 8)?;
        Ok(u64::from_ne_bytes(bytes.try_into().unwrap()))
    }

    /// As one call.
    fn write(&self, at: usize, bytes: &[u8]) -> Result<usize, Errno> {
        write(self.rig.sim, &self.file, at as u64, bytes, usize::MAX)
    }

    fn set_len(&self, len: usize) -> Result<(), Errno> {
        Object::turn(&self.file).unwrap().set_len(len as u64)
    }

    fn write_back(&self) -> Result<(), Errno> {
        Object::turn(&self.file).unwrap().write_back()
    }

    fn pfn(&self, page: usize) -> Pfn {
        self.file.look_at(page).unwrap().unwrap()
    }

    fn take_away(&self, page: usize) -> Result<(), Stays> {
        page_out(self.rig.sim, self.pfn(page), OUT)
    }

    /// All clean pages go; the number of those that stay.
    fn drop_cache(&self) -> usize {
        let there: Vec<Pfn> = (0..self.file.pages()).filter_map(|page| self.file.look_at(page)?.ok()).collect();
        there.into_iter().filter(|pfn| page_out(self.rig.sim, *pfn, OUT).is_err()).count()
    }

    /// Which of the first pages are here.
    fn resident(&self, count: usize) -> Vec<bool> {
        (0..count).map(|page| self.file.is_resident(page)).collect()
    }

    fn marked(&self) -> Vec<usize> {
        let all = if self.file.marked_pages() == 0 { 0 } else { self.file.pages() };
        let marked: Vec<usize> = (0..all).filter(|page| self.file.is_marked(*page)).collect();
        assert_eq!((marked.len(), marked.len()), (self.file.marked_pages(), self.rig.sim.spaces().marked()));
        marked
    }

    /// The counts agree with what there is.
    fn check(&self) {
        let there = (0..self.file.pages() + 40).filter(|page| self.file.is_resident(*page)).count();
        assert_eq!((there, there), (self.file.cached_pages(), self.rig.sim.spaces().cached()));
        self.marked();
    }

    /// Nothing is left of it.
    fn end(self) {
        self.check();
        let Self { rig, disk, file } = self;
        (0..4).for_each(|cpu| rig.idle(cpu));
        {
            let mut faults = disk.lock();
            (faults.during_read, faults.during_write) = (None, None);
        }
        drop(file);
        assert_eq!((rig.sim.spaces().cached(), rig.sim.spaces().marked()), (0, 0));
        assert_eq!(Arc::strong_count(&disk), 1, "the pager is gone");
        rig.assert_balanced();
        assert_eq!(rig.sim.pages().bad_pages(), 0);
    }
}

fn read(file: &File, at: u64, len: usize) -> Result<Vec<u8>, ObjectError> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        let left = &mut bytes[done..];
        let most = left.len();
        let copy = |from: *const u8, n: usize| {
            // SAFETY: the page's bytes, which no other thread stores to.
            unsafe { from.copy_to_nonoverlapping(left.as_mut_ptr(), n) };
            n
        };
        match file.read(at + done as u64, most, copy) {
            Some(0) => _ = file.bring_in_at(at + done as u64)?,
            Some(n) => done += n,
            None => break,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// A call that writes, whose buffer ends after `most` bytes of a page.
fn write(sim: &'static Sim, file: &File, at: u64, bytes: &[u8], most: usize) -> Result<usize, Errno> {
    let mut turn = Object::turn(file).unwrap();
    turn.agree()?;
    let supply = Supply::new(sim);
    let mut done = 0;
    let mut failed = None;
    while done < bytes.len() && failed.is_none() {
        let left = &bytes[done..];
        let copied = turn.write(at + done as u64, left.len(), &supply, |to, n| {
            let n = n.min(most);
            // SAFETY: the page's bytes, which no other thread touches.
            unsafe { to.copy_from_nonoverlapping(left.as_ptr(), n) };
            n
        });
        match copied {
            Ok(0) => break,
            Ok(n) => {
                done += n;
                if n == most {
                    break;
                }
            }
            Err(ObjectError::OutOfMemory) if supply.is_short() && supply.refill().is_ok() => {}
            Err(error) => failed = Some(Errno::from(error)),
        }
    }
    let committed = turn.commit();
    let taken = done.min(turn.object().len().saturating_sub(at) as usize);
    match (taken, failed, committed) {
        (0, Some(error), _) | (0, None, Err(error)) => Err(error),
        _ => Ok(taken),
    }
}

fn entry(mm: &Space, va: usize) -> Pte {
    mm.entry(UserAddr::new(va))
}

/// The test does not pass with any of these bugs.
fn notices(bugs: &[Bug], test: impl Fn()) {
    test();
    for bug in bugs {
        seeded::switch(Some(*bug));
        let noticed = catch_unwind(AssertUnwindSafe(&test)).is_err();
        seeded::switch(None);
        assert!(noticed, "nobody noticed {bug:?}");
    }
}
