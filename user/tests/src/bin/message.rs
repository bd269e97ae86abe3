//! message: calls between processes and threads, replies now and later, signals, deadlines, and what each side sees
//! when the other goes.

#![no_std]
#![no_main]

extern crate alloc;

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use quire_rt::abi::flags::sig;
use quire_rt::abi::ipc::{options, rights};
use quire_rt::abi::nr;
use quire_rt::ipc::{self, Message, Patience, Receiver, Sender, What};
use quire_rt::process::{self, Status};
use quire_rt::{Errno, arch, handles, signal, time};
use user_tests::{Checks, child, raw, shared_counters, start, until, until_asleep};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    plain_calls(&mut checks);
    registers_carry_no_more(&mut checks);
    events(&mut checks);
    saved_calls(&mut checks);
    clients_go(&mut checks);
    servers_go(&mut checks);
    deadlines(&mut checks);
    interrupted(&mut checks);
    itself(&mut checks);
    authority(&mut checks);
    lies(&mut checks);
    storm(&mut checks);
    checks.finish()
}

/// Serves calls until label 0 comes: each word comes back doubled, with the badge as the label.
fn serve(endpoint: Receiver) -> i32 {
    let Ok(mut next) = endpoint.receive(Patience::Endless) else { return 1 };
    loop {
        let What::Call { badge, message } = next.what else { return 2 };
        if message.label == 0 {
            return (ipc::reply(&Message::default()) != Ok(())).into();
        }
        let answer = Message { label: badge, words: message.words.map(|word| word * 2) };
        match endpoint.reply_receive(&answer, Patience::Endless) {
            Ok(received) => next = received,
            Err(_) => return 3,
        }
    }
}

/// A child that calls by `sender`, which is granted to it alone.
fn client(sender: Sender, run: impl FnOnce() -> i32) -> Result<i32, Errno> {
    ipc::grant(sender.0, rights::SEND)?;
    let pid = start(run);
    ipc::grant(sender.0, 0)?;
    pid
}

/// Waits until a client sleeps: in its call, for there is nothing else that it waits for.
fn asleep(pid: &Result<i32, Errno>) {
    assert!(pid.is_ok_and(until_asleep), "the client sleeps");
}

fn ended(pid: Result<i32, Errno>) -> Result<Status, Errno> {
    process::waitpid(pid?)
}

fn plain_calls(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(77).unwrap();
    let pid = client(sender, || {
        let answer = sender.call(&Message::new(1, &[1, 2, 3, 4, 5, 6]));
        let right = answer == Ok(Message::new(77, &[2, 4, 6, 8, 10, 12]));
        let mut sum = 0;
        for n in 0..2000 {
            sum += sender.call(&Message::new(1, &[n])).map_or(0, |answer| answer.words[0]);
        }
        let ends = sender.call(&Message::new(0, &[])) == Ok(Message::default());
        (!(right && sum == 1999 * 2000 && ends)).into()
    });
    checks.eq(serve(endpoint), 0, "a server serves another process until it is told to end");
    checks.eq(ended(pid), Ok(Status::Exited(0)), "and each answer was that to its call");
    checks.eq(ipc::close(sender.0), Ok(()), "a handle is closed");
    checks.fails(sender.call(&Message::default()), Errno::EBADF, "and is none then");
    ipc::close(endpoint.0).unwrap();
}

/// What a sender's registers hold beyond its words stays its own.
fn registers_carry_no_more(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(5).unwrap();
    let pid = client(sender, || {
        let mut registers = [u64::from(sender.0), 9, 1, 2, 3, 4, 5, 6, 0, 2];
        let answered = arch::message(nr::QUIRE_CALL, &mut registers);
        (!(answered == 0 && registers == [0, 8, 7, 0, 0, 0, 0, 0, 0, 0])).into()
    });
    let mut registers = [u64::from(endpoint.0), 3, 3, 3, 3, 3, 3, 3, 0, 0];
    checks.eq(arch::message(nr::QUIRE_RECEIVE, &mut registers), 0, "a call comes");
    checks.eq(registers, [0, 9, 1, 2, 0, 0, 0, 0, 5, 0], "with the words that it says it has, and zeros");
    let mut registers = [0, 8, 7, 3, 3, 3, 3, 3, 0, 1];
    checks.eq(arch::message(nr::QUIRE_REPLY, &mut registers), 0, "it is answered");
    checks.eq(ended(pid), Ok(Status::Exited(0)), "with one word, and zeros");
    ipc::close(endpoint.0).unwrap();
    ipc::close(sender.0).unwrap();
}

fn events(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let (first, second) = (endpoint.signaller(1).unwrap(), endpoint.signaller(0b110).unwrap());
    checks.fails(endpoint.signaller(0), Errno::EINVAL, "no events are no right");
    checks.fails(endpoint.receive(Patience::None), Errno::EAGAIN, "nothing has come");
    checks.eq((first.signal(), second.signal(), first.signal()), (Ok(()), Ok(()), Ok(())), "events are set");
    let received = endpoint.receive(Patience::Endless).map(|r| (r.what, r.events));
    checks.eq(received, Ok((What::Events, 0b111)), "and come together");
    checks.fails(endpoint.receive(Patience::None), Errno::EAGAIN, "once");

    ipc::grant(second.0, rights::SIGNAL).unwrap();
    let pid = start(|| {
        time::sleep_ms(10);
        (second.signal() != Ok(())).into()
    });
    let received = endpoint.receive(Patience::Endless).map(|r| (r.what, r.events));
    checks.eq(received, Ok((What::Events, 0b110)), "a thread that waits is woken by another process's");
    checks.eq(ended(pid), Ok(Status::Exited(0)), "which has that right");

    let sender = endpoint.sender(3).unwrap();
    first.signal().unwrap();
    let pid = client(sender, || (sender.call(&Message::new(1, &[])).is_err()).into());
    let mut seen = 0;
    let came = loop {
        match endpoint.receive(Patience::Endless) {
            Ok(received) => seen |= received.events,
            Err(e) => break Err(e),
        }
        if ipc::reply(&Message::default()) != Err(Errno::ENOENT) {
            break Ok(seen);
        }
    };
    checks.eq(came, Ok(1), "events come beside a call, or before it");
    checks.eq(ended(pid), Ok(Status::Exited(0)), "which is answered");
    for handle in [first.0, second.0, sender.0, endpoint.0] {
        ipc::close(handle).unwrap();
    }
}

fn saved_calls(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let senders: [Sender; 3] = core::array::from_fn(|i| endpoint.sender(i as u64).unwrap());
    let clients = senders.map(|sender| {
        client(sender, || match sender.call(&Message::new(1, &[])) {
            Ok(answer) => answer.label as i32,
            Err(_) => 99,
        })
    });
    let mut saved = [None; 3];
    for token in 0..3 {
        if let Ok(What::Call { badge, .. }) = endpoint.receive(Patience::Endless).map(|r| r.what) {
            saved[badge as usize] = endpoint.save(token).ok();
        }
    }
    checks.ok(saved.iter().all(Option::is_some), "three calls are put aside");
    for i in [1, 2, 0] {
        let answered = saved[i].map(|reply| reply.reply(&Message::new(10 + i as u64, &[])));
        checks.eq(answered, Some(Ok(())), "and answered in another order");
    }
    for (i, pid) in clients.into_iter().enumerate() {
        checks.eq(ended(pid), Ok(Status::Exited(10 + i as u8)), "each with its own answer");
    }
    checks.fails(ipc::reply(&Message::default()), Errno::ENOENT, "there is no call left to answer");
    checks.fails(endpoint.save(1), Errno::ENOENT, "nor to put aside");
    checks.fails(ipc::Reply(saved[0].map_or(0, |reply| reply.0)).reply(&Message::default()), Errno::EBADF, "nor twice");
    for sender in senders {
        ipc::close(sender.0).unwrap();
    }
    ipc::close(endpoint.0).unwrap();
}

fn clients_go(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(0).unwrap();
    let call = || client(sender, || sender.call(&Message::new(1, &[])).is_ok().into());

    let queued = call();
    asleep(&queued);
    checks.eq(kill(&queued), Ok(Status::Killed(sig::KILL)), "a client whose call nobody has received is killed");
    checks.fails(endpoint.receive(Patience::None), Errno::EAGAIN, "and its call is gone");

    let held = call();
    checks.ok(is_call(endpoint), "a call is received");
    checks.fails(endpoint.receive(Patience::None), Errno::EBUSY, "and is to be answered before the next");
    checks.eq(kill(&held), Ok(Status::Killed(sig::KILL)), "its client is killed");
    checks.fails(ipc::reply(&Message::default()), Errno::ECANCELED, "and the answer harms nobody");

    let saved = call();
    checks.ok(is_call(endpoint), "another is received");
    let reply = endpoint.save(4242);
    checks.eq(kill(&saved), Ok(Status::Killed(sig::KILL)), "put aside, and its client killed");
    let news = endpoint.receive(Patience::Until(time::monotonic() + 1_000_000_000)).map(|r| r.what);
    checks.eq(news, Ok(What::Cancelled(4242)), "the server hears of it");
    checks.fails(reply.and_then(|reply| reply.reply(&Message::default())), Errno::ECANCELED, "the answer harms nobody");

    let late = call();
    checks.ok(is_call(endpoint), "one more is received");
    checks.eq(kill(&late), Ok(Status::Killed(sig::KILL)), "and its client killed");
    checks.fails(endpoint.save(1), Errno::ECANCELED, "there is nothing to put aside");
    ipc::close(sender.0).unwrap();
    ipc::close(endpoint.0).unwrap();
}

fn kill(pid: &Result<i32, Errno>) -> Result<Status, Errno> {
    let pid = (*pid)?;
    process::kill(pid, sig::KILL)?;
    process::waitpid(pid)
}

fn is_call(endpoint: Receiver) -> bool {
    matches!(endpoint.receive(Patience::Endless), Ok(received) if matches!(received.what, What::Call { .. }))
}

/// The error that a client's call ended with, as its exit status.
fn errno_of(answer: Result<Message, Errno>) -> i32 {
    answer.err().map_or(0, |e| -(e.to_ret() as i32))
}

fn servers_go(checks: &mut Checks) {
    let pipe = Errno::EPIPE.to_ret().unsigned_abs() as u8;
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(0).unwrap();
    let call = || client(sender, || errno_of(sender.call(&Message::new(1, &[]))));

    let held = call();
    checks.ok(is_call(endpoint), "a call is received");
    let reply = endpoint.save(1).map_or(0, |reply| reply.0);
    checks.eq(ipc::close(reply), Ok(()), "and its reply closed");
    checks.eq(ended(held), Ok(Status::Exited(pipe)), "the client hears that nobody will answer");

    let queued = call();
    asleep(&queued);
    checks.eq(ipc::close(endpoint.0), Ok(()), "a receiver is closed");
    checks.eq(ended(queued), Ok(Status::Exited(pipe)), "a caller that waited there gets an error");
    checks.fails(sender.call(&Message::default()), Errno::EPIPE, "and so does a later caller");
    ipc::close(sender.0).unwrap();

    // A server in a child, which takes the call and ends without a word. The sender comes back by a call of its own.
    let here = Receiver::new().unwrap();
    let to_here = here.sender(0).unwrap();
    let server = client(to_here, || {
        let endpoint = Receiver::new().unwrap();
        let _ = to_here.call(&Message::new(1, &[]));
        let _ = endpoint.receive(Patience::Until(time::monotonic() + 5_000_000));
        0
    });
    checks.ok(is_call(here) && ipc::reply(&Message::default()) == Ok(()), "a server starts");
    checks.eq(ended(server), Ok(Status::Exited(0)), "and ends with its endpoint");

    let shared = client(to_here, || {
        // Two threads of one process wait for answers; the other process takes one call and ends.
        errno_of(to_here.call(&Message::new(1, &[])))
    });
    checks.ok(is_call(here), "a call is received");
    ipc::close(here.0).unwrap();
    checks.eq(ipc::reply(&Message::default()), Ok(()), "and can be answered though the endpoint is dead");
    checks.eq(ended(shared), Ok(Status::Exited(0)), "so that the client has its answer");
    ipc::close(to_here.0).unwrap();
}

fn deadlines(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(0).unwrap();
    let soon = || Patience::Until(time::monotonic() + 3_000_000);
    let counters = shared_counters();
    let (gave_up, received_once) = (&counters[0], &counters[1]);
    checks.fails(endpoint.receive(soon()), Errno::ETIMEDOUT, "nothing comes in time");
    let pid = client(sender, || {
        let timed_out = errno_of(sender.call_with(&Message::new(1, &[]), soon(), false));
        gave_up.store(1, SeqCst);
        let again = sender.call(&Message::new(2, &[]));
        if again == Ok(Message::new(3, &[])) { timed_out } else { 99 }
    });
    assert!(until(|| gave_up.load(SeqCst) == 1), "the client's time is up");
    let received = endpoint.receive(Patience::Endless).map(|r| r.what);
    let second = What::Call { badge: 0, message: Message::new(2, &[]) };
    checks.eq(received, Ok(second), "a call that was withdrawn is not received");
    ipc::reply(&Message::new(3, &[])).unwrap();
    let timed_out = Errno::ETIMEDOUT.to_ret().unsigned_abs() as u8;
    checks.eq(ended(pid), Ok(Status::Exited(timed_out)), "its caller heard that the time was up, and called again");

    // The time may be up before the call is received: the client calls until one was.
    let pid = client(sender, || {
        loop {
            let answer = errno_of(sender.call_with(&Message::new(1, &[]), soon(), false));
            if received_once.load(SeqCst) == 1 {
                return answer;
            }
        }
    });
    checks.ok(is_call(endpoint), "a call is received");
    received_once.store(1, SeqCst);
    checks.eq(ended(pid), Ok(Status::Exited(timed_out)), "and its caller gives up");
    checks.fails(ipc::reply(&Message::default()), Errno::ECANCELED, "the answer comes too late");
    ipc::close(sender.0).unwrap();
    ipc::close(endpoint.0).unwrap();
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32, _: *const signal::Info, _: *mut u8) {
    HANDLED.fetch_add(1, SeqCst);
}

fn interrupted(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(0).unwrap();
    let call = |interruptible| {
        client(sender, move || {
            signal::handle(sig::USR1, count, 0, 0).unwrap();
            let answer = sender.call_with(&Message::new(1, &[]), Patience::Endless, interruptible);
            if HANDLED.load(SeqCst) == 1 { errno_of(answer) } else { 99 }
        })
    };
    let interrupt = |pid: &Result<i32, Errno>| pid.and_then(|pid| process::kill(pid, sig::USR1));
    let eintr = Errno::EINTR.to_ret().unsigned_abs() as u8;

    let queued = call(true);
    asleep(&queued);
    interrupt(&queued).unwrap();
    checks.eq(ended(queued), Ok(Status::Exited(eintr)), "a signal ends a call that nobody has received");

    let saved = call(true);
    checks.ok(is_call(endpoint), "a call is received");
    let reply = endpoint.save(7).unwrap();
    interrupt(&saved).unwrap();
    let news = endpoint.receive(Patience::Endless).map(|r| r.what);
    checks.eq(news, Ok(What::Interrupted(7)), "its server is told of the caller's signal");
    checks.eq(reply.reply(&Message::default()), Ok(()), "and answers what was done");
    checks.eq(ended(saved), Ok(Status::Exited(0)), "which is what the caller hears");

    let early = call(true);
    checks.ok(is_call(endpoint), "another is received");
    interrupt(&early).unwrap();
    asleep(&early);
    let reply = endpoint.save(8).unwrap();
    let news = endpoint.receive(Patience::Endless).map(|r| r.what);
    checks.eq(news, Ok(What::Interrupted(8)), "a server that puts it aside after the signal is told too");
    checks.eq(reply.reply(&Message::default()), Ok(()), "and answers");
    checks.eq(ended(early), Ok(Status::Exited(0)), "the caller");

    let deaf = call(false);
    checks.ok(is_call(endpoint), "a call that is not interruptible is received");
    interrupt(&deaf).unwrap();
    asleep(&deaf);
    checks.eq(ipc::reply(&Message::default()), Ok(()), "and answered after the signal");
    checks.eq(ended(deaf), Ok(Status::Exited(0)), "its handler ran then");
    ipc::close(sender.0).unwrap();
    ipc::close(endpoint.0).unwrap();
}

fn itself(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(0).unwrap();
    checks.fails(sender.call(&Message::default()), Errno::EDEADLK, "a process of one thread would wait for itself");
    ipc::close(sender.0).unwrap();
    ipc::close(endpoint.0).unwrap();
}

fn authority(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(1).unwrap();
    let signaller = endpoint.signaller(1).unwrap();
    let denied = |answer: Result<usize, Errno>| answer == Err(Errno::EPERM);
    let n = |number: u32| number as usize;
    checks.ok(denied(raw(nr::QUIRE_RECEIVE, [n(sender.0)])), "a sender does not receive");
    checks.ok(denied(raw(nr::QUIRE_MINT, [n(sender.0), rights::SEND as usize, 2])), "nor mint another badge");
    checks.ok(denied(raw(nr::QUIRE_CALL, [n(signaller.0)])), "a signaller does not call");
    checks.ok(denied(raw(nr::QUIRE_SIGNAL, [n(sender.0)])), "a sender does not signal");
    checks.ok(denied(raw(nr::QUIRE_REPLY, [n(sender.0)])), "a sender does not answer");
    checks.fails(ipc::copy(endpoint.0, rights::RECEIVE), Errno::EINVAL, "there is one receiver");
    checks.fails(ipc::grant(endpoint.0, rights::RECEIVE), Errno::EINVAL, "and it does not pass");
    checks.fails(ipc::copy(sender.0, rights::SEND | rights::RECEIVE), Errno::EPERM, "a copy has no more rights");
    let second = ipc::copy(sender.0, rights::SEND).unwrap();
    checks.ok(second != sender.0, "a copy is another handle");
    let control = handles::control();
    let missing = child(|| {
        let one = ipc::close(sender.0) == Err(Errno::EBADF) && ipc::close(endpoint.0) == Err(Errno::EBADF);
        (!one).into()
    });
    checks.eq(missing, Ok(Status::Exited(0)), "a child has no handle that was not granted");
    checks.ok(control == 0 || ipc::copy(control, 1 << 30) == Err(Errno::EPERM), "machine control gives no more either");
    for handle in [sender.0, second, signaller.0, endpoint.0] {
        ipc::close(handle).unwrap();
    }
}

/// Calls with whatever a program may put into registers.
fn lies(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(1).unwrap();
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 11
    };
    let mut wrong = 0;
    for _ in 0..10_000 {
        let number = nr::QUIRE_ENDPOINT + random() as usize % 10;
        let handle = match random() % 4 {
            0 => u64::from(sender.0),
            1 => u64::from(endpoint.0),
            2 => (1 << 30) + random() % 70,
            _ => random() << 8,
        };
        // A receive that would wait, and a call to itself, are told not to.
        let mut registers = [handle, random() % 9, random(), 0, 0, 0, 0, 0, 1, (random() % 64) | options::NOW];
        let answer = arch::message(number, &mut registers);
        wrong += u32::from(answer < -4095);
        if answer >= 1 << 30 {
            let _ = ipc::close(answer as u32);
        }
    }
    checks.eq(wrong, 0, "ten thousand calls of nonsense are answered");
    let _ = ipc::close(sender.0);
    let _ = ipc::close(endpoint.0);
}

/// Many clients at several servers' threads, with kills: what is answered is right, and all ends.
fn storm(checks: &mut Checks) {
    const CLIENTS: usize = 12;
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(2).unwrap();
    let finished = &shared_counters()[0];
    let clients: [Result<i32, Errno>; CLIENTS] = core::array::from_fn(|i| {
        client(sender, move || {
            for n in 0..300u64 {
                match sender.call(&Message::new(1, &[n, i as u64])) {
                    Ok(answer) if answer.words[..2] == [n * 2, i as u64 * 2] => {}
                    _ => return 1,
                }
            }
            finished.fetch_add(1, SeqCst);
            0
        })
    });
    for pid in clients.iter().take(3) {
        let _ = pid.and_then(|pid| process::kill(pid, sig::KILL));
    }
    let mut served = 0;
    let soon = || Patience::Until(time::monotonic() + 20_000_000);
    let mut next = endpoint.receive(soon());
    loop {
        next = match next {
            Ok(received) => {
                let What::Call { badge, message } = received.what else { break };
                served += 1;
                let answer = Message { label: badge, words: message.words.map(|word| word * 2) };
                endpoint.reply_receive(&answer, soon())
            }
            Err(Errno::ETIMEDOUT) if finished.load(SeqCst) < CLIENTS as u64 - 3 => endpoint.receive(soon()),
            Err(_) => break,
        };
    }
    checks.ok(served >= (CLIENTS - 3) * 300, "the calls of those that live are served");
    let ends = clients.map(ended);
    let right = |(i, end): (usize, &Result<Status, Errno>)| match end {
        Ok(Status::Exited(0)) => true,
        Ok(Status::Killed(sig::KILL)) => i < 3,
        _ => false,
    };
    checks.ok(ends.iter().enumerate().all(right), "and all have ended as they should");
    ipc::close(sender.0).unwrap();
    ipc::close(endpoint.0).unwrap();
}
