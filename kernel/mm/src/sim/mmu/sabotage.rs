//! Ways in which what software asks of the MMU can be wrong, to see whether tests notice.

use crate::machine::Asid;
use crate::sim::TlbEvent;

/// What is left out, or done wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Invalidation by page is left out.
    NoPages,
    /// It stops one page early.
    PagesOneShort,
    /// It hits another ASID.
    PagesOfWrongAsid,
    /// It reaches only the CPU that asks.
    PagesOnlyHere,
    /// Invalidation by ASID is left out.
    NoAsid,
    /// It forgets pages, but not the way to last-level tables.
    AsidKeepsTables,
    /// It reaches only the CPU that asks.
    AsidOnlyHere,
    /// The local flush after a roll-over of ASIDs is left out.
    NoLocal,
    /// Stores to tables are never published.
    NoPublication,
    /// Instructions are never synchronised.
    NoInstructions,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::NoPages,
        Self::PagesOneShort,
        Self::PagesOfWrongAsid,
        Self::PagesOnlyHere,
        Self::NoAsid,
        Self::AsidKeepsTables,
        Self::AsidOnlyHere,
        Self::NoLocal,
        Self::NoPublication,
        Self::NoInstructions,
    ];

    /// What becomes of an event: nothing, or another one; and whether it stays on the CPU that asks.
    pub(super) fn spoil(self, event: TlbEvent) -> (Option<TlbEvent>, bool) {
        let spoilt = match (self, event) {
            (Self::NoPages, TlbEvent::Pages { .. })
            | (Self::NoAsid, TlbEvent::Asid(_))
            | (Self::NoLocal, TlbEvent::Local)
            | (Self::NoPublication, TlbEvent::PublishTables)
            | (Self::NoInstructions, TlbEvent::SyncInstructions(_)) => None,
            (Self::PagesOneShort, TlbEvent::Pages { asid, start, pages }) => {
                Some(TlbEvent::Pages { asid, start, pages: pages - 1 })
            }
            (Self::PagesOfWrongAsid, TlbEvent::Pages { asid, start, pages }) => {
                Some(TlbEvent::Pages { asid: Asid(asid.0 ^ 1), start, pages })
            }
            _ => Some(event),
        };
        let here = match event {
            TlbEvent::Pages { .. } => self == Self::PagesOnlyHere,
            TlbEvent::Asid(_) => self == Self::AsidOnlyHere,
            _ => false,
        };
        (spoilt, here)
    }
}
