//! kswapd: a thread of the kernel's own for each node with memory, which frees pages before programs have to wait for them.
//!
//! The page allocator wakes it when no zone is above its low watermark, and says what to do
//! ([`balance`](quire_mm::page_alloc::PageAllocator::balance)).

use core::sync::atomic::{AtomicUsize, Ordering};

use quire_abi::Errno;
use quire_mm::zone::MAX_NODES;

use super::point::resched_point;
use super::thread;
use super::wait::{Sleep, WaitQueue};
use crate::arch::cpu;
use crate::vm::PAGES;

static WORK: [WaitQueue; MAX_NODES] = [const { WaitQueue::new() }; MAX_NODES];

/// Threads that know their node.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Wakes the thread of a node. Under any lock of an allocation's caller.
pub fn wake(node: usize) {
    WORK[node].wake_one();
}

/// Nodes with memory.
fn nodes() -> impl Iterator<Item = usize> {
    (0..MAX_NODES).filter(|node| PAGES.zones().any(|zone| zone.node() == *node && zone.managed() != 0))
}

/// Starts the threads.
pub fn start() -> Result<(), Errno> {
    nodes().try_for_each(|_| thread::start_kernel(serve))
}

extern "C" fn serve(_: usize) -> ! {
    cpu::irq_enable();
    let node = nodes().nth(RUNNING.fetch_add(1, Ordering::Relaxed)).unwrap_or(0);
    loop {
        let is_asked = || PAGES.wants_balance(node).then_some(());
        // A thread of no process is neither killed nor sent signals.
        let _ = WORK[node].wait_until(Sleep::Killable, None, is_asked);
        PAGES.balance(node);
        let _ = resched_point(Sleep::Killable);
    }
}
