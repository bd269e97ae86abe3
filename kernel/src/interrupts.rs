//! Interrupts: the timer, the console, and inter-processor interrupts.

use core::fmt;
use core::sync::atomic::Ordering;

use quire_mm::sync::Rank;
use quire_platform::gic::{GicError, InterruptController, Priority};
use quire_platform::tree::{Board, Interrupt, Region};
use spin::Once;

use crate::arch::gic::CpuInterface;
use crate::arch::{cpu, regs};
use crate::console::{input, serial};
use crate::task::sched;
use crate::task::thread::{current, work};
use crate::vm::{Cpu, SpinLock, io};

/// Check the run queue and the current thread's work.
const RESCHEDULE: u8 = 0;
/// Stop for good, because another CPU panics or switches off.
const STOP: u8 = 1;

static CONTROLLER: Once<InterruptController<CpuInterface>> = Once::new();
static LINES: Once<Lines> = Once::new();

/// `configure` changes words that interrupts share.
static CONFIGURING: SpinLock<()> = SpinLock::new(Cpu, Rank::InterruptController, ());

struct Lines {
    timer: Interrupt,
    console: Option<Interrupt>,
}

/// Why interrupts could not be set up.
#[derive(Debug)]
pub enum Error {
    /// The tree has no controller that Quire drives.
    NoController,
    /// The tree has no virtual timer.
    NoTimer,
    /// The controller refused.
    Gic(GicError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoController => write!(f, "the tree has no interrupt controller that Quire drives"),
            Self::NoTimer => write!(f, "the tree has no virtual timer"),
            Self::Gic(e) => write!(f, "{e}"),
        }
    }
}

impl From<GicError> for Error {
    fn from(e: GicError) -> Self {
        Self::Gic(e)
    }
}

/// Brings up the controller, with the console's interrupt going to this CPU.
pub fn init(board: &Board, console: Option<Interrupt>) -> Result<(), Error> {
    let described = board.controller.as_ref().ok_or(Error::NoController)?;
    let timer = board.timer.and_then(|t| t.virt).ok_or(Error::NoTimer)?;
    let map = |region: Region| io::map(region.base, region.size).ok();
    // SAFETY: `io::map` maps device memory for good, and this is the controller's only driver.
    let controller = unsafe { InterruptController::<CpuInterface>::new(described, map) }?;
    controller.init_distributor()?;
    CONTROLLER.call_once(|| controller);
    LINES.call_once(|| Lines { timer, console });
    init_cpu()?;
    if let Some(line) = console {
        configure(line)?;
        serial::set_input_interrupt(true);
    }
    Ok(())
}

/// This CPU's side of the controller, and its timer.
pub fn init_cpu() -> Result<(), Error> {
    let (controller, lines) = (CONTROLLER.get().ok_or(Error::NoController)?, LINES.get().ok_or(Error::NoTimer)?);
    let me = cpu::this().id();
    controller.init_cpu(me)?;
    configure(lines.timer)?;
    for sgi in [RESCHEDULE, STOP] {
        controller.enable(me, u32::from(sgi))?;
    }
    Ok(())
}

fn configure(line: Interrupt) -> Result<(), Error> {
    let controller = CONTROLLER.get().ok_or(Error::NoController)?;
    let me = cpu::this().id();
    {
        let _guard = CONFIGURING.lock();
        controller.configure(me, line, Priority::Normal)?;
    }
    controller.enable(me, line.intid)?;
    Ok(())
}

/// Handles the pending interrupts. Interrupts are masked.
pub fn handle() {
    let (Some(controller), Some(lines)) = (CONTROLLER.get(), LINES.get()) else { return };
    // No handler takes a lock that the interrupted code may hold.
    let held = cpu::this().held_ranks.swap(0, Ordering::Relaxed);
    let in_kernel = regs::interrupted_kernel();
    while let Some(active) = controller.acknowledge() {
        let intid = active.intid();
        if intid == u32::from(STOP) {
            cpu::this().online.store(false, Ordering::Release);
            cpu::park();
        }
        if intid == lines.timer.intid {
            sched::tick(in_kernel);
        } else if lines.console.is_some_and(|c| c.intid == intid) {
            input::interrupt();
        } else if intid == u32::from(RESCHEDULE) {
            current().set_work(work::RESCHEDULE);
        }
        controller.end(active);
    }
    cpu::this().held_ranks.store(held, Ordering::Relaxed);
}

/// Makes another CPU check its run queue.
pub fn send_reschedule(cpu: usize) {
    if let Some(controller) = CONTROLLER.get() {
        // Sending fails only for a CPU that is not online, which gets no work.
        let _ = controller.send(cpu, RESCHEDULE);
    }
}

/// Stops all other CPUs, for a panic or before the machine is switched off.
pub fn stop_others() {
    if let Some(controller) = CONTROLLER.get() {
        let _ = controller.send_to_others(STOP);
    }
}
