//! Record layouts of the calls: Linux's for AArch64, then those of Quire's own calls.
//!
//! Every record is plain old data: `repr(C)`, no padding that could carry kernel memory out (explicit
//! `pad` fields instead), and every bit pattern valid.

/// Marks a record that may be copied between kernel and program byte by byte.
///
/// # Safety
/// The type is `repr(C)` or a primitive, has no padding bytes, and every bit pattern is a valid value.
pub unsafe trait Pod: Copy + 'static {}

macro_rules! pod {
    ($($t:ty),* $(,)?) => {
        // SAFETY: integers and the `repr(C)` records of this file, which are made of integers, arrays of
        // integers and other such records only; the size assertions below show the absence of padding.
        $(unsafe impl Pod for $t {})*
    };
}

pod!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);
pod!(Timespec, Timeval, Utsname, Sysinfo, Stat, Iovec, PollFd, Termios, Winsize, Sigaction, Rlimit, Rusage);
pod!(ZoneInfo, RegionInfo, CpuInfo, ProcessInfo, SystemInfo, Books, MapAudit);
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
#[derive(Clone, Copy, Debug, Default)]
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

/// File types and permission bits of `Stat::mode`.
#[allow(missing_docs)]
pub mod mode {
    pub const FMT: u32 = 0o170000;
    pub const FIFO: u32 = 0o010000;
    pub const CHR: u32 = 0o020000;
    pub const DIR: u32 = 0o040000;
    pub const REG: u32 = 0o100000;
    pub const LNK: u32 = 0o120000;
}

/// Types in a `getdents64` record. A record is: ino u64, off i64, reclen u16, type u8, name with NUL, padded
/// to 8 bytes.
#[allow(missing_docs)]
pub mod dtype {
    pub const UNKNOWN: u8 = 0;
    pub const FIFO: u8 = 1;
    pub const CHR: u8 = 2;
    pub const DIR: u8 = 4;
    pub const REG: u8 = 8;
    pub const LNK: u8 = 10;
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
    /// Descriptor; negative ones are passed over.
    pub fd: i32,
    /// What to wait for.
    pub events: u16,
    /// What there is.
    pub revents: u16,
}

/// Bits of `PollFd::events` and `revents`.
#[allow(missing_docs)]
pub mod poll {
    pub const IN: u16 = 1;
    pub const OUT: u16 = 4;
    pub const ERR: u16 = 8;
    pub const HUP: u16 = 16;
    pub const NVAL: u16 = 32;
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

/// What to do on a signal (the kernel's layout on AArch64).
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

/// Soft and hard limit of a resource; `u64::MAX` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Rlimit {
    pub cur: u64,
    pub max: u64,
}

/// Resources of `prlimit64`.
#[allow(missing_docs)]
pub mod rlimit {
    pub const DATA: usize = 2;
    pub const STACK: usize = 3;
    pub const NPROC: usize = 6;
    pub const NOFILE: usize = 7;
    pub const MEMLOCK: usize = 8;
    pub const AS: usize = 9;
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
    pub const EXECFN: u64 = 31;
    /// `dirfd` that means the working directory.
    pub const FDCWD: i32 = -100;
    /// Flag of `newfstatat`: do not follow the last symbolic link.
    pub const SYMLINK_NOFOLLOW: u32 = 0x100;
    /// Flag of `newfstatat`: an empty path means `dirfd` itself.
    pub const EMPTY_PATH: u32 = 0x1000;
}

/// What `QUIRE_INFO(kind, index, buf, len)` answers: it copies record number `index` of `kind` and returns its
/// size; ENOENT past the last record, EINVAL for an unknown kind or a `len` that is not the record's size.
pub mod info {
    /// [`super::SystemInfo`], one record.
    pub const SYSTEM: usize = 0;
    /// [`super::ZoneInfo`], one a zone.
    pub const ZONE: usize = 1;
    /// [`super::RegionInfo`], one a region of the physical map, by address.
    pub const REGION: usize = 2;
    /// [`super::CpuInfo`], one a CPU.
    pub const CPU: usize = 3;
    /// [`super::ProcessInfo`], one a process, by pid.
    pub const PROCESS: usize = 4;
    /// [`PageTypeInfo`](crate::statistics::PageTypeInfo), one a zone and migrate type.
    pub const PAGE_TYPE: usize = 5;
    /// [`SlabCacheInfo`](crate::statistics::SlabCacheInfo), one a slab cache, and one for whole pages.
    pub const SLAB: usize = 6;
    /// [`VmallocInfo`](crate::statistics::VmallocInfo), one an area, by address.
    pub const VMALLOC: usize = 7;
    /// [`Counter`](crate::statistics::Counter), one a line of vmstat.
    pub const COUNTER: usize = 8;
    /// [`CmaInfo`](crate::statistics::CmaInfo), one a contiguous memory area.
    pub const CMA: usize = 9;
    /// [`AreaInfo`](crate::statistics::AreaInfo), one a part of an area, by address, of the process that a fifth argument
    /// names: 0 for the caller. ESRCH if there is no such process.
    pub const AREA: usize = 10;
}

/// Orders 0 to 10 of the buddy allocator.
pub const ORDERS: usize = 11;

/// One zone of one node; counts are in pages.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ZoneInfo {
    /// Node number.
    pub node: u32,
    /// Pages that per-CPU lists hold.
    pub per_cpu: u32,
    /// "DMA", "DMA32", "NORMAL" or "MOVABLE", NUL-padded.
    pub name: [u8; 8],
    /// First page frame number.
    pub start_pfn: u64,
    /// Pages from first to last, holes included.
    pub spanned: u64,
    /// Pages that exist.
    pub present: u64,
    /// Pages that the buddy allocator was given.
    pub managed: u64,
    /// Free pages, per-CPU lists not included.
    pub free: u64,
    /// Watermarks.
    pub min: u64,
    /// Below this background reclaim starts.
    pub low: u64,
    /// At this it stops.
    pub high: u64,
    /// Free blocks of each order.
    pub blocks: [u64; ORDERS],
}

/// What a region of the physical map is.
#[allow(missing_docs)]
pub mod region {
    pub const MEMORY: u32 = 0;
    pub const RESERVED: u32 = 1;
    pub const NO_MAP: u32 = 2;
    pub const CMA: u32 = 3;
    pub const KERNEL: u32 = 4;
    pub const INITRD: u32 = 5;
    pub const DEVICE_TREE: u32 = 6;
    pub const MEM_MAP: u32 = 7;
    pub const BOOT: u32 = 8;
}

/// A region of the physical map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RegionInfo {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// [`region`].
    pub kind: u32,
    /// NUMA node, for memory; `u32::MAX` else.
    pub node: u32,
    /// The tree's name for it, NUL-padded.
    pub name: [u8; 24],
}

/// Bits of `CpuInfo::features`: what its MMU does.
pub mod cpu_feature {
    /// Sets the access flag of page table entries.
    pub const ACCESS_FLAG: u32 = 1;
    /// Makes them dirty on a write.
    pub const DIRTY_STATE: u32 = 2;
    /// Keeps the kernel from user memory (PAN).
    pub const PAN: u32 = 4;
    /// Has ASIDs of 16 bits.
    pub const ASID_16: u32 = 8;
}

/// One CPU.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CpuInfo {
    /// Affinity fields of MPIDR_EL1.
    pub mpidr: u64,
    /// MIDR_EL1.
    pub midr: u64,
    /// NUMA node.
    pub node: u32,
    /// 1 when running.
    pub online: u32,
    /// [`cpu_feature`]
    pub features: u32,
    /// 0.
    pub pad: u32,
    /// Nanoseconds spent idle.
    pub idle_ns: u64,
    /// Context switches.
    pub switches: u64,
    /// Timer interrupts taken.
    pub ticks: u64,
}

/// One process; memory in pages.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ProcessInfo {
    /// Process id.
    pub pid: u32,
    /// Parent's id.
    pub ppid: u32,
    /// Process group.
    pub pgid: u32,
    /// Threads.
    pub threads: u32,
    /// `R` running or ready, `S` asleep, `Z` zombie.
    pub state: u32,
    /// CPU that its first thread ran on last.
    pub cpu: u32,
    /// Mapped pages.
    pub vsize: u64,
    /// Resident pages.
    pub rss: u64,
    /// Nanoseconds of CPU time.
    pub cpu_ns: u64,
    /// Name, NUL-padded.
    pub name: [u8; 16],
}

/// The machine as a whole; memory in pages.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SystemInfo {
    /// RAM that the device tree shows.
    pub ram: u64,
    /// Given to the page allocator.
    pub managed: u64,
    /// Free now, per-CPU lists included.
    pub free: u64,
    /// In page tables, the kernel's not included.
    pub page_tables: u64,
    /// Held by the slab allocator.
    pub slab: u64,
    /// In kernel stacks.
    pub kernel_stacks: u64,
    /// The boot archive.
    pub archive: u64,
    /// Nanoseconds since power-on.
    pub uptime_ns: u64,
    /// Nanoseconds from power-on to the first user instruction.
    pub first_user_ns: u64,
    /// Promised to processes (`Committed_AS`).
    pub committed: u64,
    /// Promised at most in mode 2 of `vm.overcommit_memory` (`CommitLimit`).
    pub commit_limit: u64,
    /// CPUs online.
    pub cpus: u32,
    /// NUMA nodes.
    pub nodes: u32,
    /// "virt" or "rpi4" or the first `compatible` of the tree, NUL-padded.
    pub board: [u8; 32],
}

/// The kernel's books: all that must be what it was once a program is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Books {
    /// Free pages, per-CPU lists and empty slabs included.
    pub free_pages: u64,
    /// Live slab objects.
    pub slab_objects: u64,
    /// Pages in page tables of processes.
    pub page_tables: u64,
    /// Address-space identifiers that belong to an address space.
    pub address_spaces: u64,
    /// Processes.
    pub processes: u64,
    /// Threads.
    pub threads: u64,
    /// Open objects (files, pipes).
    pub objects: u64,
    /// Pages promised to processes.
    pub committed: u64,
}

/// What comparing the page tables of all processes with the reverse map of all user pages found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MapAudit {
    /// Table entries that stand for a page.
    pub entries: u64,
    /// Of these, those that their page's reverse map does not list once.
    pub unlisted: u64,
    /// Pages that are anonymous or an object's.
    pub pages: u64,
    /// Of these, those that are held by something else than the mappings that the reverse map lists, and their object.
    pub miscounted: u64,
}

const _: () = {
    assert!(size_of::<Stat>() == 128);
    assert!(size_of::<Utsname>() == 390);
    assert!(size_of::<Sysinfo>() == 112);
    assert!(size_of::<Termios>() == 36);
    assert!(size_of::<Rusage>() == 144);
    assert!(size_of::<ZoneInfo>() == 16 + 8 * (8 + ORDERS));
    assert!(size_of::<RegionInfo>() == 48);
    assert!(size_of::<CpuInfo>() == 56);
    assert!(size_of::<ProcessInfo>() == 64);
    assert!(size_of::<SystemInfo>() == 128);
    assert!(size_of::<Books>() == 64);
    assert!(size_of::<MapAudit>() == 32);
};
