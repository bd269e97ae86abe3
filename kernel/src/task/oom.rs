//! The OOM killer: if no page can be allocated after all caches have been shrunk, it kills the process that uses most
//! memory.
//!
//! The page allocator cannot kill: its caller may hold any lock. It marks the thread ([`Pressure`]), the allocation
//! fails, and once the thread holds no lock it calls [`relieve`]: from a page fault, or when a system call has failed
//! ([`again`]). That picks a victim, waits until its memory is free, and the caller tries again. For an allocation that
//! could not wait it first makes one that can, which shrinks caches. An allocation that must not fail (NOFAIL) is made
//! with no lock held, and waits itself.
//!
//! A victim is killed like any process: its own threads exit, wherever they sleep or run. Every sleep is killable, and
//! allocations on the exit path may use the reserves. Until it has freed its memory no other victim is picked, unless
//! it takes too long.
//!
//! Badness is Linux's: resident pages and page tables, moved by the process's `oom_score_adj` in thousandths of memory.
//! At -1000 it is never picked: init sets this for the shell. init itself is never picked, whatever its value.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_mm::cgroup::Event::{OomGroupKill, OomKill};
use quire_mm::cgroup::Limit;
use quire_mm::event::Event;
use quire_mm::fallible::KArc;
use quire_mm::page_alloc::{Gfp, PressureHandler};
use quire_mm::zone::MAX_NODES;

use super::point::{ENTRIES, resched_point};
use super::process::{NAME_LEN, Process};
use super::thread::current;
use super::wait::{Sleep, WaitQueue};
use super::walk::{self, Among};
use super::{kswapd, sched, signal};
use crate::arch::{cpu, timer};
use crate::names::flusher;
use crate::vm::{GROUPS, PAGES, RECLAIM, SPACES, events};

/// `oom_score_adj` of processes that are never picked.
pub const NEVER: i32 = -1000;

/// How long a victim has before another is picked, and how long a waiter sleeps before it checks again, in nanoseconds.
const PATIENCE: u64 = 5_000_000_000;
const PAUSE: u64 = 20_000_000;

/// How long writing back may take without a page that is written, in nanoseconds.
const WRITE_BACK: u64 = 500_000_000;
/// How often threads wait for it, each time for [`PAUSE`], before one is killed nevertheless: others may go on to mark pages.
const MOST_WAITS: u32 = 100;

/// Orders above this are tried so often: as for the page allocator, they are not worth killing for.
const COSTLY_ORDER: u32 = 3;
const COSTLY_TRIES: u32 = 8;

/// Processes that are ended under one hold of the table's lock.
const ENDED_AT_ONCE: usize = 4;

/// Tasks that a report lists.
const LISTED: usize = 10;

/// Victims that have not freed their memory yet.
static DYING: AtomicU32 = AtomicU32::new(0);
/// Victims that have freed their memory.
static RELEASES: AtomicU32 = AtomicU32::new(0);
/// Bit of [`Thread::starved`](super::thread::Thread): the thread is starved; the rest is the value of [`RELEASES`] at
/// that time.
const STARVED: u32 = 1 << 31;
/// Another bit of it, without [`STARVED`]: an allocation failed that could not wait; the rest is its order.
const HURRIED: u32 = 1 << 30;
/// A thread picks a victim.
static PICKING: AtomicBool = AtomicBool::new(false);
/// Until when no other victim is picked.
static PATIENT_UNTIL: AtomicU64 = AtomicU64::new(0);
/// Until when failed allocations are not reported.
static QUIET_UNTIL: AtomicU64 = AtomicU64::new(0);
/// Threads that wait for a victim's memory.
static FREED: WaitQueue = WaitQueue::new();

/// The page allocator's view of the threads that allocate.
pub struct Pressure;

impl PressureHandler for Pressure {
    fn wake_kswapd(&self, node: usize) {
        kswapd::wake(node);
    }

    fn out_of_memory(&self, _order: u32, _gfp: Gfp) -> bool {
        starve(0);
        false
    }

    fn group_out_of_memory(&self, group: u16) {
        starve(group);
    }

    fn cannot_wait(&self, order: u32) {
        let starved = &current().starved;
        if starved.load(Ordering::Relaxed) & STARVED == 0 {
            starved.store(HURRIED | order, Ordering::Relaxed);
        }
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

/// The calling thread got no page: the machine, group 0, or a control group has none.
fn starve(group: u16) {
    let releases = RELEASES.load(Ordering::Acquire) & !HURRIED;
    current().starved.store(releases | STARVED, Ordering::Relaxed);
    current().starved_group.store(group, Ordering::Relaxed);
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
    /// Also where its space is, and in which round that was exempt.
    fn of(process: &Process) -> Option<(Self, usize, u32)> {
        let ((resident, tables), place, exempt_in) = {
            let space = process.space.lock();
            let space = space.as_ref()?;
            (space.mm.footprint(), KArc::as_ptr(space).addr(), space.exempt_in.load(Ordering::Relaxed))
        };
        let adj = process.oom_score_adj.load(Ordering::Relaxed);
        Some((Self { pid: process.pid, name: *process.name.lock(), resident, tables, adj }, place, exempt_in))
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

/// Repeats a call that has failed with `error`, which reports a lack of memory among other things, until there is memory or
/// nobody is left to be killed. Returns the error at once if no allocation has failed. For calls that have done nothing when
/// they fail so; the caller holds no lock.
///
/// What needs many pages in one piece is repeated [`COSTLY_TRIES`] times: [`relieve`] finds such a block, and while others take all
/// that is free the call does not.
#[cold]
#[inline(never)]
pub fn again<T>(error: Errno, mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    if current().starved.load(Ordering::Relaxed) == 0 {
        return Err(error);
    }
    let mut costly = 0;
    loop {
        // The mark may be an earlier call's, which did with less.
        current().starved.store(0, Ordering::Relaxed);
        match call() {
            Err(e) if e == error => {
                let starved = current().starved.load(Ordering::Relaxed);
                costly += u32::from(starved & (STARVED | HURRIED) == HURRIED && starved & !HURRIED > COSTLY_ORDER);
                if costly > COSTLY_TRIES || !relieve() {
                    return Err(error);
                }
            }
            other => return other,
        }
    }
}

/// This thread got no page. Makes a victim free memory; returns whether to try again. The caller holds no lock and may
/// sleep.
pub fn relieve() -> bool {
    let thread = current();
    let mut starved = thread.starved.swap(0, Ordering::Relaxed);
    let group = thread.starved_group.swap(0, Ordering::Relaxed);
    if starved == 0 || signal::interrupts(thread, Sleep::Killable) {
        return false;
    }
    if starved & STARVED == 0 {
        // Now it can wait.
        if PAGES.alloc_pages(starved & !HURRIED, Gfp::KERNEL | Gfp::NOWARN).is_ok() {
            return true;
        }
        starved = thread.starved.swap(0, Ordering::Relaxed);
        if starved & STARVED == 0 {
            return false;
        }
    }
    if starved != RELEASES.load(Ordering::Acquire) & !HURRIED | STARVED {
        // A victim has freed its memory since: that may be enough.
        return true;
    }
    if is_being_written() {
        let _ = FREED.wait_until(Sleep::Killable, Some(timer::now_ns() + PAUSE), || None::<()>);
        return true;
    }
    if !somebody_dies() && !kill_one(group) {
        return false;
    }
    if signal::interrupts(thread, Sleep::Killable) {
        return false;
    }
    // (Whoever picks a victim lets others run: it must not find them awake again and again.)
    let none_left = || (DYING.load(Ordering::Acquire) == 0 && !PICKING.load(Ordering::Acquire)).then_some(());
    // Whatever ended the wait, the caller tries again.
    let _ = FREED.wait_until(Sleep::Killable, Some(timer::now_ns() + PAUSE), none_left);
    true
}

/// How many pages were written back when that was last different, and since when it is.
static WRITTEN: AtomicU64 = AtomicU64::new(0);
static WRITTEN_SINCE: AtomicU64 = AtomicU64::new(0);
/// How often somebody has waited for that instead of killing, one time after the other.
static WAITS: AtomicU32 = AtomicU32::new(0);

/// Whether pages of files are being written back, which makes memory that can be taken: nobody is killed as long as that goes on, and not before it has had
/// [`WRITE_BACK`].
fn is_being_written() -> bool {
    if SPACES.marked() == 0 || WAITS.fetch_add(1, Ordering::Relaxed) >= MOST_WAITS {
        WAITS.store(0, Ordering::Relaxed);
        return false;
    }
    flusher::hurry();
    let (now, written) = (timer::now_ns(), events::sum(Event::WrittenBack));
    if WRITTEN.swap(written, Ordering::Relaxed) != written {
        WRITTEN_SINCE.store(now, Ordering::Relaxed);
    }
    now.saturating_sub(WRITTEN_SINCE.load(Ordering::Relaxed)) < WRITE_BACK
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

/// Picks the worst process and kills it, with the processes that share its memory. False if there is none. The table's
/// lock is released now and then: there may be thousands of processes.
fn kill_one(group: u16) -> bool {
    if PICKING.swap(true, Ordering::Acquire) {
        // Another thread is at it: the caller waits a little.
        return true;
    }
    let done = pick_and_kill(group);
    PICKING.store(false, Ordering::Release);
    done
}

fn pick_and_kill(group: u16) -> bool {
    // Another thread may have been faster.
    if somebody_dies() {
        return true;
    }
    let mut listed = [None; LISTED];
    let victim = loop {
        let Some(found) = worst(group, &mut listed) else {
            report(group, &listed, None);
            return false;
        };
        PATIENT_UNTIL.store(timer::now_ns() + PATIENCE, Ordering::Relaxed);
        if end_all(|process| place_of(process) == Some(found.place)) {
            break found.task;
        }
        // It has ended by itself meanwhile.
    };
    if let Some(of) = GROUPS.get(group) {
        of.note(OomKill);
        if of.kills_all.load(Ordering::Relaxed) {
            of.note(OomGroupKill);
            end_all(|process| is_in(process, group));
        }
    }
    report(group, &listed, Some(&victim));
    true
}

/// Whether a process is in a control group, or one below it; all are in group 0.
fn is_in(process: &Process, group: u16) -> bool {
    let own = process.whole.control_group.load(Ordering::Relaxed);
    group == 0 || own != 0 && GROUPS.get(own).is_some_and(|own| own.is_within(group))
}

/// What is worst.
struct Worst {
    badness: i64,
    task: Task,
    /// Where its space is.
    place: usize,
}

/// The process of a control group that is worst of those that may be picked; also its largest ones.
fn worst(group: u16, listed: &mut [Option<Task>; LISTED]) -> Option<Worst> {
    static ROUND: AtomicU32 = AtomicU32::new(0);
    let round = ROUND.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    // Memory that an exempt process shares is exempt too.
    each(|process| {
        if is_exempt(process)
            && let Some(space) = process.space.lock().as_ref()
        {
            space.exempt_in.store(round, Ordering::Relaxed);
        }
    });
    *listed = [None; LISTED];
    let total = PAGES.total_managed();
    let mut worst: Option<Worst> = None;
    each(|process| {
        if !is_in(process, group) {
            return;
        }
        let Some((task, place, exempt_in)) = Task::of(process) else { return };
        list(listed, task);
        let may_be_picked = exempt_in != round && !process.is_oom_victim.load(Ordering::Relaxed);
        let badness = task.badness(total);
        if may_be_picked && worst.as_ref().is_none_or(|worst| badness >= worst.badness) {
            worst = Some(Worst { badness, task, place });
        }
    });
    worst
}

/// Looks at every process, with the table locked for a few at a time.
fn each(mut look: impl FnMut(&Process)) {
    walk::each_process::<()>(Among::All, ENTRIES, |_, process| {
        look(process);
        ControlFlow::Continue(())
    });
}

/// Ends all processes of a kind that are not exempt; false if there is none.
fn end_all(is_one: impl Fn(&Process) -> bool) -> bool {
    let mut found = false;
    walk::each_process::<()>(Among::All, ENDED_AT_ONCE, |table, process| {
        if is_one(process) && !is_exempt(process) && !process.is_oom_victim.swap(true, Ordering::AcqRel) {
            DYING.fetch_add(1, Ordering::AcqRel);
            signal::begin_exit(table, process, sig::KILL);
            if place_of(process).is_none() {
                // It gave its memory up as this marked it, and may not have seen the mark.
                memory_released(process);
            }
            found = true;
        }
        ControlFlow::Continue(())
    });
    found
}

/// Where the space of a process is.
fn place_of(process: &Process) -> Option<usize> {
    process.space.lock().as_ref().map(|space| KArc::as_ptr(space).addr())
}

fn is_exempt(process: &Process) -> bool {
    process.pid == 1 || process.oom_score_adj.load(Ordering::Relaxed) <= NEVER
}

/// Enters a process among the largest, largest first.
fn list(listed: &mut [Option<Task>; LISTED], task: Task) {
    let size = |slot: &Option<Task>| slot.map_or(0, |t| t.size());
    if let Some(at) = listed.iter().position(|slot| size(slot) < task.size()) {
        listed[at..].rotate_right(1);
        listed[at] = Some(task);
    }
}

/// Reports the process that got no page, the zones, the largest processes, and the victim. Others may run between two lines.
fn report(group: u16, listed: &[Option<Task>; LISTED], victim: Option<&Task>) {
    let process = current().process();
    let name = *process.name.lock();
    let name = name.split(|&b| b == 0).next().unwrap_or(&[]).escape_ascii();
    if let Some(of) = GROUPS.get(group) {
        let numbers = of.numbers();
        log::warn!("out of memory: {name}[{}] got no page of control group {}", process.pid, of.name().escape_ascii());
        log::warn!("  {} pages of {}, {} in swap", numbers.usage, of.limit(Limit::Max), numbers.swap);
    } else {
        log::warn!("out of memory: {name}[{}] got no page", process.pid);
    }
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
        let _ = resched_point(Sleep::Deaf);
    }
    for (node, counts) in (0..MAX_NODES).map(|node| (node, RECLAIM.counts(node))).filter(|(_, (.., pages))| *pages != 0)
    {
        let (cold, hot, pages) = counts;
        log::warn!("  node {node}: {pages} pages that could leave, {hot} of them hot, {cold} queued to go");
        let _ = resched_point(Sleep::Deaf);
    }
    let swap = SPACES.swap().stats();
    log::warn!("  swap: {} of {} pages used, in {} frames", swap.used, swap.slots, swap.frames);
    log::warn!("     pid   resident     tables    adj  name");
    for task in listed.iter().flatten() {
        log::warn!("  {:6} {:10} {:10} {:6}  {}", task.pid, task.resident, task.tables, task.adj, task.show());
        let _ = resched_point(Sleep::Deaf);
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
