//! Boot, from the first Rust instruction to init.

mod claims;
pub mod early_table;
pub mod info;
pub mod memory;
mod secondaries;
mod zones;

use core::fmt;
use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::{Control, Open};
use quire_abi::info::cpu_feature;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::KArc;
use quire_mm::page_alloc::Summary;
use quire_platform::tree::{Board, Region, TreeError, salvage};

use crate::arch::regs::TableUpdates;
use crate::arch::{regs, smp, timer};
use crate::arguments;
use crate::board::BOARD;
use crate::console::early_port;
use crate::ipc::descriptor::{Descriptor, Object, OpenFile, Rights};
use crate::ipc::handles::{Handle, Handles};
use crate::ipc::table::Descriptors;
use crate::layout::{FDT_WINDOW, FDT_WINDOW_ALIGN, FDT_WINDOW_SIZE};
use crate::power;
use crate::task::directory::Directory;
use crate::task::entity::Entity;
use crate::task::membership::Reserved;
use crate::task::percpu::{self, PERCPU};
use crate::task::process::{Process, TABLE};
use crate::task::signal::Actions;
use crate::task::thread::Thread;
use crate::task::{exec, sched};
use crate::vm::{GROUPS, SPACES};

pub use secondaries::start_secondaries;

/// Reads the device tree at physical `fdt` through its window. Returns its size.
pub fn read_tree(fdt: usize) -> Result<usize, TreeError> {
    let offset = fdt % FDT_WINDOW_ALIGN;
    let window = FDT_WINDOW + offset;
    let header = core::ptr::with_exposed_provenance::<[u8; quire_platform::tree::HEADER_SIZE]>(window);
    // SAFETY: the window maps 4 MiB from the tree's 2 MiB boundary; a header is 40 bytes.
    let size = quire_platform::tree::total_size(unsafe { &*header })?;
    if offset + size > FDT_WINDOW_SIZE {
        return Err(TreeError::Size(size));
    }
    // SAFETY: as above, and the size was checked against the window.
    let bytes = unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(window), size) };
    // SAFETY: the first thing that boot does, on one CPU.
    let board = unsafe { BOARD.boot_mut() };
    let kernel = claims::kernel(*smp::IMAGE.get());
    let keep = [(kernel.start.get(), kernel.end - kernel.start), (fdt, size)];
    let keep = keep.map(|(base, size)| Region { base: base as u64, size: size as u64 });
    if let Err(error) = board.read(bytes, &keep) {
        report_warnings(board);
        // Boot ends here: what can still be read of the kernel arguments says how the machine stops.
        power::init_semihosting(salvage(bytes).bootargs);
        return Err(error);
    }
    early_port::board_is_known();
    Ok(size)
}

/// Reports why the machine cannot continue, and stops it.
pub fn stop(what: &str, why: &dyn core::fmt::Display) -> ! {
    panic!("{what}: {why}")
}

/// The first lines of the log: the machine, and what is wrong with its device tree and its kernel arguments. Before
/// memory, since a kernel without memory stops, and this may be why.
pub fn greet(board: &Board) {
    log::info!("Quire {} on {}", env!("CARGO_PKG_VERSION"), board.model);
    report_warnings(board);
    arguments::report_unknown(&board.chosen.bootargs);
}

fn report_warnings(board: &Board) {
    for warning in &board.warnings {
        log::warn!("{warning}");
    }
    if board.warnings_lost > 0 {
        log::warn!("device tree: {} more", Count(board.warnings_lost as usize, "warning"));
    }
}

/// A number of things, for the log: "1 CPU", "4 CPUs".
pub struct Count(pub usize, pub &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(number, thing) = self;
        write!(f, "{number} {thing}{}", if *number == 1 { "" } else { "s" })
    }
}

/// Logs the memory that there is.
pub fn report_memory(board: &Board, pages: &Summary) {
    let mib = |pages: usize| (pages * PAGE_SIZE) >> 20;
    let microseconds = info::HANDED_OUT_NS.load(Ordering::Relaxed) / 1000;
    log::info!(
        "memory: {} MiB in {}, {} pages, {} reserved, {} handed out ({} MiB) after {}.{:03} ms",
        mib(pages.present),
        Count(board.banks.len(), "bank"),
        pages.present,
        pages.reserved,
        pages.managed,
        mib(pages.managed),
        microseconds / 1000,
        microseconds % 1000
    );
}

/// This CPU's idle thread, clock and registers; it is online from here on.
pub fn init_this_cpu(id: usize) -> Result<(), Errno> {
    // If the boot CPU uses hardware updates, this one does too; a CPU without them takes faults instead, which are
    // handled.
    if SPACES.hardware_updates() {
        regs::enable_table_updates();
    }
    smp::leave_identity_map();
    let here = &PERCPU[id];
    here.mpidr.store(regs::mpidr(), Ordering::Relaxed);
    here.midr.store(regs::midr(), Ordering::Relaxed);
    here.features.store(features(), Ordering::Relaxed);
    let idle: &Entity = Thread::new_idle()?;
    let idle = core::ptr::from_ref(idle).cast_mut();
    here.idle.store(idle, Ordering::Relaxed);
    here.current.store(idle.cast(), Ordering::Relaxed);
    here.charged_at.store(timer::now_ns(), Ordering::Relaxed);
    here.run_queue.lock().set_number(id as u32);
    GROUPS.add_cpu(id);
    here.set_online(true);
    Ok(())
}

/// The features of this CPU's MMU, for cpuinfo.
fn features() -> u32 {
    let updates = if SPACES.hardware_updates() { regs::table_updates() } else { TableUpdates::Nothing };
    let mut features = 0;
    let mut set = |feature: u32, has: bool| features |= if has { feature } else { 0 };
    set(cpu_feature::ACCESS_FLAG, updates >= TableUpdates::AccessFlag);
    set(cpu_feature::DIRTY_STATE, updates >= TableUpdates::DirtyState);
    set(cpu_feature::PAN, regs::has_pan());
    set(cpu_feature::ASID_16, regs::has_16_bit_asids());
    features
}

/// Logs how access flags and dirty state of page table entries are set.
pub fn report_features() {
    let has = |feature: u32| move |cpu: &&percpu::PerCpu| cpu.features.load(Ordering::Relaxed) & feature != 0;
    let all = percpu::online().count();
    let of = |feature: u32| percpu::online().filter(has(feature)).count();
    match (of(cpu_feature::ACCESS_FLAG), of(cpu_feature::DIRTY_STATE)) {
        (0, _) => log::info!("access flag and dirty state: by faults"),
        (flag, dirty) if flag == all && dirty == all => log::info!("access flag and dirty state: by hardware"),
        (flag, dirty) => log::info!("access flag by hardware on {flag} of {all} CPUs, dirty state on {dirty}"),
    }
}

/// Makes init: `/init` of the boot archive, with the console as its descriptors 0, 1 and 2, and machine
/// control as its one handle.
pub fn first_process() -> Result<(), Errno> {
    const PATH: &[u8] = b"/init";
    const INIT: u32 = 1;
    let reserved = Reserved::new()?;
    let number = reserved.number();
    debug_assert_eq!(number, INIT);
    let descriptors = Descriptors::new()?;
    for _ in 0..3 {
        let file = OpenFile::new(Object::Console, Open::RDWR)?;
        let descriptor = Descriptor { file, rights: Rights::READ | Rights::WRITE, close_on_exec: false };
        descriptors.insert(descriptor, 0, 3)?;
    }
    let handles = Handles::new();
    handles.grant(handles.insert(Handle::machine())?, Control::all().bits())?;
    let (space, frame) = exec::first(PATH, &handles)?;
    let actions = KArc::try_new(Actions::new())?;
    let process = Process::new(number, space.clone(), descriptors, actions, Directory::first(), None)?;
    process.handles.inherit(&handles)?;
    process.handles.for_program();
    process.set_name(PATH);
    let thread = Thread::new_user(number, process.clone(), KArc::clone(&space.mm), &frame, |_| {})?;
    let running = thread.clone();
    {
        let mut table = TABLE.lock();
        table.insert_process(&process);
        table.add_thread(&process, &thread);
    }
    reserved.keep();
    // The running thread's own reference; `thread_has_ended` drops it.
    sched::wake(&running);
    core::mem::forget(running);
    Ok(())
}

/// The last line before init: the time and memory that boot took.
pub fn report_boot() {
    let now = timer::now_ns();
    info::FIRST_USER_NS.store(now, Ordering::Relaxed);
    let system = info::system();
    let gone = system.ram.saturating_sub(system.free + system.archive);
    log::info!(
        "first user instruction after {}.{:03} ms; {} KiB of memory gone, the boot archive not counted",
        now / 1_000_000,
        now / 1000 % 1000,
        gone * PAGE_SIZE as u64 / 1024
    );
}
