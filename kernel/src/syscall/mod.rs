//! System calls: one file per family; this file has the entry and the dispatch.
//!
//! The convention is Linux's on AArch64: number in x8, arguments in x0 to x5, the result or −errno in x0.

mod advice;
mod areas;
mod attributes;
mod buffers;
mod content;
mod control;
mod device;
mod elsewhere;
mod epoll;
mod exec;
mod extensible;
mod file;
mod futex;
mod group;
mod identity;
mod inspect;
mod ipc;
mod link_text;
mod locks;
mod lookup;
mod memory;
mod memory_file;
mod message_file;
mod names;
mod open;
mod pidfd;
mod poll;
mod posix_timer;
mod priority;
mod process;
mod quire;
pub mod restart;
mod rseq;
mod sched;
mod setattr;
mod signal;
mod signalfd;
mod socket;
mod socket_message;
mod socket_option;
mod splice;
mod statistics;
mod system;
mod time;
mod timerfd;
mod transfer;
mod translation;
mod unknown;
mod wait;

use quire_abi::layout::at;
use quire_abi::{Errno, nr};
use quire_mm::UserAddr;

use identity::Of;

use crate::arch::speculation;
use crate::arch::trap::TrapFrame;
use crate::task::oom;

/// The result of a call.
type Answer = Result<usize, Errno>;

/// The arguments of a call: the first registers of its frame.
#[derive(Clone, Copy)]
struct Args<'a>(&'a [u64; 31]);

impl Args<'_> {
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

/// The function that runs a call, given its frame.
type Call = fn(&mut TrapFrame) -> Answer;

/// Linux's calls, by number.
static LINUX: [Call; nr::LINUX_END] = calls(0);

/// Quire's own calls, by their number minus [`nr::QUIRE_BASE`].
static OWN: [Call; nr::QUIRE_COUNT] = calls(nr::QUIRE_BASE);

/// Runs a call, with interrupts enabled. If it changes registers of the frame that a function call preserves, it sets a
/// [`work`](crate::task::entity::work) bit: otherwise they are not restored from the frame.
#[unsafe(no_mangle)]
extern "C" fn trap_syscall(frame: &mut TrapFrame) {
    let nr = frame.x[8] as usize;
    frame.x[0] = match find(nr) {
        Some(call) => match call(frame) {
            Ok(value) => value as u64,
            Err(e) => failed(call, frame, e),
        },
        None => result(unknown::call(nr)),
    };
}

/// The result of a failed call. A call that got no memory has done nothing, and is repeated once there is some.
#[inline(never)]
fn failed(call: &Call, frame: &mut TrapFrame, error: Errno) -> u64 {
    if error == Errno::ENOMEM {
        return result(oom::again(error, || call(frame)));
    }
    result(Err(error))
}

fn result(answer: Answer) -> u64 {
    match answer {
        Ok(value) => value as u64,
        Err(e) => e.to_ret() as u64,
    }
}

/// The call with this number. The number indexes tables, so it is bounded on speculative paths too.
#[inline(always)]
fn find(nr: usize) -> Option<&'static Call> {
    let own = || speculation::get(&OWN, nr.wrapping_sub(nr::QUIRE_BASE));
    speculation::get(&LINUX, nr).or_else(own)
}

/// Lookups by numbers from programs, with the number of indices that each bounds, for the self-test.
#[cfg(feature = "selftest")]
pub const LOOKUPS: &[(&str, usize, fn())] = &[
    ("a call", 2, || _ = find(usize::MAX)),
    ("a limit", 1, || _ = process::limit_mut(&mut { crate::task::process::FIRST_LIMITS }, 1)),
    ("a counter", 3, || _ = statistics::counter(usize::MAX)),
    ("an entry of a directory", 1, || _ = crate::archive::by_number(0).and_then(|root| open::place_in(root, 0))),
    ("a contiguous area", 1, || _ = statistics::cma(0)),
];

/// The calls with numbers from `first` on.
const fn calls<const N: usize>(first: usize) -> [Call; N] {
    let mut calls: [Call; N] = [|frame| unknown::call(frame.x[8] as usize); N];
    let mut i = 0;
    while i < CALLS.len() {
        let (nr, call) = CALLS[i];
        assert!(nr < nr::LINUX_END || nr::QUIRE_BASE <= nr && nr < nr::QUIRE_BASE + nr::QUIRE_COUNT);
        if first <= nr && nr - first < N {
            calls[nr - first] = call;
        }
        i += 1;
    }
    calls
}

/// Rows of a table: the expression for each call, with `a` for the arguments, or with the whole frame.
macro_rules! rows {
    (|$a:ident, $frame:ident| $($nr:ident => $call:expr;)*) => {
        &[$((nr::$nr, |$frame| {
            let $a = Args(&$frame.x);
            let _ = $a;
            $call
        })),*]
    };
}

/// All calls.
const CALLS: &[(usize, Call)] = rows! { |a, frame|
    READ => transfer::read(a);
    WRITE => transfer::write(a);
    READV => transfer::readv(a);
    WRITEV => transfer::writev(a);
    PREAD64 => transfer::pread(a);
    PWRITE64 => transfer::pwrite(a);
    PREADV => transfer::preadv(a);
    PWRITEV => transfer::pwritev(a);
    PREADV2 => transfer::preadv2(a);
    PWRITEV2 => transfer::pwritev2(a);
    FADVISE64 => advice::fadvise(a);
    READAHEAD => advice::readahead(a);
    SENDFILE => transfer::sendfile(a);
    SPLICE => splice::splice(a);
    TEE => splice::tee(a);
    VMSPLICE => splice::vmsplice(a);
    COPY_FILE_RANGE => content::copy_file_range(a);
    MEMFD_CREATE => memory_file::memfd_create(a);
    FTRUNCATE => memory_file::ftruncate(a);
    FALLOCATE => memory_file::fallocate(a);
    TRUNCATE => setattr::truncate(a);
    FCHMOD => setattr::fchmod(a);
    FCHMODAT => setattr::fchmodat(a, 0);
    FCHMODAT2 => setattr::fchmodat(a, a.uint(3));
    FCHOWN => setattr::fchown(a);
    FCHOWNAT => setattr::fchownat(a);
    UTIMENSAT => setattr::utimensat(a);
    FSYNC => setattr::fsync(a);
    FDATASYNC => setattr::fsync(a);
    SYNCFS => setattr::syncfs(a);
    SYNC => setattr::sync();
    MKNODAT => names::mknodat(a);
    MKDIRAT => names::mkdirat(a);
    UNLINKAT => names::unlinkat(a);
    SYMLINKAT => names::symlinkat(a);
    LINKAT => names::linkat(a);
    RENAMEAT => names::renameat(a, 0);
    RENAMEAT2 => names::renameat(a, a.uint(4));
    UMASK => names::umask(a);
    OPENAT => open::openat(a);
    CLOSE => file::close(a);
    CLOSE_RANGE => file::close_range(a);
    LSEEK => file::lseek(a);
    GETDENTS64 => open::getdents(a);
    NEWFSTATAT => lookup::fstatat(a);
    FSTAT => lookup::fstat(a);
    STATX => attributes::statx(a);
    STATFS => attributes::statfs(a);
    FSTATFS => attributes::fstatfs(a);
    SETXATTR => attributes::of_path(a, 0, true);
    LSETXATTR => attributes::of_path(a, at::SYMLINK_NOFOLLOW, true);
    FSETXATTR => attributes::of_descriptor(a, true);
    GETXATTR => attributes::of_path(a, 0, false);
    LGETXATTR => attributes::of_path(a, at::SYMLINK_NOFOLLOW, false);
    FGETXATTR => attributes::of_descriptor(a, false);
    LISTXATTR => attributes::of_path(a, 0, false);
    LLISTXATTR => attributes::of_path(a, at::SYMLINK_NOFOLLOW, false);
    FLISTXATTR => attributes::of_descriptor(a, false);
    REMOVEXATTR => attributes::of_path(a, 0, true);
    LREMOVEXATTR => attributes::of_path(a, at::SYMLINK_NOFOLLOW, true);
    FREMOVEXATTR => attributes::of_descriptor(a, true);
    READLINKAT => lookup::readlinkat(a);
    FACCESSAT => lookup::faccessat(a, 0);
    FACCESSAT2 => lookup::faccessat(a, a.uint(3));
    GETCWD => lookup::getcwd(a);
    CHDIR => lookup::chdir(a);
    FCHDIR => lookup::fchdir(a);
    DUP => file::dup(a);
    DUP3 => file::dup3(a);
    FCNTL => control::fcntl(a);
    IOCTL => control::ioctl(a);
    FLOCK => locks::flock(a);
    PIPE2 => file::pipe2(a);
    PPOLL => poll::ppoll(a);
    PSELECT6 => poll::pselect6(a);
    EVENTFD2 => epoll::eventfd(a);
    EPOLL_CREATE1 => epoll::create(a);
    EPOLL_CTL => epoll::control(a);
    EPOLL_PWAIT => epoll::wait(a);
    EPOLL_PWAIT2 => epoll::wait_by_timespec(a);
    TIMERFD_CREATE => timerfd::create(a);
    TIMERFD_SETTIME => timerfd::settime(a);
    TIMERFD_GETTIME => timerfd::gettime(a);
    SIGNALFD4 => signalfd::create(a);
    PIDFD_OPEN => pidfd::open(a);
    PIDFD_SEND_SIGNAL => pidfd::send_signal(a);
    PIDFD_GETFD => pidfd::get_fd(a);

    SOCKET => socket::socket(a);
    SOCKETPAIR => socket::socketpair(a);
    BIND => socket::bind(a);
    LISTEN => socket::listen(a);
    ACCEPT => socket::accept(a, 0);
    ACCEPT4 => socket::accept(a, a.uint(3));
    CONNECT => socket::connect(a);
    GETSOCKNAME => socket::getsockname(a);
    GETPEERNAME => socket::getpeername(a);
    SHUTDOWN => socket::shutdown(a);
    SENDTO => socket_message::sendto(a);
    RECVFROM => socket_message::recvfrom(a);
    SENDMSG => socket_message::sendmsg(a);
    RECVMSG => socket_message::recvmsg(a);
    SENDMMSG => socket_message::sendmmsg(a);
    RECVMMSG => socket_message::recvmmsg(a);
    SETSOCKOPT => socket_option::setsockopt(a);
    GETSOCKOPT => socket_option::getsockopt(a);

    BRK => memory::brk(a);
    MMAP => memory::mmap(a);
    MUNMAP => memory::munmap(a);
    MPROTECT => memory::mprotect(a);
    MREMAP => memory::mremap(a);
    MADVISE => memory::madvise(a);
    PROCESS_VM_READV => elsewhere::process_vm(a, false);
    PROCESS_VM_WRITEV => elsewhere::process_vm(a, true);
    PROCESS_MADVISE => elsewhere::process_madvise(a);
    MSYNC => memory::msync(a);
    MINCORE => memory::mincore(a);
    MLOCK => memory::mlock(a, 0);
    MLOCK2 => memory::mlock(a, a.uint(2));
    MUNLOCK => memory::munlock(a);
    MLOCKALL => memory::mlockall(a);
    MUNLOCKALL => memory::munlockall();

    CLONE => process::clone(a, frame);
    CLONE3 => process::clone3(a, frame);
    EXECVE => exec::execve(frame);
    EXECVEAT => exec::execveat(frame);
    PERSONALITY => process::personality(a);
    TIMES => process::times(a);
    EXIT => process::exit(a);
    EXIT_GROUP => process::exit_group(a);
    WAIT4 => wait::wait4(a);
    WAITID => wait::waitid(a);
    GETPID => process::getpid();
    GETPPID => process::getppid();
    GETTID => process::gettid();
    SET_TID_ADDRESS => process::set_tid_address(a);
    GETUID => identity::real(Of::User);
    GETEUID => identity::effective(Of::User);
    GETGID => identity::real(Of::Group);
    GETEGID => identity::effective(Of::Group);
    SETUID => identity::set(a, Of::User);
    SETGID => identity::set(a, Of::Group);
    SETREUID => identity::set_two(a, Of::User);
    SETREGID => identity::set_two(a, Of::Group);
    SETRESUID => identity::set_three(a, Of::User);
    SETRESGID => identity::set_three(a, Of::Group);
    GETRESUID => identity::get_three(a, Of::User);
    GETRESGID => identity::get_three(a, Of::Group);
    SETFSUID => identity::set_files(a, Of::User);
    SETFSGID => identity::set_files(a, Of::Group);
    GETGROUPS => identity::getgroups(a);
    SETGROUPS => identity::setgroups(a);
    SETPGID => process::setpgid(a);
    GETPGID => process::getpgid(a);
    SETSID => process::setsid();
    GETSID => process::getsid(a);
    PRLIMIT64 => process::prlimit64(a);
    GETRLIMIT => process::getrlimit(a);
    SETRLIMIT => process::setrlimit(a);
    GETRUSAGE => process::getrusage(a);
    PRCTL => process::prctl(a);
    UNAME => system::uname(a);
    SETHOSTNAME => system::sethostname(a);
    SETDOMAINNAME => system::setdomainname(a);
    SYSINFO => system::sysinfo(a);
    SYSLOG => system::syslog(a);
    GETRANDOM => process::getrandom(a);
    REBOOT => system::reboot(a);

    KILL => signal::kill(a);
    TKILL => signal::tkill(a);
    TGKILL => signal::tgkill(a);
    RT_SIGACTION => signal::sigaction(a);
    RT_SIGPROCMASK => signal::sigprocmask(a);
    RT_SIGPENDING => signal::sigpending(a);
    RT_SIGSUSPEND => signal::sigsuspend(a);
    RT_SIGTIMEDWAIT => signal::sigtimedwait(a);
    RT_SIGQUEUEINFO => signal::sigqueueinfo(a);
    RT_TGSIGQUEUEINFO => signal::tgsigqueueinfo(a);
    RT_SIGRETURN => signal::sigreturn(frame);
    SIGALTSTACK => signal::sigaltstack(a, frame);

    RESTART_SYSCALL => restart::call();

    FUTEX => futex::futex(a);
    SET_ROBUST_LIST => futex::set_robust_list(a);
    GET_ROBUST_LIST => futex::get_robust_list(a);
    SCHED_YIELD => sched::sched_yield();
    SCHED_SETSCHEDULER => priority::setscheduler(a);
    SCHED_SETPARAM => priority::setparam(a);
    SCHED_GETSCHEDULER => priority::getscheduler(a);
    SCHED_GETPARAM => priority::getparam(a);
    SCHED_GET_PRIORITY_MAX => priority::priority_bound(a, 99);
    SCHED_GET_PRIORITY_MIN => priority::priority_bound(a, 1);
    SCHED_RR_GET_INTERVAL => priority::interval(a);
    SCHED_SETATTR => priority::setattr(a);
    SCHED_GETATTR => priority::getattr(a);
    SETPRIORITY => priority::setpriority(a);
    GETPRIORITY => priority::getpriority(a);
    SCHED_SETAFFINITY => sched::setaffinity(a);
    SCHED_GETAFFINITY => sched::getaffinity(a);
    RSEQ => rseq::rseq(a);
    MEMBARRIER => rseq::membarrier(a);
    GETCPU => sched::getcpu(a);

    CLOCK_GETTIME => time::clock_gettime(a);
    CLOCK_GETRES => time::clock_getres(a);
    GETTIMEOFDAY => time::gettimeofday(a);
    CLOCK_SETTIME => time::clock_settime(a);
    SETTIMEOFDAY => time::settimeofday(a);
    NANOSLEEP => time::nanosleep(a);
    GETITIMER => time::getitimer(a);
    SETITIMER => time::setitimer(a);
    CLOCK_NANOSLEEP => time::clock_nanosleep(a);
    TIMER_CREATE => posix_timer::create(a);
    TIMER_GETTIME => posix_timer::gettime(a);
    TIMER_GETOVERRUN => posix_timer::getoverrun(a);
    TIMER_SETTIME => posix_timer::settime(a);
    TIMER_DELETE => posix_timer::delete(a);

    QUIRE_INFO => quire::info(a);
    QUIRE_LOG => quire::log(a);
    QUIRE_POWEROFF => quire::poweroff(a);
    QUIRE_BOOKS => quire::books(a);
    QUIRE_SETTING => quire::setting(a);
    QUIRE_AUDIT => quire::audit(a);
    QUIRE_FAIL_NTH => quire::fail_nth(a);
    QUIRE_CMA_TRY => quire::cma_try(a);
    QUIRE_COMPACT => quire::compact(a);
    QUIRE_GROUP => group::group(a);
    QUIRE_GRANT => ipc::grant(a);
    QUIRE_ENDPOINT => ipc::endpoint();
    QUIRE_MINT => ipc::mint(a);
    QUIRE_CALL => ipc::call(frame);
    QUIRE_RECEIVE => ipc::receive(frame);
    QUIRE_REPLY => ipc::reply(frame);
    QUIRE_REPLY_RECEIVE => ipc::reply_receive(frame);
    QUIRE_SAVE => ipc::save(a);
    QUIRE_SIGNAL => ipc::signal(a);
    QUIRE_CLOSE => ipc::close(a);
    QUIRE_COPY => ipc::copy(a);
    QUIRE_ACCEPT => ipc::accept(frame);
    QUIRE_CALLER => ipc::caller(frame);
    QUIRE_READ_WINDOW => ipc::window(a, false);
    QUIRE_WRITE_WINDOW => ipc::window(a, true);
    QUIRE_MEMORY => ipc::memory(a);
    QUIRE_MEMORY_STAT => ipc::memory_stat(a);
    QUIRE_MEMORY_LINKS => ipc::memory_links(a);
    QUIRE_MOUNT => quire::mount(a);
    QUIRE_PROCESS_TEXT => inspect::process_text(a);
    QUIRE_PROCESS_SET => inspect::process_set(a);
    QUIRE_FORGET => ipc::forget(a);
    QUIRE_OPENED => ipc::opened(a);
    QUIRE_DEVICE => quire::device(a);
    QUIRE_DEVICE_INFO => device::info(a);
    QUIRE_DEVICE_PROPERTY => device::property(a);
    QUIRE_DEVICE_READ => device::read(a);
    QUIRE_DEVICE_WRITE => device::write(a);
    QUIRE_DEVICE_QUIET => device::quiet(a);
    QUIRE_INTERRUPT => device::interrupt(a);
    QUIRE_UNMASK => device::unmask(a);
    QUIRE_DMA => device::memory(a);
    QUIRE_DMA_MAP => device::map(a);
    QUIRE_DMA_SYNC => device::sync(a);
    QUIRE_DEVICE_READ_WORDS => device::read_words(a);
    QUIRE_DEVICE_WRITE_WORDS => device::write_words(a);
};
