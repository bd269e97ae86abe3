//! Hardware updates at the worst time: CPUs access pages just after software has read their entries.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Chance, Mmu};
use crate::pte::{Pte, bits};

/// What the CPUs of a machine do out of turn: who they are, and a source of chance.
struct Stir {
    mmu: Mmu,
    chance: Chance,
}

std::thread_local! {
    static STIR: RefCell<Option<Stir>> = const { RefCell::new(None) };
}

/// Software has just read this entry of a last-level table, under its lock: what CPUs do to it now, before software
/// goes on, if that is stirred up on this thread ([`Mmu::stir`]).
pub fn meanwhile(entry: &AtomicU64) {
    STIR.with_borrow_mut(|stir| {
        if let Some(stir) = stir
            && stir.chance.one_in(4)
        {
            let write = stir.chance.one_in(2);
            stir.mmu.touch_out_of_turn(entry, write);
        }
    });
}

impl Mmu {
    /// From now on CPUs touch pages whose entries this thread looks at, at chance and just then: they look into the
    /// future, and programs store what is there already. Until another machine is stirred, or [`Mmu::calm`].
    pub fn stir(&self, seed: u64) {
        let hardware = self.machine.spaces().hardware_updates();
        STIR.set(hardware.then(|| Stir { mmu: self.clone(), chance: Chance::new(seed) }));
    }

    /// Nobody does anything out of turn on this thread's behalf any more.
    pub fn calm() {
        STIR.set(None);
    }

    /// How often an entry was made young, or dirty, out of turn.
    pub fn stirred(&self) -> usize {
        self.lock().traces.stirred
    }

    fn touch_out_of_turn(&self, entry: &AtomicU64, write: bool) {
        let old = Pte(entry.load(Ordering::Relaxed));
        if !old.is_present() || !old.is_readable() {
            return;
        }
        let mut state = self.lock();
        let mut new = old.0 | bits::ACCESSED;
        if write && old.is_writable_clean() {
            new &= !bits::READ_ONLY;
            state.traces.written.insert(old.addr().pfn().0);
        }
        state.traces.stirred += usize::from(new != old.0);
        state.stores.drain_all(entry.as_ptr().addr());
        entry.store(new, Ordering::Relaxed);
    }
}
