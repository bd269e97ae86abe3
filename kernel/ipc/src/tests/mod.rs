//! An endpoint against a model, and among threads.

mod attachments;
mod model;
mod threads;

use std::boxed::Box;
use std::sync::OnceLock;

use quire_mm::fallible::KArc;
use quire_mm::machine::Threads;
use quire_mm::sim::Sim;

use super::{Call, Endpoint, Receiver, Registers};

type M = &'static Sim;

fn machine() -> M {
    static MACHINE: OnceLock<M> = OnceLock::new();
    MACHINE.get_or_init(|| Sim::with_mib(16))
}

fn endpoint() -> KArc<Endpoint<M>> {
    Endpoint::try_new(machine(), 7).unwrap()
}

fn record() -> KArc<Call<M>> {
    Call::try_new(machine().this_thread()).unwrap()
}

/// A thread's registers, at an address that does not change.
fn registers() -> *mut Registers {
    Box::leak(Box::new([0xbad; 11]))
}

/// Writes a message that can be distinguished from others.
fn write(registers: *mut Registers, label: u64) {
    // SAFETY: a test's registers live for ever, and nobody else writes to them now.
    let to = unsafe { &mut *registers };
    for (i, x) in to[1..8].iter_mut().enumerate() {
        *x = label * 100 + i as u64;
    }
    to[10] = 6;
}

/// The label of a message from [`write`], which must have arrived complete.
fn read(registers: *mut Registers) -> u64 {
    // SAFETY: as in `write`.
    let from = unsafe { &*registers };
    let label = from[1] / 100;
    assert!(from[1..8].iter().enumerate().all(|(i, x)| *x == label * 100 + i as u64), "a torn message: {from:?}");
    label
}

#[test]
fn what_carries_nothing_is_zero() {
    for words in 0..=7u64 {
        let mut from = [9; 11];
        from[10] = words | 0xff8;
        let mut to = [5; 11];
        super::call::copy_message(&mut to, &from);
        let carried = 1 + words.min(6) as usize;
        assert!(to[1..8].iter().enumerate().all(|(i, x)| *x == if i < carried { 9 } else { 0 }), "{words}: {to:?}");
    }
}

/// A dying endpoint still has receivers, but a call must not be handed over to them.
#[test]
fn nothing_is_handed_over_to_a_dying_endpoint() {
    let endpoint = endpoint();
    let receivers: [Receiver<M>; 40] = core::array::from_fn(|_| Receiver::new(machine().this_thread(), registers()));
    for receiver in &receivers {
        // SAFETY: the registers live for ever, and the receivers leave below.
        unsafe { endpoint.receive(receiver, true) }.unwrap();
    }
    let (record, registers) = (record(), registers());
    let mut points = 0;
    endpoint.close(|| {
        points += 1;
        // SAFETY: the call is not made.
        let handed_over = unsafe { endpoint.hand_over(&record, registers, 0, |_| true) };
        assert!(handed_over.is_none(), "at point {points}");
    });
    assert!(points >= 2);
    for receiver in &receivers {
        assert_eq!(endpoint.leave(receiver).err(), Some(quire_abi::Errno::EPIPE));
    }
}
