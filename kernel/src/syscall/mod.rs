//! System calls: one file per family; this file has the entry and the dispatch.
//!
//! The convention is Linux's on AArch64: number in x8, arguments in x0 to x5, the result or −errno in x0.

mod buffers;
mod file;
mod futex;
mod identity;
mod memory;
mod poll;
mod process;
mod quire;
pub mod restart;
mod sched;
mod signal;
mod time;
mod transfer;
mod unknown;

use quire_abi::{Errno, nr};
use quire_mm::UserAddr;

use identity::Of;

use crate::arch::speculation;
use crate::arch::trap::TrapFrame;

/// The result of a call.
type Answer = Result<usize, Errno>;

/// The arguments of a call.
#[derive(Clone, Copy)]
struct Args([u64; 6]);

impl Args {
    fn word(&self, i: usize) -> usize {
        self.0[i] as usize
    }
    fn int(&self, i: usize) -> i32 {
        self.0[i] as i32
    }
    fn uint(&self, i: usize) -> u32 {
        self.0[i] as u32
    }
    fn addr(&self, i: usize) -> UserAddr {
        UserAddr::new(self.0[i] as usize)
    }
    /// `None` for a null pointer.
    fn opt_addr(&self, i: usize) -> Option<UserAddr> {
        (self.0[i] != 0).then(|| self.addr(i))
    }
}

/// A call, with interrupts on.
pub extern "C" fn enter(frame: &mut TrapFrame) {
    let x = &frame.x;
    let args = Args([x[0], x[1], x[2], x[3], x[4], x[5]]);
    // The number indexes tables, so it is bounded on speculative paths too.
    let nr = x[8] as usize;
    let linux = speculation::bounded(nr, nr::LINUX_END);
    let own = || Some(speculation::bounded(nr.wrapping_sub(nr::QUIRE_BASE), nr::QUIRE_COUNT)? + nr::QUIRE_BASE);
    let answer = match linux.or_else(own) {
        Some(nr) => dispatch(nr, args, frame),
        None => unknown::call(nr),
    };
    frame.x[0] = match answer {
        Ok(v) => v as u64,
        Err(e) => e.to_ret() as u64,
    };
}

#[inline]
fn dispatch(nr: usize, a: Args, frame: &mut TrapFrame) -> Answer {
    match nr {
        nr::READ => transfer::read(a),
        nr::WRITE => transfer::write(a),
        nr::READV => transfer::readv(a),
        nr::WRITEV => transfer::writev(a),
        nr::PREAD64 => transfer::pread(a),
        nr::SENDFILE => transfer::sendfile(a),
        nr::OPENAT => file::openat(a),
        nr::CLOSE => file::close(a),
        nr::CLOSE_RANGE => file::close_range(a),
        nr::LSEEK => file::lseek(a),
        nr::GETDENTS64 => file::getdents(a),
        nr::NEWFSTATAT => file::fstatat(a),
        nr::FSTAT => file::fstat(a),
        nr::READLINKAT => file::readlinkat(a),
        nr::FACCESSAT => file::faccessat(a, 0),
        nr::FACCESSAT2 => file::faccessat(a, a.uint(3)),
        nr::GETCWD => file::getcwd(a),
        nr::CHDIR => file::chdir(a),
        nr::DUP => file::dup(a),
        nr::DUP3 => file::dup3(a),
        nr::FCNTL => file::fcntl(a),
        nr::IOCTL => file::ioctl(a),
        nr::PIPE2 => file::pipe2(a),
        nr::PPOLL => poll::ppoll(a),
        nr::PSELECT6 => poll::pselect6(a),

        nr::BRK => memory::brk(a),
        nr::MMAP => memory::mmap(a),
        nr::MUNMAP => memory::munmap(a),
        nr::MPROTECT => memory::mprotect(a),
        nr::MREMAP => memory::mremap(a),
        nr::MADVISE => memory::madvise(a),
        nr::MSYNC => memory::msync(a),
        nr::MINCORE => memory::mincore(a),
        nr::MLOCK => memory::mlock(a, 0),
        nr::MLOCK2 => memory::mlock(a, a.uint(2)),
        nr::MUNLOCK => memory::munlock(a),
        nr::MLOCKALL => memory::mlockall(a),
        nr::MUNLOCKALL => memory::munlockall(),

        nr::CLONE => process::clone(a, frame),
        nr::EXECVE => process::execve(a, frame),
        nr::EXIT => process::exit(a),
        nr::EXIT_GROUP => process::exit_group(a),
        nr::WAIT4 => process::wait4(a),
        nr::GETPID => process::getpid(),
        nr::GETPPID => process::getppid(),
        nr::GETTID => process::gettid(),
        nr::SET_TID_ADDRESS => process::set_tid_address(a),
        nr::GETUID => identity::real(Of::User),
        nr::GETEUID => identity::effective(Of::User),
        nr::GETGID => identity::real(Of::Group),
        nr::GETEGID => identity::effective(Of::Group),
        nr::SETUID => identity::set(a, Of::User),
        nr::SETGID => identity::set(a, Of::Group),
        nr::SETREUID => identity::set_two(a, Of::User),
        nr::SETREGID => identity::set_two(a, Of::Group),
        nr::SETRESUID => identity::set_three(a, Of::User),
        nr::SETRESGID => identity::set_three(a, Of::Group),
        nr::GETRESUID => identity::get_three(a, Of::User),
        nr::GETRESGID => identity::get_three(a, Of::Group),
        nr::SETFSUID => identity::set_files(a, Of::User),
        nr::SETFSGID => identity::set_files(a, Of::Group),
        nr::GETGROUPS => identity::getgroups(a),
        nr::SETGROUPS => identity::setgroups(a),
        nr::SETPGID => process::setpgid(a),
        nr::GETPGID => process::getpgid(a),
        nr::SETSID => process::setsid(),
        nr::GETSID => process::getsid(a),
        nr::PRLIMIT64 => process::prlimit64(a),
        nr::GETRLIMIT => process::getrlimit(a),
        nr::SETRLIMIT => process::setrlimit(a),
        nr::GETRUSAGE => process::getrusage(a),
        nr::PRCTL => process::prctl(a),
        nr::UNAME => process::uname(a),
        nr::SYSINFO => process::sysinfo(a),
        nr::GETRANDOM => process::getrandom(a),
        nr::REBOOT => process::reboot(a),

        nr::KILL => signal::kill(a),
        nr::TKILL => signal::tkill(a),
        nr::TGKILL => signal::tgkill(a),
        nr::RT_SIGACTION => signal::sigaction(a),
        nr::RT_SIGPROCMASK => signal::sigprocmask(a),
        nr::RT_SIGPENDING => signal::sigpending(a),
        nr::RT_SIGSUSPEND => signal::sigsuspend(a),
        nr::RT_SIGTIMEDWAIT => signal::sigtimedwait(a),
        nr::RT_SIGQUEUEINFO => signal::sigqueueinfo(a),
        nr::RT_TGSIGQUEUEINFO => signal::tgsigqueueinfo(a),
        nr::RT_SIGRETURN => signal::sigreturn(frame),
        nr::SIGALTSTACK => signal::sigaltstack(a, frame),

        nr::RESTART_SYSCALL => restart::call(),

        nr::FUTEX => futex::futex(a),
        nr::SET_ROBUST_LIST => futex::set_robust_list(a),
        nr::GET_ROBUST_LIST => futex::get_robust_list(a),
        nr::SCHED_YIELD => sched::sched_yield(),
        nr::SCHED_SETAFFINITY => sched::setaffinity(a),
        nr::SCHED_GETAFFINITY => sched::getaffinity(a),
        nr::GETCPU => sched::getcpu(a),

        nr::CLOCK_GETTIME => time::clock_gettime(a),
        nr::CLOCK_GETRES => time::clock_getres(a),
        nr::GETTIMEOFDAY => time::gettimeofday(a),
        nr::NANOSLEEP => time::nanosleep(a),
        nr::GETITIMER => time::getitimer(a),
        nr::SETITIMER => time::setitimer(a),
        nr::CLOCK_NANOSLEEP => time::clock_nanosleep(a),

        nr::QUIRE_INFO => quire::info(a),
        nr::QUIRE_LOG => quire::log(a),
        nr::QUIRE_POWEROFF => quire::poweroff(a),
        nr::QUIRE_BOOKS => quire::books(a),
        nr::QUIRE_SETTING => quire::setting(a),
        nr::QUIRE_AUDIT => quire::audit(a),
        nr::QUIRE_FAIL_NTH => quire::fail_nth(a),
        nr::QUIRE_CMA_TRY => quire::cma_try(a),
        nr::QUIRE_GRANT => quire::grant(a),
        _ => unknown::call(nr),
    }
}
