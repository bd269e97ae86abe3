//! epoll and eventfd.

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::{EpollEvent, epoll as op, poll};
use quire_mm::UserAddr;
use quire_mm::fallible::KArc;

use super::file::{limit, table};
use super::{Answer, Args, signal, time};
use crate::arch::{timer, uaccess};
use crate::ipc::descriptor::{Descriptor, Object, OpenFile, Rights};
use crate::ipc::epoll::Epoll;
use crate::ipc::eventfd::EventFd;
use crate::task::point::{ENTRIES, resched_point};
use crate::task::wait::Sleep;

pub(super) fn install(object: Object, status: Open, flags: Open) -> Answer {
    let file = OpenFile::new(object, status)?;
    let rights = Rights::READ | Rights::WRITE;
    let descriptor = Descriptor { file, rights, close_on_exec: flags.contains(Open::CLOEXEC) };
    table()?.insert(descriptor, 0, limit()).map(|fd| fd as usize)
}

pub fn eventfd(a: Args) -> Answer {
    const SEMAPHORE: u32 = 1;
    let flags = Open::from_bits_retain(a.uint(1) & !SEMAPHORE);
    if !(flags - Open::CLOEXEC - Open::NONBLOCK).is_empty() {
        return Err(Errno::EINVAL);
    }
    let counter = EventFd::new(a.uint(0), a.uint(1) & SEMAPHORE != 0)?;
    install(Object::EventFd(counter), Open::RDWR | flags & Open::NONBLOCK, flags)
}

pub fn create(a: Args) -> Answer {
    let flags = Open::from_bits_retain(a.uint(0));
    if !(flags - Open::CLOEXEC).is_empty() {
        return Err(Errno::EINVAL);
    }
    install(Object::Epoll(Epoll::new()?), Open::RDWR, flags)
}

fn epoll_of(file: &OpenFile) -> Result<&KArc<Epoll>, Errno> {
    match &file.object {
        Object::Epoll(epoll) => Ok(epoll),
        _ => Err(Errno::EINVAL),
    }
}

pub fn control(a: Args) -> Answer {
    let what = a.int(1);
    let event: EpollEvent = if what == op::DEL { EpollEvent::default() } else { uaccess::get(a.addr(3))? };
    let table = table()?;
    let above = table.get(a.int(0))?.file;
    let file = table.get(a.int(2))?.file;
    if !file.object.has_source() {
        return Err(Errno::EPERM);
    }
    let epoll = epoll_of(&above)?;
    if KArc::ptr_eq(&above, &file) {
        return Err(Errno::EINVAL);
    }
    match what {
        op::ADD => {
            check_exclusive(&file, event.events)?;
            Epoll::add(epoll, &file, a.int(2), event)?;
        }
        op::MOD if event.events & op::EXCLUSIVE != 0 => return Err(Errno::EINVAL),
        op::MOD => epoll.change(&file, a.int(2), event)?,
        op::DEL => epoll.remove(&file, a.int(2))?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// The flags that are allowed with EPOLLEXCLUSIVE. (It allows waking fewer waiters than all; here all are woken.)
fn check_exclusive(file: &OpenFile, events: u32) -> Result<(), Errno> {
    const MAY: u32 = (poll::IN | poll::OUT | poll::ERR | poll::HUP) as u32 | op::WAKEUP | op::ET | op::EXCLUSIVE;
    let is_wrong = events & !MAY != 0 || matches!(file.object, Object::Epoll(_));
    if events & op::EXCLUSIVE != 0 && is_wrong { Err(Errno::EINVAL) } else { Ok(()) }
}

/// epoll_pwait: the time-out is in milliseconds; a negative one means none.
pub fn wait(a: Args) -> Answer {
    let span = u64::try_from(a.int(3)).ok().map(|ms| ms * 1_000_000);
    wait_in(a, span)
}

/// epoll_pwait2: the time-out is a timespec, or none.
pub fn wait_by_timespec(a: Args) -> Answer {
    let span = a.opt_addr(3).map(uaccess::get).transpose()?.map(time::to_ns).transpose()?;
    wait_in(a, span)
}

fn wait_in(a: Args, span: Option<u64>) -> Answer {
    const MOST: usize = i32::MAX as usize / size_of::<EpollEvent>();
    let most = usize::try_from(a.int(2)).ok().filter(|most| (1..=MOST).contains(most)).ok_or(Errno::EINVAL)?;
    uaccess::check(a.addr(1), most * size_of::<EpollEvent>())?;
    let mask = signal::mask_at(a.opt_addr(4), a.word(5))?;
    let file = table()?.get(a.int(0))?.file;
    let epoll = epoll_of(&file)?;
    let deadline = span.map(|ns| timer::now_ns().saturating_add(ns));
    signal::sleep_with(mask, || wait_for(epoll, a.addr(1), most, deadline))
}

/// Sleeps until items are ready, or until the deadline; stores the events of up to `most` items.
fn wait_for(epoll: &Epoll, to: UserAddr, most: usize, deadline: Option<u64>) -> Answer {
    epoll.catch_up();
    loop {
        let found = take(epoll, to, most);
        if found != Ok(0) || deadline.is_some_and(|at| timer::now_ns() >= at) {
            epoll.pass_on();
            return found;
        }
        match epoll.sleep(deadline) {
            Ok(()) | Err(Errno::ETIMEDOUT) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Takes the items that are on the list at this moment, each once.
fn take(epoll: &Epoll, to: UserAddr, most: usize) -> Answer {
    let mut done = 0;
    let mut looked = 0;
    let mut there = 1;
    while looked < there && done < most {
        let put = |event: EpollEvent| uaccess::put(to + done * size_of::<EpollEvent>(), &event);
        let taken = match epoll.take(put) {
            Ok(Some(taken)) => taken,
            Err(e) if done == 0 => return Err(e),
            Ok(None) | Err(_) => break,
        };
        if looked == 0 {
            there = taken.there;
        }
        looked += 1;
        done += usize::from(taken.is_reported);
        if looked.is_multiple_of(ENTRIES) && resched_point(Sleep::Killable).is_err() {
            break;
        }
    }
    Ok(done)
}
