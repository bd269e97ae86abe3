//! Wrong TLB maintenance, to check that tests detect it.

use crate::machine::Asid;
use crate::sim::{Call, TlbEvent};

/// The operation that is omitted or done wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Invalidation by page is left out.
    NoPages,
    /// It stops one page early.
    PagesOneShort,
    /// It is applied to another ASID.
    PagesOfWrongAsid,
    /// It only affects the calling CPU.
    PagesOnlyHere,
    /// Invalidation by ASID is left out.
    NoAsid,
    /// It invalidates pages, but not entries that point to last-level tables.
    AsidKeepsTables,
    /// It only affects the calling CPU.
    AsidOnlyHere,
    /// The local flush after a roll-over of ASIDs is left out.
    NoLocal,
    /// Stores to tables are never published.
    NoPublication,
    /// Instructions are never synchronised.
    NoInstructions,
    /// One call is left out.
    Without(Call),
}

impl Sabotage {
    /// All kinds: what is left out is left out everywhere.
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

    /// The event that takes effect instead of what `call` asked for, if any, and whether it stays on the calling CPU.
    pub(super) fn spoil(self, event: TlbEvent, call: Option<Call>) -> (Option<TlbEvent>, bool) {
        let spoilt = match (self, event) {
            (Self::Without(left_out), _) if call == Some(left_out) => None,
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
