//! Flushers: threads of the kernel's own that write back dirty pages of stored files (docs/page-cache.md).
//!
//! A flusher works for one mount at a time, and waits only for that mount's server; nobody waits for a flusher.
//! Normally there is one. Whoever opens a file when no flusher has returned for [`LONG_NS`] starts another one: so a
//! server that does not answer blocks a thread, but no other mount.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use quire_abi::Errno;

use super::inodes;
use super::mounts::MOST_MOUNTS;
use crate::arch::{cpu, timer};
use crate::task::point::resched_point;
use crate::task::thread;
use crate::task::wait::{Sleep, WaitQueue};

/// The delay after which the page that was marked first is written back.
const DELAY_NS: u64 = 500_000_000;

/// A flusher that has worked for longer than this may not return.
const LONG_NS: u64 = 2_000_000_000;

/// The files of a mount.
struct Work {
    /// Whether a page was marked since the last write-back began.
    is_asked: AtomicBool,
    /// When the write-back is due.
    due: AtomicU64,
    /// When the thread that is at work began; 0 for none.
    since: AtomicU64,
}

static WORK: [Work; MOST_MOUNTS] =
    [const { Work { is_asked: AtomicBool::new(false), due: AtomicU64::new(0), since: AtomicU64::new(0) } };
        MOST_MOUNTS];

static WAITING: WaitQueue = WaitQueue::new();

/// Threads that there are.
static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Work {
    fn is_open(&self) -> bool {
        self.is_asked.load(Ordering::Acquire) && self.since.load(Ordering::Acquire) == 0
    }
}

/// Notes that a page of the mount's files has to be written back. Called under any locks except those of wait queues.
pub fn wake(mount: u16) {
    let work = &WORK[usize::from(mount) % MOST_MOUNTS];
    if !work.is_asked.load(Ordering::Acquire) {
        work.due.store(timer::now_ns() + DELAY_NS, Ordering::Relaxed);
        work.is_asked.store(true, Ordering::Release);
        WAITING.wake_one();
    }
}

/// Makes all pending write-back due now.
pub fn hurry() {
    WORK.iter().for_each(|work| work.due.store(0, Ordering::Relaxed));
    WAITING.wake_all();
}

/// Starts the first thread.
pub fn start() -> Result<(), Errno> {
    thread::start_kernel(serve)?;
    COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Starts another thread if none has returned for a long time. (If memory is lacking, other mounts wait.) No lock is
/// held.
pub fn relieve() {
    let count = COUNT.load(Ordering::Relaxed);
    let is_needed = count < MOST_MOUNTS && stuck() >= count;
    if is_needed && COUNT.compare_exchange(count, count + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        let started = thread::start_kernel(serve);
        if started.is_err() {
            COUNT.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The mount whose write-back is due first, and when.
fn first() -> Option<(usize, u64)> {
    let open = WORK.iter().enumerate().filter(|(_, work)| work.is_open());
    open.map(|(mount, work)| (mount, work.due.load(Ordering::Relaxed))).min_by_key(|(_, due)| *due)
}

/// The number of threads that have been at work for a long time.
fn stuck() -> usize {
    let long_ago = timer::now_ns().saturating_sub(LONG_NS);
    let is_stuck = |work: &&Work| (1..long_ago).contains(&work.since.load(Ordering::Relaxed));
    WORK.iter().filter(is_stuck).count()
}

extern "C" fn serve(_: usize) -> ! {
    cpu::irq_enable();
    loop {
        // A thread without a process is neither killed nor sent signals.
        let Ok((mount, due)) = WAITING.wait_until(Sleep::Killable, None, first) else { continue };
        if due > timer::now_ns() {
            // (A mount that is added in the meantime is due later.)
            let is_due = || (WORK[mount].due.load(Ordering::Relaxed) < due).then_some(());
            let _ = WAITING.wait_until(Sleep::Killable, Some(due), is_due);
            continue;
        }
        let work = &WORK[mount];
        let now = timer::now_ns().max(1);
        if work.since.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            work.is_asked.store(false, Ordering::Release);
            // (Those that have a file open are told of an error.)
            let _ = inodes::write_back_all(mount as u16);
            work.since.store(0, Ordering::Release);
            if work.is_open() {
                WAITING.wake_one();
            }
        }
        let _ = resched_point(Sleep::Killable);
    }
}
