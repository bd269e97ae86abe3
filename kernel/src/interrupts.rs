//! Interrupts: the controller, the handlers of interrupts, and inter-processor interrupts. The entry point is
//! [`crate::trap::irq`].

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quire_mm::sync::Rank;
use quire_platform::gic::{GicError, InterruptController, Priority};
use quire_platform::tree::{Board, Interrupt, Region};
use spin::Once;

use crate::arch::cpu;
use crate::arch::gic::CpuInterface;
use crate::vm::{Cpu, SpinLock, io};

/// Check the run queue and the current thread's work.
const RESCHEDULE: u8 = 0;
/// Stop for good, because another CPU panics or switches off.
const STOP: u8 = 1;
/// Execute a barrier.
const BARRIER: u8 = 2;

/// The lowest number of an interrupt that is not a CPU's own.
const FIRST_SHARED: u32 = 32;
/// Numbers end here.
const NUMBERS: usize = 1024;

/// Interrupts without a handler that have been raised.
static UNOWNED: [AtomicU64; NUMBERS / 64] = [const { AtomicU64::new(0) }; NUMBERS / 64];
/// Of these, those that were logged.
static NAMED: [AtomicU64; NUMBERS / 64] = [const { AtomicU64::new(0) }; NUMBERS / 64];
/// Whether there may be some to log.
static HAS_UNOWNED: AtomicBool = AtomicBool::new(false);

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

/// Brings up the controller, and routes the console's interrupt to this CPU.
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
    }
    Ok(())
}

/// Brings up this CPU's part of the controller, and its timer.
pub fn init_cpu() -> Result<(), Error> {
    let (controller, lines) = (CONTROLLER.get().ok_or(Error::NoController)?, LINES.get().ok_or(Error::NoTimer)?);
    let me = cpu::this().id();
    controller.init_cpu(me)?;
    configure(lines.timer)?;
    for sgi in [RESCHEDULE, STOP, BARRIER] {
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

/// Whether the kernel itself handles an interrupt, or it is private to a CPU.
pub fn is_kernels(intid: u32) -> bool {
    let is_consoles = LINES.get().and_then(|lines| lines.console).is_some_and(|line| line.intid == intid);
    intid < FIRST_SHARED || is_consoles
}

/// Routes a device's interrupt to this CPU.
pub fn attach(line: Interrupt) -> Result<(), Error> {
    configure(line)
}

/// Enables a device's interrupt again.
pub fn unmask(intid: u32) {
    if let Some(controller) = CONTROLLER.get() {
        // (It was attached, so the interrupt exists.)
        let _ = controller.enable(cpu::this().id(), intid);
    }
}

/// Masks a device's interrupt. An interrupt that a CPU is just taking may still arrive.
pub fn mask(intid: u32) {
    if let Some(controller) = CONTROLLER.get() {
        // As above.
        let _ = controller.disable(cpu::this().id(), intid);
    }
}

/// Notes that an interrupt without a handler was raised, and is masked. It is logged later, where there is time.
pub fn note_unowned(intid: u32) {
    if let Some(word) = UNOWNED.get(intid as usize / 64) {
        word.fetch_or(1 << (intid % 64), Ordering::Relaxed);
        HAS_UNOWNED.store(true, Ordering::Release);
    }
}

/// Whether there may be some to log.
#[inline]
pub fn has_unowned() -> bool {
    HAS_UNOWNED.load(Ordering::Relaxed)
}

/// Logs the interrupts without a handler that were raised for the first time. Interrupts are enabled.
#[cold]
pub fn name_unowned() {
    HAS_UNOWNED.store(false, Ordering::Relaxed);
    for (at, (unowned, named)) in UNOWNED.iter().zip(&NAMED).enumerate() {
        let unowned = unowned.load(Ordering::Acquire);
        let new = unowned & !named.fetch_or(unowned, Ordering::Relaxed);
        for bit in (0..64).filter(|bit| new & 1 << bit != 0) {
            log::warn!("interrupt {}: it has no handler, and is masked", at * 64 + bit);
        }
    }
}

/// The source of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The virtual timer of this CPU.
    Timer,
    /// The console's serial port.
    Console,
    /// Another CPU: [`send_reschedule`].
    Reschedule,
    /// Another CPU: [`send_barrier`].
    Barrier,
    /// Another CPU: [`stop_others`].
    Stop,
    /// Of a device that the kernel does not drive: its number.
    Other(u32),
    /// None: a private interrupt of a CPU that the kernel does not use.
    Unknown,
}

/// Serves the pending interrupts of this CPU, one after the other. Interrupts are masked.
#[inline]
pub fn for_each_pending(mut serve: impl FnMut(Source)) {
    let (Some(controller), Some(lines)) = (CONTROLLER.get(), LINES.get()) else { return };
    while let Some(active) = controller.acknowledge() {
        let intid = active.intid();
        serve(if intid == lines.timer.intid {
            Source::Timer
        } else if lines.console.is_some_and(|c| c.intid == intid) {
            Source::Console
        } else if intid == u32::from(RESCHEDULE) {
            Source::Reschedule
        } else if intid == u32::from(BARRIER) {
            Source::Barrier
        } else if intid == u32::from(STOP) {
            Source::Stop
        } else if intid >= FIRST_SHARED {
            Source::Other(intid)
        } else {
            Source::Unknown
        });
        controller.end(active);
    }
}

/// Makes another CPU check its run queue.
pub fn send_reschedule(cpu: usize) {
    if let Some(controller) = CONTROLLER.get() {
        // Sending fails only for a CPU that is not online, which gets no work.
        let _ = controller.send(cpu, RESCHEDULE);
    }
}

/// Makes another CPU execute a barrier.
pub fn send_barrier(cpu: usize) {
    if let Some(controller) = CONTROLLER.get() {
        // As above.
        let _ = controller.send(cpu, BARRIER);
    }
}

/// Stops all other CPUs, for a panic or before the machine is switched off.
pub fn stop_others() {
    if let Some(controller) = CONTROLLER.get() {
        let _ = controller.send_to_others(STOP);
    }
}
