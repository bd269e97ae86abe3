//! From a trap to the memory manager: an access to user memory that the tables do not allow (yet).

use quire_abi::Errno;
use quire_mm::UserAddr;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::event::Event;
use quire_mm::fallible::KArc;

pub use quire_mm::mm::Access;
use quire_mm::mm::FaultError as MmError;
use quire_mm::vma::VmFlags;

use super::{Mm, events};

/// Why a fault cannot be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// Nothing is mapped there.
    Unmapped,
    /// The mapping does not allow the access.
    Protection,
    /// Past the end of a mapped object.
    BeyondObject,
    /// The address is not aligned for the access.
    Misaligned,
    /// The memory itself failed.
    Hardware,
    /// No memory to resolve it.
    OutOfMemory,
}

impl FaultError {
    /// A short description.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unmapped => "nothing is mapped there",
            Self::Protection => "the mapping does not allow it",
            Self::BeyondObject => "past the end of the mapped file",
            Self::Misaligned => "misaligned access",
            Self::Hardware => "memory error",
            Self::OutOfMemory => "out of memory",
        }
    }
}

impl From<MmError> for FaultError {
    fn from(e: MmError) -> Self {
        match e {
            MmError::Unmapped => Self::Unmapped,
            MmError::Protection => Self::Protection,
            MmError::BeyondObject => Self::BeyondObject,
            MmError::OutOfMemory => Self::OutOfMemory,
        }
    }
}

/// Resolves a fault; the thread then repeats the access. If no page can be allocated, `relieve` may free memory, and
/// returns whether to try again.
#[inline]
pub fn handle(mm: &Mm, addr: UserAddr, access: Access, relieve: impl Fn() -> bool) -> Result<(), FaultError> {
    loop {
        match mm.fault(addr.get(), access) {
            Err(MmError::OutOfMemory) if relieve() => {}
            Err(e) => {
                events::count(Event::FaultFailed, 1);
                return Err(FaultError::from(e));
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// The identity of a futex word: a container and an offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutexKey {
    /// The address space, or the memory object or frame that holds the word.
    pub space: usize,
    /// The address in the space, or the offset in the object.
    pub offset: usize,
}

/// The key of a word. Private memory is identified by its address, shared memory by its place in the object, which is
/// the same for all processes that map it. EFAULT if nothing is mapped or nothing of it may be accessed, and for private
/// memory of no file that may not be written: as on Linux, since its words never change.
pub fn futex_key(mm: &KArc<Mm>, addr: UserAddr, private: bool) -> Result<FutexKey, Errno> {
    let own = FutexKey { space: KArc::as_ptr(mm).addr(), offset: addr.get() };
    if private {
        return Ok(own);
    }
    mm.area_from(addr, |area| match area.object {
        _ if area.start > addr || !area.flags.intersects(VmFlags::READ | VmFlags::WRITE) => None,
        Some((object, index)) if area.flags.contains(VmFlags::SHARED) => {
            Some(FutexKey { space: KArc::as_ptr(object).addr(), offset: index * PAGE_SIZE + (addr - area.start) })
        }
        None if !area.flags.intersects(VmFlags::WRITE | VmFlags::SHARED) => None,
        // PRIVATE and shared operations on the same word use different futexes, as on Linux.
        _ => Some(FutexKey { offset: own.offset | 1, ..own }),
    })
    .flatten()
    .ok_or(Errno::EFAULT)
}
