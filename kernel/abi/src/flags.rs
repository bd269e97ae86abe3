//! Flag sets and small enumerations of the calls, with Linux's values for AArch64.

use bitflags::bitflags;

bitflags! {
    /// Protection of a mapping (`PROT_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Prot: u32 {
        /// May be read.
        const READ = 1;
        /// May be written (and read: the architecture has no write-only pages).
        const WRITE = 2;
        /// May be executed.
        const EXEC = 4;
        /// Atomic operations work there, as in all memory: no effect.
        const SEM = 8;
        /// The whole stack from this page down (`mprotect` on a growing area).
        const GROWSDOWN = 0x0100_0000;
        /// The whole area up from this page (`mprotect`).
        const GROWSUP = 0x0200_0000;
    }

    /// Kind and placement of a mapping (`MAP_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Map: u32 {
        /// Writes are visible to every process that maps the object.
        const SHARED = 0x01;
        /// Writes stay with the process: copy-on-write.
        const PRIVATE = 0x02;
        /// Shared, and unknown flags are an error (both type bits at once).
        const SHARED_VALIDATE = 0x03;
        /// Exactly at the address given; existing mappings there are replaced.
        const FIXED = 0x10;
        /// Not backed by a file.
        const ANONYMOUS = 0x20;
        /// Grows towards lower addresses when touched below.
        const GROWSDOWN = 0x0100;
        /// Ignored, as Linux documents.
        const DENYWRITE = 0x0800;
        /// Ignored, as Linux documents.
        const EXECUTABLE = 0x1000;
        /// Pages are locked in memory.
        const LOCKED = 0x2000;
        /// Not counted towards the commit limit in overcommit modes 0 and 1.
        const NORESERVE = 0x4000;
        /// Pages are brought in before the call returns.
        const POPULATE = 0x8000;
        /// POPULATE does not wait for I/O.
        const NONBLOCK = 0x1_0000;
        /// A hint for stacks; ignored, as Linux documents.
        const STACK = 0x2_0000;
        /// From the huge page pool.
        const HUGETLB = 0x4_0000;
        /// Synchronous page faults (only with SHARED_VALIDATE).
        const SYNC = 0x8_0000;
        /// As FIXED, but EEXIST where something is mapped.
        const FIXED_NOREPLACE = 0x10_0000;
    }

    /// `mremap` flags.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Mremap: u32 {
        /// The mapping may move.
        const MAYMOVE = 1;
        /// To exactly the new address.
        const FIXED = 2;
        /// The old range stays mapped, empty.
        const DONTUNMAP = 4;
    }

    /// `msync` flags.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Msync: u32 {
        /// Write-back may happen later: nothing to do, since the kernel knows what is dirty.
        const ASYNC = 1;
        /// Invalidate other mappings of the file, so that they see the change.
        const INVALIDATE = 2;
        /// Returns when everything has been written back.
        const SYNC = 4;
    }

    /// `clone` flags; the low byte is the signal at exit.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Clone: u64 {
        /// Share the address space.
        const VM = 0x100;
        /// Share root and working directory.
        const FS = 0x200;
        /// Share the descriptor table.
        const FILES = 0x400;
        /// Share signal handlers.
        const SIGHAND = 0x800;
        /// Store a pidfd of the child at `parent_tid`, or for `clone3` at `pidfd`.
        const PIDFD = 0x1000;
        /// The parent sleeps until the child execs or exits.
        const VFORK = 0x4000;
        /// The child's parent is the caller's parent.
        const PARENT = 0x8000;
        /// A thread of the caller's process.
        const THREAD = 0x1_0000;
        /// Share System V semaphore undo values.
        const SYSVSEM = 0x4_0000;
        /// The `tls` argument is the child's TPIDR_EL0.
        const SETTLS = 0x8_0000;
        /// Store the child's id at `parent_tid` in the parent.
        const PARENT_SETTID = 0x10_0000;
        /// Clear the word at `child_tid` and wake its futex at exit.
        const CHILD_CLEARTID = 0x20_0000;
        /// Ignored, as Linux documents.
        const DETACHED = 0x40_0000;
        /// Store the child's id at `child_tid` in the child.
        const CHILD_SETTID = 0x100_0000;
        /// `clone3`: no handlers of signals in the child.
        const CLEAR_SIGHAND = 0x1_0000_0000;
    }

    /// Rights of a machine-control handle; each allows one operation on the machine as a whole.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Control: u32 {
        /// Switching off with a status (`QUIRE_POWEROFF`).
        const POWER = 1;
        /// Changing settings of the machine (`QUIRE_SETTING`).
        const SETTINGS = 2;
        /// Reading the kernel's resource counts and auditing its tables (`QUIRE_BOOKS`, `QUIRE_AUDIT`).
        const AUDIT = 4;
        /// Taking contiguous memory (`QUIRE_CMA_TRY`).
        const CONTIGUOUS = 8;
        /// Lowering one's own `oom_score_adj` (`QUIRE_SETTING`).
        const OOM = 16;
        /// Making allocations fail (`QUIRE_FAIL_NTH`).
        const INJECT = 32;
        /// Mounting a file system over a directory (`QUIRE_MOUNT`).
        const MOUNT = 64;
        /// Changing the names of other processes and how the OOM killer treats them (`QUIRE_PROCESS_SET`).
        const PROCESSES = 128;
        /// Taking devices to drive (`QUIRE_DEVICE`).
        const DEVICES = 256;
        /// Making and removing control groups, setting their limits, and moving processes (`QUIRE_GROUP`).
        const GROUPS = 512;
    }

    /// `open` flags (AArch64 values: O_DIRECTORY and O_NOFOLLOW differ from x86).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Open: u32 {
        /// For writing only.
        const WRONLY = 0o1;
        /// For reading and writing.
        const RDWR = 0o2;
        /// Create if missing.
        const CREAT = 0o100;
        /// With CREAT: fail if it exists.
        const EXCL = 0o200;
        /// Never the controlling terminal.
        const NOCTTY = 0o400;
        /// Truncate to length 0.
        const TRUNC = 0o1000;
        /// Writes go to the end.
        const APPEND = 0o2000;
        /// Calls do not sleep.
        const NONBLOCK = 0o4000;
        /// A write returns when its data is in permanent storage. (`O_SYNC` has this bit and another one.)
        const DSYNC = 0o10000;
        /// Fail unless it is a directory.
        const DIRECTORY = 0o40000;
        /// Fail if the last part is a symbolic link.
        const NOFOLLOW = 0o100000;
        /// Large files; implied on 64-bit.
        const LARGEFILE = 0o400000;
        /// Closed on exec.
        const CLOEXEC = 0o2000000;
        /// Only a name: neither reading nor writing.
        const PATH = 0o10000000;
    }
}

/// Flags of `memfd_create`.
#[allow(missing_docs)]
pub mod memfd {
    pub const CLOEXEC: u32 = 1;
    pub const ALLOW_SEALING: u32 = 2;
    pub const HUGETLB: u32 = 4;
    pub const NOEXEC_SEAL: u32 = 8;
    pub const EXEC: u32 = 0x10;
    pub const ALL: u32 = 0x1f;
    /// The page size's logarithm, with HUGETLB.
    pub const HUGE_MASK: u32 = 0x3f << 26;
}

/// What `fcntl`'s `F_ADD_SEALS` forbids.
#[allow(missing_docs)]
pub mod seal {
    pub const SEAL: u32 = 1;
    pub const SHRINK: u32 = 2;
    pub const GROW: u32 = 4;
    pub const WRITE: u32 = 8;
    pub const FUTURE_WRITE: u32 = 0x10;
    pub const EXEC: u32 = 0x20;
    pub const ALL: u32 = 0x3f;
}

/// Modes of `fallocate`.
#[allow(missing_docs)]
pub mod falloc {
    pub const KEEP_SIZE: u32 = 1;
    pub const PUNCH_HOLE: u32 = 2;
    pub const ZERO_RANGE: u32 = 0x10;
}

/// Flags of `preadv2` and `pwritev2`.
#[allow(missing_docs)]
pub mod rwf {
    pub const HIPRI: u32 = 1;
    pub const DSYNC: u32 = 2;
    pub const SYNC: u32 = 4;
    pub const NOWAIT: u32 = 8;
    pub const APPEND: u32 = 0x10;
    pub const NOAPPEND: u32 = 0x20;
}

/// `madvise` advice values.
#[allow(missing_docs)]
pub mod madv {
    pub const NORMAL: i32 = 0;
    pub const RANDOM: i32 = 1;
    pub const SEQUENTIAL: i32 = 2;
    pub const WILLNEED: i32 = 3;
    pub const DONTNEED: i32 = 4;
    pub const FREE: i32 = 8;
    pub const REMOVE: i32 = 9;
    pub const DONTFORK: i32 = 10;
    pub const DOFORK: i32 = 11;
    pub const DONTDUMP: i32 = 16;
    pub const DODUMP: i32 = 17;
    pub const HUGEPAGE: i32 = 14;
    pub const NOHUGEPAGE: i32 = 15;
    pub const WIPEONFORK: i32 = 18;
    pub const KEEPONFORK: i32 = 19;
    pub const COLD: i32 = 20;
    pub const PAGEOUT: i32 = 21;
    pub const POPULATE_READ: i32 = 22;
    pub const POPULATE_WRITE: i32 = 23;
    pub const DONTNEED_LOCKED: i32 = 24;
    pub const COLLAPSE: i32 = 25;
}

/// Settings that `QUIRE_SETTING` reads and changes, by Linux's names.
pub mod setting {
    /// `vm.overcommit_memory`.
    pub const OVERCOMMIT_MEMORY: usize = 0;
    /// `vm.overcommit_ratio`: the share of memory that mode 2 promises, in percent.
    pub const OVERCOMMIT_RATIO: usize = 1;
    /// `vm.overcommit_kbytes`: the same in KiB.
    pub const OVERCOMMIT_KBYTES: usize = 2;
    /// `oom_score_adj` of the calling process, plus 1000.
    pub const OOM_SCORE_ADJ: usize = 3;
    /// Where programs get huge pages: nowhere (0), where they ask for them (1), everywhere (2).
    pub const HUGE_PAGES: usize = 4;
    /// Linux's names of these modes, by number.
    pub const HUGE_PAGES_NAMES: [&str; 3] = ["never", "madvise", "always"];
    /// In place of a new value: only read the setting.
    pub const READ: usize = usize::MAX;

    /// `vm.overcommit_memory`: only requests that can never be met are refused.
    pub const OVERCOMMIT_GUESS: usize = 0;
    /// `vm.overcommit_memory`: nothing is refused.
    pub const OVERCOMMIT_ALWAYS: usize = 1;
    /// `vm.overcommit_memory`: the limit is enforced.
    pub const OVERCOMMIT_NEVER: usize = 2;
}

/// Signal numbers.
#[allow(missing_docs)]
pub mod sig {
    pub const HUP: u32 = 1;
    pub const INT: u32 = 2;
    pub const QUIT: u32 = 3;
    pub const ILL: u32 = 4;
    pub const TRAP: u32 = 5;
    pub const ABRT: u32 = 6;
    pub const BUS: u32 = 7;
    pub const FPE: u32 = 8;
    pub const KILL: u32 = 9;
    pub const USR1: u32 = 10;
    pub const SEGV: u32 = 11;
    pub const USR2: u32 = 12;
    pub const PIPE: u32 = 13;
    pub const ALRM: u32 = 14;
    pub const TERM: u32 = 15;
    pub const CHLD: u32 = 17;
    pub const CONT: u32 = 18;
    pub const STOP: u32 = 19;
    pub const TSTP: u32 = 20;
    pub const TTIN: u32 = 21;
    pub const TTOU: u32 = 22;
    pub const URG: u32 = 23;
    pub const XCPU: u32 = 24;
    pub const XFSZ: u32 = 25;
    pub const VTALRM: u32 = 26;
    pub const PROF: u32 = 27;
    pub const WINCH: u32 = 28;
    pub const SYS: u32 = 31;
    /// One more than the highest signal.
    pub const COUNT: u32 = 65;
}

/// Codes of a signal's record (`si_code`) that are not specific to one signal.
#[allow(missing_docs)]
pub mod si {
    pub const USER: i32 = 0;
    pub const KERNEL: i32 = 0x80;
    pub const QUEUE: i32 = -1;
    pub const TIMER: i32 = -2;
    pub const MESGQ: i32 = -3;
    pub const ASYNCIO: i32 = -4;
    pub const SIGIO: i32 = -5;
    pub const TKILL: i32 = -6;
}

/// Codes of SIGCHLD.
#[allow(missing_docs)]
pub mod cld {
    pub const EXITED: i32 = 1;
    pub const KILLED: i32 = 2;
    pub const DUMPED: i32 = 3;
    pub const STOPPED: i32 = 5;
    pub const CONTINUED: i32 = 6;
}

/// How a timer of `timer_create` reports its expiration.
#[allow(missing_docs)]
pub mod sigev {
    pub const SIGNAL: i32 = 0;
    pub const NONE: i32 = 1;
    pub const THREAD: i32 = 2;
    pub const THREAD_ID: i32 = 4;
}

/// Timers of `setitimer`.
#[allow(missing_docs)]
pub mod itimer {
    pub const REAL: i32 = 0;
    pub const VIRTUAL: i32 = 1;
    pub const PROF: i32 = 2;
}

/// Operations and flags of `futex`, and the bits of a futex word that the kernel interprets.
#[allow(missing_docs)]
pub mod futex {
    pub const WAIT: u32 = 0;
    pub const WAKE: u32 = 1;
    pub const REQUEUE: u32 = 3;
    pub const CMP_REQUEUE: u32 = 4;
    pub const WAKE_OP: u32 = 5;
    pub const WAIT_BITSET: u32 = 9;
    pub const WAKE_BITSET: u32 = 10;
    pub const PRIVATE: u32 = 128;
    pub const CLOCK_REALTIME: u32 = 256;
    /// In the word of a robust futex: there are waiters.
    pub const WAITERS: u32 = 0x8000_0000;
    /// Its owner ended without releasing it.
    pub const OWNER_DIED: u32 = 0x4000_0000;
    /// The owner's number.
    pub const TID_MASK: u32 = 0x3fff_ffff;
}

/// `rseq`: its flag, and the properties of a record.
pub mod rseq {
    /// The flag that cancels a registration.
    pub const UNREGISTER: u32 = 1;
    /// The minimum size of a record.
    pub const SIZE: u32 = 32;
    /// The alignment of a record.
    pub const ALIGNMENT: usize = 32;
    /// How many bytes of a record the kernel uses.
    pub const FEATURES: u32 = 28;
    /// The CPU in a record that is not registered.
    pub const CPU_UNINITIALIZED: u32 = u32::MAX;
}

/// Commands of `membarrier`.
#[allow(missing_docs)]
pub mod membarrier {
    pub const QUERY: u32 = 0;
    pub const GLOBAL: u32 = 1 << 0;
    pub const GLOBAL_EXPEDITED: u32 = 1 << 1;
    pub const REGISTER_GLOBAL_EXPEDITED: u32 = 1 << 2;
    pub const PRIVATE_EXPEDITED: u32 = 1 << 3;
    pub const REGISTER_PRIVATE_EXPEDITED: u32 = 1 << 4;
    pub const PRIVATE_EXPEDITED_SYNC_CORE: u32 = 1 << 5;
    pub const REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: u32 = 1 << 6;
    pub const PRIVATE_EXPEDITED_RSEQ: u32 = 1 << 7;
    pub const REGISTER_PRIVATE_EXPEDITED_RSEQ: u32 = 1 << 8;
    pub const GET_REGISTRATIONS: u32 = 1 << 9;
    /// Flag of `PRIVATE_EXPEDITED_RSEQ`: one CPU only.
    pub const FLAG_CPU: u32 = 1;
}

/// Options of `prctl`.
#[allow(missing_docs)]
pub mod pr {
    pub const SET_PDEATHSIG: i32 = 1;
    pub const GET_PDEATHSIG: i32 = 2;
    pub const GET_DUMPABLE: i32 = 3;
    pub const SET_DUMPABLE: i32 = 4;
    pub const GET_KEEPCAPS: i32 = 7;
    pub const SET_KEEPCAPS: i32 = 8;
    pub const GET_TIMING: i32 = 13;
    pub const SET_TIMING: i32 = 14;
    pub const SET_NAME: i32 = 15;
    pub const GET_NAME: i32 = 16;
    pub const CAPBSET_READ: i32 = 23;
    pub const CAPBSET_DROP: i32 = 24;
    pub const GET_SECUREBITS: i32 = 27;
    pub const SET_TIMERSLACK: i32 = 29;
    pub const GET_TIMERSLACK: i32 = 30;
    pub const MCE_KILL: i32 = 33;
    pub const MCE_KILL_GET: i32 = 34;
    pub const SET_CHILD_SUBREAPER: i32 = 36;
    pub const GET_CHILD_SUBREAPER: i32 = 37;
    pub const SET_NO_NEW_PRIVS: i32 = 38;
    pub const GET_NO_NEW_PRIVS: i32 = 39;
    pub const GET_TID_ADDRESS: i32 = 40;
    pub const SET_THP_DISABLE: i32 = 41;
    pub const GET_THP_DISABLE: i32 = 42;
    pub const CAP_AMBIENT: i32 = 47;
    pub const GET_TAGGED_ADDR_CTRL: i32 = 56;
    pub const SET_TAGGED_ADDR_CTRL: i32 = 55;
    pub const SET_VMA: i32 = 0x5356_4d41;
    pub const GET_AUXV: i32 = 0x4155_5856;
}

/// Flags of `timerfd_settime`.
#[allow(missing_docs)]
pub mod tfd {
    pub const ABSTIME: u32 = 1;
    pub const CANCEL_ON_SET: u32 = 2;
}

/// Flags of `pidfd_send_signal`.
pub mod pidfd {
    /// To the process's first thread.
    pub const SIGNAL_THREAD: u32 = 1;
    /// To the process.
    pub const SIGNAL_THREAD_GROUP: u32 = 2;
    /// To the group that it leads.
    pub const SIGNAL_PROCESS_GROUP: u32 = 4;
    /// All scopes; a call may set one at most.
    pub const SIGNAL_SCOPES: u32 = 7;
}

/// Options of `wait4` and `waitid`.
pub mod wait {
    /// Return at once when no child has changed.
    pub const WNOHANG: u32 = 1;
    /// Report stopped children too.
    pub const WUNTRACED: u32 = 2;
    /// `waitid`: report children that have ended.
    pub const WEXITED: u32 = 4;
    /// Report continued children too.
    pub const WCONTINUED: u32 = 8;
    /// `waitid`: what is reported can be waited for again.
    pub const WNOWAIT: u32 = 0x0100_0000;
    /// `waitid`: any child.
    pub const P_ALL: u32 = 0;
    /// `waitid`: the child with a number.
    pub const P_PID: u32 = 1;
    /// `waitid`: any child of a group.
    pub const P_PGID: u32 = 2;
    /// `waitid`: the child of a pidfd.
    pub const P_PIDFD: u32 = 3;
    /// Only children of the calling thread.
    pub const WNOTHREAD: u32 = 0x2000_0000;
    /// All children, whatever signal they send at exit.
    pub const WALL: u32 = 0x4000_0000;
    /// Only children whose signal at exit is not SIGCHLD.
    pub const WCLONE: u32 = 0x8000_0000;
}

/// Clock numbers of `clock_gettime`.
#[allow(missing_docs)]
pub mod clock {
    pub const REALTIME: i32 = 0;
    pub const MONOTONIC: i32 = 1;
    pub const PROCESS_CPUTIME_ID: i32 = 2;
    pub const THREAD_CPUTIME_ID: i32 = 3;
    pub const MONOTONIC_RAW: i32 = 4;
    pub const REALTIME_COARSE: i32 = 5;
    pub const MONOTONIC_COARSE: i32 = 6;
    pub const BOOTTIME: i32 = 7;
    pub const REALTIME_ALARM: i32 = 8;
    pub const BOOTTIME_ALARM: i32 = 9;
    /// International atomic time. The kernel knows nothing of leap seconds, so it is the same as REALTIME.
    pub const TAI: i32 = 11;
    /// Flag of `clock_nanosleep` and `timer_settime`: the time is absolute.
    pub const TIMER_ABSTIME: u32 = 1;
}

/// Actions of `syslog`, which C libraries call `klogctl` (`SYSLOG_ACTION_*`).
#[allow(missing_docs)]
pub mod syslog {
    pub const CLOSE: i32 = 0;
    pub const OPEN: i32 = 1;
    pub const READ: i32 = 2;
    pub const READ_ALL: i32 = 3;
    pub const READ_CLEAR: i32 = 4;
    pub const CLEAR: i32 = 5;
    pub const CONSOLE_OFF: i32 = 6;
    pub const CONSOLE_ON: i32 = 7;
    pub const CONSOLE_LEVEL: i32 = 8;
    pub const SIZE_UNREAD: i32 = 9;
    pub const SIZE_BUFFER: i32 = 10;
}

/// Magic numbers and commands of `reboot`.
pub mod reboot {
    /// First magic number.
    pub const MAGIC1: u32 = 0xfee1_dead;
    /// The accepted second magic numbers.
    pub const MAGIC2: [u32; 4] = [0x2812_1969, 0x0512_1996, 0x1604_1998, 0x2011_2000];
    /// Start again.
    pub const RESTART: u32 = 0x0123_4567;
    /// Stop, power stays on.
    pub const HALT: u32 = 0xcdef_0123;
    /// Ctrl-Alt-Del restarts at once; accepted without effect, Quire has no such key.
    pub const CAD_ON: u32 = 0x89ab_cdef;
    /// Ctrl-Alt-Del signals init; as CAD_ON.
    pub const CAD_OFF: u32 = 0;
    /// Power off.
    pub const POWER_OFF: u32 = 0x4321_fedc;
}
