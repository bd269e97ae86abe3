//! handover: calls between threads that wait for each other, so that the CPU is handed from one straight to the other,
//! and all that can end such a wait in another way.

#![no_std]
#![no_main]

extern crate alloc;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use quire_rt::abi::flags::{sig, wait};
use quire_rt::abi::ipc::rights;
use quire_rt::abi::nr;
use quire_rt::ipc::{self, Message, Patience, Receiver, Sender, What};
use quire_rt::process::{self, Status};
use quire_rt::thread::{self, Thread};
use quire_rt::{Errno, arch, sched, signal, time};
use user_tests::{Checks, raw, start, until, until_asleep};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    beside_other_registers(&mut checks);
    what_the_last_look_found(&mut checks);
    receivers_go(&mut checks);
    signals_to_servers(&mut checks);
    signals_that_another_takes(&mut checks);
    callers_go(&mut checks);
    servers_go(&mut checks);
    other_cpus(&mut checks);
    kills_from_elsewhere(&mut checks);
    checks.finish()
}

/// How a server's loop ended: the errno, or 0 for a message with label 0.
fn serve(endpoint: Receiver, mut answer: impl FnMut(u64, &Message) -> Message) -> i32 {
    let mut next = endpoint.receive(Patience::Endless);
    loop {
        let received = match next {
            Ok(received) => received,
            Err(e) => return -(e.to_ret() as i32),
        };
        let What::Call { badge, message } = received.what else { return -1 };
        if message.label == 0 {
            return (ipc::reply(&Message::default()) != Ok(())).into();
        }
        next = endpoint.reply_receive(&answer(badge, &message), Patience::Endless);
    }
}

fn double(badge: u64, message: &Message) -> Message {
    Message { label: badge, words: message.words.map(|word| word.wrapping_mul(2)) }
}

/// A server in a thread, and where it leaves how it ended.
fn server(endpoint: Receiver, end: &'static AtomicU32) -> Thread {
    end.store(u32::MAX, SeqCst);
    thread::spawn(move || end.store(serve(endpoint, double) as u32, SeqCst)).expect("a thread for the test")
}

/// Calls that are handed over once both sides wait for each other. How many were answered right.
fn calls(sender: Sender, badge: u64, count: u64) -> u64 {
    let right = |n: &u64| sender.call(&Message::new(1, &[*n, 7])) == Ok(Message::new(badge, &[n * 2, 14]));
    (0..count).filter(right).count() as u64
}

static END: AtomicU32 = AtomicU32::new(0);
static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32, _: *const signal::Info, _: *mut u8) {
    HANDLED.fetch_add(1, SeqCst);
}

/// Each side has registers of its own: floating point, the thread pointer, and those that a call preserves.
fn beside_other_registers(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(3).unwrap();
    static SUM: AtomicU64 = AtomicU64::new(0);
    let thread = thread::spawn(move || {
        let (mut sum, control) = (0.5f64, thread::control());
        let end = serve(endpoint, |badge, message| {
            sum += message.words[0] as f64;
            assert!(core::ptr::eq(control, thread::control()), "the thread pointer");
            double(badge, message)
        });
        SUM.store(sum.to_bits(), SeqCst);
        END.store(end as u32, SeqCst);
    })
    .unwrap();
    let (mut sum, mut right, control) = (0.25f64, 0, thread::control());
    for n in 0..2000u64 {
        sum += n as f64;
        right += u32::from(sender.call(&Message::new(1, &[n])) == Ok(Message::new(3, &[n * 2])));
        assert!(core::ptr::eq(control, thread::control()), "the thread pointer");
    }
    checks.eq(right, 2000, "each call has its answer");
    checks.eq(sender.call(&Message::default()), Ok(Message::default()), "the server is told to end");
    thread.join();
    checks.eq(END.load(SeqCst), 0, "and does");
    checks.eq((sum, f64::from_bits(SUM.load(SeqCst))), (1_999_000.25, 1_999_000.5), "both have counted beside it");
    // Only a message is in the registers that come back.
    let mut registers = [u64::from(sender.0), 1, 0, 0, 0, 0, 0, 0, 0, 7];
    ipc::close(endpoint.0).unwrap();
    let answer = arch::message(nr::QUIRE_CALL, &mut registers);
    checks.eq(answer, Errno::EPIPE.to_ret(), "a call to a dead endpoint fails");
    ipc::close(sender.0).unwrap();
}

/// A handle that is closed is none, however often it was used, and its number may be another's.
fn what_the_last_look_found(checks: &mut Checks) {
    let (first, second) = (Receiver::new().unwrap(), Receiver::new().unwrap());
    static ENDS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
    let threads = [server(first, &ENDS[0]), server(second, &ENDS[1])];
    let to_first = first.sender(1).unwrap();
    checks.eq(calls(to_first, 1, 100), 100, "a handle is used");
    checks.eq(ipc::close(to_first.0), Ok(()), "and closed");
    checks.fails(to_first.call(&Message::new(1, &[])), Errno::EBADF, "then it is none");
    let to_second = second.sender(2).unwrap();
    checks.eq(to_second.0, to_first.0, "its number is another's");
    checks.eq(calls(to_second, 2, 100), 100, "which leads elsewhere");
    let weak = raw(nr::QUIRE_REPLY_RECEIVE, [to_second.0 as usize]);
    checks.eq(weak, Err(Errno::EPERM), "a right that was used is none to receive");
    let to_first = first.sender(1).unwrap();
    for (sender, thread) in [to_first, to_second].into_iter().zip(threads) {
        checks.eq(sender.call(&Message::default()), Ok(Message::default()), "a server is told to end");
        thread.join();
        ipc::close(sender.0).unwrap();
    }
    ipc::close(first.0).unwrap();
    ipc::close(second.0).unwrap();
}

/// The endpoint dies while its server waits after an answer.
fn receivers_go(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(5).unwrap();
    let thread = server(endpoint, &END);
    checks.eq(calls(sender, 5, 50), 50, "a server serves");
    ipc::close(endpoint.0).unwrap();
    thread.join();
    checks.eq(END.load(SeqCst), Errno::EPIPE.to_ret().unsigned_abs() as u32, "and hears that its endpoint is dead");
    checks.fails(sender.call(&Message::new(1, &[])), Errno::EPIPE, "as does who calls");
    ipc::close(sender.0).unwrap();
}

fn signals_to_servers(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(6).unwrap();
    signal::handle(sig::USR1, count, 0, 0).unwrap();
    HANDLED.store(0, SeqCst);
    let thread = server(endpoint, &END);
    checks.eq(calls(sender, 6, 50), 50, "a server serves");
    let tid = thread.tid() as usize;
    let told = raw(nr::TGKILL, [process::getpid() as usize, tid, sig::USR1 as usize]);
    checks.ok(told.is_ok() && until(|| END.load(SeqCst) != u32::MAX), "a signal ends its wait");
    thread.join();
    let ended = (END.load(SeqCst), HANDLED.load(SeqCst));
    checks.eq(ended, (Errno::EINTR.to_ret().unsigned_abs() as u32, 1), "behind its handler");
    let signaller = endpoint.signaller(4).unwrap();
    let events = thread::spawn(move || {
        let first = endpoint.receive(Patience::Endless);
        let What::Call { .. } = first.unwrap().what else { return };
        let next = endpoint.reply_receive(&Message::new(9, &[]), Patience::Endless);
        END.store(next.map_or(0, |next| next.events as u32), SeqCst);
    })
    .unwrap();
    checks.eq(sender.call(&Message::new(1, &[])), Ok(Message::new(9, &[])), "a server answers, and waits");
    checks.eq(signaller.signal(), Ok(()), "it is signalled");
    events.join();
    checks.eq(END.load(SeqCst), 4, "and has the events");
    for handle in [signaller.0, sender.0, endpoint.0] {
        ipc::close(handle).unwrap();
    }
}

/// A server is woken for a signal to its process that another thread takes. It sleeps on, with more than its frame.
fn signals_that_another_takes(checks: &mut Checks) {
    const ROUNDS: u32 = 20;
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(12).unwrap();
    sched::set_affinity(0, 1).unwrap();
    HANDLED.store(0, SeqCst);
    let thread = server(endpoint, &END);
    let mut right = 0;
    for _ in 0..ROUNDS {
        right += calls(sender, 12, 5);
        // On this CPU this thread is the first to return from the kernel.
        process::kill(process::getpid(), sig::USR1).unwrap();
        time::sleep_ms(2);
    }
    checks.eq(right, u64::from(ROUNDS) * 5, "calls between signals that this thread takes");
    checks.eq(HANDLED.load(SeqCst), ROUNDS, "it has taken all");
    checks.eq(sender.call(&Message::default()), Ok(Message::default()), "the server is told to end");
    thread.join();
    sched::set_affinity(0, u64::MAX).unwrap();
    ipc::close(sender.0).unwrap();
    ipc::close(endpoint.0).unwrap();
}

/// A child whose first call has been answered, and whose next one waits.
fn caller(sender: Sender, run: impl FnOnce(Result<Message, Errno>) -> i32) -> i32 {
    ipc::grant(sender.0, rights::SEND).unwrap();
    let pid = start(|| {
        signal::handle(sig::USR1, count, 0, 0).unwrap();
        let warm = sender.call(&Message::new(1, &[]));
        if warm.is_err() { 99 } else { run(sender.call(&Message::new(2, &[]))) }
    });
    ipc::grant(sender.0, 0).unwrap();
    pid.unwrap()
}

/// Receives the two calls of such a child: the second one is handed over.
fn take(endpoint: Receiver) -> bool {
    let is = |received: Result<ipc::Received, Errno>, label| matches!(received, Ok(r) if matches!(r.what, What::Call { message, .. } if message.label == label));
    is(endpoint.receive(Patience::Endless), 1) && is(endpoint.reply_receive(&Message::default(), Patience::Endless), 2)
}

fn callers_go(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(7).unwrap();
    let killed = caller(sender, |_| 0);
    checks.ok(take(endpoint), "a call is held");
    checks.ok(process::kill(killed, sig::KILL).is_ok(), "its caller is killed");
    checks.eq(process::waitpid(killed), Ok(Status::Killed(sig::KILL)), "and ends");
    checks.fails(ipc::reply(&Message::default()), Errno::ECANCELED, "the answer harms nobody");

    HANDLED.store(0, SeqCst);
    let disturbed = caller(sender, |answer| match (answer, HANDLED.load(SeqCst)) {
        (Ok(Message { label: 8, .. }), 1) => 0,
        _ => 1,
    });
    checks.ok(take(endpoint) && until_asleep(disturbed), "a call is held");
    checks.ok(process::kill(disturbed, sig::USR1).is_ok() && until_asleep(disturbed), "its caller has a signal");
    checks.eq(ipc::reply(&Message::new(8, &[])), Ok(()), "and is answered");
    checks.eq(process::waitpid(disturbed), Ok(Status::Exited(0)), "before its handler runs");

    let patient = caller(sender, |answer| (answer != Ok(Message::new(11, &[1]))).into());
    checks.ok(take(endpoint), "a call is held");
    let reply = endpoint.save(1).unwrap();
    checks.ok(until_asleep(patient), "and put aside");
    checks.eq(reply.reply(&Message::new(11, &[1])), Ok(()), "it is answered");
    checks.eq(process::waitpid(patient), Ok(Status::Exited(0)), "as any other");
    ipc::close(sender.0).unwrap();
    ipc::close(endpoint.0).unwrap();
}

/// A server that goes with a call in hand.
fn servers_go(checks: &mut Checks) {
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(8).unwrap();
    let pipe = Errno::EPIPE.to_ret().unsigned_abs() as u8;
    let caller = caller(sender, |answer| answer.err().map_or(0, |e| -(e.to_ret() as i32)));
    let thread = thread::spawn(move || END.store(take(endpoint).into(), SeqCst)).unwrap();
    thread.join();
    checks.eq(END.load(SeqCst), 1, "a thread ends with a call in hand");
    checks.eq(process::waitpid(caller), Ok(Status::Exited(pipe)), "its caller hears of it");
    ipc::close(sender.0).unwrap();
    ipc::close(endpoint.0).unwrap();
}

/// Nobody runs where it may not.
fn other_cpus(checks: &mut Checks) {
    if sched::cpu_count() < 2 {
        return checks.skip("a server on another CPU", "there is one CPU");
    }
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(9).unwrap();
    sched::set_affinity(0, 1).unwrap();
    static STRAYED: AtomicU32 = AtomicU32::new(0);
    let thread = thread::spawn(move || {
        sched::set_affinity(0, 2).unwrap();
        let end = serve(endpoint, |badge, message| {
            STRAYED.fetch_add(u32::from(sched::getcpu() != Ok(1)), SeqCst);
            double(badge, message)
        });
        END.store(end as u32, SeqCst);
    })
    .unwrap();
    checks.eq(calls(sender, 9, 300), 300, "a server on another CPU answers");
    checks.eq(sched::getcpu(), Ok(0), "its client stays");
    checks.eq(sender.call(&Message::default()), Ok(Message::default()), "the server is told to end");
    thread.join();
    checks.eq(STRAYED.load(SeqCst), 0, "which stayed, too");
    sched::set_affinity(0, u64::MAX).unwrap();
    ipc::close(sender.0).unwrap();
    ipc::close(endpoint.0).unwrap();
}

/// A caller that is killed on the way to its sleep does not sleep, though nobody answers it any more.
fn kills_from_elsewhere(checks: &mut Checks) {
    const ROUNDS: u32 = 40;
    if sched::cpu_count() < 2 {
        return checks.skip("kills from another CPU", "there is one CPU");
    }
    static VICTIM: AtomicU32 = AtomicU32::new(0);
    static IS_KILLED: AtomicU32 = AtomicU32::new(0);
    static ENDED: AtomicU32 = AtomicU32::new(0);
    let endpoint = Receiver::new().unwrap();
    let sender = endpoint.sender(10).unwrap();
    let signaller = endpoint.signaller(1).unwrap();
    sched::set_affinity(0, 1).unwrap();
    let killer = thread::spawn(move || {
        sched::set_affinity(0, 2).unwrap();
        for round in 0..ROUNDS {
            until(|| VICTIM.load(SeqCst) != 0);
            let pid = VICTIM.swap(0, SeqCst) as i32;
            for _ in 0..3000 + round * 701 % 5000 {
                core::hint::spin_loop();
            }
            IS_KILLED.store(1, SeqCst);
            let _ = process::kill(pid, sig::KILL);
            let is_gone = until(|| matches!(process::wait4(pid, wait::WNOHANG), Ok(Some(_)) | Err(_)));
            ENDED.fetch_add(u32::from(is_gone), SeqCst);
            IS_KILLED.store(2, SeqCst);
            let _ = signaller.signal();
        }
    })
    .unwrap();
    ipc::grant(sender.0, rights::SEND).unwrap();
    for _ in 0..ROUNDS {
        IS_KILLED.store(0, SeqCst);
        let victim = start(|| {
            loop {
                let _ = sender.call(&Message::new(1, &[]));
            }
        });
        VICTIM.store(victim.unwrap() as u32, SeqCst);
        let mut next = endpoint.receive(Patience::Endless);
        while let Ok(ipc::Received { what: What::Call { .. }, events: 0 }) = next {
            if IS_KILLED.load(SeqCst) != 0 {
                until(|| IS_KILLED.load(SeqCst) == 2);
                let _ = ipc::reply(&Message::default());
                next = endpoint.receive(Patience::Endless);
                continue;
            }
            next = endpoint.reply_receive(&Message::default(), Patience::Endless);
        }
        if let Ok(ipc::Received { what: What::Call { .. }, .. }) = next {
            let _ = ipc::reply(&Message::default());
        }
    }
    killer.join();
    checks.eq(ENDED.load(SeqCst), ROUNDS, "whoever is killed ends");
    sched::set_affinity(0, u64::MAX).unwrap();
    for handle in [signaller.0, sender.0, endpoint.0] {
        ipc::close(handle).unwrap();
    }
}
