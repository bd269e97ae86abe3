//! Processes, threads, signals and the scheduler.
//!
//! Floors, lowest first; none imports a higher one (`cargo xtask lint` checks it against this list):
//! - [`signo`], [`latency`], [`cputime`], [`script`], `segments`: sets of signals, measurements, times, files of programs.
//! - [`users`]: what is limited for all processes of a user.
//! - [`directory`], [`action`], [`expired`], [`pending`]: the working directory, what signals do to a process, and those that it has
//!   not taken yet.
//! - [`entity`]: what the scheduler runs, the head of a thread.
//! - [`percpu`], [`load`], [`balance`], [`timer`], [`alarm`], [`active`], [`sched`]: the scheduler. What it has to say of threads to the
//!   floors above, it says by functions that they define (`sched::above`).
//! - [`wait`][]: sleeping.
//! - [`point`], [`mutex`], [`clock`], [`inject`]: points of long work, sleeping locks, clocks that are set, failures on request.
//! - [`space`], [`thread`], [`process`], [`table`], [`children`], [`signal_thread`], [`kswapd`], [`walk`], [`credentials`], [`membership`],
//!   [`freezer`], [`memory_limits`],
//!   [`signal`], [`stop`], [`itimer`], [`posix_timer`], [`cpu_alarm`], [`cpu_clock`], [`oom`], [`robust`], [`rseq`], [`membarrier`],
//!   [`exit`]: one floor, as docs/design.md explains: a thread belongs to a process, which has threads and is sent signals.
//! - [`program`], `property`, [`image`], [`clone`], [`audit`], `threads`: built on those.
//! - `pieces`: bytes that need no contiguous memory.
//! - [`startup`]: what a new program finds.
//! - [`exec`], [`sigframe`]: programs replaced, and interrupted by handlers.

pub mod action;
pub mod active;
pub mod alarm;
pub mod audit;
pub mod balance;
pub mod children;
pub mod clock;
pub mod clone;
pub mod cpu_alarm;
pub mod cpu_clock;
pub mod cputime;
pub mod credentials;
pub mod directory;
pub mod entity;
pub mod exec;
pub mod exit;
pub mod expired;
pub mod freezer;
pub mod image;
pub mod inject;
pub mod itimer;
pub mod kswapd;
pub mod latency;
pub mod load;
pub mod membarrier;
pub mod membership;
pub mod memory_limits;
pub mod mutex;
pub mod oom;
pub mod pending;
pub mod percpu;
mod pieces;
pub mod point;
pub mod posix_timer;
pub mod process;
pub mod program;
mod property;
pub mod robust;
pub mod rseq;
pub mod sched;
pub mod script;
mod segments;
pub mod sigframe;
pub mod signal;
pub mod signal_thread;
pub mod signo;
pub mod space;
pub mod startup;
pub mod stop;
pub mod table;
pub mod thread;
mod threads;
pub mod timer;
pub mod users;
pub mod wait;
pub mod walk;
