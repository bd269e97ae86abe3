//! The word of a call under loom: a caller that gives up while a server answers, and while a late reply to an earlier
//! call arrives. If both sides may write to the caller's registers, loom detects a race on a cell.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::thread;

mod atomic {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
}

#[allow(dead_code)]
#[path = "../src/word.rs"]
mod word;

use word::{Generation, Outcome, Word};

/// A caller: its word, its registers, and whether it has ended, after which nobody may wake it.
struct Caller {
    word: Word,
    registers: UnsafeCell<u64>,
    has_ended: AtomicBool,
}

// SAFETY: loom reports any two accesses to the cell that are not ordered.
unsafe impl Sync for Caller {}
// SAFETY: as above.
unsafe impl Send for Caller {}

fn caller() -> Arc<Caller> {
    let caller = Caller { word: Word::new(), registers: UnsafeCell::new(0), has_ended: AtomicBool::new(false) };
    Arc::new(caller)
}

/// A server's use of a reply.
fn answer(caller: &Caller, call: Generation, with: u64) -> bool {
    use loom::sync::atomic::Ordering::SeqCst;
    let is_awaited = caller.word.begin_answer(call, thread::yield_now);
    if is_awaited {
        // SAFETY: this thread has the right to write.
        caller.registers.with_mut(|to| unsafe { *to = with });
        assert!(!caller.has_ended.load(SeqCst), "the caller ended before it was woken");
        caller.word.end_answer(call, Outcome::Answered);
    }
    is_awaited
}

/// The caller waits for a while, then gives up; returns what it got.
fn wait_or_give_up(caller: &Caller, call: Generation) -> Option<u64> {
    let spin = thread::yield_now;
    let outcome = caller
        .word
        .outcome(spin)
        .or_else(|| if caller.word.give_up(call, spin) { None } else { caller.word.outcome(spin) });
    // SAFETY: there is an outcome, or nobody may write any more.
    let got = caller.registers.with(|registers| unsafe { *registers });
    outcome.map(|outcome| {
        assert_eq!(outcome, Outcome::Answered);
        caller.word.finish(call);
        got
    })
}

#[test]
fn a_caller_has_the_answer_or_has_given_up() {
    loom::model(|| {
        use loom::sync::atomic::Ordering::SeqCst;
        let caller = caller();
        let call = caller.word.begin_held();
        let server = thread::spawn({
            let caller = caller.clone();
            move || answer(&caller, call, 1)
        });
        let got = wait_or_give_up(&caller, call);
        // From here on the registers are used for something else.
        // SAFETY: the model has shown that nobody else may; otherwise loom complains.
        caller.registers.with_mut(|registers| unsafe { *registers = 7 });
        caller.has_ended.store(true, SeqCst);
        assert_eq!(server.join().unwrap(), got == Some(1));
        // SAFETY: as above.
        caller.registers.with(|registers| assert_eq!(unsafe { *registers }, 7));
    });
}

#[test]
fn a_late_reply_does_not_answer_the_next_call() {
    loom::model(|| {
        let caller = caller();
        let first = caller.word.begin_held();
        let late = thread::spawn({
            let caller = caller.clone();
            move || answer(&caller, first, 1)
        });
        let got = wait_or_give_up(&caller, first);
        let second = caller.word.begin_held();
        let server = thread::spawn({
            let caller = caller.clone();
            move || answer(&caller, second, 2)
        });
        let answer = loop {
            if let Some(outcome) = caller.word.outcome(thread::yield_now) {
                assert_eq!(outcome, Outcome::Answered);
                // SAFETY: answered.
                break caller.registers.with(|registers| unsafe { *registers });
            }
            thread::yield_now();
        };
        assert_eq!(answer, 2);
        assert_eq!(late.join().unwrap(), got == Some(1));
        assert!(server.join().unwrap());
    });
}

#[test]
fn of_two_that_answer_one_does() {
    loom::model(|| {
        let caller = caller();
        let call = caller.word.begin_held();
        let others: Vec<_> = [1, 2]
            .map(|with| {
                let caller = caller.clone();
                thread::spawn(move || answer(&caller, call, with))
            })
            .into_iter()
            .collect();
        let answered = others.into_iter().map(|other| other.join().unwrap()).filter(|&did| did).count();
        assert_eq!(answered, 1);
        assert_eq!(caller.word.outcome(|| ()), Some(Outcome::Answered));
    });
}

/// A server moves something, then answers; the caller may give up at any moment, and is left alone from then on.
#[test]
fn who_is_at_work_on_a_caller_holds_it() {
    loom::model(|| {
        let caller = caller();
        let call = caller.word.begin_held();
        let server = thread::spawn({
            let caller = caller.clone();
            move || {
                let moved = caller.word.begin_answer(call, thread::yield_now);
                if moved {
                    // SAFETY: this thread has the right to write.
                    caller.registers.with_mut(|to| unsafe { *to = 3 });
                    caller.word.retreat(call);
                }
                (moved, answer(&caller, call, 1))
            }
        });
        let got = wait_or_give_up(&caller, call);
        // SAFETY: the model has shown that nobody else may; otherwise loom complains.
        caller.registers.with_mut(|registers| unsafe { *registers = 7 });
        let (moved, answered) = server.join().unwrap();
        assert_eq!(answered, got == Some(1));
        assert!(moved || !answered);
    });
}

/// Two threads of a server, one of which moves something while the other one answers: the answer is not lost.
#[test]
fn an_answer_waits_for_who_is_at_work() {
    loom::model(|| {
        let caller = caller();
        let call = caller.word.begin_held();
        let other = thread::spawn({
            let caller = caller.clone();
            move || {
                if caller.word.begin_answer(call, thread::yield_now) {
                    caller.word.retreat(call);
                }
            }
        });
        assert!(answer(&caller, call, 1), "the caller waits all the time");
        other.join().unwrap();
        assert_eq!(caller.word.outcome(|| ()), Some(Outcome::Answered));
    });
}
