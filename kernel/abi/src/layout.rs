//! Record layouts of Linux's calls, as on Linux for AArch64.
//!
//! Every record is plain old data: `repr(C)`, no padding that could carry kernel memory out (explicit
//! `pad` fields instead), and every bit pattern valid.

/// Marks a record that may be copied between kernel and program byte by byte.
///
/// # Safety
/// The type is `repr(C)` or a primitive, has no padding bytes, and every bit pattern is a valid value.
pub unsafe trait Pod: Copy + 'static {}

/// A record's bytes.
pub fn bytes_of<T: Pod>(record: &T) -> &[u8] {
    // SAFETY: a `Pod` has no padding, so all its bytes are initialised, and they live as long as the record.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(record).cast(), size_of::<T>()) }
}

macro_rules! pod {
    ($($t:ty),* $(,)?) => {
        // SAFETY: integers and the `repr(C)` records of the file that uses this, which are made of integers, arrays of
        // integers and other such records only; that file's size assertions show the absence of padding.
        $(unsafe impl $crate::layout::Pod for $t {})*
    };
}

pub(crate) use pod;

pod!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);
pod!(Timespec, Timeval, Utsname, Sysinfo, Stat, Iovec, PollFd, EpollEvent, Termios, Winsize, Sigaction, Rlimit, Rusage);
pod!(
    Statx,
    Statfs,
    Rseq,
    RseqSection,
    Siginfo,
    SignalfdSiginfo,
    CloneArgs,
    SchedAttr,
    Itimerspec,
    Sigevent,
    Itimerval,
    RobustListHead,
    HandleInfo
);
pod!([i32; 2], [u64; 2], [u64; 3]);

/// Seconds and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Timespec {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nsec: i64,
}

/// Seconds and microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Timeval {
    /// Seconds.
    pub sec: i64,
    /// Microseconds, 0 to 999,999.
    pub usec: i64,
}

/// `uname`: six NUL-terminated fields of 65 bytes.
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Utsname {
    pub sysname: [u8; 65],
    pub nodename: [u8; 65],
    pub release: [u8; 65],
    pub version: [u8; 65],
    pub machine: [u8; 65],
    pub domainname: [u8; 65],
}

impl Default for Utsname {
    fn default() -> Self {
        let [sysname, nodename, release, version, machine, domainname] = [[0; 65]; 6];
        Self { sysname, nodename, release, version, machine, domainname }
    }
}

/// `sysinfo`; memory is in units of `mem_unit` bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Sysinfo {
    pub uptime: i64,
    pub loads: [u64; 3],
    pub totalram: u64,
    pub freeram: u64,
    pub sharedram: u64,
    pub bufferram: u64,
    pub totalswap: u64,
    pub freeswap: u64,
    pub procs: u16,
    pub pad: u16,
    pub pad2: u32,
    pub totalhigh: u64,
    pub freehigh: u64,
    pub mem_unit: u32,
    pub pad3: u32,
}

/// `struct stat` of the generic 64-bit ABI.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub pad1: u64,
    pub size: i64,
    pub blksize: i32,
    pub pad2: i32,
    pub blocks: i64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub unused: [u32; 2],
}

/// A file's record as `statx` returns it. Times are seconds and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Statx {
    pub mask: u32,
    pub blksize: u32,
    pub attributes: u64,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub mode: u16,
    pub pad: u16,
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub attributes_mask: u64,
    pub atime: [i64; 2],
    pub btime: [i64; 2],
    pub ctime: [i64; 2],
    pub mtime: [i64; 2],
    pub rdev: [u32; 2],
    pub dev: [u32; 2],
    pub mnt_id: u64,
    pub rest: [u64; 13],
}

impl Statx {
    /// All fields of a `Stat` (`STATX_BASIC_STATS`).
    pub const BASIC: u32 = 0x7ff;
    /// Bits of a mask that are reserved and must not be set.
    pub const RESERVED: u32 = 1 << 31;
}

/// A file system's record (`statfs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Statfs {
    pub kind: i64,
    pub bsize: i64,
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub fsid: [i32; 2],
    pub namelen: i64,
    pub frsize: i64,
    pub flags: i64,
    pub spare: [i64; 4],
}

/// Values of [`Statfs`].
#[allow(missing_docs)]
pub mod statfs {
    pub const RAMFS: i64 = 0x8584_58f6;
    pub const TMPFS: i64 = 0x0102_1994;
    pub const PIPEFS: i64 = 0x5049_5045;
    pub const SOCKFS: i64 = 0x534f_434b;
    pub const ANON_INODE: i64 = 0x0904_1934;
    pub const PIDFS: i64 = 0x5049_4446;
    /// Flag: the file system is read-only.
    pub const RDONLY: i64 = 1;
    /// Flag: the flags are valid.
    pub const VALID: i64 = 0x20;
}

/// File types and permission bits of `Stat::mode`.
#[allow(missing_docs)]
pub mod mode {
    pub const FMT: u32 = 0o170000;
    pub const FIFO: u32 = 0o010000;
    pub const CHR: u32 = 0o020000;
    pub const BLK: u32 = 0o060000;
    pub const DIR: u32 = 0o040000;
    pub const REG: u32 = 0o100000;
    pub const LNK: u32 = 0o120000;
    pub const SOCK: u32 = 0o140000;
}

/// Types in a `getdents64` record. A record is: ino u64, off i64, reclen u16, type u8, name with NUL, padded
/// to 8 bytes.
#[allow(missing_docs)]
pub mod dtype {
    pub const UNKNOWN: u8 = 0;
    pub const FIFO: u8 = 1;
    pub const CHR: u8 = 2;
    pub const BLK: u8 = 6;
    pub const DIR: u8 = 4;
    pub const REG: u8 = 8;
    pub const LNK: u8 = 10;
    pub const SOCK: u8 = 12;
    /// Bytes before the name.
    pub const HEADER: usize = 19;
}

/// One piece of a scattered buffer.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Iovec {
    /// User address.
    pub base: u64,
    /// Bytes.
    pub len: u64,
}

/// One descriptor that `ppoll` watches.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PollFd {
    /// Descriptor; negative ones are skipped.
    pub fd: i32,
    /// What to wait for.
    pub events: u16,
    /// Events that have occurred.
    pub revents: u16,
}

/// Bits of `PollFd::events` and `revents`.
#[allow(missing_docs)]
pub mod poll {
    pub const IN: u16 = 1;
    pub const PRI: u16 = 2;
    pub const OUT: u16 = 4;
    pub const ERR: u16 = 8;
    pub const HUP: u16 = 16;
    pub const NVAL: u16 = 32;
    pub const RDNORM: u16 = 0x40;
    pub const WRNORM: u16 = 0x100;
    pub const RDHUP: u16 = 0x2000;
}

/// The argument of `epoll_ctl` and the result of `epoll_pwait`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EpollEvent {
    /// Bits of [`poll`], and of [`epoll`] for `epoll_ctl`.
    pub events: u32,
    /// Unused.
    pub pad: u32,
    /// The caller's data.
    pub data: u64,
}

/// Operations of `epoll_ctl`, and bits of [`EpollEvent::events`] in addition to those of [`poll`].
#[allow(missing_docs)]
pub mod epoll {
    pub const ADD: i32 = 1;
    pub const DEL: i32 = 2;
    pub const MOD: i32 = 3;
    pub const EXCLUSIVE: u32 = 1 << 28;
    pub const WAKEUP: u32 = 1 << 29;
    pub const ONESHOT: u32 = 1 << 30;
    pub const ET: u32 = 1 << 31;
}

/// Terminal settings: the kernel's `struct termios` (36 bytes), not the C library's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Termios {
    pub iflag: u32,
    pub oflag: u32,
    pub cflag: u32,
    pub lflag: u32,
    pub line: u8,
    pub cc: [u8; 19],
}

/// Bits and requests of the terminal interface.
#[allow(missing_docs)]
pub mod tty {
    pub const TCGETS: usize = 0x5401;
    pub const TCSETS: usize = 0x5402;
    pub const TCSETSW: usize = 0x5403;
    pub const TCSETSF: usize = 0x5404;
    pub const TIOCGPGRP: usize = 0x540f;
    pub const TIOCSPGRP: usize = 0x5410;
    pub const TIOCGWINSZ: usize = 0x5413;
    pub const TIOCSWINSZ: usize = 0x5414;
    pub const TIOCOUTQ: usize = 0x5411;
    pub const FIONREAD: usize = 0x541b;
    pub const FIONBIO: usize = 0x5421;
    pub const FIONCLEX: usize = 0x5450;
    pub const FIOCLEX: usize = 0x5451;
    pub const ICRNL: u32 = 0o400;
    pub const OPOST: u32 = 1;
    pub const ONLCR: u32 = 4;
    pub const ISIG: u32 = 1;
    pub const ICANON: u32 = 2;
    pub const ECHO: u32 = 0o10;
    pub const ECHOE: u32 = 0o20;
    pub const ECHOK: u32 = 0o40;
    pub const ECHOCTL: u32 = 0o1000;
    pub const ECHOKE: u32 = 0o4000;
    pub const VINTR: usize = 0;
    pub const VQUIT: usize = 1;
    pub const VERASE: usize = 2;
    pub const VKILL: usize = 3;
    pub const VEOF: usize = 4;
    pub const VTIME: usize = 5;
    pub const VMIN: usize = 6;
}

/// Size of the terminal in characters.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Winsize {
    pub rows: u16,
    pub cols: u16,
    pub xpixel: u16,
    pub ypixel: u16,
}

/// The action for a signal (the kernel's layout on AArch64).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Sigaction {
    /// 0 default, 1 ignore, else the handler's address.
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Address of the return trampoline where `SA_RESTORER` is set.
    pub restorer: u64,
    /// Signals blocked while the handler runs.
    pub mask: u64,
}

/// The information that comes with a signal: signal, errno, code, then fields that depend on the code, from byte 16 on.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Siginfo {
    pub signo: i32,
    pub errno: i32,
    pub code: i32,
    pub pad: i32,
    /// `SI_USER`, `SI_TKILL`, `SI_QUEUE`: pid and uid in the first word, the value in the second. Children: pid and
    /// uid, status, user time, system time. Faults: the address.
    pub fields: [u64; 4],
    pub rest: [u64; 10],
}

/// A signal as `signalfd` reports it. Fields that its kind does not use are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct SignalfdSiginfo {
    pub signo: u32,
    pub errno: i32,
    pub code: i32,
    pub pid: u32,
    pub uid: u32,
    pub fd: i32,
    pub tid: u32,
    pub band: u32,
    pub overrun: u32,
    pub trapno: u32,
    pub status: i32,
    pub int: i32,
    pub ptr: u64,
    pub utime: u64,
    pub stime: u64,
    pub addr: u64,
    pub addr_lsb: u16,
    pub pad: u16,
    pub syscall: i32,
    pub call_addr: u64,
    pub arch: u32,
    pub rest: [u32; 7],
}

/// A thread's record for restartable sequences (`rseq`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct Rseq {
    /// The CPU; 0 if the thread is not registered.
    pub cpu_start: u32,
    /// The CPU.
    pub cpu: u32,
    /// The address of an [`RseqSection`]; 0 for none.
    pub section: u64,
    /// 0.
    pub flags: u32,
    /// The CPU's node.
    pub node: u32,
    /// A number among the process's running threads.
    pub mm_cid: u32,
    /// Unused.
    pub pad: u32,
}

/// A critical section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RseqSection {
    /// 0.
    pub version: u32,
    /// 0.
    pub flags: u32,
    /// Its first instruction.
    pub start: u64,
    /// Bytes from there to the end of the last one.
    pub len: u64,
    /// Where execution continues if the section is aborted; the signature is stored before this address.
    pub abort: u64,
}

/// The arguments of `clone3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    /// The stack's lowest address.
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// The record of `sched_setattr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds: the slice.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub util_min: u32,
    pub util_max: u32,
}

impl SchedAttr {
    /// The size of its first version.
    pub const FIRST: usize = 48;

    /// Decodes the words of the record in memory.
    pub fn from_words([head, flags, mid, runtime, deadline, period, util]: [u64; 7]) -> Self {
        let (low, high) = (|word: u64| word as u32, |word: u64| (word >> 32) as u32);
        Self {
            size: low(head),
            policy: high(head),
            flags,
            nice: low(mid) as i32,
            priority: high(mid),
            runtime,
            deadline,
            period,
            util_min: low(util),
            util_max: high(util),
        }
    }
}

/// The setting of a timer in nanoseconds: the interval of its restarts, and the time left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Itimerspec {
    /// 0 for a timer that expires once.
    pub interval: Timespec,
    /// 0 for a timer that does not run.
    pub value: Timespec,
}

/// What `timer_create` does when a timer expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sigevent {
    /// The value that goes with the signal.
    pub value: u64,
    /// The signal.
    pub signo: i32,
    /// `sigev`.
    pub notify: i32,
    /// The thread that gets the signal.
    pub tid: i32,
    /// Unused.
    pub rest: [i32; 11],
}

/// The setting of an interval timer: the interval of its restarts, and the time left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Itimerval {
    /// 0 for a timer that expires once.
    pub interval: Timeval,
    /// 0 for a timer that does not run.
    pub value: Timeval,
}

/// The head of a thread's list of robust futexes (`set_robust_list`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct RobustListHead {
    /// The first entry, or the head itself. Bit 0 of a pointer to an entry marks one that inherits priority.
    pub list: u64,
    /// The offset from an entry to its futex word.
    pub futex_offset: i64,
    /// The entry that the thread is about to insert or remove.
    pub list_op_pending: u64,
}

/// Bits of `Sigaction::flags`.
#[allow(missing_docs)]
pub mod sa {
    pub const NOCLDSTOP: u64 = 1;
    pub const NOCLDWAIT: u64 = 2;
    pub const SIGINFO: u64 = 4;
    pub const ONSTACK: u64 = 0x0800_0000;
    pub const RESTART: u64 = 0x1000_0000;
    pub const NODEFER: u64 = 0x4000_0000;
    pub const RESETHAND: u64 = 0x8000_0000;
    pub const RESTORER: u64 = 0x0400_0000;
}

/// Soft and hard limit of a resource; `u64::MAX` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Rlimit {
    pub cur: u64,
    pub max: u64,
}

/// Resources of `prlimit64`.
#[allow(missing_docs)]
pub mod rlimit {
    pub const CPU: usize = 0;
    pub const FSIZE: usize = 1;
    pub const DATA: usize = 2;
    pub const STACK: usize = 3;
    pub const NPROC: usize = 6;
    pub const NOFILE: usize = 7;
    pub const MEMLOCK: usize = 8;
    pub const AS: usize = 9;
    pub const SIGPENDING: usize = 11;
    pub const NICE: usize = 13;
    pub const RTPRIO: usize = 14;
    pub const COUNT: usize = 16;
    pub const INFINITY: u64 = u64::MAX;
}

/// Resource usage of `wait4` and `getrusage`; only times and faults are filled in.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Rusage {
    pub utime: Timeval,
    pub stime: Timeval,
    pub maxrss: i64,
    pub ixrss: i64,
    pub idrss: i64,
    pub isrss: i64,
    pub minflt: i64,
    pub majflt: i64,
    pub rest: [i64; 8],
}

/// Keys of the auxiliary vector.
#[allow(missing_docs)]
pub mod at {
    pub const NULL: u64 = 0;
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const RSEQ_FEATURE_SIZE: u64 = 27;
    pub const RSEQ_ALIGN: u64 = 28;
    pub const EXECFN: u64 = 31;
    pub const MINSIGSTKSZ: u64 = 51;
    /// Quire's own: the address of the list of the program's handles ([`HandleInfo`](super::HandleInfo)).
    pub const HANDLES: u64 = 0x1000;
    /// Quire's own: the number of entries in that list.
    pub const HANDLE_COUNT: u64 = 0x1001;
    /// `dirfd` that means the working directory.
    pub const FDCWD: i32 = -100;
    /// Flag of `newfstatat`: do not follow the last symbolic link.
    pub const SYMLINK_NOFOLLOW: u32 = 0x100;
    /// Flag of `newfstatat`: an empty path means `dirfd` itself.
    pub const EMPTY_PATH: u32 = 0x1000;
    /// `unlinkat`: a directory. (`faccessat` has another flag of this value.)
    pub const REMOVEDIR: u32 = 0x200;
    /// `linkat`: follows a symbolic link.
    pub const SYMLINK_FOLLOW: u32 = 0x400;
}

/// A handle that a program was started with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandleInfo {
    /// Its number, from [`HandleInfo::FIRST`] on.
    pub number: u32,
    /// The kind of object.
    pub kind: u32,
    /// The operations that it allows; the kind defines the bits.
    pub rights: u32,
    /// 0.
    pub reserved: u32,
}

impl HandleInfo {
    /// The lowest number of a handle. Numbers below it are file descriptors.
    pub const FIRST: u32 = 1 << 30;
    /// Kind: machine control, with rights of [`Control`](crate::flags::Control).
    pub const MACHINE: u32 = 1;
    /// Kind: an endpoint to call, with the right [`SEND`](crate::ipc::rights::SEND).
    pub const SENDER: u32 = 2;
    /// Kind: an endpoint to signal, with the right [`SIGNAL`](crate::ipc::rights::SIGNAL).
    pub const SIGNALLER: u32 = 3;
    /// Kind: an endpoint to receive from, with the right [`RECEIVE`](crate::ipc::rights::RECEIVE).
    pub const RECEIVER: u32 = 4;
    /// Kind: a call to answer, with the right [`REPLY`](crate::ipc::rights::REPLY).
    pub const REPLY: u32 = 5;
    /// Kind: a memory object, with the rights [`READ`](crate::ipc::rights::READ), [`WRITE`](crate::ipc::rights::WRITE)
    /// and [`CONTROL`](crate::ipc::rights::CONTROL).
    pub const MEMORY: u32 = 6;
    /// Kind: a device to drive, with the right [`CONTROL`](crate::ipc::rights::CONTROL).
    pub const DEVICE: u32 = 7;
    /// Kind: an interrupt of a device, with the right [`CONTROL`](crate::ipc::rights::CONTROL).
    pub const INTERRUPT: u32 = 8;
    /// Kind: memory for a device's DMA, with the right [`CONTROL`](crate::ipc::rights::CONTROL).
    pub const DMA: u32 = 9;
}

const _: () = {
    assert!(size_of::<Stat>() == 128);
    assert!(size_of::<Utsname>() == 390);
    assert!(size_of::<Sysinfo>() == 112);
    assert!(size_of::<SignalfdSiginfo>() == 128 && size_of::<Itimerspec>() == 32);
    assert!(size_of::<Sigevent>() == 64);
    assert!(size_of::<CloneArgs>() == 88);
    assert!(size_of::<SchedAttr>() == 56);
    assert!(size_of::<Statx>() == 256 && size_of::<Statfs>() == 120);
    assert!(size_of::<Rseq>() == 32 && size_of::<RseqSection>() == 32);
    assert!(size_of::<Termios>() == 36);
    assert!(size_of::<Rusage>() == 144);
    assert!(size_of::<Siginfo>() == 128);
    assert!(size_of::<EpollEvent>() == 16);
};
