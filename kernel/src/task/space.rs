//! A process's ownership of its address space.

use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use quire_abi::Errno;
use quire_abi::process::MemoryLayout;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use super::active;
use super::percpu;
use super::thread::current;
use crate::arch::cpu;
use crate::interrupts;
use crate::ipc::descriptor::Object;
use crate::vm::{Cpu, Mm, SpinLock};

/// An address space owned by processes: usually one, two while a vfork child runs. When the last owner goes, the memory
/// is freed, even if an idle CPU still has the tables in TTBR0.
pub struct Space {
    /// The space.
    pub mm: ManuallyDrop<KArc<Mm>>,
    /// The OOM killer's: the last of its rounds in which an owner was exempt.
    pub exempt_in: AtomicU32,
    /// The program that exec has loaded into it, or into the space that it is a copy of; `None` before that.
    loaded: SpinLock<Option<Loaded>>,
}

/// A program in memory.
#[derive(Clone)]
pub struct Loaded {
    /// Its file.
    pub file: Object,
    /// Where its parts are.
    pub layout: MemoryLayout,
    /// The page that signal handlers return through.
    pub sigreturn: usize,
}

static SPACES_IN_USE: AtomicU64 = AtomicU64::new(0);

impl Space {
    /// The first owner's.
    pub fn new(mm: KArc<Mm>, loaded: Option<Loaded>) -> Result<KArc<Self>, Errno> {
        SPACES_IN_USE.fetch_add(1, Ordering::Relaxed);
        Ok(KArc::try_new(Self {
            mm: ManuallyDrop::new(mm),
            exempt_in: AtomicU32::new(0),
            loaded: SpinLock::new(Cpu, Rank::Descriptors, loaded),
        })?)
    }

    /// exec has loaded a program.
    pub fn note_loaded(&self, loaded: Loaded) {
        let former = self.loaded.lock().replace(loaded);
        drop(former);
    }

    /// The page that signal handlers return through; 0 without a program.
    pub fn sigreturn(&self) -> usize {
        self.loaded.lock().as_ref().map_or(0, |loaded| loaded.sigreturn)
    }

    /// The program in it.
    pub fn loaded(&self) -> Option<Loaded> {
        self.loaded.lock().clone()
    }
}

/// Runs `f` with another process's space in place of the calling thread's: what it copies from and to user memory is of that space.
/// In process context; `f` may fault and sleep.
pub fn visit<T>(space: &KArc<Space>, f: impl FnOnce() -> T) -> T {
    let own = enter(Some(KArc::clone(&space.mm)));
    let result = f();
    drop(enter(own));
    result
}

/// Gives the calling thread a space; returns the former one.
fn enter(mm: Option<KArc<Mm>>) -> Option<KArc<Mm>> {
    let irq = cpu::irq_save();
    let former = current().set_mm(mm);
    if let Some(mm) = current().mm() {
        active::activate(percpu::this(), mm);
    }
    cpu::irq_restore(irq);
    former
}

impl Drop for Space {
    fn drop(&mut self) {
        active::leave(|active| KArc::ptr_eq(active, &self.mm));
        let is_loaded = KArc::count(&self.mm) > 1;
        if is_loaded {
            // An idle CPU still has it loaded. That CPU drops its reference soon, in a context too short for this work.
            self.mm.teardown();
        }
        // SAFETY: this is the end of the only owner of the field.
        unsafe { ManuallyDrop::drop(&mut self.mm) };
        if is_loaded {
            for cpu in percpu::online() {
                cpu.let_go.store(true, Ordering::SeqCst);
                if cpu.idling.load(Ordering::SeqCst) {
                    interrupts::send_reschedule(cpu.id());
                }
            }
        }
        SPACES_IN_USE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Spaces that processes own.
pub fn in_use() -> u64 {
    SPACES_IN_USE.load(Ordering::Relaxed)
}
