//! Record layouts of Quire's own calls: the machine, its memory and CPUs, its processes, and the kernel's resource
//! counts. Detailed memory statistics are in [`statistics`](crate::statistics). The rules of [`layout`](crate::layout)
//! apply to these records too.

use crate::layout::pod;

pod!(ZoneInfo, RegionInfo, CpuInfo, ProcessInfo, MountInfo, NodeInfo, SystemInfo, Books, MapAudit);

/// The kinds of records of `QUIRE_INFO(kind, index, buf, len)`, which copies record number `index` of `kind` and
/// returns its size; ENOENT past the last record, EINVAL for an unknown kind or a `len` that is not the record's size.
pub mod kind {
    /// [`super::SystemInfo`], one record.
    pub const SYSTEM: usize = 0;
    /// [`super::ZoneInfo`], one per zone.
    pub const ZONE: usize = 1;
    /// [`super::RegionInfo`], one per region of the physical map, by address.
    pub const REGION: usize = 2;
    /// [`super::CpuInfo`], one per CPU.
    pub const CPU: usize = 3;
    /// [`super::ProcessInfo`], one per process. The index is a process number; the answer is the process with that
    /// number, or else with the next higher one.
    pub const PROCESS: usize = 4;
    /// [`PageTypeInfo`](crate::statistics::PageTypeInfo), one per zone and migrate type.
    pub const PAGE_TYPE: usize = 5;
    /// [`SlabCacheInfo`](crate::statistics::SlabCacheInfo), one per slab cache, and one for whole pages.
    pub const SLAB: usize = 6;
    /// [`VmallocInfo`](crate::statistics::VmallocInfo), one per area, by address.
    pub const VMALLOC: usize = 7;
    /// [`Counter`](crate::statistics::Counter), one per line of vmstat.
    pub const COUNTER: usize = 8;
    /// [`CmaInfo`](crate::statistics::CmaInfo), one per contiguous memory area.
    pub const CMA: usize = 9;
    /// [`AreaInfo`](crate::statistics::AreaInfo), one per part of an area, by address, of the process in the fifth
    /// argument; 0 is the caller. ESRCH if there is no such process, EPERM if the caller may not inspect it, unless the
    /// sixth argument is a handle of machine control with the right AUDIT.
    pub const AREA: usize = 10;
    /// [`super::MountInfo`], one per mount, the boot archive first.
    pub const MOUNT: usize = 11;
    /// [`ProcessDetail`](crate::process::ProcessDetail), one record: the process in the fifth argument. ESRCH if there
    /// is no such process; so for the following kinds.
    pub const DETAIL: usize = 12;
    /// [`ThreadInfo`](crate::process::ThreadInfo), one per thread of the process in the fifth argument. The index is a
    /// thread number; the answer is the thread with that number, or else with the next higher one.
    pub const THREAD: usize = 13;
    /// [`DescriptorInfo`](crate::process::DescriptorInfo), one per descriptor of the process in the fifth argument,
    /// found as for [`THREAD`]. EPERM if the caller may not inspect the process.
    pub const DESCRIPTOR: usize = 14;
    /// [`super::NodeInfo`], one per node.
    pub const NODE: usize = 15;
    /// [`GroupInfo`](crate::group::GroupInfo), one per control group. The index is a group number; the answer is the
    /// group with that number, or else with the next higher one.
    pub const GROUP: usize = 16;
    /// [`Pressure`](crate::pressure::Pressure) of the control group whose key is the index, 0 for the machine.
    pub const PRESSURE: usize = 17;
    /// [`TranslationInfo`](crate::translation::TranslationInfo), one record: the translation of the address in the
    /// index, in the process in the fifth argument; 0 is the caller. EPERM if the caller may not inspect the process,
    /// or for an address of the kernel's half, unless the sixth argument is a handle of machine control with the right
    /// AUDIT.
    pub const TRANSLATION: usize = 18;
    /// [`PageBlocks`](crate::statistics::PageBlocks): page blocks, starting with the one whose number is the index, of
    /// the zone whose [`ZONE`] record has the index in the fifth argument. ENOENT after the zone's last block.
    pub const PAGE_BLOCKS: usize = 19;
    /// [`ListsInfo`](crate::statistics::ListsInfo): reclaim's lists for the node in the index and the control group
    /// whose key is the fifth argument, 0 for pages of no group. ENOENT if the group is gone or the node has no memory.
    pub const LISTS: usize = 20;
    /// [`SwapInfo`](crate::statistics::SwapInfo), one record.
    pub const SWAP: usize = 21;
    /// [`BlockUse`](crate::statistics::BlockUse): what the frames of page blocks are used for, starting with the block
    /// whose number is the index, of the zone whose [`ZONE`] record has the index in the fifth argument. ENOENT after
    /// the zone's last block.
    pub const BLOCK_USE: usize = 22;
    /// [`BlockFrames`](crate::statistics::BlockFrames): every frame of the page block whose number is the index. ENOENT
    /// if there is no memory.
    pub const BLOCK_FRAMES: usize = 23;
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
    /// Pages that the buddy allocator manages.
    pub managed: u64,
    /// Free pages, per-CPU lists not included.
    pub free: u64,
    /// Watermarks.
    pub min: u64,
    /// Background reclaim starts below this.
    pub low: u64,
    /// Background reclaim stops at this.
    pub high: u64,
    /// Free blocks of each order.
    pub blocks: [u64; ORDERS],
}

/// Kinds of regions of the physical map.
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
    /// NUMA node for memory, otherwise `u32::MAX`.
    pub node: u32,
    /// Its name in the device tree, NUL-padded.
    pub name: [u8; 24],
}

/// Bits of `CpuInfo::features`: features of its MMU.
pub mod cpu_feature {
    /// The MMU sets the access flag of page table entries.
    pub const ACCESS_FLAG: u32 = 1;
    /// The MMU marks page table entries dirty on a write.
    pub const DIRTY_STATE: u32 = 2;
    /// The CPU can keep the kernel from accessing user memory (PAN).
    pub const PAN: u32 = 4;
    /// ASIDs have 16 bits.
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
    /// Nanoseconds spent in the kernel on behalf of threads.
    pub system_ns: u64,
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
    /// Of these, those in the kernel.
    pub system_ns: u64,
    /// When it started, in nanoseconds since power-on.
    pub started_ns: u64,
    /// Faults that were handled.
    pub faults: u64,
    /// Of these, those that brought a page back from swap.
    pub major_faults: u64,
    /// Pages in its page tables.
    pub tables: u64,
    /// Resident pages that belong to files or are shared.
    pub shared: u64,
    /// The key of its control group, 0 for the root.
    pub control_group: u64,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Session.
    pub sid: u32,
    /// [`flag`](crate::process::flag)
    pub flags: u32,
    /// Name, NUL-padded.
    pub name: [u8; 16],
}

/// One mount.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MountInfo {
    /// The device number of its files.
    pub device: u64,
    /// The path of the mount point, NUL-padded.
    pub path: [u8; 64],
    /// The type of the file system, NUL-padded.
    pub kind: [u8; 16],
    /// The mounted source, NUL-padded; empty if it has no name.
    pub source: [u8; 32],
    /// [`MountInfo::READ_ONLY`].
    pub flags: u64,
}

impl MountInfo {
    /// In [`MountInfo::flags`]: the mount is read-only.
    pub const READ_ONLY: u64 = 1;
}

impl Default for MountInfo {
    fn default() -> Self {
        Self { device: 0, path: [0; 64], kind: [0; 16], source: [0; 32], flags: 0 }
    }
}

/// The maximum number of nodes in a record.
pub const NODES: usize = 8;

/// A NUMA node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NodeInfo {
    /// The distance of each node's memory, in the units of the device tree: 10 is local.
    pub distances: [u8; NODES],
}

/// The machine as a whole; memory in pages.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SystemInfo {
    /// RAM that the device tree describes.
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
    /// The limit of the promises in mode 2 of `vm.overcommit_memory` (`CommitLimit`).
    pub commit_limit: u64,
    /// Threads created so far, including the first threads of processes.
    pub made: u64,
    /// Load averages over 1, 5 and 15 minutes, with 11 fractional bits.
    pub loads: [u64; 3],
    /// Threads that are running or runnable.
    pub running: u32,
    /// Threads.
    pub threads: u32,
    /// Processes.
    pub processes: u32,
    /// The last number that was given to a process or thread.
    pub last_pid: u32,
    /// CPUs online.
    pub cpus: u32,
    /// NUMA nodes.
    pub nodes: u32,
    /// "virt" or "rpi4" or the first `compatible` of the tree, NUL-padded.
    pub board: [u8; 32],
}

/// The kernel's resource counts, which must be the same before and after a program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Books {
    /// Free pages, per-CPU lists and empty slabs included.
    pub free_pages: u64,
    /// Live slab objects.
    pub slab_objects: u64,
    /// Pages in page tables of processes.
    pub page_tables: u64,
    /// Address-space identifiers in use.
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

/// The result of comparing the page tables of all processes with the reverse mapping of all user pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MapAudit {
    /// Table entries that map a page.
    pub entries: u64,
    /// Of these, those that their page's reverse mapping does not list exactly once.
    pub unlisted: u64,
    /// Pages that are anonymous or belong to an object.
    pub pages: u64,
    /// Of these, pages with references beyond those of the mappings in the reverse mapping and of their object.
    pub miscounted: u64,
}

const _: () = {
    assert!(size_of::<ZoneInfo>() == 16 + 8 * (8 + ORDERS));
    assert!(size_of::<RegionInfo>() == 48);
    assert!(size_of::<CpuInfo>() == 64);
    assert!(size_of::<ProcessInfo>() == 136);
    assert!(size_of::<MountInfo>() == 128);
    assert!(size_of::<NodeInfo>() == NODES);
    assert!(size_of::<SystemInfo>() == 176);
    assert!(size_of::<Books>() == 64);
    assert!(size_of::<MapAudit>() == 32);
};
