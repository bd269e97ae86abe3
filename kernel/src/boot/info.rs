//! The kernel's records about itself, for `QUIRE_INFO` and `QUIRE_BOOKS`.

use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::info::{Books, CpuInfo, NODES, NodeInfo, ProcessInfo, RegionInfo, SystemInfo, ZoneInfo};
use quire_abi::process::flag;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::event::Event;
use quire_mm::fallible::KArc;

use crate::arch::{speculation, timer};
use crate::archive;
use crate::board::BOARD;
use crate::ipc::descriptor;
use crate::names::cache::KEPT;
use crate::task::entity::state;
use crate::task::load;
use crate::task::percpu::{self, PERCPU};
use crate::task::point::ENTRIES;
use crate::task::process::{Process, TABLE, Table};
use crate::task::space;
use crate::task::thread::Thread;
use crate::vm::vmalloc::VMALLOC;
use crate::vm::{GROUPS, MEMORY, PAGES, RECLAIM, SPACES, events, heap, kernel_map, stack};

/// Nanoseconds from power-on to the first user instruction.
pub static FIRST_USER_NS: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds from power-on until every page was handed out.
pub static HANDED_OUT_NS: AtomicU64 = AtomicU64::new(0);

/// The machine as a whole.
pub fn system() -> SystemInfo {
    let board = BOARD.get();
    let mut name = [0; 32];
    let text = board.compatible.first().map_or("", |c| c.as_str()).as_bytes();
    let n = text.len().min(31);
    name[..n].copy_from_slice(&text[..n]);
    let (stacks, spare) = stack::pages();
    let ((processes, threads), (made, last_pid)) = {
        let table = TABLE.lock();
        (table.counts(), table.made())
    };
    let now = timer::now_ns();
    SystemInfo {
        ram: board.memory_size() / PAGE_SIZE as u64,
        managed: PAGES.total_managed() as u64,
        free: (PAGES.total_free() + spare) as u64,
        page_tables: SPACES.tables() as u64,
        slab: heap::SLAB.pages() as u64,
        kernel_stacks: stacks as u64,
        archive: archive::range(board).map_or(0, |r| archive::pages(&r)) as u64,
        committed: SPACES.commit().committed() as u64,
        commit_limit: SPACES.commit().limit() as u64,
        uptime_ns: now,
        made,
        loads: load::averages(now),
        running: load::runnable() as u32,
        threads,
        processes,
        last_pid,
        first_user_ns: FIRST_USER_NS.load(Ordering::Relaxed),
        cpus: percpu::online().count() as u32,
        nodes: board.banks.iter().map(|b| u32::from(b.node)).max().map_or(1, |n| n + 1),
        board: name,
    }
}

/// A zone; they come node by node.
pub fn zone(index: usize) -> Option<ZoneInfo> {
    PAGES.zones().nth(index).map(|z| z.info())
}

/// A region of the physical map.
pub fn region(index: usize) -> Option<RegionInfo> {
    MEMORY.get().regions().nth(index)
}

/// A node of the tree.
pub fn node(index: usize) -> Option<NodeInfo> {
    let count = system().nodes as usize;
    let index = speculation::bounded(index, count.min(NODES))?;
    let mut node = NodeInfo::default();
    for (to, distance) in node.distances.iter_mut().enumerate().take(count) {
        *distance = BOARD.get().distances.get(index, to);
    }
    Some(node)
}

/// A CPU of the tree.
pub fn cpu(index: usize) -> Option<CpuInfo> {
    let percpu = speculation::get(&PERCPU, index).filter(|_| index < BOARD.get().cpus.len().max(1))?;
    // A CPU charges its idle time only when it wakes.
    let idle_now = match percpu.idling.load(Ordering::Relaxed) {
        true => timer::now_ns().saturating_sub(percpu.charged_at.load(Ordering::Relaxed)),
        false => 0,
    };
    Some(CpuInfo {
        mpidr: percpu.mpidr.load(Ordering::Relaxed),
        midr: percpu.midr.load(Ordering::Relaxed),
        node: percpu.node.load(Ordering::Relaxed),
        online: u32::from(percpu.is_online()),
        features: percpu.features.load(Ordering::Relaxed),
        pad: 0,
        idle_ns: percpu.idle_ns.load(Ordering::Relaxed) + idle_now,
        system_ns: percpu.system_ns.load(Ordering::Relaxed),
        switches: percpu.switches.load(Ordering::Relaxed),
        ticks: percpu.ticks.load(Ordering::Relaxed),
    })
}

/// The process with the lowest number from `from` on.
pub fn process(from: usize) -> Option<ProcessInfo> {
    // The space's lock may be held as long as a fault takes, so it is not taken under the table's.
    let process = TABLE.lock().next_process(u32::try_from(from).ok()?).cloned()?;
    let mm = process.space.lock().as_ref().map(|space| KArc::clone(&space.mm));
    let stats = mm.map(|mm| mm.stats()).unwrap_or_default();
    let spent = process.whole.time.spent();
    let (uid, gid) = {
        let credentials = process.credentials.lock();
        (credentials.user.effective, credentials.group.effective)
    };
    let table = TABLE.lock();
    let family = table.family(&process);
    Some(ProcessInfo {
        pid: process.pid,
        ppid: process.ppid.load(Ordering::Relaxed),
        pgid: process.pgid(),
        threads: family.thread_count,
        state: state_letter(&table, &process),
        cpu: family.first_thread().map_or(0, |t| t.cpu.load(Ordering::Relaxed)),
        vsize: stats.total as u64,
        rss: (stats.rss_anon + stats.rss_file + stats.rss_shared) as u64,
        cpu_ns: spent.total(),
        system_ns: spent.system,
        started_ns: process.started,
        faults: spent.faults,
        major_faults: spent.major,
        tables: stats.table_pages as u64,
        shared: (stats.rss_file + stats.rss_shared) as u64,
        control_group: GROUPS.get(process.whole.control_group.load(Ordering::Relaxed)).map_or(0, |group| group.key().0),
        uid,
        gid,
        sid: family.sid,
        flags: flags(&process),
        name: *process.name.lock(),
    })
}

/// Flags of [`quire_abi::process::flag`].
pub fn flags(process: &Process) -> u32 {
    let space = process.space.lock().clone();
    [
        (process.is_dumpable.load(Ordering::Relaxed), flag::DUMPABLE),
        (process.no_new_privileges.load(Ordering::Relaxed), flag::NO_NEW_PRIVILEGES),
        (space.is_some(), flag::MEMORY),
        (space.is_some_and(|space| !space.mm.refuses_huge_pages()), flag::HUGE_PAGES),
    ]
    .iter()
    .filter(|(is_set, _)| *is_set)
    .map(|(_, flag)| flag)
    .sum()
}

/// The state of a thread of a process that is no zombie.
pub fn state_of_thread(process: &Process, thread: &Thread) -> u32 {
    u32::from(match () {
        () if process.stop.is_active() => b'T',
        () if runs(thread) => b'R',
        () => b'S',
    })
}

fn runs(thread: &Thread) -> bool {
    thread.state.load(Ordering::Relaxed) & !state::RUNNING == state::RUNNABLE
}

fn state_letter(table: &Table, process: &Process) -> u32 {
    let family = table.family(process);
    u32::from(match () {
        () if family.is_zombie => b'Z',
        () if process.stop.is_active() => b'T',
        () if family.threads_from(0).take(ENTRIES).any(runs) => b'R',
        () => b'S',
    })
}

/// The resource counts. To make them comparable, cached memory counts as free. So do the kernel's own tables, which
/// grow with its address use and stay, and copies of unaligned pages of the boot archive, which the first use of a page
/// makes, and reclaim's queues, which have numbers of pages that are gone. A page of another program counts as used wherever
/// it is: in memory, or in swap, whose own frames do not count.
pub fn books() -> Books {
    // What waits until all CPUs have forgotten its addresses is free in all but name.
    VMALLOC.purge();
    let (processes, threads, numbers) = {
        let table = TABLE.lock();
        let (processes, threads) = table.counts();
        (processes, threads, u64::from(table.allocations()))
    };
    let kept = KEPT.allocations() as u64;
    let swap = SPACES.swap().stats();
    let swap = (swap.frames as u64).wrapping_sub(swap.used as u64);
    Books {
        free_pages: system().free.wrapping_add(swap)
            + (heap::SLAB.pages() + kernel_map::table_pages() + RECLAIM.frames()) as u64
            + events::sum(Event::ArchiveCopy),
        slab_objects: (heap::SLAB.live_objects() as u64)
            .saturating_sub(events::sum(Event::ArchiveNode) + numbers + kept),
        page_tables: SPACES.tables() as u64,
        address_spaces: space::in_use(),
        processes: u64::from(processes),
        threads: u64::from(threads),
        objects: descriptor::open_objects(),
        committed: SPACES.commit().committed() as u64,
    }
}
