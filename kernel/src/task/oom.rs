//! The OOM killer: when a page is not to be had after all caches were asked, the process that uses most is ended.
//!
//! The page allocator cannot kill: who allocates may hold any lock. It marks the thread ([`Pressure`]), the allocation
//! fails, and what holds no lock any more asks [`relieve`]: a page fault, or a call that can begin anew ([`retry`]). That
//! picks a victim, waits until its memory is back, and the caller tries again. An allocation that must not fail (NOFAIL) is
//! made with no lock held, and asks by itself.
//!
//! A victim dies like anybody who is killed, by its own threads, wherever they sleep or run: every sleep is killable,
//! and what they allocate on their way may use the reserves. Until it has given up its memory nobody else is picked,
//! unless it takes too long.
//!
//! Badness is Linux's: resident pages and page tables, moved by the process's `oom_score_adj` in thousandths of memory.
//! At -1000 it is never picked: so is the shell, by init's order; and init itself is not, whatever it says.

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

/// `oom_score_adj` of who is never picked.
pub const NEVER: i32 = -1000;

/// How long a victim has before another is picked, and how long to wait before looking again, in nanoseconds.
const PATIENCE: u64 = 5_000_000_000;
const PAUSE: u64 = 20_000_000;

/// Tasks that a report lists.
const LISTED: usize = 10;

/// Victims that have not given up their memory.
static DYING: AtomicU32 = AtomicU32::new(0);
/// Victims that have.
static RELEASES: AtomicU32 = AtomicU32::new(0);
/// Bit of [`Thread::starved`](super::thread::Thread): it is; the rest is what [`RELEASES`] was.
const STARVED: u32 = 1 << 31;
/// Until when nobody else is picked.
static PATIENT_UNTIL: AtomicU64 = AtomicU64::new(0);
/// Until when failed allocations are not reported.
static QUIET_UNTIL: AtomicU64 = AtomicU64::new(0);
/// Threads that wait for a victim's memory.
static FREED: WaitQueue = WaitQueue::new();

/// What the page allocator is told about the threads that it serves.
pub struct Pressure;

impl PressureHandler for Pressure {
    fn out_of_memory(&self, _order: u32, _gfp: Gfp) -> bool {
        current().starved.store(RELEASES.load(Ordering::Acquire) | STARVED, Ordering::Relaxed);
        false
    }

    /// A line now and then. Who is marked as starved has a report of its own; where interrupts are masked nothing may be
    /// formatted, and who allocated there sees the error.
    fn report_failure(&self, order: u32, gfp: Gfp) {
        let now = timer::now_ns();
        let is_due = |until: u64| (until <= now).then_some(now + PATIENCE);
        let is_starved = current().starved.load(Ordering::Relaxed) & STARVED != 0;
        let is_quiet = is_starved || cpu::irqs_masked();
        if !is_quiet && QUIET_UNTIL.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_due).is_ok() {
            log::warn!("no free block of order {order} for {gfp:?}");
        }
    }

    /// Who must not fail may sleep, and so does here what others do once their allocation has failed.
    fn wait_for_memory(&self) {
        let relieved = current().process.is_some() && relieve();
        if !relieved {
            // It is to die itself, or nobody is left who could: what others do may still help.
            sched::yield_now();
        }
    }

    fn may_use_reserves(&self) -> bool {
        current().process.as_ref().is_some_and(|process| process.is_oom_victim.load(Ordering::Relaxed))
    }
}

/// What a process looks like to the killer.
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

/// Makes a call that failed for want of memory again once there may be some. For calls that leave nothing half done,
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

/// This thread got no page. Sees to it that somebody gives up memory; answers whether to try again. The caller holds
/// no lock and may sleep.
pub fn relieve() -> bool {
    let thread = current();
    let starved = thread.starved.swap(0, Ordering::Relaxed);
    if starved == 0 || signal::interrupts(thread, Sleep::Killable) {
        return false;
    }
    if starved != RELEASES.load(Ordering::Acquire) | STARVED {
        // A victim's memory has come back since: that may do.
        return true;
    }
    if !somebody_dies() && !kill_one() {
        return false;
    }
    if signal::interrupts(thread, Sleep::Killable) {
        return false;
    }
    let none_left = || (DYING.load(Ordering::Acquire) == 0).then_some(());
    // However this ends, the caller looks for itself.
    let _ = FREED.wait_until(Sleep::Killable, Some(timer::now_ns() + PAUSE), none_left);
    true
}

/// A process has given up its memory.
pub fn memory_released(process: &Process) {
    if process.is_oom_victim.swap(false, Ordering::AcqRel) {
        RELEASES.fetch_add(1, Ordering::AcqRel);
        DYING.fetch_sub(1, Ordering::AcqRel);
        FREED.wake_all();
    }
}

/// Whether a victim is about to give up its memory, and has not taken too long.
fn somebody_dies() -> bool {
    DYING.load(Ordering::Acquire) != 0 && timer::now_ns() < PATIENT_UNTIL.load(Ordering::Relaxed)
}

/// Picks the worst process and ends it, with whoever shares its memory. False if there is none.
fn kill_one() -> bool {
    let total = PAGES.total_managed();
    let mut listed = [None; LISTED];
    let victim = {
        let table = TABLE.lock();
        // Another CPU may have been faster.
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

/// Whether a process has memory, is not dying of this already, and neither it nor who shares its memory is exempt.
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

/// Who had no page, what the zones had, who had it, and who was ended.
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
        None => log::warn!("nobody is left who may be killed"),
    }
}
