//! `ITIMER_REAL`: SIGALRM after a time, once or periodically.
//!
//! It is an [alarm](super::alarm). A timer with an interval is armed again when its signal is taken, not when it is sent, as
//! on Linux: a process that does not take its signals costs no interrupts.
//!
//! The lock order is the table of processes, then a timer's state ([`Rank::Process`]).
//!
//! Timers of CPU time (`ITIMER_VIRTUAL`, `ITIMER_PROF`) are among the [alarms of CPU time](super::cpu_alarm).

use quire_abi::flags::sig;
use quire_mm::sync::Rank;

use super::alarm::{Alarm, Ring};
use super::process::{Process, TABLE};
use super::signal::{self, Info};
use crate::arch::timer;
use crate::vm::{Cpu, SpinLock};

/// A process's timer.
pub struct RealTimer {
    state: SpinLock<State>,
    alarm: Alarm,
}

/// When it expires, and the interval that it restarts with, in nanoseconds.
#[derive(Clone, Copy, Default)]
struct State {
    /// 0 if it does not run.
    deadline: u64,
    /// 0 for once.
    interval: u64,
}

impl RealTimer {
    /// A timer that is not armed.
    pub fn new() -> Self {
        Self { state: SpinLock::new(Cpu, Rank::Process, State::default()), alarm: Alarm::new() }
    }

    /// The remaining time, and the interval. An armed timer always has some time left.
    pub fn get(&self) -> (u64, u64) {
        let state = *self.state.lock();
        (left(state), state.interval)
    }
}

fn left(state: State) -> u64 {
    const LEAST: u64 = 1000;
    if state.deadline == 0 { 0 } else { state.deadline.saturating_sub(timer::now_ns()).max(LEAST) }
}

/// Sets a process's timer: SIGALRM after `value` nanoseconds, then every `interval`; a `value` of 0 stops it. Returns
/// the old values, as [`RealTimer::get`] does.
pub fn set(process: &Process, value: u64, interval: u64) -> (u64, u64) {
    let timer = &process.real_timer;
    let mut state = timer.state.lock();
    let old = (left(*state), state.interval);
    timer.alarm.disarm();
    *state = State::default();
    if value != 0 {
        *state = State { deadline: timer::now_ns().saturating_add(value), interval };
        arm(process, *state);
    }
    old
}

/// The caller holds the state, and the alarm is not armed.
fn arm(process: &Process, state: State) {
    // SAFETY: a process stops its timer before it can end, and the state's lock is held.
    unsafe { process.real_timer.alarm.arm(process, state.deadline) };
}

/// SIGALRM has been taken: a timer with an interval is armed again. Expirations that have passed meanwhile are skipped.
pub fn restart(process: &Process) {
    let timer = &process.real_timer;
    let mut state = timer.state.lock();
    if state.interval == 0 || state.deadline != 0 {
        return;
    }
    let (last, now) = (timer.alarm.deadline(), timer::now_ns());
    let missed = now.saturating_sub(last) / state.interval;
    state.deadline = last.saturating_add((missed + 1).saturating_mul(state.interval));
    arm(process, *state);
}

/// The process ends: nothing can set its timer any more. The caller holds no lock.
pub fn stop(process: &Process) {
    process.real_timer.alarm.cancel();
}

impl Ring for Process {
    fn ring(&self, now: u64) {
        let table = TABLE.lock();
        let is_due = {
            let mut state = self.real_timer.state.lock();
            let is_due = state.deadline != 0 && state.deadline <= now;
            if is_due {
                state.deadline = 0;
            }
            is_due
        };
        if is_due {
            signal::send_to_process(&table, self, &Info::of_kernel(sig::ALRM));
        }
    }
}
