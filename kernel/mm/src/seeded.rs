//! Bugs on purpose: the oracle must notice each of them.
//!
//! `seeded!(Name)` in an `if` is false, and costs nothing, everywhere but in this crate's tests, where one of them may be
//! switched on for a thread. Wrong TLB maintenance has its own switch, in the simulated MMU ([`crate::sim::mmu::Sabotage`]).

use std::cell::Cell;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A page takes another's place without break and invalidation.
    NoBreakBeforeMake,
    /// fork takes no reference to a page.
    ForkTakesNoReference,
    /// A page that was copied on a write keeps the reference of the entry.
    CopyKeepsReference,
    /// Pages of files stay charged.
    FilesStayCharged,
    /// Areas with different rights become one.
    MergesDifferentRights,
    /// mprotect passes over the last page.
    ProtectForgetsLastPage,
    /// mremap leaves the old entries.
    MoveLeavesOldEntry,
    /// mremap gives the pages of an area a new home.
    MoveForgetsHome,
    /// fork leaves the parent's entry writable.
    ForkForgetsWriteProtection,
    /// A write reuses a page that two spaces hold.
    ReuseWithTwoOwners,
    /// The zero page is given back like a page of its own.
    ZeroPageIsFreed,
    /// brk keeps one page too many.
    BrkKeepsAPage,
    /// A stack grows up to its neighbour.
    GuardGapIgnored,
    /// An area that maps an object is not found through it once its range has changed.
    SplitLosesReverseMapping,
    /// The areas away from home do not know an area that was moved.
    MoveLosesReverseMapping,
    /// MADV_WIPEONFORK does nothing.
    WipeOnForkIgnored,
    /// MADV_DONTFORK does nothing.
    DontForkIgnored,
    /// MADV_DONTNEED passes over the last page.
    AdviceForgetsLastPage,
    /// Unlocked pages stay counted as locked.
    LockedStaysCounted,
    /// A private mapping of a file is written in place of a copy.
    PrivateWriteIsShared,
    /// munmap leaves a swap slot in use.
    UnmapLeaksSlot,
    /// A page that comes back from swap stays a user of its slot.
    SwapInLeaksSlot,
    /// fork does not copy entries of pages that are in swap.
    ForkForgetsSwap,
    /// fork takes a reference for an entry of a page that is being moved, which has none.
    ForkOfMigrationTakesReference,
    /// A page that is unmapped while it is being moved stays charged.
    UnmapForgetsMigration,
    /// Faults pass markers over.
    MarkerBlocksFault,
    /// An entry that is taken away is read first, and cleared then.
    TakeIsNotAtomic,
    /// Who changes an entry's attributes overwrites what hardware has set meanwhile.
    ChangeIsNotAtomic,
    /// fork leaves hardware the right to make an entry writable.
    ForkLeavesDbm,
    /// mprotect leaves it.
    ProtectLeavesDbm,
    /// What becomes write-protected is clean.
    ProtectionForgetsDirty,
    /// MADV_COLD leaves old entries in TLBs as young ones.
    ColdForgetsFlush,
    /// The limit of a table's sweep: entries that are not present do not keep it.
    LiveCountForgetsMove,
    /// What is invalidated was not published before.
    FlushForgetsPublication,
    /// A fault maps an executable page without synchronising instructions.
    FaultForgetsInstructions,
    /// mprotect makes a page executable without synchronising instructions.
    ProtectForgetsInstructions,
    /// A fault fills an entry, and does not publish it.
    FaultForgetsPublication,
    /// The root of a new space is not published.
    RootForgetsPublication,

    /// mremap moves what was there before it took the lock.
    MoveTrustsItsFirstLook,
    /// A fault that meets an entry with too few rights does not wait for whoever changes it.
    FaultIgnoresChange,
    /// MAP_POPULATE and its like believe in a hole that is about to be filled.
    PopulateSeesHole,
    /// MADV_DONTNEED unlocks a table before it has invalidated what it took from it.
    DropForgetsBreak,
    /// Whoever invalidates reads the ASID before the entries are published.
    FlushReadsAsidFirst,

    /// mmap that fails keeps its promise.
    FailedMapKeepsPromise,
    /// munmap cuts before it knows whether it can split.
    FailedUnmapCuts,
    /// mprotect changes the entries before it knows whether the area can be split.
    FailedProtectChangesEntries,
    /// brk answers the old end, but remembers the new one.
    FailedBrkMoves,
    /// mremap takes the pages along before it has the new area.
    FailedMoveForgetsArea,
    /// fork that fails leaves the child's memory.
    FailedForkKeepsChild,
    /// An object that could not be made gives its promise back twice.
    FailedObjectGivesBackTwice,
    /// A copy that could not be made keeps its source.
    FailedCopyKeepsSource,
    /// A page that could not be read from swap stays a user of its slot.
    FailedSwapInKeepsSlot,
    /// An object has no place for a page, and loses it.
    FailedIndexLosesPage,
}

impl Bug {
    /// Those that show only when an allocation fails.
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

    /// Those that show only when several CPUs do something to one space at once.
    pub const BESIDE_OTHERS: [Self; 5] = [
        Self::MoveTrustsItsFirstLook,
        Self::FaultIgnoresChange,
        Self::PopulateSeesHole,
        Self::DropForgetsBreak,
        Self::FlushReadsAsidFirst,
    ];

    /// All others.
    pub const ALL: [Self; 38] = [
        Self::NoBreakBeforeMake,
        Self::ForkTakesNoReference,
        Self::CopyKeepsReference,
        Self::FilesStayCharged,
        Self::MergesDifferentRights,
        Self::ProtectForgetsLastPage,
        Self::MoveLeavesOldEntry,
        Self::MoveForgetsHome,
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
        Self::ProtectForgetsInstructions,
        Self::FaultForgetsPublication,
        Self::RootForgetsPublication,
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
