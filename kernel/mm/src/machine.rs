//! The memory manager's interface to the hardware, and to the threads that run on it: a small trait each.
//!
//! Each floor that adds something to the machine declares a trait of its own, called `Machine` as well, on top of the
//! one below: [`page::Machine`](crate::page::Machine) the page records,
//! [`page_alloc::Machine`](crate::page_alloc::Machine) the page allocator, [`mm::Machine`](crate::mm::Machine) the
//! address spaces. Code asks for the lowest one that suffices.

use core::alloc::Layout;
use core::sync::atomic::AtomicU64;

use quire_abi::Errno;

use crate::addr::{PhysAddr, VirtAddr};
use crate::event::Event;

/// The maximum number of CPUs that the kernel supports: per-CPU arrays have this length.
pub const MAX_CPUS: usize = 16;

/// An address-space identifier of the TLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asid(pub u16);

/// The calling thread was killed: its call's result does not matter any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed;

impl From<Killed> for Errno {
    fn from(_: Killed) -> Self {
        Errno::EINTR
    }
}

/// The resource limits that apply to an address space. They are those of the calling process, as on Linux: processes
/// that share a space may have different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Limit {
    /// `RLIMIT_AS`.
    AddressSpace = 0,
    /// `RLIMIT_DATA`.
    Data = 1,
    /// `RLIMIT_STACK`.
    Stack = 2,
    /// `RLIMIT_MEMLOCK`; unlimited for a process with the privilege to lock memory.
    MemLock = 3,
}

impl Limit {
    /// How many there are.
    pub const COUNT: usize = 4;
}

/// The threads that run on the machine. The defaults suit a machine on which no thread is killed and nothing else runs.
pub trait Threads: Copy + Send + Sync + 'static {
    /// Whether the calling thread has been killed: its call's result does not matter, and it need not retry.
    fn is_killed(self) -> bool {
        false
    }

    /// A preemption point in work whose length a program determines. `Err` if the calling thread was killed: then work
    /// that can stop halfway stops. The caller holds no spin lock.
    #[inline(always)]
    fn resched_point(self) -> Result<(), Killed> {
        Ok(())
    }

    /// Whether the caller may wait for memory, apart from the locks that it holds: for assertions.
    #[inline(always)]
    fn may_wait(self) -> bool {
        true
    }

    /// A limit of the calling thread's process, in bytes; `u64::MAX` is none. Callers hold locks: it takes none.
    #[inline(always)]
    fn limit(self, which: Limit) -> u64 {
        let _ = which;
        u64::MAX
    }

    /// Two limits, for callers that compare with both.
    #[inline(always)]
    fn limits(self, which: [Limit; 2]) -> [u64; 2] {
        which.map(|which| self.limit(which))
    }

    /// Notes that the calling thread has brought a page back from swap, which counts as one of its major faults.
    fn note_major_fault(self) {}

    /// Notes that the calling thread waits for memory from now on, and so makes no progress. The result, the number of
    /// its control group, must be passed to [`Threads::end_stall`]; `None` if it already waited
    /// ([`crate::psi::Stall`]).
    fn begin_stall(self) -> Option<u16> {
        None
    }

    /// It does not any more.
    fn end_stall(self, group: u16) {
        let _ = group;
    }

    /// The calling thread, for [`Threads::unpark`].
    fn this_thread(self) -> usize {
        0
    }

    /// Sleeps until `ready` returns true. It is called before each sleep. No [`Threads::unpark`] after such a call is
    /// lost; one before it leaves no trace, so `ready` must see what it was for. If `killable`, a killed thread stops
    /// sleeping: `false`. A machine without other threads to run spins.
    fn park(self, killable: bool, ready: &mut dyn FnMut() -> bool) -> bool {
        while !ready() {
            if killable && self.is_killed() {
                return false;
            }
            core::hint::spin_loop();
        }
        true
    }

    /// Wakes a thread that sleeps in [`Threads::park`], so that it calls `ready` again.
    ///
    /// # Safety
    /// `thread` is from [`Threads::this_thread`], and the thread does not end during the call.
    unsafe fn unpark(self, thread: usize) {
        let _ = thread;
    }
}

/// The machine below the memory manager. In the kernel a zero-sized type; in host tests a `&'static` simulation
/// whose CPUs are threads.
///
/// # Safety
/// The memory manager's safety depends on these: `direct_map` returns a pointer through which the physical byte can be
/// read and written as long as the frame exists, with the alignment of the address, up to the largest block of frames
/// (4 MiB); `cpu` is below [`MAX_CPUS`] and does not change while interrupts are masked; a TLB operation has completed,
/// on every CPU, when it returns.
pub unsafe trait Machine: Threads {
    /// This CPU's number.
    fn cpu(self) -> usize;

    /// Masks interrupts on this CPU and returns the state for [`Machine::irq_restore`].
    fn irq_save(self) -> usize;

    /// Undoes the matching [`Machine::irq_save`].
    fn irq_restore(self, state: usize);

    /// A hint to the CPU that this is a spin loop.
    fn relax(self) {
        core::hint::spin_loop();
    }

    /// Stores the return addresses of the active calls, innermost first; returns how many. For debugging: a machine
    /// that cannot tell returns 0.
    fn backtrace(self, into: &mut [usize]) -> usize {
        let _ = into;
        0
    }

    /// Counts an event on this CPU. Interrupt handlers count nothing, so this need not be atomic.
    #[inline(always)]
    fn count(self, event: Event, n: usize) {
        let _ = (event, n);
    }

    /// Pages that were given to user memory so far, if that is counted: [`Event::UserAlloc`].
    fn user_allocs(self) -> Option<u64> {
        None
    }

    /// The kernel's address of a byte of DRAM.
    fn direct_map(self, addr: PhysAddr) -> *mut u8;

    /// The inverse of [`Machine::direct_map`].
    fn direct_map_to_phys(self, ptr: *const u8) -> PhysAddr;

    /// The locks that this CPU holds, one bit per rank (see [`crate::sync`]).
    fn held_ranks(self) -> &'static AtomicU64;

    /// Memory from the global allocator, without waiting; null if there is none.
    #[inline]
    fn alloc_now(self, layout: Layout) -> *mut u8 {
        // SAFETY: callers pass layouts of nonzero size.
        unsafe { alloc::alloc::alloc(layout) }
    }

    /// Fills a page frame with zeros.
    fn clear_page(self, addr: PhysAddr) {
        // SAFETY: the caller owns the frame, and the direct map reaches all of it.
        unsafe { core::ptr::write_bytes(self.direct_map(addr), 0, crate::addr::PAGE_SIZE) }
    }

    /// Copies a page frame. The two are distinct.
    fn copy_page(self, to: PhysAddr, from: PhysAddr) {
        // SAFETY: the caller owns both frames, they differ, and the direct map reaches all of them.
        unsafe {
            core::ptr::copy_nonoverlapping(self.direct_map(from), self.direct_map(to), crate::addr::PAGE_SIZE);
        }
    }

    /// Makes preceding stores to table entries visible to table walkers on all CPUs, this one's own included, before
    /// anything later in program order (DSB ISHST, ISB). Until then walkers may see them late or in another order; an
    /// exception return alone is not enough, since it waits for no store. So three kinds of callers need it: those that
    /// invalidate afterwards, those that afterwards read another CPU's state (the ASID of a space that may be run for
    /// the first time), and those that resume a program, which would otherwise fault again.
    fn publish_tables(self);

    /// Makes instructions written to a frame through the direct map visible to instruction fetch on all CPUs. Must be
    /// called before an executable entry for the frame is published.
    fn sync_instructions(self, addr: PhysAddr);

    /// Invalidates, on all CPUs, last-level entries of pages in `start..start + pages * PAGE_SIZE` of one ASID. The
    /// caller has published its stores to them ([`crate::table::flush`] is the only caller).
    fn tlb_flush_pages(self, asid: Asid, start: usize, pages: usize);

    /// Invalidates, on all CPUs, last-level and table entries of one ASID. As for [`Machine::tlb_flush_pages`].
    fn tlb_flush_asid(self, asid: Asid);

    /// Invalidates everything on all CPUs.
    fn tlb_flush_all(self);

    /// Invalidates this CPU's TLB only.
    fn tlb_flush_local(self);

    /// Invalidates, on all CPUs, kernel entries of `pages` pages from `start`, table entries included.
    fn tlb_flush_kernel(self, start: VirtAddr, pages: usize);
}
