//! Deliberate bugs: the oracle must detect each of them.
//!
//! `seeded!(Name)` in an `if` is false, and costs nothing, everywhere but in this crate's tests, where one of them may
//! be switched on for a thread. Wrong TLB maintenance has its own switch, in the simulated MMU
//! ([`crate::sim::mmu::Sabotage`]).

use std::cell::Cell;

/// The bugs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A page replaces another without break and invalidation.
    NoBreakBeforeMake,
    /// fork takes no reference to a page.
    ForkTakesNoReference,
    /// A page that was copied on a write keeps the reference of the entry.
    CopyKeepsReference,
    /// fork of a block takes no reference.
    BlockForkTakesNoReference,
    /// fork leaves the parent's block writable.
    BlockForkStaysWritable,
    /// A whole page that is taken apart forgets that others have it.
    ApartForgetsHolders,
    /// A block becomes a table without an invalidation.
    SplitForgetsFlush,
    /// A block is unmapped without an invalidation.
    BlockZapForgetsFlush,
    /// A write reuses a block that two spaces hold.
    BlockReuseWithTwoOwners,
    /// A table becomes a block entry while TLBs may have its pages, and the way to it.
    JoinForgetsFlush,
    /// A block entry in place of a table is not published.
    JoinForgetsPublication,
    /// A new block is not published.
    BlockFaultForgetsPublication,
    /// A charge may go beyond a group's limit.
    ChargeIgnoresLimit,
    /// A page that is freed stays charged to its group.
    FreeStaysCharged,
    /// A page that moves is charged to its group once more.
    MoveChargesTwice,
    /// A page that moves stays on a queue in which its new frame is not.
    MovedPageKeepsQueue,
    /// A slot that is freed stays charged.
    SlotStaysCharged,
    /// Pages of files stay charged.
    FilesStayCharged,
    /// Areas with different rights become one.
    MergesDifferentRights,
    /// mprotect skips the last page.
    ProtectForgetsLastPage,
    /// mremap leaves the old entries.
    MoveLeavesOldEntry,
    /// mremap gives the pages of an area a new pgoff.
    MoveForgetsPgoff,
    /// fork leaves the parent's entry writable.
    ForkForgetsWriteProtection,
    /// A write reuses a page that two spaces hold.
    ReuseWithTwoOwners,
    /// The zero page is freed like an ordinary page.
    ZeroPageIsFreed,
    /// brk keeps one page too many.
    BrkKeepsAPage,
    /// A stack grows up to its neighbour.
    GuardGapIgnored,
    /// An area that maps an object is not found through it once its range has changed.
    SplitLosesReverseMapping,
    /// A moved area is missing from the tree of areas that were moved.
    MoveLosesReverseMapping,
    /// A fault enters a page behind the end of a file that was cut meanwhile.
    FaultEntersBehindEnd,
    /// A file that becomes longer shows what a mapping stored behind its end.
    GrowthShowsStores,
    /// A page that a write fills in part shows what its frame held.
    ShortCopyShowsFrame,
    /// Private copies of what was cut off stay.
    TruncateKeepsCopies,
    /// What was cut off in the last page comes back with a longer file.
    TruncateKeepsTail,
    /// MADV_WIPEONFORK does nothing.
    WipeOnForkIgnored,
    /// MADV_DONTFORK does nothing.
    DontForkIgnored,
    /// MADV_DONTNEED skips the last page.
    AdviceForgetsLastPage,
    /// Unlocked pages stay counted as locked.
    LockedStaysCounted,
    /// A write to a private mapping of a file changes the file's page instead of a copy.
    PrivateWriteIsShared,
    /// munmap leaves a swap slot in use.
    UnmapLeaksSlot,
    /// A page that comes back from swap stays a user of its slot.
    SwapInLeaksSlot,
    /// fork does not copy entries of pages that are in swap.
    ForkForgetsSwap,
    /// fork takes a reference for an entry of a page that is being moved, which has none.
    ForkOfMigrationTakesReference,
    /// fork does not tell a page's mover that it has copied a migration entry.
    ForkHidesCopyFromMover,
    /// A page that is unmapped while it is being moved stays charged.
    UnmapForgetsMigration,
    /// Faults do not handle markers.
    MarkerBlocksFault,
    /// An entry is removed by a load and a store, not atomically.
    TakeIsNotAtomic,
    /// A change of an entry's attributes overwrites bits that hardware has set meanwhile.
    ChangeIsNotAtomic,
    /// fork does not clear DBM.
    ForkLeavesDbm,
    /// mprotect does not clear DBM.
    ProtectLeavesDbm,
    /// Write protection loses the dirty state.
    ProtectionForgetsDirty,
    /// MADV_COLD leaves old entries in TLBs as young ones.
    ColdForgetsFlush,
    /// The sweep of tables ignores non-present entries that were moved.
    LiveCountForgetsMove,
    /// Entries are invalidated without being published before.
    FlushForgetsPublication,
    /// A fault maps an executable page without synchronising instructions.
    FaultForgetsInstructions,
    /// A page of shared memory is mapped for execution without it.
    SharedPageForgetsInstructions,
    /// A page of a file is.
    FilePageForgetsInstructions,
    /// mprotect makes a page executable without synchronising instructions.
    ProtectForgetsInstructions,
    /// A fault does not publish the entry that it fills.
    FaultForgetsPublication,
    /// The root of a new space is not published.
    RootForgetsPublication,

    /// A page that moves loses its dirty state.
    MoveForgetsDirty,
    /// A page that moves is writable afterwards, whatever mprotect has said meanwhile.
    MoveIgnoresProtection,
    /// fork leaves the entries of a page that is being moved writable when it is back.
    ForkOfMigrationStaysWritable,
    /// A page that moves stays in TLBs at its old place.
    MoveForgetsFlush,
    /// The mover keeps its reference to the new page.
    MoveKeepsReference,
    /// Entries get the new page without a reference.
    MoveTakesNoReference,
    /// A page moves into an executable area without synchronising instructions.
    MoveForgetsInstructions,

    /// A page of an object that moves loses its dirty state.
    MovedPageIsClean,
    /// An object keeps the old frame of a page that has moved.
    MovedPageStaysInTree,
    /// A page of a file moves without synchronising instructions.
    MovedFileForgetsInstructions,

    /// A page of an object moves although somebody holds it.
    MovedPageIgnoresHolders,
    /// A page moves although somebody holds it.
    MoveIgnoresHolders,
    /// A look leaves entries that became old in TLBs as young ones.
    LookForgetsFlush,
    /// A page that goes to swap keeps its own use of the slot.
    SwapOutKeepsSlot,
    /// Entries of a page in swap are no users of its slot.
    SwapOutForgetsUser,
    /// A page that went to swap stays charged.
    SwapOutStaysCharged,

    /// A page that was brought in takes the place of whatever is there.
    PageInTrustsItsFirstLook,
    /// A store to a page that has to be written back leaves no mark.
    StoreIsNotMarked,
    /// mprotect lets hardware make entries writable whose stores must be noticed.
    ProtectForgetsNotice,
    /// A page that has moved comes back writable where stores must be noticed.
    MoveForgetsNotice,
    /// A page that has to be written back is taken out of memory.
    MarkedPageGoes,
    /// A write over a page that is not here, which ends early, loses the rest of the page.
    ShortCopyLosesRest,
    /// A page that was written back stays writable.
    WriteBackLeavesEntries,
    /// A page that was written back stays writable in TLBs.
    WriteBackForgetsFlush,
    /// A page that was written back is not marked again although a mapping was missed.
    WriteBackTrustsWalk,
    /// A page that could not be written back for now is not marked any more.
    FailedWriteBackForgets,

    /// An object's page goes to swap although somebody holds it.
    ObjectOutIgnoresHolders,
    /// An object's page goes to swap although it is locked into memory.
    ObjectOutIgnoresLocks,
    /// An object's page that was given up while it was stored keeps its slot.
    ObjectOutKeepsSlot,
    /// An object's page that was given up while it was stored is in the object again.
    ObjectOutTrustsItsFirstLook,
    /// A page that an object gives up in swap keeps its slot.
    RemoveLeaksSlot,
    /// The slot of such a page is given back twice.
    RemoveFreesSlotTwice,
    /// An object's page that goes to swap is not found again.
    ObjectOutLosesPage,
    /// An object's page that comes back from swap is clean.
    BringInIsClean,
    /// An object's page that comes back stays a user of its slot.
    BringInLeaksSlot,
    /// An object's page that comes back takes the place of whatever is there by now.
    BringInTrustsItsFirstLook,
    /// An object's page that could not be read stays a user of its slot.
    FailedBringInKeepsSlot,

    /// Threads that wait for a move do not learn that it is over.
    MoveTellsNobody,
    /// mremap relies on what it prepared before it excluded faults.
    MoveTrustsItsFirstLook,
    /// A fault that meets an entry with insufficient rights does not wait for the change in progress.
    FaultIgnoresChange,
    /// MAP_POPULATE and similar calls fail at a hole that is about to be filled.
    PopulateSeesHole,
    /// MADV_DONTNEED unlocks a table before it has invalidated the entries that it cleared.
    DropForgetsBreak,
    /// An invalidation reads the ASID before the entries are published.
    FlushReadsAsidFirst,
    /// A page that comes back from swap takes the place of whatever is there by now.
    SwapInTrustsItsFirstLook,
    /// MADV_REMOVE does not notice a fault that has the page and maps it afterwards.
    RemoveWalksOnce,

    /// A failed mmap does not return its promised memory.
    FailedMapKeepsPromise,
    /// munmap removes areas before it knows whether it can split.
    FailedUnmapCuts,
    /// mprotect changes the entries before it knows whether the area can be split.
    FailedProtectChangesEntries,
    /// A failed brk returns the old end, but stores the new one.
    FailedBrkMoves,
    /// mremap moves the pages before it has the new area.
    FailedMoveForgetsArea,
    /// A failed fork does not free the child's memory.
    FailedForkKeepsChild,
    /// A failed creation of an object returns its promised memory twice.
    FailedObjectGivesBackTwice,
    /// A failed copy does not drop its reference to the source.
    FailedCopyKeepsSource,
    /// A page that could not be read from swap stays a user of its slot.
    FailedSwapInKeepsSlot,
    /// An object that cannot index a page leaks it.
    FailedIndexLosesPage,
    /// A page that goes out is dropped though it was written since it was given up.
    OutDropsWrittenPage,
    /// A CPU may write to a page that was given up, and leave no trace.
    GiveUpForgetsFlush,
    /// A page in swap that is given up keeps its slot.
    GiveUpLeaksSlot,
}

impl Bug {
    /// Bugs that only show when an allocation fails.
    pub const BEHIND_FAILURES: [Self; 10] = [
        Self::FailedMapKeepsPromise,
        Self::FailedUnmapCuts,
        Self::FailedProtectChangesEntries,
        Self::FailedBrkMoves,
        Self::FailedMoveForgetsArea,
        Self::FailedForkKeepsChild,
        Self::FailedObjectGivesBackTwice,
        Self::FailedCopyKeepsSource,
        Self::FailedSwapInKeepsSlot,
        Self::FailedIndexLosesPage,
    ];

    /// Bugs that only show when several CPUs work on one space at once.
    pub const BESIDE_OTHERS: [Self; 9] = [
        Self::MoveTrustsItsFirstLook,
        Self::FaultIgnoresChange,
        Self::PopulateSeesHole,
        Self::DropForgetsBreak,
        Self::FlushReadsAsidFirst,
        Self::SwapInTrustsItsFirstLook,
        Self::MoveIgnoresHolders,
        Self::MoveTellsNobody,
        Self::ObjectOutIgnoresHolders,
    ];

    /// All others.
    pub const ALL: [Self; 72] = [
        Self::BlockForkTakesNoReference,
        Self::BlockForkStaysWritable,
        Self::ApartForgetsHolders,
        Self::SplitForgetsFlush,
        Self::BlockZapForgetsFlush,
        Self::BlockReuseWithTwoOwners,
        Self::JoinForgetsFlush,
        Self::JoinForgetsPublication,
        Self::BlockFaultForgetsPublication,
        Self::NoBreakBeforeMake,
        Self::ForkTakesNoReference,
        Self::CopyKeepsReference,
        Self::FilesStayCharged,
        Self::MergesDifferentRights,
        Self::ProtectForgetsLastPage,
        Self::MoveLeavesOldEntry,
        Self::MoveForgetsPgoff,
        Self::ForkForgetsWriteProtection,
        Self::ReuseWithTwoOwners,
        Self::ZeroPageIsFreed,
        Self::BrkKeepsAPage,
        Self::GuardGapIgnored,
        Self::SplitLosesReverseMapping,
        Self::MoveLosesReverseMapping,
        Self::WipeOnForkIgnored,
        Self::DontForkIgnored,
        Self::AdviceForgetsLastPage,
        Self::LockedStaysCounted,
        Self::PrivateWriteIsShared,
        Self::UnmapLeaksSlot,
        Self::SwapInLeaksSlot,
        Self::ForkForgetsSwap,
        Self::ForkOfMigrationTakesReference,
        Self::UnmapForgetsMigration,
        Self::MarkerBlocksFault,
        Self::TakeIsNotAtomic,
        Self::ChangeIsNotAtomic,
        Self::ForkLeavesDbm,
        Self::ProtectLeavesDbm,
        Self::ProtectionForgetsDirty,
        Self::ColdForgetsFlush,
        Self::LiveCountForgetsMove,
        Self::FlushForgetsPublication,
        Self::FaultForgetsInstructions,
        Self::SharedPageForgetsInstructions,
        Self::FilePageForgetsInstructions,
        Self::ProtectForgetsInstructions,
        Self::FaultForgetsPublication,
        Self::RootForgetsPublication,
        Self::MoveForgetsDirty,
        Self::MoveIgnoresProtection,
        Self::ForkOfMigrationStaysWritable,
        Self::MoveForgetsFlush,
        Self::MoveKeepsReference,
        Self::MoveTakesNoReference,
        Self::MoveForgetsInstructions,
        Self::MovedPageIsClean,
        Self::MovedPageStaysInTree,
        Self::MovedFileForgetsInstructions,
        Self::MovedPageIgnoresHolders,
        Self::LookForgetsFlush,
        Self::SwapOutKeepsSlot,
        Self::SwapOutForgetsUser,
        Self::SwapOutStaysCharged,
        Self::ObjectOutIgnoresLocks,
        Self::RemoveLeaksSlot,
        Self::RemoveFreesSlotTwice,
        Self::ObjectOutLosesPage,
        Self::BringInLeaksSlot,
        Self::OutDropsWrittenPage,
        Self::GiveUpForgetsFlush,
        Self::GiveUpLeaksSlot,
    ];
}

std::thread_local! {
    static ON: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Switches a bug on for this thread, or all off.
pub fn switch(bug: Option<Bug>) {
    ON.set(bug);
}

/// The bug that is on, for another thread that works for this one.
pub fn current() -> Option<Bug> {
    ON.get()
}

/// Whether the bug is on.
pub fn is_on(bug: Bug) -> bool {
    ON.get() == Some(bug)
}
