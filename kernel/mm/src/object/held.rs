//! The state of a page of an object, as a word of its tree ([`radix`](super::radix)).
//!
//! | word | the page is | the object has |
//! | --- | --- | --- |
//! | 0 | not there: it reads as zeros | nothing |
//! | a frame's number | in that frame | a reference to it |
//! | bit 63, a slot, its shadow | in swap | a use of the slot |
//! | bits 63 and 62, a frame's number | on its way from there to swap | nothing: whoever takes it there has it frozen |

use crate::addr::Pfn;
use crate::pte::Swapped;
use crate::swap::{SLOT_BITS, Slot};

const AWAY: u64 = 1 << 63;
const LEAVING: u64 = AWAY | 1 << 62;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// The page is in memory.
    Page(Pfn),
    /// It is in swap.
    Swapped(Swapped),
    /// The page is on its way to swap.
    Leaving(Pfn),
}

impl Held {
    /// The meaning of a word other than 0.
    pub fn of(word: u64) -> Self {
        match word {
            _ if word & AWAY == 0 => Self::Page(Pfn(word as usize)),
            _ if word & LEAVING == LEAVING => Self::Leaving(Pfn((word & !LEAVING) as usize)),
            _ => {
                let slot = Slot(word & ((1 << SLOT_BITS) - 1));
                Self::Swapped(Swapped { slot, shadow: (word >> SLOT_BITS) as u16 })
            }
        }
    }

    /// The frame of a word other than 0, if it stands for a page in memory.
    #[inline(always)]
    pub fn page(word: u64) -> Option<Pfn> {
        (word & AWAY == 0).then_some(Pfn(word as usize))
    }

    /// The word.
    pub const fn word(self) -> u64 {
        match self {
            Self::Page(pfn) => pfn.0 as u64,
            Self::Swapped(Swapped { slot, shadow }) => AWAY | (shadow as u64) << SLOT_BITS | slot.0,
            Self::Leaving(pfn) => LEAVING | pfn.0 as u64,
        }
    }
}

// Bit 62 and the bits above the shadow.
const _: () = assert!(SLOT_BITS + u16::BITS <= 62);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_what_it_stands_for() {
        for held in [
            Held::Page(Pfn(1)),
            Held::Page(Pfn(u32::MAX as usize)),
            Held::Swapped(Swapped { slot: Slot(0), shadow: 0 }),
            Held::Swapped(Swapped { slot: Slot((1 << SLOT_BITS) - 1), shadow: u16::MAX }),
            Held::Leaving(Pfn(u32::MAX as usize)),
        ] {
            assert!(held.word() != 0);
            assert_eq!(Held::of(held.word()), held);
            assert_eq!(Held::page(held.word()).map(Held::Page), Some(held).filter(|h| matches!(h, Held::Page(_))));
        }
    }
}
