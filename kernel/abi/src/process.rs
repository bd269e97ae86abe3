//! Details of a process beyond [`ProcessInfo`](crate::info::ProcessInfo): the records of `QUIRE_INFO` behind the files
//! of `/proc/PID`, and the arguments of `QUIRE_PROCESS_TEXT` and `QUIRE_PROCESS_SET`. Memory is in pages, time in
//! nanoseconds.

use crate::layout::{Pod, Rlimit, rlimit};

/// The parts of a process's memory that exec has filled, for `QUIRE_PROCESS_TEXT(pid, which, offset, buf, len)`.
pub mod text {
    /// The arguments, each with its NUL. Any process may read those of any other. For process 0, the kernel's, without
    /// a NUL.
    pub const ARGUMENTS: usize = 0;
    /// The environment.
    pub const ENVIRONMENT: usize = 1;
    /// The auxiliary vector.
    pub const AUXILIARY: usize = 2;
}

/// What `QUIRE_PROCESS_SET(control, pid, what, value, privileged)` changes. It needs the right `PROCESSES`.
pub mod set {
    /// The name of the thread whose number is the process's; `value` is the address of 16 bytes, NUL-padded.
    pub const NAME: usize = 0;
    /// `oom_score_adj`, plus 1000. It may go below the minimum that a privileged caller has set only if `privileged` is
    /// not 0: EACCES otherwise.
    pub const OOM_SCORE_ADJ: usize = 1;
}

/// Bits of [`ProcessDetail::flags`].
pub mod flag {
    /// Other processes of its user may inspect it.
    pub const DUMPABLE: u32 = 1;
    /// `PR_SET_NO_NEW_PRIVS`.
    pub const NO_NEW_PRIVILEGES: u32 = 2;
    /// It has memory: it is neither a zombie nor about to become one.
    pub const MEMORY: u32 = 4;
    /// Its memory may have huge pages: no `PR_SET_THP_DISABLE`.
    pub const HUGE_PAGES: u32 = 8;
}

/// The kernel's limits.
pub mod limit {
    /// One more than the highest number of a process or thread.
    pub const NUMBERS: usize = 32768;
    /// Areas of an address space.
    pub const AREAS: usize = 65530;
    /// One more than the highest number of a descriptor.
    pub const DESCRIPTORS: usize = 1 << 20;
    /// Supplementary groups.
    pub const GROUPS: usize = 65536;
    /// Bytes in a pipe.
    pub const PIPE: usize = 65536;
    /// The lowest address of a mapping.
    pub const LOWEST: usize = 65536;
}

/// The maximum number of supplementary groups in a record.
pub const GROUPS: usize = 32;

/// The addresses of what exec has placed in a process's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MemoryLayout {
    /// Where the first executable segment begins and the last one ends.
    pub code: [u64; 2],
    /// The same of segments that are not executable.
    pub data: [u64; 2],
    /// The initial stack pointer.
    pub stack: u64,
    /// [`text::ARGUMENTS`]: from, to.
    pub arguments: [u64; 2],
    /// [`text::ENVIRONMENT`].
    pub environment: [u64; 2],
    /// [`text::AUXILIARY`].
    pub auxiliary: [u64; 2],
}

/// A process in detail.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ProcessDetail {
    /// Real, effective and saved user, and the user for access to files.
    pub users: [u32; 4],
    /// The same for the group.
    pub groups: [u32; 4],
    /// [`flag`].
    pub flags: u32,
    /// The umask: permissions that new files do not get.
    pub umask: u32,
    /// The adjustment for the OOM killer.
    pub oom_score_adj: i32,
    /// One more than the highest number that a descriptor may have without a larger table.
    pub descriptors: u32,
    /// The number of its supplementary groups.
    pub group_count: u32,
    /// 0.
    pub pad: u32,
    /// Signals pending for the process as a whole.
    pub pending: u64,
    /// Signals that it ignores.
    pub ignored: u64,
    /// Signals that it handles.
    pub caught: u64,
    /// Signals queued for its user's processes.
    pub queued: u64,
    /// Its limits.
    pub limits: [Rlimit; rlimit::COUNT],
    /// CPU time of children that were waited for, in user mode and in the kernel.
    pub children_ns: [u64; 2],
    /// Faults of these children: all, and those that brought a page back from swap.
    pub children_faults: [u64; 2],
    /// The highest number of mapped pages so far.
    pub peak: u64,
    /// The highest number of resident pages so far.
    pub resident_peak: u64,
    /// Mapped pages of writable private memory.
    pub data: u64,
    /// Mapped pages of stacks.
    pub stack: u64,
    /// Locked pages.
    pub locked: u64,
    /// Resident anonymous pages.
    pub anon: u64,
    /// Resident pages of files.
    pub file: u64,
    /// Resident shared pages that belong to no file.
    pub shared: u64,
    /// The first address of its heap, and the end.
    pub heap: [u64; 2],
    /// The addresses of what exec has placed.
    pub layout: MemoryLayout,
    /// The first of its supplementary groups.
    pub further: [u32; GROUPS],
}

impl Default for ProcessDetail {
    fn default() -> Self {
        Self {
            users: [0; 4],
            groups: [0; 4],
            flags: 0,
            umask: 0,
            oom_score_adj: 0,
            descriptors: 0,
            group_count: 0,
            pad: 0,
            pending: 0,
            ignored: 0,
            caught: 0,
            queued: 0,
            limits: [Rlimit::default(); rlimit::COUNT],
            children_ns: [0; 2],
            children_faults: [0; 2],
            peak: 0,
            resident_peak: 0,
            data: 0,
            stack: 0,
            locked: 0,
            anon: 0,
            file: 0,
            shared: 0,
            heap: [0; 2],
            layout: MemoryLayout::default(),
            further: [0; GROUPS],
        }
    }
}

/// A thread.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ThreadInfo {
    /// Its number.
    pub tid: u32,
    /// Its state, as for a process.
    pub state: u32,
    /// The CPU that it ran on last.
    pub cpu: u32,
    /// Its policy, by Linux's number; its nice value in the second byte, and its real-time priority in the third.
    pub class: u32,
    /// CPUs that it may run on, a bit each.
    pub affinity: u64,
    /// CPU time in user mode.
    pub user_ns: u64,
    /// CPU time in the kernel.
    pub system_ns: u64,
    /// Faults that were handled.
    pub faults: u64,
    /// Of these, those that brought a page back from swap.
    pub major_faults: u64,
    /// Signals pending for this thread.
    pub pending: u64,
    /// Signals that it blocks.
    pub blocked: u64,
    /// Its name, NUL-padded.
    pub name: [u8; 16],
}

/// Kinds of objects that descriptors refer to.
#[allow(missing_docs)]
pub mod object {
    pub const CONSOLE: u32 = 0;
    pub const PIPE: u32 = 1;
    pub const ARCHIVE: u32 = 2;
    pub const MEMORY: u32 = 3;
    pub const NAME: u32 = 4;
    pub const NULL: u32 = 5;
    pub const ZERO: u32 = 6;
    pub const EVENTFD: u32 = 7;
    pub const EPOLL: u32 = 8;
    pub const TIMERFD: u32 = 9;
    pub const SIGNALFD: u32 = 10;
    pub const PIDFD: u32 = 11;
    pub const SOCKET: u32 = 12;
}

/// A descriptor.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct DescriptorInfo {
    /// Its number.
    pub number: u32,
    /// [`object`].
    pub kind: u32,
    /// Status flags of its open file, and `O_CLOEXEC` if exec closes the descriptor.
    pub flags: u32,
    /// 1 if it allows reading, 2 if it allows writing.
    pub rights: u32,
    /// Where the next read begins.
    pub position: u64,
    /// Its inode number; 0 if it has none.
    pub inode: u64,
    /// The number of the file's mount; the boot archive's for an object without a file.
    pub mount: u32,
    /// The process number of a pidfd; 0 if the process was waited for.
    pub pid: u32,
}

macro_rules! pod {
    ($($t:ty = $size:expr;)*) => {
        $(
            // SAFETY: a `repr(C)` record of integers and such records; its size is that of its fields, so there is no
            // padding.
            unsafe impl Pod for $t {}
            const _: () = assert!(size_of::<$t>() == $size);
        )*
    };
}

pod! {
    MemoryLayout = 11 * 8;
    ProcessDetail = 14 * 4 + 4 * 8 + 16 * rlimit::COUNT + 4 * 8 + 8 * 8 + 2 * 8 + 11 * 8 + 4 * GROUPS;
    ThreadInfo = 4 * 4 + 7 * 8 + 16;
    DescriptorInfo = 4 * 4 + 3 * 8;
}
