//! Handles that move from one table to another: all handles of a message, or none.
//!
//! At each step a handle has one owner: it is taken out of one table and put into the other with both tables locked,
//! and nothing can fail in between. Possible failures (a handle that does not exist or may not move; a table that is
//! full or lacks memory) are found before the first handle moves.
//!
//! Lock order: two tables are locked in the order of their addresses, the second as [`Rank::HandlesSecond`]. Memory is
//! supplied without locks ([`Refused::Lack`]), and then everything is checked again.

use quire_abi::Errno;
use quire_abi::ipc::{AttachedHandle, HANDLES};
use quire_mm::Machine;
use quire_mm::fallible::slots::{Lack, Room, Slots};
use quire_mm::sync::{Rank, SpinLock};

/// An entry of a table.
pub trait Item {
    /// Whether the item may be transferred with these rights: EPERM if not.
    fn may_pass(&self, rights: u32) -> Result<(), Errno>;
    /// Only these rights are left.
    fn narrow(&mut self, rights: u32);
}

/// Why nothing has moved.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The destination table lacks this memory.
    Lack(Lack),
    /// The destination table has no free number.
    Full,
    /// A handle does not exist, or may not be transferred.
    Offer(Errno),
}

/// The positions of a message's handles in their table, as `place` finds them. EBADF for a handle that does not exist
/// or is named twice, EPERM for one that may not be transferred with its rights.
pub fn check<T: Item>(
    slots: &Slots<T>,
    attached: &[AttachedHandle; HANDLES],
    place: impl Fn(&Slots<T>, u32) -> Result<usize, Errno>,
) -> Result<[Option<usize>; HANDLES], Errno> {
    let mut places = [None; HANDLES];
    for (i, one) in attached.iter().enumerate() {
        if one.number == 0 {
            continue;
        }
        let at = place(slots, one.number)?;
        let item = slots.get(at).ok_or(Errno::EBADF)?;
        if places[..i].contains(&Some(at)) {
            return Err(Errno::EBADF);
        }
        item.may_pass(one.rights)?;
        places[i] = Some(at);
    }
    Ok(places)
}

/// Moves the handles of a message, each with its rights; returns their positions in the other table. `room` is memory
/// that was supplied beforehand. `lost` is called with both tables locked before the first handle moves. Within one
/// table only the rights change.
#[allow(clippy::type_complexity)]
pub fn transfer<T: Item, M: Machine>(
    attached: &[AttachedHandle; HANDLES],
    from: &SpinLock<Slots<T>, M>,
    to: &SpinLock<Slots<T>, M>,
    place: impl Fn(&Slots<T>, u32) -> Result<usize, Errno>,
    room: &mut Room<T>,
    most: usize,
    lost: impl FnOnce(),
) -> Result<[Option<usize>; HANDLES], Refused> {
    if core::ptr::eq(from, to) {
        let mut slots = from.lock();
        let places = check(&slots, attached, place).map_err(Refused::Offer)?;
        lost();
        for (at, one) in places.iter().zip(attached) {
            if let Some(item) = at.and_then(|at| slots.get_mut(at)) {
                item.narrow(one.rights);
            }
        }
        return Ok(places);
    }
    // (Released in the reverse order.)
    if core::ptr::from_ref(from) < core::ptr::from_ref(to) {
        let mut from = from.lock();
        let mut to = to.lock_as(Rank::HandlesSecond);
        move_all(attached, &mut from, &mut to, place, room, most, lost)
    } else {
        let mut to = to.lock();
        let mut from = from.lock_as(Rank::HandlesSecond);
        move_all(attached, &mut from, &mut to, place, room, most, lost)
    }
}

/// [`transfer`] between two locked tables.
fn move_all<T: Item>(
    attached: &[AttachedHandle; HANDLES],
    from: &mut Slots<T>,
    to: &mut Slots<T>,
    place: impl Fn(&Slots<T>, u32) -> Result<usize, Errno>,
    room: &mut Room<T>,
    most: usize,
    lost: impl FnOnce(),
) -> Result<[Option<usize>; HANDLES], Refused> {
    let sources = check(from, attached, place).map_err(Refused::Offer)?;
    let mut targets = [None; HANDLES];
    let mut next = 0;
    for (target, _) in targets.iter_mut().zip(&sources).filter(|(_, source)| source.is_some()) {
        let free = to.lowest_free(next);
        if free >= most {
            return Err(Refused::Full);
        }
        to.make_room(free, room).map_err(Refused::Lack)?;
        *target = Some(free);
        next = free + 1;
    }
    lost();
    for ((source, target), one) in sources.into_iter().zip(targets).zip(attached) {
        let (Some(source), Some(target)) = (source, target) else { continue };
        let Some(mut item) = from.take(source) else { continue };
        item.narrow(one.rights);
        // There is room, and nothing is returned: the number is free.
        let _ = to.set(target, item);
    }
    Ok(targets)
}
