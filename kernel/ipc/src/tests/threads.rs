//! An endpoint among threads that sleep: no wake-up is lost, and no answer comes twice or to the wrong call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::vec::Vec;

use quire_abi::Errno;
use quire_mm::fallible::KArc;
use quire_mm::machine::Threads;
use quire_mm::sim::Sim;

use super::{M, endpoint, machine, read, record, registers, write};
use crate::{Endpoint, Outcome, Received, Receiver, Saved, Sent};

const CALLS: u64 = if cfg!(miri) { 20 } else { 3000 };

fn rouse(thread: usize) {
    // SAFETY: as the closures' callers promise.
    unsafe { machine().unpark(thread) };
}

/// Calls, waits, and gives up now and then; returns how often it was answered. Each answer is its question plus one.
fn client(endpoint: &Endpoint<M>, seed: u64) -> u64 {
    let (record, registers) = (record(), registers());
    let mut answered = 0;
    for n in 0..CALLS {
        let label = seed * 1_000_000 + n;
        write(registers, label);
        // SAFETY: the registers live for ever, and this thread waits for the call's end or ends it.
        let Ok(sent) = (unsafe { endpoint.call(&record, registers, seed, rouse) }) else { return answered };
        let (Sent::Received(generation) | Sent::Queued(generation)) = sent;
        if n % 7 == seed % 7 {
            if endpoint.withdraw(&record, generation) || endpoint.give_up(&record, generation) {
                continue;
            }
        } else {
            machine().park(false, &mut || record.outcome(machine()).is_some());
        }
        match record.outcome(machine()) {
            Some(Outcome::Answered) => {
                assert_eq!(read(registers), label + 1);
                answered += 1;
            }
            Some(Outcome::Broken) => {}
            None => panic!("neither given up nor over"),
        }
        record.finish(generation);
    }
    answered
}

/// Receives and answers, some calls at once, some later, and drops a few; returns how many answers reached a caller.
fn server(endpoint: &KArc<Endpoint<M>>, drops: &AtomicU64) -> u64 {
    let registers = registers();
    let mut saved = Vec::new();
    let mut answered = 0;
    for n in 0u64.. {
        let receiver = Receiver::new(machine().this_thread(), registers);
        // SAFETY: the receiver leaves below, and the registers live for ever.
        let received = match unsafe { endpoint.receive(&receiver, saved.is_empty()) } {
            Ok(Received::Nothing) => {
                machine().park(false, &mut || receiver.is_served());
                endpoint.leave(&receiver)
            }
            other => other,
        };
        match received {
            Ok(Received::Call(reply)) => {
                let label = read(registers) + 1;
                write(registers, label);
                // SAFETY: this thread's own registers.
                let from = unsafe { *registers };
                match n % 5 {
                    0 => {
                        drops.fetch_add(u64::from(reply.is_awaited()), Relaxed);
                    }
                    1 | 2 => {
                        if let Some(reply) = Saved::try_new(endpoint, reply, n).ok().unwrap() {
                            saved.push((reply, from));
                        }
                    }
                    _ => answered += u64::from(reply.answer(&from, rouse)),
                }
            }
            Ok(_) => {}
            Err(quire_abi::Errno::EAGAIN) => {
                let (reply, from) = saved.swap_remove(n as usize % saved.len());
                answered += u64::from(reply.answer(&from, rouse));
            }
            Err(_) => break,
        }
    }
    answered + saved.into_iter().map(|(reply, from)| u64::from(reply.answer(&from, rouse))).sum::<u64>()
}

#[test]
fn every_call_ends_once() {
    let endpoint = endpoint();
    let drops = Arc::new(AtomicU64::new(0));
    let servers: Vec<_> = (0..3)
        .map(|cpu| {
            let (endpoint, drops) = (endpoint.clone(), drops.clone());
            thread::spawn(move || {
                Sim::set_cpu(cpu);
                server(&endpoint, &drops)
            })
        })
        .collect();
    let clients: Vec<_> = (0..4)
        .map(|seed| {
            let endpoint = endpoint.clone();
            thread::spawn(move || {
                Sim::set_cpu(4 + seed as usize);
                client(&endpoint, seed)
            })
        })
        .collect();
    let heard: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    endpoint.close(|| ());
    let answered: u64 = servers.into_iter().map(|server| server.join().unwrap()).sum();
    assert_eq!(heard, answered);
    assert!(heard > 0 && drops.load(Relaxed) > 0);
    assert_eq!(KArc::count(&endpoint), 1);
}

#[test]
fn an_endpoint_is_for_calls_or_for_events_alone() {
    for events_first in [false, true] {
        let endpoint = endpoint();
        let [first, second]: [fn(&_) -> _; 2] = match events_first {
            true => [Endpoint::admit_events_alone, Endpoint::admit_sender],
            false => [Endpoint::admit_sender, Endpoint::admit_events_alone],
        };
        for _ in 0..2 {
            assert_eq!(first(&endpoint), Ok(()));
            assert_eq!(second(&endpoint), Err(Errno::EBUSY));
        }
    }
}

#[test]
fn signals_are_all_seen() {
    let endpoint = endpoint();
    let signallers: Vec<_> = (0..4)
        .map(|bit| {
            let endpoint = endpoint.clone();
            thread::spawn(move || {
                Sim::set_cpu(1 + bit);
                endpoint.signal(1 << bit).unwrap();
            })
        })
        .collect();
    let registers = registers();
    let mut seen = 0;
    while seen != 0b1111 {
        let receiver = Receiver::new(machine().this_thread(), registers);
        // SAFETY: as in `server`.
        if let Received::Nothing = unsafe { endpoint.receive(&receiver, true) }.unwrap() {
            machine().park(false, &mut || receiver.is_served());
            assert!(matches!(endpoint.leave(&receiver), Ok(Received::Other)));
        }
        // SAFETY: this thread's own registers.
        let bits = unsafe { (*registers)[10] };
        assert_eq!(seen & bits, 0);
        seen |= bits;
    }
    signallers.into_iter().for_each(|signaller| signaller.join().unwrap());
}
