//! The OOM killer: if no page can be allocated after all caches have been shrunk, it kills the process that uses most
//! memory.
//!
//! The page allocator cannot kill: its caller may hold any lock. It marks the thread ([`Pressure`]), the allocation
//! fails, and once the thread holds no lock it calls [`relieve`]: from a page fault, or from a call that can be
//! restarted ([`retry`]). That picks a victim, waits until its memory is free, and the caller tries again. An
//! allocation that must not fail (NOFAIL) is made with no lock held, and waits itself.
//!
//! A victim is killed like any process: its own threads exit, wherever they sleep or run. Every sleep is killable, and
//! allocations on the exit path may use the reserves. Until it has freed its memory no other victim is picked, unless
//! it takes too long.
//!
//! Badness is Linux's: resident pages and page tables, moved by the process's `oom_score_adj` in thousandths of memory.
//! At -1000 it is never picked: init sets this for the shell. init itself is never picked, whatever its value.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_mm::fallible::KArc;
use quire_mm::page_alloc::{Gfp, PressureHandler};

use super::process::{NAME_LEN, Process, TABLE, Table};
use super::thread::current;
use super::wait::{Sleep, WaitQueue};
use super::{sched, signal};
use crate::arch::{cpu, timer};
use crate::vm::PAGES;

/// `oom_score_adj` of processes that are never picked.
pub const NEVER: i32 = -1000;

/// How long a victim has before another is picked, and how long a waiter sleeps before it checks again, in nanoseconds.
const PATIENCE: u64 = 5_000_000_000;
const PAUSE: u64 = 20_000_000;

/// Tasks that a report lists.
const LISTED: usize = 10;

/// Victims that have not freed their memory yet.
static DYING: AtomicU32 = AtomicU32::new(0);
/// Victims that have freed their memory.
static RELEASES: AtomicU32 = AtomicU32::new(0);
/// Bit of [`Thread::starved`](super::thread::Thread): the thread is starved; the rest is the value of [`RELEASES`] at
/// that time.
const STARVED: u32 = 1 << 31;
/// Until when no other victim is picked.
static PATIENT_UNTIL: AtomicU64 = AtomicU64::new(0);
/// Until when failed allocations are not reported.
static QUIET_UNTIL: AtomicU64 = AtomicU64::new(0);
/// Threads that wait for a victim's memory.
static FREED: WaitQueue = WaitQueue::new();

/// The page allocator's view of the threads that allocate.
pub struct Pressure;

impl PressureHandler for Pressure {
    fn out_of_memory(&self, _order: u32, _gfp: Gfp) -> bool {
        current().starved.store(RELEASES.load(Ordering::Acquire) | STARVED, Ordering::Relaxed);
        false
    }

    /// A line now and then. A thread that is marked as starved gets a report of its own. With interrupts masked nothing
    /// may be formatted, and the caller sees the error.
    fn report_failure(&self, order: u32, gfp: Gfp) {
        let now = timer::now_ns();
        let is_due = |until: u64| (until <= now).then_some(now + PATIENCE);
        let is_starved = current().starved.load(Ordering::Relaxed) & STARVED != 0;
        let is_quiet = is_starved || cpu::irqs_masked();
        if !is_quiet && QUIET_UNTIL.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_due).is_ok() {
            log::warn!("no free block of order {order} for {gfp:?}");
        }
    }

    /// A NOFAIL caller may sleep, so it does here what other callers do after their allocation has failed.
    fn wait_for_memory(&self) {
        let relieved = current().process.is_some() && relieve();
        if !relieved {
            // This thread is to die itself, or no victim is left: other threads may still free memory.
            sched::yield_now();
        }
    }

    fn may_use_reserves(&self) -> bool {
        current().process.as_ref().is_some_and(|process| process.is_oom_victim.load(Ordering::Relaxed))
    }
}

/// A candidate.
#[derive(Clone, Copy)]
struct Task {
    pid: u32,
    name: [u8; NAME_LEN],
    /// Pages.
    resident: usize,
    tables: usize,
    adj: i32,
}

impl Task {
    fn of(process: &Process) -> Option<Self> {
        let (resident, tables) = process.space.lock().as_ref().map(|space| space.mm.footprint())?;
        let adj = process.oom_score_adj.load(Ordering::Relaxed);
        Some(Self { pid: process.pid, name: *process.name.lock(), resident, tables, adj })
    }

    fn size(&self) -> usize {
        self.resident + self.tables
    }

    fn badness(&self, total: usize) -> i64 {
        self.size() as i64 + i64::from(self.adj) * (total / 1000) as i64
    }

    fn show(&self) -> impl core::fmt::Display + '_ {
        self.name.split(|&b| b == 0).next().unwrap_or(&[]).escape_ascii()
    }
}

/// Repeats a call that failed for lack of memory, once some may be available. For calls that leave nothing half done,
/// made with no lock held.
pub fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        current().starved.store(0, Ordering::Relaxed);
        match call() {
            Err(Errno::ENOMEM) if relieve() => {}
            other => return other,
        }
    }
}

/// This thread got no page. Makes a victim free memory; returns whether to try again. The caller holds no lock and may
/// sleep.
pub fn relieve() -> bool {
    let thread = current();
    let starved = thread.starved.swap(0, Ordering::Relaxed);
    if starved == 0 || signal::interrupts(thread, Sleep::Killable) {
        return false;
    }
    if starved != RELEASES.load(Ordering::Acquire) | STARVED {
        // A victim has freed its memory since: that may be enough.
        return true;
    }
    if !somebody_dies() && !kill_one() {
        return false;
    }
    if signal::interrupts(thread, Sleep::Killable) {
        return false;
    }
    let none_left = || (DYING.load(Ordering::Acquire) == 0).then_some(());
    // Whatever ended the wait, the caller tries again.
    let _ = FREED.wait_until(Sleep::Killable, Some(timer::now_ns() + PAUSE), none_left);
    true
}

/// A process has freed its memory.
pub fn memory_released(process: &Process) {
    if process.is_oom_victim.swap(false, Ordering::AcqRel) {
        RELEASES.fetch_add(1, Ordering::AcqRel);
        DYING.fetch_sub(1, Ordering::AcqRel);
        FREED.wake_all();
    }
}

/// Whether a victim is about to free its memory, and has not taken too long.
fn somebody_dies() -> bool {
    DYING.load(Ordering::Acquire) != 0 && timer::now_ns() < PATIENT_UNTIL.load(Ordering::Relaxed)
}

/// Picks the worst process and kills it, with the processes that share its memory. False if there is none.
fn kill_one() -> bool {
    let total = PAGES.total_managed();
    let mut listed = [None; LISTED];
    let victim = {
        let table = TABLE.lock();
        // Another CPU may have picked one meanwhile.
        if somebody_dies() {
            return true;
        }
        list_largest(&table, &mut listed);
        let candidates = table.processes().filter(|p| may_be_picked(&table, p));
        let worst = candidates
            .filter_map(|p| Task::of(p).map(|task| (task.badness(total), task, p)))
            .max_by_key(|(badness, _, _)| *badness);
        let Some((_, task, process)) = worst else {
            drop(table);
            report(&listed, None);
            return false;
        };
        PATIENT_UNTIL.store(timer::now_ns() + PATIENCE, Ordering::Relaxed);
        for sharer in table.processes().filter(|p| shares_memory(p, process)) {
            DYING.fetch_add(1, Ordering::AcqRel);
            sharer.is_oom_victim.store(true, Ordering::Release);
            signal::begin_exit(&table, sharer, sig::KILL);
        }
        task
    };
    report(&listed, Some(&victim));
    true
}

/// Whether a process has memory, is not a victim already, and neither it nor a process that shares its memory is
/// exempt.
fn may_be_picked(table: &Table, process: &KArc<Process>) -> bool {
    let is_exempt = |p: &Process| p.pid == 1 || p.oom_score_adj.load(Ordering::Relaxed) <= NEVER;
    if is_exempt(process) || process.is_oom_victim.load(Ordering::Relaxed) {
        return false;
    }
    let is_shared = process.space.lock().as_ref().map(|space| KArc::count(space) > 1);
    match is_shared {
        None => false,
        Some(false) => true,
        Some(true) => !table.processes().any(|p| is_exempt(p) && shares_memory(p, process)),
    }
}

fn shares_memory(a: &Process, b: &Process) -> bool {
    let place = |p: &Process| p.space.lock().as_ref().map(|space| KArc::as_ptr(space).addr());
    place(a).is_some_and(|at| Some(at) == place(b))
}

/// The largest processes, largest first.
fn list_largest(table: &Table, listed: &mut [Option<Task>; LISTED]) {
    for task in table.processes().filter_map(|p| Task::of(p)) {
        let size = |slot: &Option<Task>| slot.map_or(0, |t| t.size());
        let Some(at) = listed.iter().position(|slot| size(slot) < task.size()) else { continue };
        listed[at..].rotate_right(1);
        listed[at] = Some(task);
    }
}

/// Reports the process that got no page, the zones, the largest processes, and the victim.
fn report(listed: &[Option<Task>; LISTED], victim: Option<&Task>) {
    let process = current().process();
    let name = *process.name.lock();
    let name = name.split(|&b| b == 0).next().unwrap_or(&[]).escape_ascii();
    log::warn!("out of memory: {name}[{}] got no page", process.pid);
    for zone in PAGES.zones().map(|zone| zone.info()).filter(|zone| zone.managed != 0) {
        let name = zone.name.split(|&b| b == 0).next().unwrap_or(&[]).escape_ascii();
        log::warn!(
            "  node {} zone {name}: {} pages, {} free, {} per CPU; min {}, low {}, high {}",
            zone.node,
            zone.managed,
            zone.free,
            zone.per_cpu,
            zone.min,
            zone.low,
            zone.high
        );
    }
    log::warn!("     pid   resident     tables    adj  name");
    for task in listed.iter().flatten() {
        log::warn!("  {:6} {:10} {:10} {:6}  {}", task.pid, task.resident, task.tables, task.adj, task.show());
    }
    match victim {
        Some(task) => log::warn!(
            "killed {}[{}], which uses most: {} pages, {} of tables, adj {}",
            task.show(),
            task.pid,
            task.resident,
            task.tables,
            task.adj
        ),
        None => log::warn!("no process is left that may be killed"),
    }
}
