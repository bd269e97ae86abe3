//! Addresses as types: physical, kernel-virtual and user addresses never mix.

use core::fmt;
use core::ops::Range;

pub use quire_abi::PAGE_SIZE;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = PAGE_SIZE.trailing_zeros();

/// One past the highest address that a process can have: 48-bit TTBR0.
pub const USER_END: usize = 1 << 48;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(usize);

        impl $name {
            /// The address with this value.
            #[inline(always)]
            pub const fn new(value: usize) -> Self {
                Self(value)
            }

            /// The plain number.
            #[inline(always)]
            pub const fn get(self) -> usize {
                self.0
            }

            /// The start of the page that contains this address.
            #[inline(always)]
            pub const fn page_floor(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }

            /// The start of the first page at or after this; `None` past the end of all addresses.
            #[inline(always)]
            pub const fn page_ceil(self) -> Option<Self> {
                match self.0.checked_add(PAGE_SIZE - 1) {
                    Some(v) => Some(Self(v & !(PAGE_SIZE - 1))),
                    None => None,
                }
            }

            /// Bytes into the page.
            #[inline(always)]
            pub const fn page_offset(self) -> usize {
                self.0 & (PAGE_SIZE - 1)
            }

            /// Whether this is a multiple of `align`, a power of two.
            #[inline(always)]
            pub const fn is_aligned(self, align: usize) -> bool {
                self.0 & (align - 1) == 0
            }

            /// This plus `bytes`; `None` on overflow.
            #[inline(always)]
            pub const fn checked_add(self, bytes: usize) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(v) => Some(Self(v)),
                    None => None,
                }
            }
        }

        impl core::ops::Add<usize> for $name {
            type Output = Self;
            #[inline(always)]
            fn add(self, bytes: usize) -> Self {
                Self(self.0 + bytes)
            }
        }

        impl core::ops::Sub<usize> for $name {
            type Output = Self;
            #[inline(always)]
            fn sub(self, bytes: usize) -> Self {
                Self(self.0 - bytes)
            }
        }

        impl core::ops::Sub for $name {
            type Output = usize;
            #[inline(always)]
            fn sub(self, other: Self) -> usize {
                self.0 - other.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A physical address.
    PhysAddr
}
address! {
    /// An address of the kernel's half (TTBR1).
    VirtAddr
}
address! {
    /// An address of a process (TTBR0): only a claim by the program until a copy routine has checked it.
    UserAddr
}

/// A page frame number: physical address / [`PAGE_SIZE`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Pfn(pub usize);

impl Pfn {
    /// The frame's first byte.
    #[inline(always)]
    pub const fn addr(self) -> PhysAddr {
        PhysAddr(self.0 << PAGE_SHIFT)
    }
}

impl PhysAddr {
    /// The frame that contains this address.
    #[inline(always)]
    pub const fn pfn(self) -> Pfn {
        Pfn(self.0 >> PAGE_SHIFT)
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {:#x}", self.0)
    }
}

/// A range of physical addresses, end excluded.
pub type PhysRange = Range<PhysAddr>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_round_both_ways() {
        let a = PhysAddr::new(0x1234);
        assert_eq!(a.page_floor().get(), 0x1000);
        assert_eq!(a.page_ceil().unwrap().get(), 0x2000);
        assert_eq!(a.page_offset(), 0x234);
        assert_eq!(a.pfn().addr().get(), 0x1000);
        assert!(UserAddr::new(usize::MAX - 5).page_ceil().is_none());
    }
}
