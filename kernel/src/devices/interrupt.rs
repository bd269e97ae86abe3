//! Interrupts of devices: each is masked when it is raised, and sets events of an endpoint; its driver unmasks it when
//! the device does not assert it any more.
//!
//! Lock order: the lock of the lines, which interrupt handlers take, then the endpoint's.

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_mm::fallible::{KArc, TryVec};
use quire_mm::sync::Rank;

use super::Holding;
use crate::interrupts;
use crate::ipc::message::Endpoint;
use crate::vm::{Cpu, SpinLock};

/// The listener for an interrupt.
struct Listener {
    intid: u32,
    endpoint: KArc<Endpoint>,
    events: u64,
}

/// By number.
static LISTENERS: SpinLock<Vec<Listener>> = SpinLock::new(Cpu, Rank::Descriptors, Vec::new());

/// An interrupt that is reported to a driver.
pub struct Line {
    intid: u32,
    /// The device stays held.
    _holding: KArc<Holding>,
}

impl Line {
    /// From now on the interrupt with this index among the device's sets these events of the endpoint. EINVAL if it
    /// does not exist, EBUSY if it is already reported to another driver (devices may share one) or handled by the
    /// kernel, ENOMEM.
    pub fn new(holding: &KArc<Holding>, index: usize, endpoint: KArc<Endpoint>, events: u64) -> Result<Self, Errno> {
        let interrupt = *holding.device().interrupts().get(index).ok_or(Errno::EINVAL)?;
        if interrupts::is_kernels(interrupt.intid) {
            return Err(Errno::EBUSY);
        }
        listen(Listener { intid: interrupt.intid, endpoint, events })?;
        let this = Self { intid: interrupt.intid, _holding: holding.clone() };
        interrupts::attach(interrupt).map_err(|_| Errno::EIO)?;
        Ok(this)
    }

    /// It may come again.
    pub fn unmask(&self) {
        interrupts::unmask(self.intid);
    }
}

/// Enters a listener. EBUSY, ENOMEM.
fn listen(listener: Listener) -> Result<(), Errno> {
    let mut room = Vec::new();
    loop {
        let mut listeners = LISTENERS.lock();
        let at = match listeners.binary_search_by_key(&listener.intid, |other| other.intid) {
            Ok(_) => {
                drop(listeners);
                return Err(Errno::EBUSY);
            }
            Err(at) => at,
        };
        if listeners.len() < listeners.capacity() {
            // (There is room.)
            let entered = listeners.try_push(listener);
            listeners[at..].rotate_right(1);
            drop(listeners);
            return Ok(entered?);
        }
        let wanted = listeners.len() + 1;
        if room.capacity() >= wanted {
            for listener in listeners.drain(..) {
                room.try_push(listener)?;
            }
            core::mem::swap(&mut *listeners, &mut room);
            continue;
        }
        drop(listeners);
        room.try_reserve_exact(wanted).map_err(|_| Errno::ENOMEM)?;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        interrupts::mask(self.intid);
        let (gone, rest) = {
            let mut listeners = LISTENERS.lock();
            let at = listeners.binary_search_by_key(&self.intid, |other| other.intid);
            let gone = at.ok().map(|at| listeners.remove(at));
            // The memory is freed with the last listener.
            let rest = if listeners.is_empty() { core::mem::take(&mut *listeners) } else { Vec::new() };
            (gone, rest)
        };
        drop((gone, rest));
    }
}

/// Delivers an interrupt that the kernel does not handle: it is masked, and reported to its listener. `false` if there
/// is none. O(log n) in the number of listeners.
pub fn deliver(intid: u32) -> bool {
    interrupts::mask(intid);
    let listeners = LISTENERS.lock();
    let Ok(at) = listeners.binary_search_by_key(&intid, |other| other.intid) else { return false };
    let Listener { endpoint, events, .. } = &listeners[at];
    // (If the endpoint is dead, the driver is, too, or will be.)
    let _ = endpoint.signal(*events);
    true
}
