//! A process's handles: entries for the kernel's objects that are not files. Each consists of an object and rights,
//! which can only be reduced.
//!
//! Handles belong to the process: its threads share them, but processes that share descriptors (CLONE_FILES) do not.
//! Their numbers begin at [`HandleInfo::FIRST`], above every descriptor; no limit of descriptors, no search for the
//! lowest free descriptor and no `close_range` affects them. A child or a new program gets a handle only if the holder
//! has granted it (`QUIRE_GRANT`), with the granted rights. Receivers, replies, and a driver's handles of its device's
//! parts are never inherited: they have one holder. (A device is passed on to the next program.)
//!
//! Lock order: the table's lock ([`Rank::Descriptors`]) is held for one entry, or together with that of another table
//! for the handles of a message ([`quire_ipc::transfer`]). It is never held while memory is allocated, or while a
//! handle is dropped.

use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::Errno;
use quire_abi::flags::Control;
use quire_abi::ipc::{AttachedHandle, HANDLES, rights};
use quire_abi::layout::HandleInfo;
use quire_ipc::{Item, Refused};
use quire_mm::fallible::KArc;
use quire_mm::fallible::slots::{Room, Slots};
use quire_mm::sync::{Rank, SpinGuard};

use super::memory_file::MemoryFile;
use super::message::{Endpoint, Saved};
use crate::arch::speculation;
use crate::devices::Holding;
use crate::devices::interrupt::Line;
use crate::devices::memory::DmaRange;
use crate::task::point::resched_point;
use crate::task::wait::Sleep;
use crate::vm::{Cpu, SpinLock};

/// The maximum number of handles of a process.
const MAX_HANDLES: usize = 1 << 16;

/// The object of a handle.
pub enum Target {
    /// The machine as a whole: power, settings, audits. The rights are those of [`Control`].
    Machine,
    /// An endpoint to call.
    Sender(KArc<Endpoint>),
    /// An endpoint to signal.
    Signaller(KArc<Endpoint>),
    /// An endpoint to receive from.
    Receiver(Receiving),
    /// A call to answer.
    Reply(KArc<Saved>),
    /// A memory object with the attributes of a file.
    Memory(KArc<MemoryFile>),
    /// A device to drive.
    Device(KArc<Holding>),
    /// An interrupt of a device.
    Interrupt(KArc<Line>),
    /// Memory that a device reaches.
    Dma(KArc<DmaRange>),
}

/// The right to receive from an endpoint. When it is dropped, the endpoint dies.
pub struct Receiving(pub KArc<Endpoint>);

impl Drop for Receiving {
    fn drop(&mut self) {
        // (First, so that nobody who learns that the server is gone still finds its cached answers.)
        crate::names::cache::end(&self.0);
        // A thread that ends continues nevertheless.
        self.0.close(|| _ = resched_point(Sleep::Killable));
    }
}

/// An entry.
pub struct Handle {
    /// The object.
    pub target: Target,
    rights: u32,
    /// Passed to the receiver with each call; for a signal, the events.
    pub badge: u64,
    /// The rights that a child or a new program gets; if 0, it does not get the handle.
    granted: u32,
}

impl Handle {
    /// Machine control with all rights: the kernel makes it once, for init.
    pub fn machine() -> Self {
        Self { target: Target::Machine, rights: Control::all().bits(), badge: 0, granted: 0 }
    }

    /// A handle of an endpoint or a reply, with the rights of its kind.
    pub fn new(target: Target, badge: u64) -> Self {
        let rights = match target {
            Target::Machine => 0,
            Target::Sender(_) => rights::SEND | rights::TRANSFER,
            Target::Signaller(_) => rights::SIGNAL | rights::TRANSFER,
            Target::Receiver(_) => rights::RECEIVE,
            Target::Reply(_) => rights::REPLY | rights::TRANSFER,
            Target::Device(_) | Target::Interrupt(_) | Target::Dma(_) => rights::CONTROL,
            Target::Memory(_) => rights::READ | rights::WRITE | rights::CONTROL | rights::TRANSFER,
        };
        Self { target, rights, badge, granted: 0 }
    }

    /// A second handle of the same object with some of the rights. EPERM for rights that this handle does not have,
    /// EINVAL for no rights, or for an object with only one holder.
    pub fn copy(&self, rights: u32) -> Result<Self, Errno> {
        if rights & !self.rights != 0 {
            return Err(Errno::EPERM);
        }
        let target = match &self.target {
            _ if rights & !rights::TRANSFER == 0 => return Err(Errno::EINVAL),
            Target::Machine => Target::Machine,
            Target::Sender(endpoint) => Target::Sender(endpoint.clone()),
            Target::Signaller(endpoint) => Target::Signaller(endpoint.clone()),
            Target::Memory(file) => Target::Memory(file.clone()),
            Target::Receiver(_) | Target::Reply(_) | Target::Device(_) | Target::Interrupt(_) | Target::Dma(_) => {
                return Err(Errno::EINVAL);
            }
        };
        Ok(Self { target, rights, badge: self.badge, granted: 0 })
    }

    /// Sets the rights that are passed on. EPERM for rights that the handle does not have, EINVAL for an object with
    /// only one holder, except a device: it is passed on to the next program, but to no child.
    fn grant(&mut self, rights: u32) -> Result<(), Errno> {
        if rights & !self.rights != 0 || rights == rights::TRANSFER {
            return Err(Errno::EPERM);
        }
        if matches!(self.target, Target::Receiver(_) | Target::Reply(_) | Target::Interrupt(_) | Target::Dma(_)) {
            return Err(Errno::EINVAL);
        }
        self.granted = rights;
        Ok(())
    }

    /// Whether this is machine control with these rights.
    pub fn controls(&self, rights: Control) -> bool {
        matches!(self.target, Target::Machine) && self.rights & rights.bits() == rights.bits()
    }

    /// Whether it has these rights.
    pub fn allows(&self, rights: u32) -> bool {
        self.rights & rights == rights
    }

    fn kind(&self) -> u32 {
        match self.target {
            Target::Machine => HandleInfo::MACHINE,
            Target::Sender(_) => HandleInfo::SENDER,
            Target::Signaller(_) => HandleInfo::SIGNALLER,
            Target::Receiver(_) => HandleInfo::RECEIVER,
            Target::Reply(_) => HandleInfo::REPLY,
            Target::Memory(_) => HandleInfo::MEMORY,
            Target::Device(_) => HandleInfo::DEVICE,
            Target::Interrupt(_) => HandleInfo::INTERRUPT,
            Target::Dma(_) => HandleInfo::DMA,
        }
    }
}

impl Item for Handle {
    fn may_pass(&self, rights: u32) -> Result<(), Errno> {
        // (A handle of an endpoint has one right in addition, which it keeps.)
        let is_useful = rights & !rights::TRANSFER != 0;
        let may_pass = self.rights & rights::TRANSFER != 0 && is_useful && rights & !self.rights == 0;
        if may_pass { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn narrow(&mut self, rights: u32) {
        self.rights &= rights;
        self.granted = 0;
    }
}

/// A process's handles.
pub struct Handles {
    slots: SpinLock<Slots<Handle>>,
    /// Counts the handles that were removed or lost rights. Written under the lock.
    losses: AtomicU64,
}

impl Handles {
    /// None.
    pub const fn new() -> Self {
        Self { slots: SpinLock::new(Cpu, Rank::Descriptors, Slots::new()), losses: AtomicU64::new(0) }
    }

    /// Enters a handle; returns its number. EMFILE if the process has too many, ENOMEM.
    pub fn insert(&self, handle: Handle) -> Result<u32, Errno> {
        let (mut slots, free) = self.with_room()?;
        // There is room, and nothing is returned: the number is free.
        let _ = slots.set(free, handle);
        Ok(HandleInfo::FIRST + free as u32)
    }

    /// Ensures that the next [`insert`](Handles::insert) finds room, unless another thread takes it. Errors as there.
    pub fn make_room(&self) -> Result<(), Errno> {
        self.with_room().map(drop)
    }

    /// The table, locked, and a free number for which there is room.
    fn with_room(&self) -> Result<(SpinGuard<'_, Slots<Handle>, Cpu>, usize), Errno> {
        let mut room = Room::none();
        loop {
            let mut slots = self.slots.lock();
            let free = slots.lowest_free(0);
            if free >= MAX_HANDLES {
                return Err(Errno::EMFILE);
            }
            match slots.make_room(free, &mut room) {
                Ok(()) => return Ok((slots, free)),
                Err(lack) => {
                    drop(slots);
                    room = lack.supply()?;
                }
            }
        }
    }

    /// Calls `see` with a handle, under the lock: it must be short and take no lock. EBADF.
    #[inline]
    pub fn with<R>(&self, number: u32, see: impl FnOnce(&Handle) -> Result<R, Errno>) -> Result<R, Errno> {
        let slots = self.slots.lock();
        slots.get(index(&slots, number)?).ok_or(Errno::EBADF).and_then(see)
    }

    /// The result of a look at a handle is valid for as long as this number does not change.
    #[inline]
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// Under the lock.
    fn note_loss(&self) {
        self.losses.fetch_add(1, Ordering::Release);
    }

    /// Takes a handle out. EBADF.
    pub fn take(&self, number: u32) -> Result<Handle, Errno> {
        let mut slots = self.slots.lock();
        let index = index(&slots, number)?;
        self.note_loss();
        slots.take(index).ok_or(Errno::EBADF)
    }

    /// Takes a handle out if `wanted`, called under the lock, allows it. EBADF, or the error of `wanted`.
    pub fn take_if(&self, number: u32, wanted: impl FnOnce(&Handle) -> Result<(), Errno>) -> Result<Handle, Errno> {
        let mut slots = self.slots.lock();
        let index = index(&slots, number)?;
        slots.get(index).ok_or(Errno::EBADF).and_then(wanted)?;
        self.note_loss();
        slots.take(index).ok_or(Errno::EBADF)
    }

    /// Checks that the handles of a message exist and may be transferred. EBADF, EPERM.
    pub fn check(&self, attached: &[AttachedHandle; HANDLES]) -> Result<(), Errno> {
        quire_ipc::check(&self.slots.lock(), attached, index).map(drop)
    }

    /// Moves the handles of a message to another table, all or none; returns their numbers there, 0 for none. `room` is
    /// memory that was supplied beforehand.
    pub fn transfer(
        &self,
        attached: &[AttachedHandle; HANDLES],
        to: &Self,
        room: &mut Room<Handle>,
    ) -> Result<[u32; HANDLES], Refused> {
        let lost = || self.note_loss();
        let places = quire_ipc::transfer(attached, &self.slots, &to.slots, index, room, MAX_HANDLES, lost)?;
        Ok(places.map(|place| place.map_or(0, |at| HandleInfo::FIRST + at as u32)))
    }

    /// Sets which rights of a handle are passed to children and new programs. EBADF, or EPERM for rights that the
    /// handle does not have.
    pub fn grant(&self, number: u32, rights: u32) -> Result<(), Errno> {
        let mut slots = self.slots.lock();
        let index = index(&slots, number)?;
        slots.get_mut(index).ok_or(Errno::EBADF)?.grant(rights)
    }

    /// The lowest number from `from` on that has a handle, and the record of that handle for a new program: `None` if
    /// it is not passed on.
    pub fn next(&self, from: u32) -> Option<(u32, Option<HandleInfo>)> {
        let slots = self.slots.lock();
        let from = from.saturating_sub(HandleInfo::FIRST) as usize;
        let index = slots.next_used(speculation::bounded(from, slots.capacity())?)?;
        let number = HandleInfo::FIRST + index as u32;
        let passes = slots.get(index).filter(|handle| handle.granted != 0);
        let info = |handle: &Handle| HandleInfo { number, kind: handle.kind(), rights: handle.granted, reserved: 0 };
        Some((number, passes.map(info)))
    }

    /// The rights of machine control that a process needs to have at least the authority of these handles: the rights
    /// of the handles of machine control, and the right over processes if there is any other handle. EINTR if the
    /// thread is killed meanwhile.
    pub fn authority(&self) -> Result<Control, Errno> {
        let mut all = Control::empty();
        let mut from = 0;
        loop {
            {
                let slots = self.slots.lock();
                let Some(index) = slots.next_used(from) else { return Ok(all) };
                from = index + 1;
                all |= match slots.get(index) {
                    Some(Handle { target: Target::Machine, rights, .. }) => Control::from_bits_truncate(*rights),
                    _ => Control::PROCESSES,
                };
            }
            resched_point(Sleep::Killable)?;
        }
    }

    /// Gives a child that does not run yet the handles that its parent has granted, with the same numbers and grants,
    /// so that a program that the child executes gets them too. EINTR if the thread is killed meanwhile.
    pub fn inherit(&self, parent: &Self) -> Result<(), Errno> {
        let mut room = Room::none();
        let mut next = HandleInfo::FIRST;
        while let Some((number, info)) = parent.next(next) {
            next = number + 1;
            resched_point(Sleep::Killable)?;
            if info.is_none() {
                continue;
            }
            // Another thread may have closed it, or revoked the grant.
            let granted = parent.with(number, |handle| handle.copy(handle.granted));
            let Ok(mut handle) = granted else { continue };
            handle.granted = handle.rights;
            let index = (number - HandleInfo::FIRST) as usize;
            loop {
                let mut slots = self.slots.lock();
                let Err(lack) = slots.make_room(index, &mut room) else {
                    // There is room, and nothing is returned: each number is copied once.
                    let _ = slots.set(index, handle);
                    break;
                };
                drop(slots);
                room = lack.supply()?;
            }
        }
        Ok(())
    }

    /// exec: the new program gets the granted handles, with the granted rights, and grants nothing yet. Called by the
    /// process's only thread.
    pub fn for_program(&self) {
        let mut next = 0;
        while let Some((index, dropped)) = self.pass_on(next) {
            next = index + 1;
            // The former handles are dropped with no lock held.
            drop(dropped);
            let _ = resched_point(Sleep::Killable);
        }
    }

    /// Passes the next handle on, or takes it out.
    fn pass_on(&self, from: usize) -> Option<(usize, Option<Handle>)> {
        let mut slots = self.slots.lock();
        let index = slots.next_used(from)?;
        self.note_loss();
        let handle = slots.get_mut(index)?;
        if handle.granted == 0 {
            return Some((index, slots.take(index)));
        }
        (handle.rights, handle.granted) = (handle.granted, 0);
        Some((index, None))
    }

    /// Drops all handles, a few at a time, and the table's memory, since the process ends.
    pub fn clear(&self) {
        let mut table = {
            let mut slots = self.slots.lock();
            self.note_loss();
            core::mem::take(&mut *slots)
        };
        while table.drop_some() {
            let _ = resched_point(Sleep::Killable);
        }
    }
}

/// The index of a number from a program, bounded by the table on speculative paths too. EBADF.
fn index(slots: &Slots<Handle>, number: u32) -> Result<usize, Errno> {
    let index = number.checked_sub(HandleInfo::FIRST).ok_or(Errno::EBADF)? as usize;
    speculation::bounded(index, slots.capacity()).ok_or(Errno::EBADF)
}
