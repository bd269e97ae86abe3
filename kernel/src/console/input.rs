//! Console input: from the port to the terminal.
//!
//! The interrupt only moves bytes from the port into a small queue. A kernel thread passes them to the line discipline,
//! echoes, wakes readers and sends signals. So a large paste costs a thread's share of a CPU and masks no interrupts.
//! While the queue is full, bytes stay in the port's FIFO, which finally overruns.
//!
//! Lock order: the queue's ([`Rank::Terminal`]), then the port's.

use quire_abi::Errno;
use quire_mm::sync::Rank;

use super::{serial, tty};
use crate::arch::cpu;
use crate::task::point::resched_point;
use crate::task::thread;
use crate::task::wait::{Sleep, WaitQueue};
use crate::vm::{Cpu, SpinLock};

/// Bytes that wait for the terminal's thread.
const SIZE: usize = 256;

/// Bytes moved from the port, or to the terminal, at a time: a port's FIFO holds no more.
const PIECE: usize = 32;

struct Queue {
    bytes: [u8; SIZE],
    start: usize,
    len: usize,
    /// The port's interrupt is off, because there is no room.
    is_throttled: bool,
}

static QUEUE: SpinLock<Queue> =
    SpinLock::new(Cpu, Rank::Terminal, Queue { bytes: [0; SIZE], start: 0, len: 0, is_throttled: false });
static ARRIVED: WaitQueue = WaitQueue::new();

impl Queue {
    /// Takes bytes from the port while there is room.
    fn fill(&mut self) {
        let mut piece = [0; PIECE];
        let room = PIECE.min(SIZE - self.len);
        let n = serial::take_input(&mut piece[..room]);
        for &byte in &piece[..n] {
            self.bytes[(self.start + self.len) % SIZE] = byte;
            self.len += 1;
        }
        let is_full = self.len == SIZE;
        if is_full != self.is_throttled {
            serial::set_input_interrupt(!is_full);
            self.is_throttled = is_full;
        }
    }

    fn take(&mut self, to: &mut [u8; PIECE]) -> usize {
        let n = PIECE.min(self.len);
        for byte in &mut to[..n] {
            *byte = self.bytes[self.start];
            self.start = (self.start + 1) % SIZE;
        }
        self.len -= n;
        n
    }
}

/// The port's interrupt.
pub fn interrupt() {
    QUEUE.lock().fill();
    ARRIVED.wake_one();
}

/// The next bytes. The port raises its interrupt only when a byte arrives at an empty FIFO, so it is read until it is
/// empty.
fn next(piece: &mut [u8; PIECE]) -> Option<usize> {
    let mut queue = QUEUE.lock();
    queue.fill();
    let n = queue.take(piece);
    (n > 0).then_some(n)
}

/// Starts the terminal's thread.
pub fn start() -> Result<(), Errno> {
    thread::start_kernel(serve)
}

extern "C" fn serve(_: usize) -> ! {
    cpu::irq_enable();
    let mut piece = [0; PIECE];
    loop {
        // A thread without a process cannot be killed or signalled.
        if let Ok(n) = ARRIVED.wait_until(Sleep::Killable, None, || next(&mut piece)) {
            tty::receive(&piece[..n]);
        }
        let _ = resched_point(Sleep::Killable);
    }
}
