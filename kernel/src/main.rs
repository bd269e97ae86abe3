//! Quire's kernel: the EL1 program. This file is its boot: one line for each part, in the order in which they are
//! initialised.
//!
//! Floors, lowest first; none imports a higher one (`cargo xtask lint` checks it against this list):
//! - `arguments`, `board`, `layout`: kernel arguments, the device tree's contents, the layout of kernel addresses.
//! - `arch`: the CPU. Its exception vectors call functions that higher floors define (`arch::trap` lists them).
//! - `backtrace`: return addresses, and the names of functions.
//! - `vm`: the memory manager bound to this machine, except for threads, which `task` adds.
//! - `archive`, `interrupts`: the boot archive; the interrupt controller.
//! - `console`, `power`, `task`, `ipc`, `names`, `devices`: one floor, since they depend on each other. A process has
//!   descriptors; threads sleep at a descriptor's terminal or pipe; a name is asked of a server, by a call; the
//!   terminal sends signals; a panic writes to the console and powers off.
//! - `boot`: from the device tree to init.
//! - `syscall`: system calls, one file per family.
//! - `trap`: exceptions and interrupts.
//! - `selftest`: the self-test.

#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn)]
#![deny(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types)]

extern crate alloc;

mod arch;
mod archive;
mod arguments;
mod backtrace;
mod board;
mod boot;
mod console;
mod devices;
mod interrupts;
mod ipc;
mod layout;
mod names;
mod power;
#[cfg(feature = "selftest")]
mod selftest;
mod syscall;
mod task;
mod trap;
mod vm;

use quire_mm::PhysAddr;
use quire_platform::bootargs;

use arch::{cpu, errata, reset, smp, timer};
use backtrace::symbols;
use board::BOARD;
use boot::memory;
use console::{early_port, input, log as kernel_log, serial};
use ipc::{deferred, trigger};
use task::{kswapd, oom, percpu, sched, signal_thread};
use vm::{PAGES, SPACES, heap, pressure, random};

/// The first Rust code, on the CPU that boots: MMU on, early tables, a stack, interrupts masked.
#[unsafe(no_mangle)]
extern "C" fn primary_main(fdt: usize, image: usize, entered_in: usize) -> ! {
    #[cfg(feature = "selftest")]
    reset::spoil();
    reset::set_registers();
    percpu::take_first();
    // SAFETY: nothing else runs yet.
    unsafe { *smp::IMAGE.boot_mut() = PhysAddr::new(image) };
    timer::init_clock();
    kernel_log::init();
    early_port::arm(fdt);

    let fdt_size = boot::read_tree(fdt).unwrap_or_else(|e| boot::stop("no usable device tree", &e));
    let board = BOARD.get();
    errata::init(entered_in == 2, board);
    errata::apply();
    let args = board.chosen.bootargs.as_str();
    power::init_semihosting(args);
    if let Some(level) = bootargs::find(args, "loglevel")
        && !kernel_log::set_level(level)
    {
        log::warn!("loglevel={level}: no such level");
    }
    boot::greet(board);

    let pages = memory::init(board, PhysAddr::new(image), PhysAddr::new(fdt), fdt_size)
        .unwrap_or_else(|e| boot::stop("no memory to run in", &memory::Shortage(e)));
    let (files, problem) = archive::init(archive::range(board));
    heap::init_slab(args, &board.chosen.rng_seed);
    memory::init_per_cpu(board).unwrap_or_else(|e| boot::stop("no memory for per-CPU variables", &e));
    names::cache::register_shrinker();
    names::inodes::register_shrinker();
    pressure::init();
    #[cfg(feature = "selftest")]
    selftest::stop_early(args);
    let console = serial::init(board);
    // Without a port of its own, a kernel that stops looks for one still.
    if serial::has_log() {
        early_port::disarm();
    }
    power::init();
    boot::report_memory(board, &pages);

    let randomise = !bootargs::arguments(args).any(|(key, _)| key == "norandmaps");
    if !random::init(&board.chosen.rng_seed, randomise) {
        log::warn!("the boot loader gave no rng-seed: random numbers are predictable");
    }
    names::cache::set_seed();
    names::inodes::set_seed();
    if SPACES.init(if arch::regs::has_16_bit_asids() { 16 } else { 8 }).is_err() {
        boot::stop("no memory for address spaces", &"even the zero page");
    }
    if arch::regs::table_updates() != arch::regs::TableUpdates::Nothing {
        SPACES.set_hardware_updates();
    }
    arch::uaccess::init();
    memory::init_swap(args, board);
    memory::init_groups();
    memory::init_compaction();
    memory::init_overcommit(args);
    memory::init_huge_pages(args);
    sched::init(args);
    match problem {
        Some(problem) => log::warn!("boot archive: {files} files; {problem:?}: the rest is ignored"),
        None => log::info!("boot archive: {files} files and directories"),
    }
    archive::make_objects().unwrap_or_else(|e| boot::stop("no memory for the boot archive's files", &e));
    // SAFETY: only this CPU runs, and nothing has asked for a device.
    let listed = unsafe { devices::init(PhysAddr::new(fdt), fdt_size) };
    listed.unwrap_or_else(|e| boot::stop("no memory for the list of devices", &e));
    if let Ok(file) = names::walk::in_archive(b"/boot/kernel.sym") {
        symbols::init(file.data);
    }

    interrupts::init(board, console).unwrap_or_else(|e| boot::stop("no interrupts", &e));
    serial::set_input_interrupt(console.is_some());
    boot::init_this_cpu(0).unwrap_or_else(|e| boot::stop("no memory for the idle thread", &e));
    boot::start_secondaries(board);
    boot::report_features();
    #[cfg(feature = "selftest")]
    selftest::run();
    input::start().unwrap_or_else(|e| boot::stop("no memory for the terminal's thread", &e));
    deferred::start().unwrap_or_else(|e| boot::stop("no memory for the notification thread", &e));
    signal_thread::start().unwrap_or_else(|e| boot::stop("no memory for the signal thread", &e));
    kswapd::start().unwrap_or_else(|e| boot::stop("no memory for kswapd", &e));
    trigger::start().unwrap_or_else(|e| boot::stop("no memory for the thread of triggers", &e));
    names::flusher::start().unwrap_or_else(|e| boot::stop("no memory for the flushers", &e));
    PAGES.set_pressure_handler(&oom::Pressure);
    boot::first_process().unwrap_or_else(|e| boot::stop("cannot start /init", &e));
    boot::report_boot();
    heap::inject_failures(args);
    sched::idle_loop()
}

/// A secondary CPU's first Rust code: final tables, its own stack and per-CPU data, interrupts masked.
#[unsafe(no_mangle)]
extern "C" fn secondary_main() -> ! {
    #[cfg(feature = "selftest")]
    reset::spoil();
    reset::set_registers();
    errata::apply();
    let ready = interrupts::init_cpu().is_ok() && boot::init_this_cpu(cpu::this().id()).is_ok();
    if !ready {
        cpu::park();
    }
    #[cfg(feature = "selftest")]
    selftest::serve();
    sched::idle_loop()
}
