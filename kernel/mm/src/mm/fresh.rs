//! Fresh anonymous pages on their way into a table.

use core::mem::MaybeUninit;
use core::ops::Deref;

use super::Mm;
use super::ahead::MAX_WINDOW;
use crate::addr::{Pfn, UserAddr};
use crate::fallible::{AllocError, KArc};
use crate::frame::Ahead;
use crate::mm::Machine;
use crate::rmap;
use crate::supply::Supply;
use crate::vma::Vma;

/// Up to [`MAX_WINDOW`] frames.
pub(super) struct Fresh {
    frames: [MaybeUninit<Pfn>; MAX_WINDOW],
    len: usize,
}

impl Fresh {
    /// None yet.
    #[inline]
    pub(super) fn new() -> Self {
        Self { frames: [const { MaybeUninit::uninit() }; MAX_WINDOW], len: 0 }
    }

    #[inline]
    fn push(&mut self, pfn: Pfn) {
        self.frames[self.len].write(pfn);
        self.len += 1;
    }
}

impl Deref for Fresh {
    type Target = [Pfn];

    #[inline]
    fn deref(&self) -> &[Pfn] {
        // SAFETY: `push` wrote the first `len`.
        unsafe { core::slice::from_raw_parts(self.frames.as_ptr().cast(), self.len) }
    }
}

impl<M: Machine> Mm<M> {
    /// Allocates zeroed pages of this space, for `addr` of `vma` and for the pages after it, as long as `wanted`
    /// returns true for the next one's number and memory is plentiful. Each has one reference, for its table entry. A
    /// page that is not used must go to [`rmap::Release::page`], since it may have been found by now.
    #[inline]
    pub(super) fn take_fresh(
        &self,
        pages: &mut Fresh,
        vma: &Vma<M>,
        addr: UserAddr,
        supply: &Supply<M>,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<(), AllocError> {
        pages.push(supply.user(true)?);
        if wanted(1) {
            let mut ahead = Ahead::new(self.machine, MAX_WINDOW - 1);
            while wanted(pages.len) {
                let Ok(pfn) = ahead.alloc() else { break };
                pages.push(pfn);
            }
        }
        let pgoff = vma.pgoff_of(addr);
        for (k, pfn) in pages.iter().enumerate() {
            rmap::make_anon(self.machine, *pfn, &self.anon_vma, pgoff + k);
            self.before_exec(vma, pfn.addr());
        }
        KArc::add_owners(&self.anon_vma, pages.len);
        Ok(())
    }
}
