//! madvise.

use quire_abi::Errno;
use quire_abi::flags::madv;

use super::fault::FaultError;
use super::residence::Populate;
use super::{Intent, Mm};
use crate::addr::{PAGE_SIZE, UserAddr};
use crate::machine::Machine;
use crate::supply::{Supply, supplied};
use crate::table::flush::flush_range;
use crate::vma::VmFlags;

/// What an advice does to each area that it meets.
enum Advice {
    /// Nothing: there is no read-ahead to start, and no core dump to keep memory out of.
    Hint,
    /// Pages become old: the first that reclaim would take. Refused for locked memory.
    Cold,
    /// Changes flags.
    Flags { set: VmFlags, clear: VmFlags },
    /// Pages go; only anonymous private ones, even locked ones, if so.
    Drop { anon_only: bool, even_locked: bool },
    /// Pages come.
    Populate(Populate),
}

/// `None` for an advice that Quire does not have: EINVAL.
fn advice(value: i32) -> Option<Advice> {
    let order = VmFlags::SEQUENTIAL | VmFlags::RANDOM;
    let huge = VmFlags::HUGEPAGE | VmFlags::NOHUGEPAGE;
    let none = VmFlags::empty();
    Some(match value {
        madv::NORMAL => Advice::Flags { set: none, clear: order },
        madv::RANDOM => Advice::Flags { set: VmFlags::RANDOM, clear: order },
        madv::SEQUENTIAL => Advice::Flags { set: VmFlags::SEQUENTIAL, clear: order },
        madv::WILLNEED | madv::DONTDUMP | madv::DODUMP => Advice::Hint,
        madv::DONTNEED => Advice::Drop { anon_only: false, even_locked: false },
        madv::DONTNEED_LOCKED => Advice::Drop { anon_only: false, even_locked: true },
        madv::FREE => Advice::Drop { anon_only: true, even_locked: false },
        madv::DONTFORK => Advice::Flags { set: VmFlags::DONTFORK, clear: none },
        madv::DOFORK => Advice::Flags { set: none, clear: VmFlags::DONTFORK },
        madv::WIPEONFORK => Advice::Flags { set: VmFlags::WIPEONFORK, clear: none },
        madv::KEEPONFORK => Advice::Flags { set: none, clear: VmFlags::WIPEONFORK },
        madv::HUGEPAGE => Advice::Flags { set: VmFlags::HUGEPAGE, clear: huge },
        madv::NOHUGEPAGE => Advice::Flags { set: VmFlags::NOHUGEPAGE, clear: huge },
        madv::COLD | madv::PAGEOUT => Advice::Cold,
        madv::POPULATE_READ => Advice::Populate(Populate::Read),
        madv::POPULATE_WRITE => Advice::Populate(Populate::Write),
        _ => return None,
    })
}

impl<M: Machine> Mm<M> {
    /// Takes advice about a range: madvise's semantics and errors. Areas before the first refusal have followed it;
    /// over holes it goes on, and says ENOMEM in the end. MADV_FREE frees at once, which its contract allows.
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
        if let Advice::Populate(how) = advice {
            return self.populate(start, end, how).map_err(|error| match error {
                FaultError::Unmapped | FaultError::OutOfMemory => Errno::ENOMEM,
                FaultError::Protection => Errno::EINVAL,
                FaultError::BeyondObject => Errno::EFAULT,
            });
        }
        let mut hole = false;
        let mut at = start;
        // What has followed the advice need not again.
        supplied(self.machine, |supply| self.advise_areas(&mut at, end, &advice, &mut hole, supply)).map_err(
            |error| match (&advice, error) {
                // What madvise(2) says of a kernel that lacks what a split takes.
                (Advice::Flags { .. }, Errno::ENOMEM) => Errno::EAGAIN,
                _ => error,
            },
        )?;
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Follows an advice from `at` on, which goes along.
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
            self.advise_area(&mut areas, from, to, advice, supply)?;
            *at = to;
        }
        if self.tables.wants_sweep() {
            let _alone = areas.write();
            self.tables.sweep(&self.asid);
        }
        Ok(())
    }

    /// Follows an advice about a part of one area.
    fn advise_area(
        &self,
        areas: &mut Intent<'_, M>,
        start: UserAddr,
        end: UserAddr,
        advice: &Advice,
        supply: &Supply<M>,
    ) -> Result<(), Errno> {
        let Some(vma) = areas.tree.find(start) else { return Ok(()) };
        let locked = vma.flags.contains(VmFlags::LOCKED);
        let anon = vma.backing.is_none();
        match *advice {
            Advice::Hint | Advice::Populate(_) => Ok(()),
            Advice::Cold if locked => Err(Errno::EINVAL),
            Advice::Cold => {
                // One invalidation for the range, as Linux does here (its sampling of single pages goes without): then
                // a page that is touched again is seen to be.
                if let Some((from, to)) = self.tables.make_old(start, end)
                    && !seeded!(ColdForgetsFlush)
                {
                    flush_range(self.machine, &self.asid, from, to);
                }
                Ok(())
            }
            Advice::Flags { set, .. } if set.contains(VmFlags::WIPEONFORK) && !anon => Err(Errno::EINVAL),
            Advice::Flags { set, clear } => self.change_flags(areas, start, end, (vma.flags - clear) | set, supply),
            Advice::Drop { anon_only, even_locked } => {
                if locked && !even_locked || anon_only && !anon {
                    return Err(Errno::EINVAL);
                }
                let kept = if seeded!(AdviceForgetsLastPage) && end - start > PAGE_SIZE { PAGE_SIZE } else { 0 };
                self.zap_beside_faults(start, UserAddr::new(end.get() - kept));
                Ok(())
            }
        }
    }
}
