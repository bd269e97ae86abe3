//! A model of Linux's manual pages on plain maps: pages with rights and two words of content each.
//!
//! Independent of the code under test with one exception: where an outcome depends on the extent of an area (mremap,
//! the limit of a stack), the model is told (`area_end`), since merging is not visible otherwise.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use quire_abi::Errno;
use quire_abi::flags::{Map, Mremap, Msync, Prot, madv};

use crate::mm::{Access, FaultError};
use crate::vma::VmFlags;

/// Pages of a last-level table.
const TABLE: usize = 512;

pub(super) const GUARD: usize = 256;
/// RLIMIT_STACK, in pages.
pub(super) const STACK_LIMIT: usize = 400;

/// Where things are, in pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub min: usize,
    pub base: usize,
    pub top: usize,
}

/// The words of a file's pages.
pub(super) type File = Rc<Vec<u64>>;
type SharedPages = Rc<RefCell<BTreeMap<usize, u64>>>;

/// What is below a page that was never written.
#[derive(Clone)]
enum Base {
    Zero,
    Shared { pages: SharedPages, index: usize, count: usize },
    File { words: File, number: usize, index: usize },
}

impl Base {
    fn after(&self, n: usize) -> Self {
        let mut base = self.clone();
        match &mut base {
            Base::Zero => {}
            Base::Shared { index, .. } | Base::File { index, .. } => *index += n,
        }
        base
    }
}

#[derive(Clone)]
pub(super) struct Page {
    pub prot: Prot,
    shared: bool,
    grows: bool,
    dontfork: bool,
    wipe: bool,
    lock: Lock,
    may_write: bool,
    base: Base,
    value: Option<u64>,
    /// MADV_FREE: it may be zeros at any time, until it is written.
    given_up: bool,
}

/// How a page is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    No,
    Yes,
    OnFault,
}

impl Page {
    /// The word at the page's start, or why there is none.
    pub fn word(&self) -> Result<u64, FaultError> {
        match (&self.base, self.value) {
            (Base::Shared { index, count, .. }, _) if index >= count => Err(FaultError::BeyondObject),
            (Base::Shared { pages, index, .. }, _) => Ok(pages.borrow().get(index).copied().unwrap_or(0)),
            (Base::File { words, index, .. }, None) => words.get(*index).copied().ok_or(FaultError::BeyondObject),
            (Base::File { words, index, .. }, Some(_)) if *index >= words.len() => Err(FaultError::BeyondObject),
            (_, value) => Ok(value.unwrap_or(0)),
        }
    }

    /// Whether a page table may have nothing for it.
    pub fn may_be_absent(&self) -> bool {
        self.shared || self.value.is_none() || self.given_up
    }

    /// Whether there may be this word at the page's start.
    pub fn may_have(&self, word: u64) -> bool {
        self.word() == Ok(word) || self.given_up && word == 0
    }

    /// What was found of a page that is given up says what it is from now on: zeros, once they were seen.
    pub fn learn(&mut self, word: Option<u64>) {
        if self.given_up && word.is_none_or(|word| word == 0) {
            self.settle(None);
        }
    }

    pub fn is_given_up(&self) -> bool {
        self.given_up
    }

    fn settle(&mut self, value: Option<u64>) {
        self.value = value;
        self.given_up = false;
    }

    /// What its area says of it, as far as [`Page::FLAGS`].
    pub fn flags(&self) -> VmFlags {
        let mut flags = VmFlags::from_prot(self.prot);
        flags.set(VmFlags::SHARED, self.shared);
        flags.set(VmFlags::GROWSDOWN, self.grows);
        flags.set(VmFlags::DONTFORK, self.dontfork);
        flags.set(VmFlags::WIPEONFORK, self.wipe);
        flags.set(VmFlags::MAY_WRITE, self.may_write);
        flags.set(VmFlags::LOCKED, self.lock != Lock::No);
        flags.set(VmFlags::LOCKONFAULT, self.lock == Lock::OnFault);
        flags
    }

    pub const FLAGS: VmFlags = VmFlags::READ
        .union(VmFlags::WRITE)
        .union(VmFlags::EXEC)
        .union(VmFlags::SHARED)
        .union(VmFlags::GROWSDOWN)
        .union(VmFlags::DONTFORK)
        .union(VmFlags::WIPEONFORK)
        .union(VmFlags::MAY_WRITE)
        .union(VmFlags::ANY_LOCK);

    fn is_anon(&self) -> bool {
        matches!(self.base, Base::Zero)
    }

    /// Shared memory has nothing there any more.
    fn make_hole(&self) {
        if let Base::Shared { pages, index, .. } = &self.base {
            pages.borrow_mut().remove(index);
        }
    }

    /// Whether `self` and the page after it, `next`, could be one area.
    pub fn joins(&self, next: &Page) -> bool {
        let same = |a: &Page| (a.prot, a.shared, a.grows, a.dontfork, a.wipe, a.lock, a.may_write);
        let object = match (&self.base, &next.base) {
            (Base::Zero, Base::Zero) => true,
            (Base::Shared { pages: a, index: i, .. }, Base::Shared { pages: b, index: j, .. }) => {
                Rc::ptr_eq(a, b) && i + 1 == *j
            }
            (Base::File { number: a, index: i, .. }, Base::File { number: b, index: j, .. }) => a == b && i + 1 == *j,
            _ => false,
        };
        same(self) == same(next) && object
    }

    fn allows(&self, access: Access) -> bool {
        match access {
            Access::Read => self.prot.intersects(Prot::READ | Prot::WRITE | Prot::EXEC),
            Access::Write => self.prot.contains(Prot::WRITE),
            Access::Exec => self.prot.contains(Prot::EXEC),
        }
    }
}

/// A process's memory.
#[derive(Clone)]
pub(super) struct Model {
    window: Window,
    pub pages: BTreeMap<usize, Page>,
    brk_start: usize,
    pub brk: usize,
    /// mlockall(MCL_FUTURE).
    pub future: bool,
}

impl Model {
    pub fn new(window: Window, brk: usize) -> Self {
        Self { window, pages: BTreeMap::new(), brk_start: brk, brk, future: false }
    }

    fn is_free(&self, start: usize, len: usize) -> bool {
        self.pages.range(start..start + len).next().is_none()
    }

    /// Where the free range that `at` lies in ends, for a mapping that keeps away from stacks.
    fn free_end(&self, at: usize) -> usize {
        match self.pages.range(at..).next() {
            Some((page, p)) if p.grows => page.saturating_sub(GUARD),
            Some((page, _)) => *page,
            None => usize::MAX / 4096,
        }
    }

    fn find_gap(&self, len: usize) -> Result<usize, Errno> {
        let Window { min, base, top } = self.window;
        let mut starts: Vec<usize> =
            self.pages.keys().map(|page| page + 1).filter(|s| !self.pages.contains_key(s)).collect();
        starts.push(0);
        starts.sort_unstable();
        let fit = |low: usize, high: usize, start: &usize| {
            let (from, to) = ((*start).max(low), self.free_end(*start).min(high));
            (to >= from && to - from >= len).then_some((from, to))
        };
        let below = starts.iter().rev().find_map(|s| fit(min, base, s)).map(|(_, to)| to - len);
        let above = || starts.iter().find_map(|s| fit(base, top, s)).map(|(from, _)| from);
        below.or_else(above).ok_or(Errno::ENOMEM)
    }

    /// The highest aligned place for whole tables in the highest gap below the base that has one for sure.
    fn find_aligned(&self, len: usize) -> Option<usize> {
        let Window { min, base, .. } = self.window;
        let all = len + TABLE - 1;
        let starts = self.pages.keys().map(|page| page + 1).chain([0]).filter(|s| !self.pages.contains_key(s));
        let mut starts: Vec<usize> = starts.collect();
        starts.sort_unstable();
        starts.iter().rev().find_map(|start| {
            let (from, to) = ((*start).max(min), self.free_end(*start).min(base));
            (to >= from && to - from >= all).then(|| (to - len) / TABLE * TABLE)
        })
    }

    fn find_place(&self, hint: usize, len: usize) -> Result<usize, Errno> {
        let hint = if hint == 0 { 0 } else { hint.max(self.window.min) };
        if hint != 0 && self.is_free(hint, len) && hint + len <= self.free_end(hint) {
            return Ok(hint);
        }
        self.find_gap(len)
    }

    /// This, with what `other` says of the pages `at..at + len`.
    pub fn with_prefix_of(&self, other: &Self, at: usize, len: usize) -> Self {
        let mut state = self.clone();
        state.unmap(at, len);
        state.pages.extend(other.pages.range(at..at + len).map(|(number, page)| (*number, page.clone())));
        state
    }

    /// mmap; `file` is its number, words and index.
    pub fn map(
        &mut self,
        hint: usize,
        len: usize,
        prot: Prot,
        flags: Map,
        file: Option<(usize, File, usize)>,
    ) -> Result<usize, Errno> {
        let shared = flags.contains(Map::SHARED);
        let grows = flags.contains(Map::GROWSDOWN);
        if grows && (shared || file.is_some()) {
            return Err(Errno::EINVAL);
        }
        if shared && file.is_some() && prot.contains(Prot::WRITE) {
            return Err(Errno::EACCES);
        }
        let at = if flags.intersects(Map::FIXED | Map::FIXED_NOREPLACE) {
            if flags.contains(Map::FIXED_NOREPLACE) && !self.is_free(hint, len) {
                return Err(Errno::EEXIST);
            }
            hint
        } else if let Some(at) = (hint == 0 && !shared && file.is_none() && len.is_multiple_of(TABLE))
            .then(|| self.find_aligned(len))
            .flatten()
        {
            at
        } else {
            self.find_place(hint, len)?
        };
        let lock = if flags.contains(Map::LOCKED) || self.future { Lock::Yes } else { Lock::No };
        let may_write = !(shared && file.is_some());
        let base = match file {
            Some((number, words, index)) => Base::File { words, number, index },
            None if shared => Base::Shared { pages: SharedPages::default(), index: 0, count: len },
            None => Base::Zero,
        };
        for n in 0..len {
            let base = base.after(n);
            let (dontfork, wipe, value, given_up) = (false, false, None, false);
            let page = Page { prot, shared, grows, dontfork, wipe, lock, may_write, base, value, given_up };
            self.pages.insert(at + n, page);
        }
        Ok(at)
    }

    pub fn unmap(&mut self, start: usize, len: usize) {
        for page in start..start + len {
            self.pages.remove(&page);
        }
    }

    pub fn protect(&mut self, start: usize, len: usize, prot: Prot) -> Result<(), Errno> {
        for page in start..start + len {
            let page = self.pages.get_mut(&page).ok_or(Errno::ENOMEM)?;
            if prot.contains(Prot::WRITE) && !page.may_write {
                return Err(Errno::EACCES);
            }
            page.prot = prot;
        }
        Ok(())
    }

    /// brk to a page boundary.
    pub fn brk(&mut self, new: usize) -> usize {
        if new < self.brk_start {
            return self.brk;
        }
        if new > self.brk {
            if !self.is_free(self.brk, new + 1 - self.brk) || new > self.free_end(self.brk) {
                return self.brk;
            }
            let prot = Prot::READ | Prot::WRITE;
            for page in self.brk..new {
                let base = Base::Zero;
                let page_of = Page {
                    prot,
                    shared: false,
                    grows: false,
                    dontfork: false,
                    wipe: false,
                    lock: if self.future { Lock::Yes } else { Lock::No },
                    may_write: true,
                    base,
                    value: None,
                    given_up: false,
                };
                self.pages.insert(page, page_of);
            }
        } else {
            self.unmap(new, self.brk - new);
        }
        self.brk = new;
        new
    }

    pub fn advise(&mut self, start: usize, len: usize, advice: i32) -> Result<(), Errno> {
        let mut hole = false;
        for at in start..start + len {
            let Some(page) = self.pages.get_mut(&at) else {
                if matches!(advice, madv::POPULATE_READ | madv::POPULATE_WRITE) {
                    return Err(Errno::ENOMEM);
                }
                hole = true;
                continue;
            };
            match advice {
                madv::DONTNEED | madv::FREE | madv::COLD | madv::PAGEOUT if page.lock != Lock::No => {
                    return Err(Errno::EINVAL);
                }
                madv::DONTNEED | madv::DONTNEED_LOCKED => page.settle(None),
                madv::REMOVE if page.lock != Lock::No || page.is_anon() => return Err(Errno::EINVAL),
                madv::REMOVE if !page.shared || !page.may_write => return Err(Errno::EACCES),
                madv::REMOVE => page.make_hole(),
                madv::FREE if !page.is_anon() => return Err(Errno::EINVAL),
                madv::FREE => page.given_up = page.value.is_some(),
                madv::DONTFORK => page.dontfork = true,
                madv::DOFORK => page.dontfork = false,
                madv::WIPEONFORK if !page.is_anon() => return Err(Errno::EINVAL),
                madv::WIPEONFORK => page.wipe = true,
                madv::KEEPONFORK => page.wipe = false,
                madv::POPULATE_READ | madv::POPULATE_WRITE => {
                    let write = advice == madv::POPULATE_WRITE;
                    if !page.prot.contains(if write { Prot::WRITE } else { Prot::READ }) {
                        return Err(Errno::EINVAL);
                    }
                    let word = page.word().map_err(|_| Errno::EFAULT)?;
                    if write && !page.shared {
                        page.settle(Some(word));
                    }
                }
                _ => {}
            }
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// mremap; `area_end` returns where the area of a page ends.
    pub fn remap(
        &mut self,
        at: usize,
        mut old: usize,
        new: usize,
        flags: Mremap,
        target: usize,
        area: impl FnOnce() -> (usize, usize),
    ) -> Result<usize, Errno> {
        let keep = flags.contains(Mremap::DONTUNMAP);
        let may_move = flags.contains(Mremap::MAYMOVE);
        let fixed = flags.contains(Mremap::FIXED);
        if fixed && !may_move || keep && (!may_move || old != new) || new == 0 {
            return Err(Errno::EINVAL);
        }
        let page = self.pages.get(&at).ok_or(Errno::EFAULT)?.clone();
        // The area as it was before anything below cuts it.
        let (mut start, mut end) = area();
        if (fixed || keep) && target < at + old && at < target + new {
            return Err(Errno::EINVAL);
        }
        if fixed {
            self.unmap(target, new);
            if (at..end).contains(&target) {
                end = target;
            }
            if (start..at).contains(&(target + new - 1)) {
                start = target + new;
            }
        }
        if old > new {
            self.unmap(at + new, old - new);
            old = new;
            end = end.min(at + new);
        }
        if !fixed && !keep && old == new {
            return Ok(at);
        }
        if !self.pages.contains_key(&at) {
            return Err(Errno::EFAULT);
        }
        if old == 0 && !page.shared {
            return Err(Errno::EINVAL);
        }
        if old > end - at {
            return Err(Errno::EFAULT);
        }
        if !fixed && !keep && at + old == end && self.is_free(end, new - old) && at + new <= self.free_end(end) {
            for n in old..new {
                self.pages
                    .insert(at + n, Page { base: page.base.after(n), value: None, given_up: false, ..page.clone() });
            }
            return Ok(at);
        }
        if !may_move {
            return Err(Errno::ENOMEM);
        }
        let to = if fixed { target } else { self.find_place(if keep { target } else { 0 }, new)? };
        let mut moved = Vec::new();
        for n in 0..new {
            let base = page.base.after(n);
            let there = if n < old { self.pages.get_mut(&(at + n)) } else { None };
            let there =
                there.filter(|_| !page.shared).map(|there| (there.value.take(), core::mem::take(&mut there.given_up)));
            let (value, given_up) = there.unwrap_or((None, false));
            moved.push(Page { base, value, given_up, ..page.clone() });
        }
        if !keep {
            self.unmap(at, old);
        } else if (start, end) == (at, at + old) {
            // Of a whole area only the new place stays locked.
            self.pages.range_mut(at..at + old).for_each(|(_, page)| page.lock = Lock::No);
        }
        for (n, page) in moved.into_iter().enumerate() {
            self.pages.insert(to + n, page);
        }
        Ok(to)
    }

    /// mlock, mlock2 with MLOCK_ONFAULT, and munlock.
    pub fn lock(&mut self, start: usize, len: usize, lock: Lock) -> Result<(), Errno> {
        for page in start..start + len {
            self.pages.get_mut(&page).ok_or(Errno::ENOMEM)?.lock = lock;
        }
        if lock == Lock::Yes {
            for (_, page) in self.pages.range(start..start + len) {
                if !page.allows(Access::Read) || page.word().is_err() {
                    return Err(Errno::ENOMEM);
                }
            }
        }
        Ok(())
    }

    /// mlockall, and munlockall with neither.
    pub fn lock_all(&mut self, current: bool, future: bool) {
        self.future = future;
        if current || !future {
            let lock = if current { Lock::Yes } else { Lock::No };
            self.pages.values_mut().for_each(|page| page.lock = lock);
        }
    }

    /// msync: nothing is ever written back; what it says of the range.
    pub fn sync(&self, start: usize, len: usize, flags: Msync) -> Result<(), Errno> {
        if flags.contains(Msync::ASYNC | Msync::SYNC) {
            return Err(Errno::EINVAL);
        }
        let mut locks = self.pages.range(start..start + len).map(|(_, page)| page.lock);
        if flags.contains(Msync::INVALIDATE) && locks.any(|lock| lock != Lock::No) {
            return Err(Errno::EBUSY);
        }
        self.in_core(start, len)
    }

    /// mincore: whether it can be said.
    pub fn in_core(&self, start: usize, len: usize) -> Result<(), Errno> {
        if self.pages.range(start..start + len).count() == len { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    pub fn fork(&self) -> Self {
        let mut child = self.clone();
        child.future = false;
        child.pages.retain(|_, page| !page.dontfork);
        child.pages.values_mut().for_each(|page| page.lock = Lock::No);
        for page in child.pages.values_mut().filter(|page| page.wipe) {
            page.settle(None);
        }
        child
    }

    /// An access: the word there before it, or the signal.
    pub fn touch(
        &mut self,
        at: usize,
        access: Access,
        value: u64,
        area_end: impl FnOnce(usize) -> usize,
    ) -> Result<u64, FaultError> {
        if !self.pages.contains_key(&at) {
            self.grow_stack(at, area_end)?;
        }
        let page = self.pages.get_mut(&at).ok_or(FaultError::Unmapped)?;
        if !page.allows(access) {
            return Err(FaultError::Protection);
        }
        let word = page.word()?;
        if access == Access::Write {
            match &page.base {
                Base::Shared { pages, index, .. } => {
                    pages.borrow_mut().insert(*index, value);
                }
                _ => page.settle(Some(value)),
            }
        }
        Ok(word)
    }

    fn grow_stack(&mut self, at: usize, area_end: impl FnOnce(usize) -> usize) -> Result<(), FaultError> {
        let (top, stack) = self.pages.range(at..).next().ok_or(FaultError::Unmapped)?;
        let (top, stack) = (*top, stack.clone());
        let below = self.pages.range(..at).next_back();
        let near = below.is_some_and(|(page, p)| page + 1 + GUARD > at && !p.grows && p.allows(Access::Read));
        if !stack.grows || near || at < self.window.min || area_end(top) - at > STACK_LIMIT {
            return Err(FaultError::Unmapped);
        }
        for page in at..top {
            self.pages.insert(page, Page { value: None, given_up: false, ..stack.clone() });
        }
        Ok(())
    }
}
