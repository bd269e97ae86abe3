//! A system on top of the host's own allocator. It can be told to fail, to hand out breaks that do not join, and to
//! report what is still mapped.
#![allow(clippy::undocumented_unsafe_blocks)] // The tests keep to the contracts that they test.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use quire_malloc::{Advice, PAGE, System, ThreadBlock};

/// Address space for the break.
const BREAK: usize = 1 << 26;

#[derive(Default)]
struct World {
    /// Where the break's area starts, 0 before the first use; and the break, relative to it.
    area: usize,
    at: usize,
    /// By start: length, and how much of it has not been unmapped.
    mappings: HashMap<usize, (usize, usize)>,
}

pub struct Fake {
    id: u64,
    world: Mutex<World>,
    /// Calls that ask for memory still to succeed; the one after fails, and so do all until it is set again.
    pub budget: AtomicUsize,
    /// Added to the break before each growth, as if another user had moved it.
    pub foreign: AtomicUsize,
    pub calls: AtomicUsize,
    /// Bytes whose contents were said not to be needed.
    pub dropped: AtomicUsize,
    /// The next growth of the break clears this, and lasts until another thread waits for a lock, or maps.
    pub stall: AtomicBool,
    /// How often a thread has waited for a lock, or mapped.
    met: AtomicUsize,
}

thread_local! {
    static BLOCKS: RefCell<HashMap<u64, Box<ThreadBlock>>> = RefCell::new(HashMap::new());
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, PAGE).unwrap()
}

impl Fake {
    pub fn new() -> Fake {
        Fake {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            world: Mutex::default(),
            budget: AtomicUsize::new(usize::MAX),
            foreign: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
            stall: AtomicBool::new(false),
            met: AtomicUsize::new(0),
        }
    }

    /// Bytes of mappings that are there.
    pub fn mapped(&self) -> usize {
        self.world.lock().unwrap().mappings.values().map(|m| m.1).sum()
    }

    /// How far the break is up.
    pub fn break_bytes(&self) -> usize {
        self.world.lock().unwrap().at
    }

    fn allowed(&self) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let world = self.world.get_mut().unwrap();
        for (&at, &(bytes, _)) in &world.mappings {
            unsafe { dealloc(at as *mut u8, layout(bytes)) };
        }
        if world.area != 0 {
            unsafe { dealloc(world.area as *mut u8, layout(BREAK)) };
        }
        BLOCKS.with(|b| b.borrow_mut().remove(&self.id));
    }
}

unsafe impl System for Fake {
    fn grow_break(&self, bytes: usize) -> Option<NonNull<u8>> {
        assert_eq!(bytes % PAGE, 0);
        if !self.allowed() {
            return None;
        }
        let met = self.met.load(Ordering::SeqCst);
        if self.stall.swap(false, Ordering::SeqCst) {
            while self.met.load(Ordering::SeqCst) == met {
                std::thread::yield_now();
            }
        }
        let mut world = self.world.lock().unwrap();
        if world.area == 0 {
            world.area = unsafe { alloc(layout(BREAK)) } as usize;
            world.at = 0x38;
        }
        let start = world.at + self.foreign.load(Ordering::Relaxed);
        if start + bytes > BREAK {
            return None;
        }
        world.at = start + bytes;
        unsafe { ((world.area + start) as *mut u8).write_bytes(0, bytes) };
        NonNull::new((world.area + start) as *mut u8)
    }

    fn shrink_break(&self, end: NonNull<u8>, bytes: usize) -> bool {
        let mut world = self.world.lock().unwrap();
        if world.area + world.at != end.as_ptr() as usize {
            return false;
        }
        world.at -= bytes;
        unsafe { ((world.area + world.at) as *mut u8).write_bytes(0xdb, bytes) };
        true
    }

    fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
        assert!(bytes.is_multiple_of(PAGE) && bytes > 0);
        if !self.allowed() || bytes > 1 << 32 {
            return None;
        }
        self.met.fetch_add(1, Ordering::SeqCst);
        let at = unsafe { alloc_zeroed(layout(bytes)) };
        self.world.lock().unwrap().mappings.insert(at as usize, (bytes, bytes));
        NonNull::new(at)
    }

    unsafe fn unmap(&self, at: NonNull<u8>, bytes: usize) -> bool {
        let mut world = self.world.lock().unwrap();
        let at = at.as_ptr() as usize;
        let (&start, (len, live)) =
            world.mappings.iter_mut().find(|(s, m)| **s <= at && at < **s + m.0).expect("not mapped");
        assert!(at + bytes <= start + *len && bytes <= *live, "unmaps more than is there");
        *live -= bytes;
        let (len, live) = (*len, *live);
        if live == 0 {
            world.mappings.remove(&start);
            unsafe { dealloc(start as *mut u8, layout(len)) };
        } else {
            // The rest is still there; what went is overwritten, so that a later use shows.
            unsafe { (at as *mut u8).write_bytes(0xdb, bytes) };
        }
        true
    }

    unsafe fn remap(&self, at: NonNull<u8>, old: usize, new: usize, may_move: bool) -> Option<NonNull<u8>> {
        if !may_move {
            return None;
        }
        let to = self.map(new)?;
        unsafe {
            to.as_ptr().copy_from_nonoverlapping(at.as_ptr(), old.min(new));
            self.unmap(at, old);
        }
        Some(to)
    }

    unsafe fn advise(&self, at: NonNull<u8>, bytes: usize, advice: Advice) -> bool {
        if advice == Advice::DontNeed {
            self.dropped.fetch_add(bytes, Ordering::Relaxed);
            unsafe { at.as_ptr().write_bytes(0, bytes) };
        }
        true
    }

    unsafe fn forbid(&self, _: NonNull<u8>, _: usize) -> bool {
        true
    }

    fn thread_block(&self) -> NonNull<ThreadBlock> {
        BLOCKS.with(|b| NonNull::from(&mut **b.borrow_mut().entry(self.id).or_default()))
    }

    fn wait(&self, word: &AtomicU32, expected: u32) {
        self.met.fetch_add(1, Ordering::SeqCst);
        if word.load(Ordering::Relaxed) == expected {
            std::thread::yield_now();
        }
    }

    fn wake(&self, _: &AtomicU32) {}

    fn random(&self) -> u64 {
        0x1234_5678_9abc_def0 ^ self.id << 32
    }

    fn abort(&self, message: &str) -> ! {
        panic!("{message}")
    }
}
