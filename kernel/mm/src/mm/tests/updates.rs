//! Access flag and dirty state, set by faults or by the CPU: the initial state of each kind of memory, and the faults
//! that it costs.

use super::*;
use crate::addr::Pfn;
use crate::frame;
use crate::object::Object;
use crate::page::PageFlags;
use crate::page_alloc::Gfp;
use crate::pte::Pte;
use quire_abi::flags::{Mremap, madv};

/// A machine whose CPUs update entries, or do not.
fn rig(hardware: bool) -> Rig {
    let rig = Rig::new(64);
    if hardware {
        rig.sim.spaces().set_hardware_updates();
    }
    rig
}

fn entry(mm: &Space, at: usize) -> Pte {
    mm.entry(UserAddr::new(at))
}

/// How many times the MMU refuses until the access goes through.
fn faults(rig: &Rig, mm: &Space, at: usize, access: Access) -> usize {
    rig.mmu.load(0, Some(mm.activate(0)));
    let mut faults = 0;
    while rig.mmu.access(0, at, access).is_err() {
        mm.fault(at, access).unwrap();
        faults += 1;
    }
    faults
}

fn both(check: impl Fn(&Rig, bool)) {
    [false, true].into_iter().for_each(|hardware| check(&rig(hardware), hardware));
}

#[test]
fn shared_memory_is_clean_until_it_is_written_and_a_write_copies_nothing() {
    both(|rig, hardware| {
        let mm = rig.space();
        let at = map_at(&mm, 0, 2 * PAGE, RW, Map::SHARED).unwrap();
        assert_eq!(faults(rig, &mm, at, Access::Read), 1);
        let clean = entry(&mm, at);
        assert!(clean.is_young() && clean.is_writable_clean() && !clean.is_dirty());
        assert_eq!(faults(rig, &mm, at, Access::Write), !hardware as usize, "by hardware: {hardware}");
        let dirty = entry(&mm, at);
        assert!(dirty.is_writable() && dirty.is_dirty() && dirty.addr() == clean.addr());
        // A write that comes first makes it dirty at once.
        assert_eq!(faults(rig, &mm, at + PAGE, Access::Write), 1);
        assert!(entry(&mm, at + PAGE).is_dirty());
    });
}

#[test]
fn a_page_without_the_right_to_be_written_has_no_dbm() {
    both(|rig, _| {
        let mm = rig.space();
        let at = map_at(&mm, 0, PAGE, RW, Map::SHARED).unwrap();
        rig.read(&mm, at).unwrap();
        mm.protect(at, PAGE, Prot::READ).unwrap();
        assert!(!entry(&mm, at).is_writable_clean());
        assert_eq!(rig.write(&mm, at, 1), Err(FaultError::Protection));
        mm.protect(at, PAGE, RW).unwrap();
        assert!(entry(&mm, at).is_writable_clean() && !entry(&mm, at).is_dirty());
        rig.write(&mm, at, 1).unwrap();
        mm.protect(at, PAGE, Prot::READ).unwrap();
        assert!(entry(&mm, at).is_dirty() && !entry(&mm, at).is_writable());
        mm.validate();
    });
}

#[test]
fn what_was_made_old_is_young_after_a_touch() {
    both(|rig, hardware| {
        let mm = rig.space();
        let at = anon(rig, &mm, 3 * PAGE);
        (0..3).for_each(|page| rig.write(&mm, at + page * PAGE, 1).unwrap());
        mm.advise(at, 2 * PAGE, madv::COLD).unwrap();
        assert_eq!([0, 1, 2].map(|page| entry(&mm, at + page * PAGE).is_young()), [false, false, true]);
        let flushes = rig.sim.tlb_counts();
        assert_eq!(faults(rig, &mm, at, Access::Read), !hardware as usize);
        assert_eq!(rig.sim.tlb_counts().pages, flushes.pages, "no TLB has an old entry");
        assert!(entry(&mm, at).is_young() && !entry(&mm, at + PAGE).is_young());
        // A write to an old page that is dirty already is no more than a touch.
        assert_eq!(faults(rig, &mm, at + PAGE, Access::Write), !hardware as usize);
        assert!(entry(&mm, at + PAGE).is_young());
        // Whoever reaches a page by the direct map leaves the same trace.
        mm.advise(at, PAGE, madv::COLD).unwrap();
        drop(mm.pin(at, false).unwrap());
        assert!(entry(&mm, at).is_young());
        let count = rig.sim.tlb_counts();
        mm.advise(at + 2 * PAGE, PAGE, madv::COLD).unwrap();
        mm.advise(at + 2 * PAGE, PAGE, madv::COLD).unwrap();
        assert_eq!(rig.sim.tlb_counts().pages, count.pages + 1, "nothing was young the second time");
    });
}

#[test]
fn zeros_that_were_made_old_stay_old_where_a_write_ahead_gives_them_a_page() {
    both(|rig, _| {
        let mm = rig.space();
        // Some pages that were asked for, so that there is credit for others.
        let proven = anon(rig, &mm, 100 * PAGE);
        (0..100).for_each(|page| rig.write(&mm, proven + page * PAGE, 1).unwrap());
        let at = anon(rig, &mm, 64 * PAGE);
        (0..64).for_each(|page| assert_eq!(rig.read(&mm, at + page * PAGE), Ok(0)));
        mm.advise(at, 64 * PAGE, madv::COLD).unwrap();
        let mut ahead = 0;
        for written in 1..=20 {
            rig.write(&mm, at + (written - 1) * PAGE, 1).unwrap();
            let entries = (0..64).map(|page| entry(&mm, at + page * PAGE));
            ahead += entries.clone().skip(written).filter(|pte| pte.is_anon()).count();
            assert!(entries.enumerate().all(|(page, pte)| pte.is_young() == (page < written)), "{written} written");
        }
        assert_ne!(ahead, 0);
        mm.validate();
    });
}

#[test]
fn neighbours_of_a_file_s_page_come_old_where_that_costs_no_fault() {
    both(|rig, hardware| {
        let pfn = rig.sim.pages().alloc_raw(3, Gfp::KERNEL | Gfp::ZERO).unwrap();
        // (Inside of the block, as the files of a boot archive: nobody's to the page allocator.)
        let file = Object::boot_file(rig.sim, pfn.addr() + PAGE, 4 * PAGE, false).unwrap();
        let mm = rig.space();
        let flags = Map::PRIVATE;
        let object = Some((file, 0));
        let max_prot = Prot::READ | Prot::EXEC;
        let request = MapRequest { addr: 0, len: 4 * PAGE, prot: Prot::READ, flags, object, max_prot };
        let at = mm.map(&request).unwrap().get();
        assert_eq!(faults(rig, &mm, at + PAGE, Access::Read), 1);
        let young = [0, 1, 2, 3].map(|page| entry(&mm, at + page * PAGE).is_young());
        assert_eq!(young, [!hardware, true, !hardware, !hardware]);
        assert_eq!(faults(rig, &mm, at + 2 * PAGE, Access::Read), 0, "and none is paid for later");
        assert!(entry(&mm, at + 2 * PAGE).is_young());
    });
}

#[test]
fn what_was_written_is_dirty_in_the_page_s_record_once_its_entry_is_gone() {
    let ends: [fn(&Space, usize); 3] = [
        |mm, at| mm.unmap(at, PAGE).unwrap(),
        |mm, at| mm.advise(at, PAGE, madv::DONTNEED).unwrap(),
        |mm, _| mm.teardown(),
    ];
    both(|rig, _| {
        for end in ends {
            let mm = rig.space();
            let at = map_at(&mm, 0, 2 * PAGE, RW, Map::SHARED).unwrap();
            // Held while the mappings go.
            let [read, written] = [0, 1].map(|page| mm.pin(at + page * PAGE, false).unwrap());
            let is_dirty = |pfn: Pfn| frame::page(rig.sim, pfn).flags().contains(PageFlags::DIRTY);
            rig.write(&mm, at + PAGE, 7).unwrap();
            [at, at + PAGE].into_iter().for_each(|at| end(&mm, at));
            assert!(is_dirty(written.pfn()) && !is_dirty(read.pfn()));
            rig.idle(0);
        }
    });
}

#[test]
fn entries_that_move_stay_as_old_and_as_clean_as_they_were() {
    both(|rig, _| {
        let mm = rig.space();
        // Within a table, to another one, and with a table as a whole.
        for (from, to, pages) in
            [(0x4000_0000, 0x4010_0000, 4), (0x4000_0000, 0x5010_0000, 4), (0x4000_0000, 0x6000_0000, 512)]
        {
            map_at(&mm, from, pages * PAGE, RW, Map::FIXED | Map::SHARED).unwrap();
            (0..4).for_each(|page| assert_eq!(rig.read(&mm, from + page * PAGE), Ok(0)));
            (1..3).for_each(|page| rig.write(&mm, from + page * PAGE, 1).unwrap());
            mm.advise(from + 2 * PAGE, 2 * PAGE, madv::COLD).unwrap();
            let flags = Mremap::MAYMOVE | Mremap::FIXED;
            mm.remap(from, pages * PAGE, pages * PAGE, flags, to).unwrap();
            let state =
                |page: usize| (entry(&mm, to + page * PAGE).is_young(), entry(&mm, to + page * PAGE).is_dirty());
            assert_eq!([0, 1, 2, 3].map(state), [(true, false), (true, true), (false, true), (false, false)]);
            mm.unmap(to, pages * PAGE).unwrap();
        }
        mm.validate();
    });
}
