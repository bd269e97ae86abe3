//! madvise.

use quire_abi::Errno;
use quire_abi::flags::madv;

use super::fault::FaultError;
use super::residence::Populate;
use super::{Intent, Mm};
use crate::addr::{PAGE_SIZE, UserAddr};
use crate::mm::Machine;
use crate::supply::{Supply, supplied};
use crate::table::flush::flush_range;
use crate::vma::VmFlags;

/// The effect of an advice on each area.
enum Advice {
    /// No effect: there is no core dump to exclude memory from.
    Hint,
    /// Pages become old, so that reclaim takes them first. Refused for locked memory.
    Cold,
    /// Private anonymous pages of this process alone go to swap, others become old. Refused for locked memory.
    PageOut,
    /// Changes flags.
    Flags { set: VmFlags, clear: VmFlags },
    /// Pages are dropped, locked ones too if `even_locked`.
    Drop { even_locked: bool },
    /// Pages may be dropped until they are written again: only private anonymous ones. Refused for locked memory.
    GiveUp,
    /// Pages that are not in memory are brought in.
    Need,
    /// Pages are brought in.
    Populate(Populate),
    /// Pages go from the object, and so for all who map it.
    Remove,
    /// Memory comes to be mapped by blocks.
    Collapse,
}

/// `None` for an unsupported advice: EINVAL.
fn advice(value: i32) -> Option<Advice> {
    let order = VmFlags::SEQUENTIAL | VmFlags::RANDOM;
    let huge = VmFlags::HUGEPAGE | VmFlags::NOHUGEPAGE;
    let none = VmFlags::empty();
    Some(match value {
        madv::NORMAL => Advice::Flags { set: none, clear: order },
        madv::RANDOM => Advice::Flags { set: VmFlags::RANDOM, clear: order },
        madv::SEQUENTIAL => Advice::Flags { set: VmFlags::SEQUENTIAL, clear: order },
        madv::DONTDUMP | madv::DODUMP => Advice::Hint,
        madv::WILLNEED => Advice::Need,
        madv::DONTNEED => Advice::Drop { even_locked: false },
        madv::DONTNEED_LOCKED => Advice::Drop { even_locked: true },
        madv::FREE => Advice::GiveUp,
        madv::DONTFORK => Advice::Flags { set: VmFlags::DONTFORK, clear: none },
        madv::DOFORK => Advice::Flags { set: none, clear: VmFlags::DONTFORK },
        madv::WIPEONFORK => Advice::Flags { set: VmFlags::WIPEONFORK, clear: none },
        madv::KEEPONFORK => Advice::Flags { set: none, clear: VmFlags::WIPEONFORK },
        madv::HUGEPAGE => Advice::Flags { set: VmFlags::HUGEPAGE, clear: huge },
        madv::NOHUGEPAGE => Advice::Flags { set: VmFlags::NOHUGEPAGE, clear: huge },
        madv::COLD => Advice::Cold,
        madv::PAGEOUT => Advice::PageOut,
        madv::REMOVE => Advice::Remove,
        madv::COLLAPSE => Advice::Collapse,
        madv::POPULATE_READ => Advice::Populate(Populate::Read),
        madv::POPULATE_WRITE => Advice::Populate(Populate::Write),
        _ => return None,
    })
}

impl<M: Machine> Mm<M> {
    /// Applies an advice to a range: madvise's semantics and errors. Areas before the first refusal have been changed;
    /// holes are skipped, and the result is then ENOMEM.
    pub fn advise(&self, addr: usize, len: usize, value: i32) -> Result<(), Errno> {
        let start = UserAddr::new(addr);
        let advice = advice(value).ok_or(Errno::EINVAL)?;
        if !start.is_aligned(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let end =
            len.checked_next_multiple_of(PAGE_SIZE).and_then(|len| start.checked_add(len)).ok_or(Errno::EINVAL)?;
        if start == end {
            return Ok(());
        }
        if let Advice::Remove = advice {
            return self.remove(start, end);
        }
        if let Advice::Collapse = advice {
            return self.collapse_range(start..end);
        }
        if let Advice::Populate(how) = advice {
            return self.populate(start, end, how).map_err(|error| match error {
                FaultError::Unmapped | FaultError::OutOfMemory => Errno::ENOMEM,
                FaultError::Protection => Errno::EINVAL,
                FaultError::BeyondObject => Errno::EFAULT,
            });
        }
        let mut hole = false;
        let mut at = start;
        if let Advice::PageOut = advice {
            // What cannot go to swap is cold at least; a refusal is the same for both.
            let cold = self.advise(addr, len, madv::COLD);
            self.page_out_range(start, end);
            return cold;
        }
        // `at` skips areas that are done already.
        supplied(self.machine, |supply| self.advise_areas(&mut at, end, &advice, &mut hole, supply)).map_err(
            |error| match (&advice, error) {
                // madvise(2) documents EAGAIN for a lack of kernel memory, as for a split.
                (Advice::Flags { .. }, Errno::ENOMEM) => Errno::EAGAIN,
                _ => error,
            },
        )?;
        if let Advice::Need = advice {
            self.bring_in_range(start, end);
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Applies an advice from `at` on, and advances `at`.
    fn advise_areas(
        &self,
        at: &mut UserAddr,
        end: UserAddr,
        advice: &Advice,
        hole: &mut bool,
        supply: &Supply<M>,
    ) -> Result<(), Errno> {
        let mut areas = self.areas.intend_killable()?;
        while *at < end {
            self.machine.resched_point()?;
            let Some(vma) = areas.tree.find_from(*at).filter(|vma| vma.start < end) else {
                *hole = true;
                break;
            };
            *hole |= vma.start > *at;
            let from = vma.start.max(*at);
            let to = vma.end.min(end);
            let (flags, anon) = (vma.flags, vma.backing.is_none());
            self.advise_area(&mut areas, (from, to), (flags, anon), advice, supply)?;
            *at = to;
        }
        if self.tables.wants_sweep() {
            let _alone = areas.write();
            self.tables.sweep();
        }
        Ok(())
    }

    /// Applies an advice to a part of one area with these flags, which is anonymous or not.
    fn advise_area(
        &self,
        areas: &mut Intent<'_, M>,
        (start, end): (UserAddr, UserAddr),
        (flags, anon): (VmFlags, bool),
        advice: &Advice,
        supply: &Supply<M>,
    ) -> Result<(), Errno> {
        let locked = flags.contains(VmFlags::LOCKED);
        match *advice {
            Advice::Hint | Advice::Need | Advice::Populate(_) | Advice::Remove | Advice::PageOut | Advice::Collapse => {
                Ok(())
            }
            Advice::Cold if locked => Err(Errno::EINVAL),
            Advice::Cold => {
                // One invalidation for the range, as on Linux (which goes without it when it samples single pages), so
                // that a later access sets the flag again.
                if let Some((from, to)) = self.tables.make_old(start, end)
                    && !seeded!(ColdForgetsFlush)
                {
                    flush_range(self.machine, self.tables.asid(), from, to);
                }
                Ok(())
            }
            Advice::Flags { set, .. } if set.contains(VmFlags::WIPEONFORK) && !anon => Err(Errno::EINVAL),
            Advice::Flags { set, clear } => self.change_flags(areas, start, end, (flags - clear) | set, supply),
            Advice::GiveUp if locked || !anon => Err(Errno::EINVAL),
            Advice::GiveUp => {
                self.give_up(start, end);
                Ok(())
            }
            Advice::Drop { even_locked } => {
                if locked && !even_locked {
                    return Err(Errno::EINVAL);
                }
                let kept = if seeded!(AdviceForgetsLastPage) && end - start > PAGE_SIZE { PAGE_SIZE } else { 0 };
                self.zap_beside_faults(start, UserAddr::new(end.get() - kept));
                Ok(())
            }
        }
    }
}
