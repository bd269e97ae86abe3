//! The calls by which the memory manager tells the hardware what it must know, each by its place in the source.
//!
//! A function that only passes such a call on says so by `#[cfg_attr(test, track_caller)]`: then the place is its
//! caller's.

use core::fmt;
use std::panic::Location;

use super::TlbEvent;

/// A place in the source from which the machine was called.
pub type CallSite = &'static Location<'static>;

/// A call at its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    /// Where.
    pub at: CallSite,
    /// What the machine was asked for.
    pub what: &'static str,
}

impl Call {
    /// The call that led to an event; none if it was no maintenance.
    pub fn of(event: TlbEvent, at: CallSite) -> Option<Self> {
        let what = match event {
            TlbEvent::PublishTables => "publish_tables",
            TlbEvent::SyncInstructions(_) => "sync_instructions",
            TlbEvent::Pages { .. } => "tlb_flush_pages",
            TlbEvent::Asid(_) => "tlb_flush_asid",
            TlbEvent::All => "tlb_flush_all",
            TlbEvent::Local => "tlb_flush_local",
            TlbEvent::Kernel { .. } => "tlb_flush_kernel",
            TlbEvent::NewContent(_) => return None,
        };
        Some(Self { at, what })
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}", self.what, self.at.file(), self.at.line())
    }
}
