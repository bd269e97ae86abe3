//! Reports to the kernel about misused objects.

use core::fmt;

use crate::page_alloc::Machine;

/// The kind of misuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It was freed while it was free.
    DoubleFree,
    /// It was written to while it was free.
    UseAfterFree,
    /// Somebody wrote before its start or past its end.
    Overrun,
    /// The link of a free object leads out of its slab: it was written to after it was freed, or the object before
    /// it was overrun.
    FreeListCorrupted,
    /// It was freed to another cache than its own.
    WrongCache,
    /// It is from no cache and no large allocation, or from one that was freed before.
    Foreign,
    /// The pointer is not at the start of an object.
    NotAnObject,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::DoubleFree => "double free",
            Fault::UseAfterFree => "use after free",
            Fault::Overrun => "overrun",
            Fault::FreeListCorrupted => "free list corrupted",
            Fault::WrongCache => "freed to the wrong cache",
            Fault::Foreign => "freed, but never allocated",
            Fault::NotAnObject => "not the start of an object",
        })
    }
}

/// Enough to get beyond the allocator's own frames.
const CALLERS: usize = 7;

/// The origin of an operation on an object: call sites and CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Track {
    /// Return addresses, innermost first; 0 where there are no more. The first ones are the allocator's own.
    pub callers: [usize; CALLERS],
    /// The CPU's number.
    pub cpu: usize,
}

impl Track {
    /// The current call sites.
    pub(super) fn here<M: Machine>(machine: M) -> Track {
        let mut track = Track { callers: [0; CALLERS], cpu: machine.cpu() };
        machine.backtrace(&mut track.callers);
        track
    }
}

impl fmt::Display for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {}", self.cpu)?;
        self.callers.iter().filter(|&&caller| caller != 0).try_for_each(|caller| write!(f, " {caller:#x}"))
    }
}

/// A fault found. The object is left alone: it is leaked rather than handed out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kind of fault.
    pub fault: Fault,
    /// The cache's name; empty if there is none.
    pub cache: &'static str,
    /// The object's address.
    pub object: usize,
    /// The first wrong byte, counted from the object's start, of a use after free or an overrun.
    pub offset: isize,
    /// Where it was found, for example the second free of a double free.
    pub found: Track,
    /// The last allocation of the object, if recorded.
    pub allocated: Option<Track>,
    /// The last free of the object, if recorded.
    pub freed: Option<Track>,
}

impl Report {
    /// A report without recorded call sites.
    pub(super) fn new<M: Machine>(machine: M, fault: Fault, cache: &'static str, object: usize) -> Report {
        Report { fault, cache, object, offset: 0, found: Track::here(machine), allocated: None, freed: None }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slab: {}: object {:#x}", self.fault, self.object)?;
        if !self.cache.is_empty() {
            write!(f, " of {}", self.cache)?;
        }
        if matches!(self.fault, Fault::UseAfterFree | Fault::Overrun) {
            write!(f, ", byte {}", self.offset)?;
        }
        write!(f, "; found by {}", self.found)?;
        if let Some(track) = self.allocated {
            write!(f, "; allocated by {track}")?;
        }
        if let Some(track) = self.freed {
            write!(f, "; freed by {track}")?;
        }
        Ok(())
    }
}
