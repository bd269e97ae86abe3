//! Attachments of messages, against a model: each handle has one owner at each step, whatever callers and servers do
//! and whenever they end; a call without attachments has none of an earlier call's; news of one kind does not hide
//! other kinds.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;
use quire_abi::Errno;
use quire_abi::ipc::{AttachedHandle, Attachments, HANDLES, options, received};
use quire_mm::fallible::KArc;
use quire_mm::fallible::slots::{Room, Slots};
use quire_mm::machine::Threads;
use quire_mm::sync::{Rank, SpinLock};

use super::{M, endpoint, machine, record, registers, write};
use crate::{Item, Outcome, Received, Receiver, Refused, Reply, Saved, Sent, check, transfer};

/// A handle with an identity, which is dropped exactly once.
struct Thing {
    id: u64,
    rights: u32,
}

const MAY_PASS: u32 = 1 << 31;
/// Numbers that a table has.
const MOST: usize = 40;

impl Item for Thing {
    fn may_pass(&self, rights: u32) -> Result<(), Errno> {
        if self.rights & MAY_PASS != 0 && rights & !self.rights == 0 { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn narrow(&mut self, rights: u32) {
        self.rights &= rights;
    }
}

type Table = SpinLock<Slots<Thing>, M>;

fn table() -> Table {
    SpinLock::new(machine(), Rank::Descriptors, Slots::new())
}

/// The index of a number: one less than the number.
fn place(_: &Slots<Thing>, number: u32) -> Result<usize, Errno> {
    Ok(number as usize - 1)
}

fn insert(table: &Table, thing: Thing) -> Option<usize> {
    let mut room = Room::none();
    loop {
        let mut slots = table.lock();
        let free = slots.lowest_free(0);
        if free >= MOST {
            return None;
        }
        let Err(lack) = slots.make_room(free, &mut room) else {
            assert!(slots.set(free, thing).is_ok_and(|old| old.is_none()));
            return Some(free);
        };
        drop(slots);
        room = lack.supply().unwrap();
    }
}

/// The contents of a table: the things' identities and rights, by index.
fn contents(table: &Table) -> BTreeMap<usize, (u64, u32)> {
    let slots = table.lock();
    let mut next = 0;
    core::iter::from_fn(|| {
        let at = slots.next_used(next)?;
        next = at + 1;
        slots.get(at).map(|thing| (at, (thing.id, thing.rights)))
    })
    .collect()
}

fn moved(attached: &[AttachedHandle; HANDLES], from: &Table, to: &Table) -> Result<[Option<usize>; HANDLES], Refused> {
    let mut room = Room::none();
    loop {
        let mut losses = 0;
        let result = transfer(attached, from, to, place, &mut room, MOST, || losses += 1);
        assert_eq!(losses, u32::from(result.is_ok()));
        let Err(Refused::Lack(lack)) = result else { return result };
        room = lack.supply().unwrap();
    }
}

fn attached() -> impl Strategy<Value = [AttachedHandle; HANDLES]> {
    let number = prop_oneof![3 => Just(0u32), 5 => 1..30u32, 1 => 30..60u32];
    let rights = prop_oneof![4 => Just(MAY_PASS | 1), 2 => Just(1), 1 => any::<u32>()];
    prop::array::uniform4((number, rights).prop_map(|(number, rights)| AttachedHandle { number, rights }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 300 }))]
    /// Either all handles of a message move, with their rights, to the lowest free numbers, or an error is returned and
    /// nothing changes.
    #[test]
    fn a_transfer_is_all_or_nothing(
        sizes in prop::array::uniform3(0..MOST + 5),
        steps in proptest::collection::vec((attached(), 0..3usize, 0..3usize, 0..MOST), 1..40),
    ) {
        let tables = [table(), table(), table()];
        let mut id = 0;
        for (table, size) in tables.iter().zip(sizes) {
            for n in 0..size {
                id += 1;
                let rights = if n % 5 == 4 { 1 } else { MAY_PASS | 3 };
                insert(table, Thing { id, rights });
            }
        }
        let total = tables.iter().map(|table| contents(table).len()).sum::<usize>();
        let mut closed = 0;
        for (attached, a, b, close) in steps {
            let mut model = [contents(&tables[a]), contents(&tables[b])];
            let offered: Vec<_> = attached.iter().filter(|one| one.number != 0).collect();
            let mut wrong = None;
            for (i, one) in offered.iter().enumerate() {
                let at = one.number as usize - 1;
                let twice = offered[..i].iter().any(|other| other.number == one.number);
                wrong = wrong.or(match model[0].get(&at) {
                    None => Some(Errno::EBADF),
                    _ if twice => Some(Errno::EBADF),
                    Some((_, rights)) if rights & MAY_PASS == 0 || one.rights & !rights != 0 => Some(Errno::EPERM),
                    Some(_) => None,
                });
            }
            let is_full = a != b && model[1].len() + offered.len() > MOST;
            let result = moved(&attached, &tables[a], &tables[b]);
            prop_assert_eq!(check(&tables[a].lock(), &attached, place).err().filter(|_| result.is_err()), wrong);
            match result {
                Err(refused) => {
                    prop_assert_eq!(refused, wrong.map_or(Refused::Full, Refused::Offer));
                    prop_assert!(wrong.is_some() || is_full);
                }
                Ok(places) => {
                    prop_assert!(wrong.is_none() && !is_full);
                    for (at, one) in places.iter().zip(&attached) {
                        prop_assert_eq!(at.is_some(), one.number != 0);
                        let Some(at) = *at else { continue };
                        let source = one.number as usize - 1;
                        let (id, rights) = model[0].remove(&source).unwrap();
                        let entry = (id, rights & one.rights);
                        if a == b {
                            prop_assert_eq!(at, source);
                            model[0].insert(at, entry);
                        } else {
                            let free = (0..).find(|n| !model[1].contains_key(n)).unwrap();
                            prop_assert_eq!(at, free);
                            model[1].insert(at, entry);
                        }
                    }
                }
            }
            prop_assert_eq!(contents(&tables[a]), model[0].clone());
            if a != b {
                prop_assert_eq!(contents(&tables[b]), model[1].clone());
            }
            let gone = tables[b].lock().take(close);
            closed += usize::from(gone.is_some());
        }
        let all: Vec<_> = tables.iter().flat_map(|table| contents(table).into_values()).collect();
        prop_assert_eq!(all.len() + closed, total);
        let mut ids: Vec<_> = all.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), all.len(), "a handle with two owners");
    }
}

/// Threads move handles between two tables in both directions: nothing is lost, and nobody waits for ever.
#[test]
fn two_that_exchange_handles_do_not_wait_for_each_other() {
    let tables: [&'static Table; 2] = [(); 2].map(|()| &*std::boxed::Box::leak(std::boxed::Box::new(table())));
    for id in 0..10 {
        tables.iter().for_each(|table| _ = insert(table, Thing { id, rights: MAY_PASS }));
    }
    let threads = [0, 1].map(|i| {
        std::thread::spawn(move || {
            quire_mm::sim::Sim::set_cpu(i);
            for n in 0..if cfg!(miri) { 20 } else { 2000u32 } {
                let mut attached = [AttachedHandle::default(); HANDLES];
                attached[n as usize % 4] = AttachedHandle { number: 1 + n % 13, rights: MAY_PASS };
                let _ = moved(&attached, tables[i], tables[1 - i]);
            }
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(contents(tables[0]).len() + contents(tables[1]).len(), 20);
}

/// A held call, with its caller's registers.
struct Held {
    endpoint: KArc<crate::Endpoint<M>>,
    record: KArc<crate::Call<M>>,
    registers: *mut crate::Registers,
    generation: crate::Generation,
    reply: Reply<M>,
}

fn attachments(number: u32) -> Attachments {
    let mut attachments = Attachments::default();
    attachments.handles[0].number = number;
    attachments
}

/// A call at `endpoint`, received.
fn held(endpoint: KArc<crate::Endpoint<M>>, record: KArc<crate::Call<M>>, room: u64) -> Held {
    let registers = registers();
    write(registers, 1);
    // SAFETY: the registers live for ever.
    unsafe { (*registers)[10] |= options::room(room) };
    // SAFETY: as above, and the record is in no other call.
    let sent = unsafe { endpoint.call(&record, registers, 0, |_| ()) };
    let Ok(Sent::Queued(generation)) = sent else { panic!("nobody receives") };
    let Ok(Received::Call(reply)) = receive(&endpoint) else { panic!("the call is there") };
    Held { endpoint, record, registers, generation, reply }
}

fn receive(endpoint: &crate::Endpoint<M>) -> Result<Received<M>, Errno> {
    let receiver = Receiver::new(machine().this_thread(), registers());
    // SAFETY: it does not wait.
    unsafe { endpoint.receive(&receiver, false) }
}

/// The kind and the token of the next news.
fn news(endpoint: &crate::Endpoint<M>) -> Option<(u64, u64)> {
    let to = registers();
    let receiver = Receiver::new(machine().this_thread(), to);
    // SAFETY: it does not wait.
    unsafe { endpoint.receive(&receiver, false) }.ok()?;
    // SAFETY: nobody else has the registers.
    Some(unsafe { ((*to)[0], (*to)[1]) })
}

fn carried(reply: &Reply<M>) -> Option<Option<u32>> {
    reply.with_caller(|mut caller| caller.attachments().map(|attachments| attachments.handles[0].number))
}

#[test]
fn a_call_has_its_own_cargo_and_no_other() {
    let record = record();
    record.load(attachments(5));
    let carrying = held(endpoint(), record, 0);
    assert_eq!(carried(&carrying.reply), Some(Some(5)));
    assert!(carrying.reply.is_awaited(), "a look does not end the call");
    assert!(carrying.record.outcome(machine()).is_none());
    assert!(carrying.endpoint.give_up(&carrying.record, carrying.generation));
    assert_eq!(carried(&carrying.reply), None, "its caller is gone");
    let plain = held(carrying.endpoint.clone(), carrying.record.clone(), 0);
    assert_eq!(carried(&plain.reply), Some(None), "the next call is a plain one");
    assert_eq!(carried(&carrying.reply), None);
    drop(plain.reply);
    plain.record.finish(plain.generation);
    // Attachments that were loaded for a call that was not made.
    plain.record.load(attachments(6));
    plain.record.unload();
    let plain = held(plain.endpoint, plain.record, 0);
    assert_eq!(carried(&plain.reply), Some(None));
}

#[test]
fn an_answer_brings_all_or_is_none() {
    let call = held(endpoint(), record(), 3);
    // SAFETY: nobody writes to them now.
    let before = unsafe { *call.registers };
    let mut roused = 0;
    let refused = call.reply.answer_with(
        &[8; 11],
        |caller| {
            assert_eq!(caller.room(), 3);
            Err(7)
        },
        |_| roused += 1,
    );
    assert_eq!((refused, roused), (Some(Err(7)), 0));
    // SAFETY: as above.
    assert_eq!((unsafe { *call.registers }, call.record.outcome(machine())), (before, None));
    let saved = Saved::try_new(&call.endpoint, call.reply, 9).ok().unwrap().unwrap();
    assert_eq!(saved.answer_with(&[8; 11], |_| Err(()), |_| roused += 1), Some(Err(())));
    // The caller still knows the saved reply.
    call.endpoint.interrupt(&call.record);
    assert_eq!(news(&call.endpoint), Some((received::INTERRUPTED, 9)));
    let mut from = [8; 11];
    from[10] = 2;
    assert_eq!(saved.answer_with(&from, |_| Ok::<_, ()>([1, 2, 3, 0]), |_| roused += 1), Some(Ok(())));
    assert_eq!((roused, call.record.outcome(machine())), (1, Some(Outcome::Answered)));
    // SAFETY: as above.
    let to = unsafe { *call.registers };
    assert_eq!((&to[1..4], &to[4..8], to[9], to[10]), (&[8; 3][..], &[0; 4][..], 1 | 2 << 32, 3));
    assert_eq!(saved.answer_with(&from, |_| -> Result<_, ()> { panic!("twice") }, |_| ()), None);
}

#[test]
fn news_do_not_hide_each_other() {
    let call = held(endpoint(), record(), 0);
    call.endpoint.note_ready(&call.record);
    call.endpoint.interrupt(&call.record);
    assert_eq!(news(&call.endpoint), None, "nothing is told of a call that is not saved");
    let saved = Saved::try_new(&call.endpoint, call.reply, 4).ok().unwrap().unwrap();
    assert_eq!(news(&call.endpoint), Some((received::INTERRUPTED, 4)));
    call.endpoint.interrupt(&call.record);
    // News that nobody has received stays after an answer that fails.
    assert_eq!(saved.answer_with(&[0; 11], |_| Err(()), |_| ()), Some(Err(())));
    assert_eq!(news(&call.endpoint), Some((received::INTERRUPTED, 4)));
    assert_eq!(news(&call.endpoint), Some((received::READY, 4)));
    assert_eq!(news(&call.endpoint), None);
    call.endpoint.note_ready(&call.record);
    assert!(call.endpoint.give_up(&call.record, call.generation));
    assert_eq!(news(&call.endpoint), Some((received::CANCELLED, 4)), "and nothing else is of interest then");
    assert_eq!(news(&call.endpoint), None);
}

#[test]
fn a_page_is_wanted_once_and_not_of_who_could_not_bring_one() {
    let record = record();
    record.load(attachments(0));
    let call = held(endpoint(), record, 0);
    assert_eq!(call.record.take_wanted(), None);
    assert!(call.record.has_attachments(call.generation));
    assert_eq!(call.reply.with_caller(|caller| caller.want(0x5000, true)), Some(true));
    assert_eq!((call.record.take_wanted(), call.record.take_wanted()), (Some((0x5000, true)), None));
    call.record.note_broken();
    assert_eq!(call.reply.with_caller(|caller| caller.want(0x6000, false)), Some(false));
    assert_eq!(call.record.take_wanted(), None);
    assert!(call.endpoint.give_up(&call.record, call.generation));
    call.record.load(attachments(0));
    let call = held(call.endpoint, call.record, 0);
    assert_eq!(call.reply.with_caller(|caller| caller.want(0, false)), Some(true), "another call begins anew");
    assert_eq!(call.record.take_wanted(), Some((0, false)));
}
