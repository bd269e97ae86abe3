//! Interrupts of devices: each is masked as it comes, and sets events of an endpoint; its driver unmasks it when the
//! device does not ask any more.
//!
//! Lock order: the lines' lock, which interrupts take, then the endpoint's.

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_mm::fallible::{KArc, TryVec};
use quire_mm::sync::Rank;

use super::Holding;
use crate::interrupts;
use crate::ipc::message::Endpoint;
use crate::vm::{Cpu, SpinLock};

/// Who is told of an interrupt.
struct Listener {
    intid: u32,
    endpoint: KArc<Endpoint>,
    events: u64,
}

/// By number.
static LISTENERS: SpinLock<Vec<Listener>> = SpinLock::new(Cpu, Rank::Descriptors, Vec::new());

/// An interrupt that a driver is told of.
pub struct Line {
    intid: u32,
    /// The device stays held.
    _holding: KArc<Holding>,
}

impl Line {
    /// From now on the interrupt with this index among the device's sets these events of the endpoint. EINVAL for no
    /// interrupt, EBUSY if somebody is told of it (devices may share one) or the kernel, ENOMEM.
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
            // No memory stays behind when nobody listens.
            let rest = if listeners.is_empty() { core::mem::take(&mut *listeners) } else { Vec::new() };
            (gone, rest)
        };
        drop((gone, rest));
    }
}

/// An interrupt that is not the kernel's has come: it is masked, and whoever listens is told. False if nobody does.
/// O(log n) in the interrupts that somebody is told of.
pub fn deliver(intid: u32) -> bool {
    interrupts::mask(intid);
    let listeners = LISTENERS.lock();
    let Ok(at) = listeners.binary_search_by_key(&intid, |other| other.intid) else { return false };
    let Listener { endpoint, events, .. } = &listeners[at];
    // (If the endpoint is dead, so is the driver, or will be.)
    let _ = endpoint.signal(*events);
    true
}
