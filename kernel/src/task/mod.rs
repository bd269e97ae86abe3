//! Processes, threads, signals and the scheduler.

pub mod action;
pub mod balance;
pub mod clone;
pub mod cputime;
pub mod credentials;
pub mod exec;
pub mod exit;
pub mod image;
pub mod itimer;
pub mod latency;
pub mod oom;
pub mod pending;
pub mod percpu;
pub mod point;
pub mod process;
pub mod robust;
pub mod sched;
pub mod sigframe;
pub mod signal;
pub mod startup;
pub mod stop;
pub mod thread;
pub mod timer;
pub mod turn;
pub mod wait;
pub mod walk;
