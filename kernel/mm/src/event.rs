//! The events that vmstat counts.
//!
//! The machine keeps the counts ([`Machine::count`](crate::Machine::count)), a set for each CPU: counting is a load,
//! an addition and a store on a line that no other CPU writes.

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Something that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Event {
            $($(#[$doc])* $name,)*
        }

        impl Event {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// What vmstat calls it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

events! {
    /// A fault on user memory, whatever its result.
    Fault = "pgfault",
    /// A fault that brought new anonymous pages.
    FaultAnon = "pgfault_anon",
    /// A fault that mapped the zero page.
    FaultZero = "pgfault_zero",
    /// A fault that mapped pages of an object.
    FaultObject = "pgfault_object",
    /// A fault that copied a page.
    FaultCopy = "pgfault_copy",
    /// A fault that made a write-protected page writable without a copy.
    FaultReuse = "pgfault_reuse",
    /// A fault that set the access flag of an old entry.
    FaultYoung = "pgfault_young",
    /// A fault on an entry that already allows the access: another thread was faster, or a TLB entry was stale.
    FaultSpurious = "pgfault_spurious",
    /// A fault that ended in an error.
    FaultFailed = "pgfault_failed",
    /// Whole pages of 2 MiB that faults have brought.
    HugeFault = "thp_fault_alloc",
    /// A fault that wanted such a page, when there was none.
    HugeFallback = "thp_fault_fallback",
    /// Parts of 2 MiB of programs' memory that were collapsed: 512 pages, brought together, under one entry.
    HugeCollapse = "thp_collapse_alloc",
    /// Those for which there was no memory, or of which a page could not be moved.
    HugeCollapseFailed = "thp_collapse_alloc_failed",
    /// Whole pages of 2 MiB that were made of 512 pages.
    HugeWhole = "thp_join_page",
    /// Whole pages of 2 MiB that were taken apart.
    HugeApart = "thp_split_page",
    /// Whole pages of 2 MiB that were freed as a whole.
    HugeFree = "thp_free_page",
    /// Entries of 2 MiB that became tables.
    HugeSplit = "thp_split_pmd",
    /// Pages given to user memory.
    UserAlloc = "pguser_alloc",
    /// Pages that user memory returned.
    UserFree = "pguser_free",
    /// Pages of memory objects that were made.
    ObjectAlloc = "pgobject_alloc",
    /// Pages of memory objects that no longer belong to one.
    ObjectFree = "pgobject_free",
    /// Pages that were moved to another frame.
    PageMoved = "pgmigrate_success",
    /// Pages that could not be moved.
    PageStays = "pgmigrate_fail",
    /// Requests for which memory was compacted.
    CompactStall = "compact_stall",
    /// Requests that got a block in this way.
    CompactSuccess = "compact_success",
    /// Those that did not.
    CompactFail = "compact_fail",
    /// Frames that compaction has examined, in order to move pages out of them.
    CompactScanned = "compact_migrate_scanned",
    /// Frames that it has taken as destinations of pages.
    CompactFreeScanned = "compact_free_scanned",
    /// Pages that it wanted to move.
    CompactIsolated = "compact_isolated",
    /// Pages that went to swap.
    SwapOut = "pswpout",
    /// Pages that came back from swap.
    SwapIn = "pswpin",
    /// Pages that programs have marked as freeable (MADV_FREE).
    LazyFree = "pglazyfree",
    /// Of these, pages that were freed under pressure.
    LazyFreed = "pglazyfreed",
    /// Pages of paged files that were brought in.
    PagedIn = "pgpgin_pages",
    /// Pages of paged files that were dropped from memory.
    PagedOut = "pgdrop_pages",
    /// Pages of paged files that were written back.
    WrittenBack = "nr_written",
    /// Copies of pages of boot files that are not page-aligned. They stay.
    ArchiveCopy = "pgarchive_copy",
    /// Slab objects of the trees that index those copies.
    ArchiveNode = "archive_nodes",
    /// Rounds of direct reclaim.
    AllocStall = "allocstall",
    /// Pages of programs that were reclaimed by threads which waited for memory, or for room in their control group.
    StealDirect = "pgsteal_direct",
    /// Pages of programs that were reclaimed by kswapd.
    StealKswapd = "pgsteal_kswapd",
    /// How often kswapd has begun to balance a node.
    Background = "pageoutrun",
    /// Calls of shrinkers that had something to free.
    ShrinkerCall = "shrinker_calls",
    /// Pages that shrinkers gave back.
    ShrinkerPages = "shrinker_pages",
    /// Purges of lazily freed vmalloc areas.
    VmallocPurge = "vmalloc_purge",
    /// Invalidations page by page.
    TlbFlushRange = "tlb_flush_range",
    /// Pages that these invalidated.
    TlbFlushPage = "tlb_flush_page",
    /// Invalidations of one ASID.
    TlbFlushAsid = "tlb_flush_asid",
    /// Invalidations of everything, on all CPUs.
    TlbFlushAll = "tlb_flush_all",
    /// Invalidations of everything, on one CPU.
    TlbFlushLocal = "tlb_flush_local",
    /// Invalidations of ranges of the kernel's addresses.
    TlbFlushKernel = "tlb_flush_kernel",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places() {
        assert!(Event::ALL.iter().enumerate().all(|(place, &event)| event as usize == place));
    }
}
