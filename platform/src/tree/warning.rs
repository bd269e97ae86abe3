//! Defects of a tree that can be used all the same.

use core::fmt;

use super::Name;

/// One defect and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The kind of defect, and how it was handled.
    pub what: Oddity,
    /// The node.
    pub node: Name,
    /// The address (or other number) in question.
    pub base: u64,
    /// The size in question, 0 where there is none.
    pub size: u64,
}

/// The kinds of defects, and the safe way in which each was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// A region wraps around, ends above the physical address space or does not fit its cells. Left out.
    BadRegion,
    /// A memory bank smaller than a page. Left out.
    TinyBank,
    /// More memory banks than there is room for. A small one is left out.
    TooManyBanks,
    /// A memory bank that ends above [`MEMORY_LIMIT`](super::MEMORY_LIMIT). What is above is left out.
    BankTooHigh,
    /// Two banks of memory overlap. The lower one keeps what both claim.
    OverlappingBanks,
    /// A NUMA node number that is too large. Taken as node 0.
    BadNode,
    /// A NUMA distance that is invalid. Left out.
    BadDistance,
    /// A reservation outside all memory. Left out.
    ReservedOutside,
    /// A reservation that may be lent, but overlaps another one or is not all memory. Reserved, not lent.
    NotLendable,
    /// Two reservations that were joined, with the memory between them, since there is no room for all.
    JoinedReservation,
    /// A reservation that is both no-map and reusable. Taken as no-map.
    NoMapReusable,
    /// A reservation to be placed whose size, alignment or ranges cannot be met. Left out.
    BadDynamic,
    /// The initrd is empty or not in memory. Left out.
    BadInitrd,
    /// A text that is longer than there is room for. Cut.
    TextCut,
    /// A text that is not UTF-8. Left out.
    BadText,
    /// A CPU without a usable, unique MPIDR. Left out.
    BadCpu,
    /// A CPU's release address is not aligned or not in memory. Left out; the CPU cannot be started.
    BadRelease,
    /// A PSCI node without a usable method. Left out.
    BadPsci,
    /// An interrupt that its controller cannot have. Left out.
    BadInterrupt,
    /// A device whose registers cannot be reached through the buses above it, or are memory. Left out.
    BadDevice,
    /// A `dma-ranges` from which no memory could be reached. Left out.
    BadDma,
    /// A path or alias that leads nowhere. Left out.
    NoSuchDevice,
    /// More things of a kind than there is room for. Left out.
    TooMany,
}

impl Oddity {
    fn words(self) -> &'static str {
        match self {
            Self::BadRegion => "impossible region, left out",
            Self::TinyBank => "memory smaller than a page, left out",
            Self::TooManyBanks => "no room for more banks of memory, this one left out",
            Self::BankTooHigh => "memory with frame numbers of more than 32 bits, left out from there on",
            Self::OverlappingBanks => "memory banks overlap, the lower one keeps what both claim",
            Self::BadNode => "NUMA node number too large, taken as 0",
            Self::BadDistance => "invalid NUMA distance, left out",
            Self::ReservedOutside => "reservation outside all memory, left out",
            Self::NotLendable => "reusable reservation overlaps another or is not all memory, reserved but not lent",
            Self::JoinedReservation => "too many reservations, this one was joined with others, including the gaps",
            Self::NoMapReusable => "both no-map and reusable, taken as no-map",
            Self::BadDynamic => "reservation that cannot be placed, left out",
            Self::BadInitrd => "initrd is empty or not in memory, left out",
            Self::TextCut => "text too long, cut",
            Self::BadText => "text is not UTF-8, left out",
            Self::BadCpu => "CPU without a usable, unique MPIDR, left out",
            Self::BadRelease => "release address not aligned or not in memory, this CPU cannot be started",
            Self::BadPsci => "PSCI without a usable method, left out",
            Self::BadInterrupt => "interrupt that the controller cannot have, left out",
            Self::BadDevice => "registers out of reach or in memory, device left out",
            Self::BadDma => "dma-ranges that reach no memory, left out",
            Self::NoSuchDevice => "path leads to no known device, left out",
            Self::TooMany => "no room for more of this kind, left out",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device tree: {}: {}", self.node, self.what.words())?;
        match (self.base, self.size) {
            (0, 0) => Ok(()),
            (base, 0) => write!(f, " ({base:#x})"),
            (base, size) => write!(f, " ({size:#x} bytes at {base:#x})"),
        }
    }
}
