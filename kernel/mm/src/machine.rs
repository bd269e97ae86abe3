//! What the memory manager asks of the machine: one small trait.

use core::alloc::Layout;
use core::sync::atomic::AtomicU64;

use quire_abi::Errno;

use crate::addr::{PhysAddr, VirtAddr};
use crate::event::Event;
use crate::mm::Spaces;
use crate::page::Page;
use crate::page_alloc::{Gfp, PageAllocator};

/// The most CPUs that a kernel serves: per-CPU arrays have this length.
pub const MAX_CPUS: usize = 16;

/// An address-space identifier as the TLB knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asid(pub u16);

/// The calling thread was killed: nobody will see what its call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed;

impl From<Killed> for Errno {
    fn from(_: Killed) -> Self {
        Errno::EINTR
    }
}

/// The machine below the memory manager. In the kernel a zero-sized type; in host tests a `&'static` simulation
/// whose CPUs are threads.
///
/// # Safety
/// The memory manager's own safety rests on these: `direct_map` answers a pointer through which the physical
/// byte can be read and written for as long as the frame exists, and which is as aligned as the address is, up to
/// the largest block of frames (4 MiB); `cpu` is below [`MAX_CPUS`] and does not change while interrupts are
/// masked; a TLB operation has completed, on every CPU, when it returns.
pub unsafe trait Machine: Copy + Send + Sync + 'static {
    /// This CPU's number.
    fn cpu(self) -> usize;

    /// Masks interrupts on this CPU and answers what [`Machine::irq_restore`] needs to undo it.
    fn irq_save(self) -> usize;

    /// Undoes the matching [`Machine::irq_save`].
    fn irq_restore(self, state: usize);

    /// Tells the CPU that it spins.
    fn relax(self) {
        core::hint::spin_loop();
    }

    /// The return addresses of the calls that led here, innermost first; how many there were. For debugging:
    /// a machine that cannot tell answers 0.
    fn backtrace(self, into: &mut [usize]) -> usize {
        let _ = into;
        0
    }

    /// Counts something that happened here. Interrupt handlers count nothing, so that it need not be atomic.
    #[inline(always)]
    fn count(self, event: Event, n: usize) {
        let _ = (event, n);
    }

    /// Where the kernel sees a byte of DRAM.
    fn direct_map(self, addr: PhysAddr) -> *mut u8;

    /// The inverse of [`Machine::direct_map`].
    fn direct_map_to_phys(self, ptr: *const u8) -> PhysAddr;

    /// The locks that this CPU holds, a bit a rank (see [`crate::sync`]).
    fn held_ranks(self) -> &'static AtomicU64;

    /// The page allocator of this machine.
    fn pages(self) -> &'static PageAllocator<Self>;

    /// What the address spaces of this machine share.
    fn spaces(self) -> &'static Spaces<Self>;

    /// The record of page frame 0: `mem_map` as one sparse array. Only records of existing frames may be touched.
    fn mem_map(self) -> *mut Page;

    /// What stands behind entries of pages that are elsewhere; nothing where no floor makes such entries.
    fn absent(self) -> Option<&'static dyn crate::mm::Absent> {
        None
    }

    /// Whether the allocation that the calling thread is making is to fail although there is memory. Asked once for each,
    /// while somebody [wants it](PageAllocator::ask_about_failures).
    ///
    /// An allocation that cannot wait and fails makes the next one that can fail too, unless its caller can do without it
    /// (NORETRY): whoever waits for what was missing gets to see the failure.
    fn fails_allocation(self, gfp: Gfp) -> bool {
        let _ = gfp;
        false
    }

    /// Memory of the global allocator, without a wait for any; null if there is none.
    #[inline]
    fn alloc_now(self, layout: Layout) -> *mut u8 {
        // SAFETY: callers ask for what has a size.
        unsafe { alloc::alloc::alloc(layout) }
    }

    /// Whether the calling thread has been killed: nobody will see what its call answers, and what it does in vain it
    /// need not do again.
    fn is_killed(self) -> bool {
        false
    }

    /// A place in work of a length that a program sets, at which other threads run if it is their turn. `Err` if the
    /// calling thread was killed: work that can stop halfway does. The caller holds no spin lock.
    #[inline(always)]
    fn resched_point(self) -> Result<(), Killed> {
        Ok(())
    }

    /// The calling thread, for [`Machine::unpark`].
    fn this_thread(self) -> usize {
        0
    }

    /// Sleeps until `ready` says so, which is asked before each sleep; no [`Machine::unpark`] after a question is lost. If
    /// `killable`, a killed thread sleeps no more: `false`. A machine that has no threads to run meanwhile spins.
    fn park(self, killable: bool, ready: &mut dyn FnMut() -> bool) -> bool {
        while !ready() {
            if killable && self.is_killed() {
                return false;
            }
            self.relax();
        }
        true
    }

    /// Has a thread that sleeps in [`Machine::park`] ask again.
    ///
    /// # Safety
    /// `thread` is from [`Machine::this_thread`], and the thread does not end during the call.
    unsafe fn unpark(self, thread: usize) {
        let _ = thread;
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
    /// anything that comes later in the program (DSB ISHST, ISB). Until then walkers may see them late or in another order;
    /// the exception return alone does not help, since it waits for no store. So three kinds of callers need it: those who
    /// invalidate afterwards, those who read afterwards what another CPU does (the ASID of a space that may be run for
    /// the first time), and those who let a program go on that would fault again.
    fn publish_tables(self);

    /// Makes what was written to a frame through the direct map fit to be executed from it, on all CPUs: to be
    /// called before an executable entry for it is published.
    fn sync_instructions(self, addr: PhysAddr);

    /// Invalidates, on all CPUs, last-level entries of pages in `start..start + pages * PAGE_SIZE` of one ASID. The caller
    /// has published what it stored to them ([`crate::table::flush`] is the only one).
    fn tlb_flush_pages(self, asid: Asid, start: usize, pages: usize);

    /// Invalidates, on all CPUs, last-level and table entries of one ASID. As for [`Machine::tlb_flush_pages`].
    fn tlb_flush_asid(self, asid: Asid);

    /// Invalidates everything on all CPUs.
    fn tlb_flush_all(self);

    /// Invalidates what this CPU alone has cached; other CPUs are not asked.
    fn tlb_flush_local(self);

    /// Invalidates, on all CPUs, kernel entries of `pages` pages from `start`, table entries included.
    fn tlb_flush_kernel(self, start: VirtAddr, pages: usize);
}
