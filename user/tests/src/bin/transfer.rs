//! transfer: messages that carry handles and windows of memory, answers that bring handles, and clients and servers
//! that lie about either, or end in the middle.

#![no_std]
#![no_main]

extern crate alloc;

use core::sync::atomic::Ordering::SeqCst;

use alloc::vec::Vec;
use quire_rt::abi::flags::{Prot, sig};
use quire_rt::abi::ipc::{AttachedHandle, Attachments, Window, options, rights};
use quire_rt::abi::nr;
use quire_rt::ipc::{self, Message, Patience, Receiver, Sender, Signaller, What};
use quire_rt::process::{self, Status};
use quire_rt::{Errno, arch, thread, time};
use user_tests::{Checks, all, map, mprotect, munmap, poke, raw, shared_counters, start, until, until_asleep};

quire_rt::entry!(main);

const PAGE: usize = 4096;
const PASS: u32 = rights::SEND | rights::TRANSFER;
const GOOD: Result<Status, Errno> = Ok(Status::Exited(0));

fn main() -> i32 {
    let mut checks = Checks::new();
    handles_move(&mut checks);
    what_is_offered(&mut checks);
    answers_bring(&mut checks);
    full_tables(&mut checks);
    windows(&mut checks);
    missing_pages(&mut checks);
    bad_windows(&mut checks);
    clients_go(&mut checks);
    callers(&mut checks);
    nonsense(&mut checks);
    checks.finish()
}

/// An endpoint, and a child that calls there.
struct Case {
    endpoint: Receiver,
    pid: Result<i32, Errno>,
}

impl Case {
    /// The client's checks are its exit status: the number of the first that fails, or 0.
    fn new(client: impl FnOnce(Sender) -> i32) -> Self {
        let endpoint = Receiver::new().unwrap();
        let sender = endpoint.sender(1).unwrap();
        ipc::grant(sender.0, rights::SEND).unwrap();
        let pid = start(|| client(sender));
        ipc::close(sender.0).unwrap();
        Self { endpoint, pid }
    }

    /// Whether a call comes.
    fn comes(&self) -> bool {
        matches!(self.endpoint.receive(Patience::Endless), Ok(received) if matches!(received.what, What::Call { .. }))
    }

    fn end(self) -> Result<Status, Errno> {
        let end = process::waitpid(self.pid?);
        ipc::close(self.endpoint.0)?;
        end
    }
}

/// The number of the first check that fails.
fn first_wrong(checks: &[bool]) -> i32 {
    checks.iter().position(|passed| !passed).map_or(0, |at| at as i32 + 1)
}

fn handles(numbers: &[(u32, u32)]) -> Attachments {
    let mut attachments = Attachments::default();
    for (to, &(number, rights)) in attachments.handles.iter_mut().zip(numbers) {
        *to = AttachedHandle { number, rights };
    }
    attachments
}

fn window(start: usize, len: usize, access: u64) -> Window {
    Window { start: start as u64, len: len as u64, access }
}

fn with_windows(windows: [Window; 2]) -> Attachments {
    Attachments { windows, ..Attachments::default() }
}

fn call(sender: Sender, attachments: &Attachments) -> Result<Message, Errno> {
    // SAFETY: the windows of these tests are memory of their own, of which nothing else is.
    unsafe { sender.call_carrying(&Message::new(1, &[]), attachments, 0) }.map(|(answer, _)| answer)
}

fn answer() -> Result<(), Errno> {
    ipc::reply(&Message::default())
}

fn handles_move(checks: &mut Checks) {
    let case = Case::new(|sender| {
        let own = Receiver::new().unwrap();
        let [first, second] = [own.sender(10).unwrap(), own.sender(11).unwrap()];
        let carried = call(sender, &handles(&[(first.0, rights::SEND), (0, 0), (second.0, PASS)]));
        let gone = [ipc::close(first.0), ipc::close(second.0)];
        let mut badges = 0;
        let mut next = own.receive(Patience::Endless);
        for _ in 0..2 {
            if let Ok(What::Call { badge, .. }) = next.map(|received| received.what) {
                badges += badge;
            }
            next = own.reply_receive(&Message::default(), Patience::None);
            if next == Err(Errno::EAGAIN) && badges < 21 {
                next = own.receive(Patience::Endless);
            }
        }
        first_wrong(&[carried.is_ok(), gone == [Err(Errno::EBADF); 2], badges == 21])
    });
    checks.fails(ipc::accept(0), Errno::ENOENT, "without a call there is nothing to accept");
    checks.ok(case.comes(), "a call comes that carries two handles");
    let taken = ipc::accept(0).unwrap();
    checks.ok(taken[0] != 0 && taken[1] == 0 && taken[2] != 0 && taken[3] == 0, "its server accepts both");
    checks.fails(ipc::accept(0), Errno::ENOENT, "once");
    checks.eq(answer(), Ok(()), "the call is answered");
    let [first, _, second, _] = taken.map(Sender);
    checks.ok(first.call(&Message::default()).is_ok(), "a handle that came is called by");
    checks.ok(second.call(&Message::default()).is_ok(), "and so is the other");
    checks.fails(call(first, &handles(&[(first.0, rights::SEND)])), Errno::EPERM, "what came without that right stays");
    checks.eq(case.end(), GOOD, "the client has them no more, and was called with both badges");
    checks.fails(second.call(&Message::default()), Errno::EPIPE, "its endpoint has gone with it");
    ipc::close(first.0).unwrap();
    ipc::close(second.0).unwrap();

    let case = Case::new(|sender| {
        let own = Receiver::new().unwrap();
        let first = own.sender(0).unwrap();
        let carried = call(sender, &handles(&[(first.0, PASS)]));
        let plain = sender.call(&Message::new(2, &[]));
        first_wrong(&[carried.is_ok(), ipc::close(first.0) == Ok(()), plain.is_ok()])
    });
    checks.ok(case.comes() && answer() == Ok(()), "a call whose handle nobody accepts is answered");
    checks.ok(case.comes(), "and another that carries nothing");
    checks.fails(ipc::accept(0), Errno::ENOENT, "brings nothing of the first");
    checks.eq((answer(), case.end()), (Ok(()), GOOD), "the client has kept its handle");
}

fn what_is_offered(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let [sender, other] = [endpoint.sender(0).unwrap(), endpoint.sender(0).unwrap()];
    let bare = ipc::copy(other.0, rights::SEND).unwrap();
    let offers = |offered: &[(u32, u32)]| call(sender, &handles(offered));
    checks.fails(offers(&[(1, rights::SEND)]), Errno::EBADF, "a descriptor is no handle");
    checks.fails(offers(&[((1 << 30) + 4000, PASS)]), Errno::EBADF, "nor is a number that is not in use");
    checks.fails(offers(&[(u32::MAX, PASS)]), Errno::EBADF, "nor any other");
    checks.fails(offers(&[(other.0, PASS), (other.0, PASS)]), Errno::EBADF, "a handle does not pass twice");
    checks.fails(offers(&[(endpoint.0, rights::RECEIVE)]), Errno::EPERM, "a receiver does not pass");
    checks.fails(offers(&[(other.0, PASS | rights::RECEIVE)]), Errno::EPERM, "rights do not grow");
    checks.fails(offers(&[(other.0, rights::TRANSFER)]), Errno::EPERM, "nor is one left that allows nothing");
    checks.fails(offers(&[(other.0, 0)]), Errno::EPERM, "or no right at all");
    checks.fails(offers(&[(bare, rights::SEND)]), Errno::EPERM, "a handle without that right does not pass");
    let mut registers = [u64::from(sender.0), 1, 0, 0, 0, 0, 0, 0, 0, options::CARRIES];
    let nowhere = core::ptr::without_provenance(8);
    let bad = arch::message_with(nr::QUIRE_CALL, &mut registers, nowhere);
    checks.eq(bad, Errno::EFAULT.to_ret(), "a descriptor that cannot be read is an error");
    let mut attachments = Attachments::default();
    attachments.windows[1] = window(usize::MAX - PAGE, PAGE / 2, Window::READ);
    checks.fails(call(sender, &attachments), Errno::EFAULT, "the kernel's memory is no window");
    attachments.windows[1] = window(PAGE, usize::MAX, Window::READ);
    checks.fails(call(sender, &attachments), Errno::EFAULT, "nor one without end");
    attachments.windows[1] = window(PAGE, PAGE, 4);
    checks.fails(call(sender, &attachments), Errno::EINVAL, "access that is not known is an error");
    checks.fails(sender.call(&Message::default()), Errno::EDEADLK, "nothing of all that was sent");
    for handle in [sender.0, other.0, bare, endpoint.0] {
        checks.eq(ipc::close(handle), Ok(()), "and each handle is where it was");
    }

    let counters = shared_counters();
    counters[0].store(0, SeqCst);
    let case = Case::new(|sender| {
        let own = Receiver::new().unwrap();
        let first = own.sender(0).unwrap();
        let other = thread::spawn(move || {
            let went_on = until(|| counters[0].load(SeqCst) == 1);
            counters[1].store(u64::from(went_on && ipc::close(first.0).is_ok()), SeqCst);
        });
        let carried = call(sender, &handles(&[(first.0, PASS)]));
        other.unwrap().join();
        first_wrong(&[carried.is_ok()])
    });
    checks.ok(case.comes(), "a call comes with a handle");
    counters[0].store(1, SeqCst);
    checks.ok(until(|| counters[1].load(SeqCst) == 1), "which another thread of the client closes");
    checks.fails(ipc::accept(0), Errno::ENXIO, "so there is nothing to accept");
    checks.eq((answer(), case.end()), (Ok(()), GOOD), "and nobody is harmed");
    counters[0].store(0, SeqCst);
    counters[1].store(0, SeqCst);
}

fn answers_bring(checks: &mut Checks) {
    let case = Case::new(|sender| {
        let opened = sender.call_for(&Message::new(1, &[]), 1).map(|(_, numbers)| numbers);
        let Ok([number, 0, 0, 0]) = opened else { return 1 };
        let called = Sender(number).call(&Message::new(2, &[5]));
        let saved = sender.call_for(&Message::new(3, &[]), 4).map(|(_, numbers)| numbers);
        let Ok([0, 0, 0, fourth]) = saved else { return 3 };
        let none = sender.call_for(&Message::new(4, &[]), 0).map(|(_, numbers)| numbers);
        first_wrong(&[true, called.is_ok(), ipc::close(fourth) == Ok(()), none == Ok([0; 4])])
    });
    let [object, second] = [case.endpoint.sender(99).unwrap(), case.endpoint.sender(98).unwrap()];
    let brings = |offered: &[(u32, u32)]| ipc::reply_carrying(0, &Message::default(), &handles(offered));
    checks.ok(case.comes(), "a client asks for an object");
    checks.fails(brings(&[(object.0, PASS), (second.0, PASS)]), Errno::EMFILE, "it has room for one");
    checks.fails(brings(&[(77, PASS)]), Errno::EBADF, "a lie is the server's error");
    checks.fails(brings(&[(case.endpoint.0, rights::RECEIVE)]), Errno::EPERM, "as is what does not pass");
    let mut windowed = handles(&[(object.0, PASS)]);
    windowed.windows[0] = window(PAGE, PAGE, Window::READ);
    checks.fails(ipc::reply_carrying(0, &Message::default(), &windowed), Errno::EINVAL, "an answer has no windows");
    let next = case.endpoint.reply_carrying_receive(
        &Message::default(),
        &handles(&[(object.0, rights::SEND)]),
        Patience::Endless,
    );
    let by_object = next.map(|received| received.what);
    checks.eq(by_object, Ok(What::Call { badge: 99, message: Message::new(2, &[5]) }), "the answer brings the handle");
    checks.fails(ipc::close(object.0), Errno::EBADF, "which the server has no more");
    checks.eq(answer(), Ok(()), "it is of use");
    checks.ok(case.comes(), "another is asked for");
    let saved = case.endpoint.save(1).unwrap();
    let offered = handles(&[(0, 0), (0, 0), (0, 0), (second.0, PASS)]);
    let lie = ipc::reply_carrying(saved.0, &Message::default(), &handles(&[(78, PASS)]));
    checks.fails(lie, Errno::EBADF, "a saved call stays after an error");
    checks.eq(ipc::reply_carrying(saved.0, &Message::default(), &offered), Ok(()), "and is answered with a handle");
    checks.fails(ipc::close(saved.0), Errno::EBADF, "once");
    checks.ok(case.comes(), "a client has no room");
    let third = case.endpoint.sender(97).unwrap();
    checks.fails(brings(&[(third.0, PASS)]), Errno::EMFILE, "so that the answer brings nothing");
    checks.eq((brings(&[]), case.end()), (Ok(()), GOOD), "and comes without");
    checks.eq(ipc::close(third.0), Ok(()), "the handle has stayed");
}

/// Fills this process's table; the handles are to be closed.
fn fill(handle: u32) -> Vec<u32> {
    core::iter::from_fn(|| ipc::copy(handle, rights::SEND).ok()).collect()
}

fn full_tables(checks: &mut Checks) {
    let case = Case::new(|sender| {
        let own = Receiver::new().unwrap();
        let first = own.sender(0).unwrap();
        let carried = call(sender, &handles(&[(first.0, PASS)]));
        let gone = ipc::close(first.0) == Err(Errno::EBADF);
        let filled = fill(sender.0);
        let answered = sender.call_for(&Message::new(2, &[]), 1).map(|(_, numbers)| numbers);
        filled.iter().for_each(|handle| _ = ipc::close(*handle));
        first_wrong(&[carried.is_ok(), gone, filled.len() > 1000, answered == Ok([0; 4])])
    });
    checks.ok(case.comes(), "a call comes with a handle");
    let object = case.endpoint.sender(0).unwrap();
    let filled = fill(object.0);
    checks.ok(filled.len() > 1000, "its server's table is full");
    checks.fails(ipc::accept(0), Errno::EMFILE, "it accepts nothing");
    filled.iter().for_each(|handle| _ = ipc::close(*handle));
    checks.ok(
        ipc::accept(0).is_ok_and(|[number, ..]| ipc::close(number).is_ok()),
        "then it has room, and the handle moves",
    );
    checks.eq(answer(), Ok(()), "the client goes on");
    checks.ok(case.comes(), "and fills its own table");
    let brought = ipc::reply_carrying(0, &Message::default(), &handles(&[(object.0, PASS)]));
    checks.fails(brought, Errno::EMFILE, "its answer cannot bring anything");
    checks.eq((ipc::close(object.0), answer(), case.end()), (Ok(()), Ok(()), GOOD), "nobody is harmed");
}

fn windows(checks: &mut Checks) {
    let case = Case::new(|sender| {
        let at = map(4 * PAGE, Prot::READ | Prot::WRITE);
        (0..4 * PAGE).for_each(|i| poke(at + i, (i % 251) as u8));
        let attachments =
            with_windows([window(at + 100, 5000, Window::READ), window(at + 2 * PAGE + 50, 4100, Window::WRITE)]);
        let answered = call(sender, &attachments);
        let is_as_before =
            |range: core::ops::Range<usize>| range.into_iter().all(|i| user_tests::peek(at + i) == (i % 251) as u8);
        let begin = 2 * PAGE + 50;
        first_wrong(&[
            answered.is_ok(),
            all(at + begin, 4100, 0xab),
            is_as_before(0..begin),
            is_as_before(begin + 4100..4 * PAGE),
        ])
    });
    checks.ok(case.comes(), "a call comes with two windows");
    let mut bytes = [0u8; 5000];
    checks.eq(ipc::read_window(0, 0, 0, &mut bytes), Ok(5000), "the first is read");
    let right = |(i, byte): (usize, &u8)| *byte == ((i + 100) % 251) as u8;
    checks.ok(bytes.iter().enumerate().all(right), "byte for byte");
    let mut few = [0u8; 13];
    checks.eq(ipc::read_window(0, 0, 4987, &mut few), Ok(13), "so is its end");
    checks.eq(&few[..], &bytes[4987..], "alone");
    checks.fails(ipc::read_window(0, 0, 4988, &mut few), Errno::EINVAL, "and nothing beyond");
    checks.fails(ipc::read_window(0, 0, usize::MAX - 4, &mut few), Errno::EINVAL, "however far");
    checks.fails(ipc::write_window(0, 0, 0, &few), Errno::EPERM, "it is not written");
    checks.fails(ipc::read_window(0, 1, 0, &mut few), Errno::EPERM, "nor the second read");
    checks.fails(ipc::read_window(0, 2, 0, &mut few), Errno::ENOENT, "there is no third");
    let window = |buffer: usize| raw(nr::QUIRE_READ_WINDOW, [0, 0, 0, buffer, 10]);
    checks.fails(window(8), Errno::EFAULT, "the server's own buffer is its own");
    checks.fails(window(usize::MAX - 100), Errno::EFAULT, "and not the kernel's");
    let fresh = map(2 * PAGE, Prot::READ | Prot::WRITE);
    let into_fresh = raw(nr::QUIRE_READ_WINDOW, [0, 0, 0, fresh + 5, 5000]);
    checks.eq(into_fresh, Ok(5000), "a buffer that is not there yet is brought in");
    munmap(fresh, 2 * PAGE).unwrap();
    checks.eq(ipc::write_window(0, 1, 0, &[0xab; 4100]), Ok(4100), "the second window is written");
    checks.fails(ipc::write_window(0, 1, 4100, &few), Errno::EINVAL, "and nothing beyond");
    checks.eq(ipc::write_window(0, 1, 4100, &[]), Ok(0), "nothing at its end is nothing");
    checks.eq(answer(), Ok(()), "the call is answered");
    checks.fails(ipc::read_window(0, 0, 0, &mut few), Errno::ENOENT, "and the windows are closed");
    checks.eq(case.end(), GOOD, "the client has what was written, where it was to be");
}

fn missing_pages(checks: &mut Checks) {
    let case = Case::new(|sender| {
        let at = map(4 * PAGE, Prot::READ | Prot::WRITE);
        let mut attachments = with_windows([window(at, PAGE, Window::READ), window(at + PAGE, PAGE, Window::WRITE)]);
        let early = call(sender, &attachments);
        attachments.windows = [window(at + 2 * PAGE, 2 * PAGE, Window::READ), Window::default()];
        poke(at + 2 * PAGE, 7);
        let late = call(sender, &attachments);
        first_wrong(&[early.is_ok(), late.is_ok(), all(at + PAGE, PAGE, 3)])
    });
    let mut page = [9u8; PAGE];
    let ready = |token| case.endpoint.receive(Patience::Endless).map(|r| r.what) == Ok(What::Ready(token));
    checks.ok(case.comes(), "a call comes with windows whose pages are not there");
    checks.fails(ipc::read_window(0, 0, 0, &mut page), Errno::EAGAIN, "they are not read");
    let saved = case.endpoint.save(5).unwrap();
    checks.ok(ready(5), "the client brings the page in");
    checks.eq(ipc::read_window(saved.0, 0, 0, &mut page), Ok(PAGE), "and it is read");
    checks.ok(page.iter().all(|byte| *byte == 0), "as the client would read it");
    checks.fails(ipc::write_window(saved.0, 1, 0, &[3; PAGE]), Errno::EAGAIN, "nor are they written");
    checks.ok(ready(5), "before the client has brought it in");
    checks.eq(ipc::write_window(saved.0, 1, 0, &[3; PAGE]), Ok(PAGE), "then it is");
    checks.eq(saved.reply(&Message::default()), Ok(()), "the call is answered");
    checks.ok(case.comes(), "another has one page of two");
    let mut pages = [9u8; 2 * PAGE];
    checks.eq(ipc::read_window(0, 0, 0, &mut pages), Ok(PAGE), "so one is read");
    checks.eq(pages[0], 7, "the right one");
    let rest = until(|| ipc::read_window(0, 0, PAGE, &mut pages) != Err(Errno::EAGAIN));
    checks.ok(rest, "and the other a little later");
    checks.eq((answer(), case.end()), (Ok(()), GOOD), "the client goes on");
}

fn bad_windows(checks: &mut Checks) {
    let case = Case::new(|sender| {
        let at = map(3 * PAGE, Prot::READ | Prot::WRITE);
        poke(at, 1);
        poke(at + PAGE, 1);
        mprotect(at, PAGE, Prot::READ).unwrap();
        munmap(at + 2 * PAGE, PAGE).unwrap();
        let attachments =
            with_windows([window(at, PAGE, Window::READ | Window::WRITE), window(at + PAGE, 2 * PAGE, Window::READ)]);
        let answered = [call(sender, &attachments), call(sender, &attachments)];
        mprotect(at, PAGE, Prot::empty()).unwrap();
        let hidden = call(sender, &attachments);
        mprotect(at, PAGE, Prot::READ).unwrap();
        first_wrong(&[answered.iter().all(Result::is_ok), hidden.is_ok(), all(at, 1, 1), all(at + 1, PAGE - 1, 0)])
    });
    let mut byte = [0u8];
    checks.ok(case.comes(), "a call comes with a window that the client may not write");
    let wrote = until(|| ipc::write_window(0, 0, 0, &[5]) == Err(Errno::ENXIO));
    checks.ok(wrote, "nor may its server");
    checks.eq(ipc::read_window(0, 0, 0, &mut byte), Ok(1), "who may read it");
    checks.eq((byte, answer()), ([1], Ok(())), "and answers");
    checks.ok(case.comes(), "another has nothing there");
    checks.ok(until(|| ipc::read_window(0, 1, PAGE, &mut byte) == Err(Errno::ENXIO)), "there is nothing to read");
    let mut pages = [0u8; 2 * PAGE];
    checks.eq(ipc::read_window(0, 1, 0, &mut pages), Ok(PAGE), "but what is before it");
    checks.eq(answer(), Ok(()), "that is answered");
    checks.ok(case.comes(), "the last has hidden its page");
    checks.ok(until(|| ipc::read_window(0, 0, 0, &mut byte) == Err(Errno::ENXIO)), "so that nobody reads it");
    checks.eq((answer(), case.end()), (Ok(()), GOOD), "and the client lives");
}

fn clients_go(checks: &mut Checks) {
    let carrying = |sender| {
        let own = Receiver::new().unwrap();
        let at = map(2 * PAGE, Prot::READ | Prot::WRITE);
        poke(at, 1);
        let mut attachments = handles(&[(own.sender(0).unwrap().0, PASS)]);
        attachments.windows[0] = window(at, 2 * PAGE, Window::READ | Window::WRITE);
        i32::from(call(sender, &attachments).is_ok())
    };
    let killed = |case: &Case| {
        process::kill(case.pid.unwrap(), sig::KILL).unwrap();
        process::waitpid(case.pid.unwrap()) == Ok(Status::Killed(sig::KILL))
    };
    let mut byte = [0];
    let case = Case::new(carrying);
    checks.ok(case.comes() && killed(&case), "a client is killed whose call was received");
    checks.fails(ipc::accept(0), Errno::ECANCELED, "there is nothing to accept");
    checks.fails(ipc::read_window(0, 0, 0, &mut byte), Errno::ECANCELED, "nor to read");
    checks.fails(ipc::write_window(0, 0, 0, &byte), Errno::ECANCELED, "nor to write");
    checks.fails(ipc::caller(0), Errno::ECANCELED, "nor to know");
    let object = case.endpoint.sender(0).unwrap();
    let late = ipc::reply_carrying(0, &Message::default(), &handles(&[(object.0, PASS)]));
    checks.fails(late, Errno::ECANCELED, "nor to answer");
    checks.eq((ipc::close(object.0), ipc::close(case.endpoint.0)), (Ok(()), Ok(())), "and the handle has stayed");

    let case = Case::new(carrying);
    checks.ok(case.comes(), "another is received");
    checks.fails(ipc::read_window(0, 0, PAGE, &mut byte), Errno::EAGAIN, "and a page of it wanted");
    let saved = case.endpoint.save(6).unwrap();
    checks.ok(killed(&case), "its client is killed");
    let mut news = Vec::new();
    while !news.contains(&Ok(What::Cancelled(6))) && news.len() < 3 {
        news.push(case.endpoint.receive(Patience::Endless).map(|r| r.what));
    }
    checks.ok(news.contains(&Ok(What::Cancelled(6))), "of which the server hears");
    checks.fails(ipc::read_window(saved.0, 0, 0, &mut byte), Errno::ECANCELED, "there is nothing to read");
    checks.fails(ipc::accept(saved.0), Errno::ECANCELED, "nor to accept");
    checks.eq((ipc::close(saved.0), ipc::close(case.endpoint.0)), (Ok(()), Ok(())), "and all is put away");

    let case = Case::new(carrying);
    assert!(case.pid.is_ok_and(until_asleep));
    checks.eq(ipc::close(case.endpoint.0), Ok(()), "an endpoint is closed where one waits with a handle");
    checks.eq(process::waitpid(case.pid.unwrap()), GOOD, "which hears of it");
}

fn callers(checks: &mut Checks) {
    let case = Case::new(|sender| first_wrong(&[sender.call(&Message::default()).is_ok()]));
    checks.ok(case.comes(), "a call comes");
    let pid = case.pid.unwrap() as u32;
    checks.eq(ipc::caller(0), Ok(ipc::Caller { pid, tid: pid, uid: 0, gid: 0 }), "the kernel says whose");
    let saved = case.endpoint.save(1).unwrap();
    checks.eq(ipc::caller(saved.0).map(|caller| caller.pid), Ok(pid), "also of one that was put aside");
    checks.fails(ipc::caller(0), Errno::ENOENT, "which is not in the slot");
    checks.fails(ipc::caller(case.endpoint.0), Errno::EPERM, "and a receiver is no call");
    checks.eq((saved.reply(&Message::default()), case.end()), (Ok(()), GOOD), "it is answered");
}

/// Clients that offer whatever a program may put into a descriptor, some of which are killed, and a server that does
/// whatever one may do with a call.
fn nonsense(checks: &mut Checks) {
    const CLIENTS: usize = 4;
    const CALLS: u64 = 1500;
    let mut seed = 9u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 17
    };
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(0).unwrap();
    let over: [Signaller; CLIENTS] = core::array::from_fn(|i| endpoint.signaller(1 << i).unwrap());
    ipc::grant(sender.0, rights::SEND).unwrap();
    over.iter().for_each(|over| ipc::grant(over.0, rights::SIGNAL).unwrap());
    let pids: [i32; CLIENTS] = core::array::from_fn(|i| {
        let mut random = random;
        (0..i * 1000).for_each(|_| _ = random());
        start(move || {
            let at = map(8 * PAGE, Prot::READ | Prot::WRITE);
            let own = Receiver::new().unwrap();
            for n in 0..CALLS {
                let mut attachments = Attachments::default();
                for one in &mut attachments.handles {
                    let minted = || own.sender(n).map_or(0, |sender| sender.0);
                    let number = match random() % 6 {
                        0 => minted(),
                        1 => (1 << 30) + random() as u32 % 8,
                        _ => 0,
                    };
                    *one = AttachedHandle { number, rights: if random() % 4 == 0 { random() as u32 } else { PASS } };
                }
                for window in &mut attachments.windows {
                    *window = Window {
                        start: if random() % 16 == 0 {
                            random() << 10
                        } else {
                            at as u64 + random() % (8 * PAGE as u64)
                        },
                        len: random() % (4 * PAGE as u64),
                        access: random() % 4,
                    };
                }
                // SAFETY: the windows are this client's pages, or nothing.
                let _ = unsafe { sender.call_carrying(&Message::new(1, &[]), &attachments, random() % 8) };
                (0..3).for_each(|_| poke(at + random() as usize % 8 * PAGE, 1));
                if random() % 8 == 0 {
                    let _ = munmap(at + random() as usize % 8 * PAGE, PAGE);
                    let _ = raw(nr::MMAP, [at, 8 * PAGE, 3, 0x32, usize::MAX, 0]);
                }
                (16..80).for_each(|i| _ = ipc::close((1 << 30) + i));
            }
            (over[i].signal() != Ok(())).into()
        })
        .unwrap()
    });
    let mut buffer = alloc::vec![0u8; 4 * PAGE];
    let (mut ended, mut served, mut moved, mut copied, mut odd) = (1u64, 0u64, 0u64, 0u64, 0);
    let mut saved: Vec<ipc::Reply> = Vec::new();
    let victim = pids[0];
    while ended != (1 << CLIENTS) - 1 {
        let Ok(received) = endpoint.receive(Patience::Until(time::monotonic() + 2_000_000)) else {
            // All that live may wait for those that were put aside.
            saved.drain(..).for_each(|aside| _ = aside.reply(&Message::default()));
            continue;
        };
        ended |= received.events;
        let What::Call { .. } = received.what else { continue };
        served += 1;
        if served == 1000 {
            process::kill(victim, sig::KILL).unwrap();
        }
        let mut reply = 0;
        if random() % 3 == 0
            && let Ok(put_aside) = endpoint.save(random())
        {
            reply = put_aside.0;
        }
        for _ in 0..random() % 4 {
            let (at, len) = (random() as usize % (2 * PAGE), random() as usize % (2 * PAGE));
            let which = random() as usize % 3;
            let result = match random() % 3 {
                0 => ipc::read_window(reply, which, at, &mut buffer[..len]),
                1 => ipc::write_window(reply, which, at, &buffer[..len]),
                _ => ipc::accept(reply).map(|numbers| {
                    moved += 1;
                    numbers.iter().filter(|number| **number != 0).for_each(|number| ipc::close(*number).unwrap());
                    0
                }),
            };
            match result {
                Ok(n) => copied += n as u64,
                Err(Errno::EAGAIN | Errno::ENXIO | Errno::ENOENT | Errno::EPERM | Errno::EINVAL | Errno::ECANCELED) => {
                }
                Err(_) => odd += 1,
            }
        }
        if reply != 0 && saved.len() < 2 {
            saved.push(ipc::Reply(reply));
            continue;
        }
        let brought = endpoint.sender(0).unwrap();
        let offered = handles(&[(brought.0, if random() % 4 == 0 { 0 } else { PASS })]);
        if ipc::reply_carrying(reply, &Message::default(), &offered).is_err() {
            let _ = ipc::close(brought.0);
            let _ = if reply == 0 { answer() } else { ipc::close(reply) };
        }
        if let Some(aside) = saved.pop() {
            let _ = aside.reply(&Message::default());
        }
    }
    checks
        .ok(served > 0 && moved > 0 && copied > 0, "thousands of odd calls are served, with their handles and windows");
    checks.eq(odd, 0, "and fail as they should");
    let _ = process::kill(victim, sig::KILL);
    saved.iter().for_each(|aside| _ = ipc::close(aside.0));
    over.iter().for_each(|over| ipc::close(over.0).unwrap());
    for handle in [sender.0, endpoint.0] {
        ipc::close(handle).unwrap();
    }
    let ends = pids.map(process::waitpid);
    let as_it_should = |end: &Result<Status, Errno>| matches!(end, Ok(Status::Exited(0) | Status::Killed(sig::KILL)));
    checks.ok(ends.iter().all(as_it_should), "and all clients end");
}
