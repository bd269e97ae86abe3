//! Truncating files in memory, and holes in them: pages go for all spaces that map them.

use quire_abi::Errno;

use super::remove::remove_pages;
use super::reverse::for_each_private_part;
use crate::addr::PAGE_SIZE;
use crate::mm::Machine;
use crate::object::file::{KeptIn, MAX_LEN, Turn};

const PAGE: u64 = PAGE_SIZE as u64;

impl<M: Machine> Turn<'_, M> {
    /// Makes the file `len` bytes long; what is cut off is gone, also from the private copies of those who map it. It is
    /// completed even if the thread is killed, or fails before it has changed anything: if a page of which a part is cut off
    /// cannot be brought back from swap.
    pub fn set_len(&mut self, len: u64) -> Result<(), Errno> {
        if self.object().is_paged() {
            return self.set_len_of_paged(len);
        }
        let old = self.object().len();
        if len > old {
            return self.grow(len);
        }
        let cut = self.object().keep_cut(len)?;
        self.cut(old, len, &cut);
        Ok(())
    }

    /// A page that is cut is here before anything changes; then the pager is asked.
    #[cold]
    fn set_len_of_paged(&mut self, len: u64) -> Result<(), Errno> {
        self.commit()?;
        self.agree()?;
        let old = self.object().len();
        let cut = if len > old { None } else { Some(self.object().keep_cut(len)?) };
        if let Some(pager) = self.object().pager().filter(|_| len != old) {
            let done = pager.set_len(len);
            self.forget_len_if(done.err());
            done?;
        }
        match cut {
            None => self.grow(len),
            Some(cut) => {
                self.cut(old, len, &cut);
                Ok(())
            }
        }
    }

    /// Asks for the length of a paged file, if that is not known, and sets it.
    #[inline]
    pub fn agree(&mut self) -> Result<(), Errno> {
        match self.length_to_learn()? {
            Some(len) => self.agree_to(len),
            None => Ok(()),
        }
    }

    #[cold]
    fn agree_to(&mut self, len: u64) -> Result<(), Errno> {
        let len = len.min(MAX_LEN);
        let old = self.object().len();
        if len > old {
            // (Not zeros: what a killed call has added is kept.)
            self.fetch_tail(old)?;
            self.store_len(len);
        } else {
            let cut = self.object().keep_cut(len)?;
            self.cut(old, len, &cut);
        }
        self.note_len();
        Ok(())
    }

    /// Takes away what is behind `len`.
    #[inline]
    fn cut(&mut self, old: u64, len: u64, cut: &KeptIn<'_, M>) {
        self.store_len(len);
        let first = len.div_ceil(PAGE) as usize;
        // (Pages that fallocate made behind the end go as well.)
        let _ = remove_pages(self.object(), first, usize::MAX, false);
        if len < old && !seeded!(TruncateKeepsCopies) {
            for_each_private_part(self.object(), first, |mm, from, to| mm.zap_beside_faults(from, to));
        }
        if !seeded!(TruncateKeepsTail) {
            cut.clear();
        }
    }

    /// Makes a hole from `start` to `end`. The length stays. Paged files have no holes.
    pub fn punch(&mut self, start: u64, end: u64) -> Result<(), Errno> {
        if self.object().is_paged() {
            return Err(Errno::EOPNOTSUPP);
        }
        let (first, last) = (start.div_ceil(PAGE), end / PAGE);
        if first > last {
            return Ok(self.clear(start, end)?);
        }
        self.clear(start, first * PAGE)?;
        self.clear(last * PAGE, end)?;
        Ok(remove_pages(self.object(), first as usize, last as usize, true)?)
    }
}
