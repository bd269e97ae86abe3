//! One test per behaviour.

use std::vec::Vec;

use super::non_present::{Elsewhere, How};
use super::*;
use crate::addr::Pfn;
use crate::mm::{audit_page, for_each_mapping};
use quire_abi::flags::{Mremap, madv};

#[test]
fn a_page_is_zero_then_what_was_written() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = anon(&rig, &mm, 3 * PAGE);
    assert_eq!(rig.read(&mm, at), Ok(0));
    rig.write(&mm, at, 7).unwrap();
    assert_eq!(rig.read(&mm, at), Ok(7));
    assert_eq!(rig.read(&mm, at + PAGE), Ok(0));
    assert_eq!(rig.read(&mm, at + 3 * PAGE), Err(FaultError::Unmapped));
    mm.validate();
    assert_eq!(mm.stats().rss_anon, 1);
    mm.unmap(at, 3 * PAGE).unwrap();
    assert_eq!(rig.read(&mm, at), Err(FaultError::Unmapped));
    mm.validate();
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn fork_copies_on_write_and_the_sole_owner_reuses() {
    let rig = Rig::new(64);
    let parent = rig.space();
    let at = anon(&rig, &parent, PAGE);
    rig.write(&parent, at, 1).unwrap();
    let free = free_pages(rig.sim);
    let child = parent.fork().unwrap();
    child.validate();
    rig.write(&child, at, 2).unwrap();
    assert_eq!(rig.read(&parent, at), Ok(1));
    assert_eq!(rig.read(&child, at), Ok(2));
    rig.idle(0);
    drop(child);
    assert_eq!(free_pages(rig.sim), free);
    // Nobody shares it any more: the write takes no page.
    rig.write(&parent, at, 3).unwrap();
    assert_eq!(free_pages(rig.sim), free);
    parent.validate();
    rig.idle(0);
    drop(parent);
    rig.assert_balanced();
}

#[test]
fn mmap_goes_top_down_and_neighbours_are_one() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let base = MmLayout::default().mmap_base.get();
    assert_eq!(anon(&rig, &mm, PAGE), base - PAGE);
    assert_eq!(anon(&rig, &mm, 3 * PAGE), base - 4 * PAGE);
    assert_eq!(mm.stats().areas, 1);
    mm.unmap(base - 3 * PAGE, PAGE).unwrap();
    assert_eq!(mm.stats().areas, 2);
    assert_eq!(anon(&rig, &mm, 2 * PAGE), base - 6 * PAGE, "the hole is too small");
    assert_eq!(anon(&rig, &mm, PAGE), base - 3 * PAGE, "the hole fits");
    assert_eq!(mm.stats().areas, 1);
    assert_eq!(map_at(&mm, 0x20_0000, PAGE, Prot::READ, Map::FIXED), Ok(0x20_0000));
    mm.protect(0x20_0000, PAGE, RW).unwrap();
    mm.validate();
}

#[test]
fn mmap_refuses_as_linux_does() {
    let rig = Rig::new(64);
    let mm = rig.space();
    assert_eq!(map_at(&mm, 0, 0, RW, Map::empty()), Err(Errno::EINVAL));
    assert_eq!(map_at(&mm, 0, usize::MAX, RW, Map::empty()), Err(Errno::ENOMEM));
    assert_eq!(map_at(&mm, 0, 1 << 49, RW, Map::empty()), Err(Errno::ENOMEM));
    assert_eq!(map_at(&mm, 0x20_0001, PAGE, RW, Map::FIXED), Err(Errno::EINVAL));
    assert_eq!(map_at(&mm, 0x1000, PAGE, RW, Map::FIXED), Err(Errno::EPERM));
    assert_eq!(map_at(&mm, 1 << 48, PAGE, RW, Map::FIXED), Err(Errno::ENOMEM));
    assert_eq!(map_at(&mm, 0x20_0000, PAGE, RW, Map::FIXED_NOREPLACE), Ok(0x20_0000));
    assert_eq!(map_at(&mm, 0x20_0000, PAGE, RW, Map::FIXED_NOREPLACE), Err(Errno::EEXIST));
    assert_eq!(map_at(&mm, 0, PAGE, RW, Map::SHARED_VALIDATE), Err(Errno::EINVAL), "anonymous");
    assert_eq!(map_at(&mm, 0, PAGE, RW, Map::SHARED | Map::GROWSDOWN), Err(Errno::EINVAL));
    let neither = MapRequest { flags: Map::ANONYMOUS, ..MapRequest::anonymous(PAGE, RW) };
    assert_eq!(mm.map(&neither), Err(Errno::EINVAL));
    rig.sim.set_limit(crate::machine::Limit::AddressSpace, 3 * PAGE as u64);
    assert_eq!(map_at(&mm, 0, 3 * PAGE, RW, Map::empty()), Err(Errno::ENOMEM));
    assert!(map_at(&mm, 0x20_0000, 3 * PAGE, RW, Map::FIXED).is_ok(), "what is replaced does not count");
    mm.validate();
}

#[test]
fn brk_moves_the_end_of_the_heap() {
    let rig = Rig::new(64);
    let mm = rig.space();
    mm.set_brk_start(UserAddr::new(0x50_0000));
    assert_eq!(mm.brk(0).get(), 0x50_0000);
    assert_eq!(mm.brk(0x50_1800).get(), 0x50_1800);
    rig.write(&mm, 0x50_1ff0, 5).unwrap();
    assert_eq!(rig.read(&mm, 0x50_2000), Err(FaultError::Unmapped));
    assert_eq!(mm.brk(0x50_0800).get(), 0x50_0800);
    assert_eq!(rig.read(&mm, 0x50_1000), Err(FaultError::Unmapped));
    assert_eq!(mm.brk(0x4f_ffff).get(), 0x50_0800, "not below the start");
    map_at(&mm, 0x50_3000, PAGE, RW, Map::FIXED).unwrap();
    assert_eq!(mm.brk(0x50_4000).get(), 0x50_0800, "not over another area");
    assert_eq!(mm.brk(0x50_3000).get(), 0x50_0800, "nor up to it");
    mm.unmap(0x50_3000, PAGE).unwrap();
    map_at(&mm, 0x50_4000, PAGE, RW, Map::FIXED).unwrap();
    assert_eq!(mm.brk(0x50_3000).get(), 0x50_3000);
    assert_eq!(rig.read(&mm, 0x50_1ff0), Ok(0), "what was given back is forgotten");
    rig.sim.set_limit(crate::machine::Limit::Data, 0x2000);
    assert_eq!(mm.brk(0x50_2000).get(), 0x50_2000);
    assert_eq!(mm.brk(0x50_3000).get(), 0x50_2000, "not beyond RLIMIT_DATA");
    mm.validate();
}

#[test]
fn a_stack_grows_until_its_limit_and_keeps_its_distance() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let top = 0x4000_0000;
    map_at(&mm, top - PAGE, PAGE, RW, Map::FIXED | Map::GROWSDOWN).unwrap();
    rig.write(&mm, top - 10 * PAGE, 1).unwrap();
    assert_eq!(mm.stats().stack, 10);
    map_at(&mm, top - 1000 * PAGE, PAGE, RW, Map::FIXED).unwrap();
    assert_eq!(rig.write(&mm, top - 900 * PAGE, 1), Err(FaultError::Unmapped), "too near");
    rig.write(&mm, top - 700 * PAGE, 1).unwrap();
    rig.sim.set_limit(crate::machine::Limit::Stack, 710 * PAGE as u64);
    assert_eq!(rig.write(&mm, top - 711 * PAGE, 1), Err(FaultError::Unmapped));
    rig.write(&mm, top - 710 * PAGE, 1).unwrap();
    mm.validate();
}

#[test]
fn a_moved_stack_ends_where_it_would_have_ended_unmoved() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let (at, to) = (0x20 * PAGE, 0x7000_0000);
    map_at(&mm, at, PAGE, RW, Map::FIXED | Map::GROWSDOWN).unwrap();
    let flags = quire_abi::flags::Mremap::MAYMOVE | quire_abi::flags::Mremap::FIXED;
    // (An empty area takes a new pgoff when it moves.)
    rig.write(&mm, at, 1).unwrap();
    mm.remap(at, PAGE, PAGE, flags, to).unwrap();
    assert_eq!(rig.write(&mm, to - 0x21 * PAGE, 2), Err(FaultError::Unmapped));
    rig.write(&mm, to - 0x20 * PAGE, 2).unwrap();
    assert_eq!(mm.stats().stack, 0x21);
    mm.validate();
    let pfn = mm.pin(to - 0x20 * PAGE, false).unwrap().pfn();
    let mut found = None;
    for_each_mapping(rig.sim, pfn, |_, va| found.replace(va.get()).is_none());
    assert_eq!(found, Some(to - 0x20 * PAGE));
}

#[test]
fn a_sparse_toucher_grows_by_a_tenth_at_most_and_a_sequential_one_faults_seldom() {
    let rig = Rig::new(128);
    for run in 1..6 {
        let mm = rig.space();
        let at = anon(&rig, &mm, 8192 * PAGE);
        let mut asked = 0;
        for start in (0..8192 - 32).step_by(32) {
            for page in start..start + run {
                rig.write(&mm, at + page * PAGE, 1).unwrap();
                asked += 1;
            }
        }
        let resident = mm.stats().rss_anon;
        assert!(resident * 10 <= asked * 11, "runs of {run}: {resident} pages for {asked}");
        mm.validate();
        rig.idle(0);
    }
    // A program alone in its memory, and four that share an area, as threads do.
    for streams in [1, 4] {
        let mm = rig.space();
        let at = anon(&rig, &mm, 4096 * PAGE);
        let before = rig.sim.tlb_counts().publish_tables;
        for page in 0..4096 / streams {
            for stream in 0..streams {
                rig.write(&mm, at + (stream * 4096 / streams + page) * PAGE, 1).unwrap();
            }
        }
        let faults = rig.sim.tlb_counts().publish_tables - before;
        assert!(faults < 4096 / 16 + 150, "{faults} faults for 4096 pages in {streams} streams");
        mm.validate();
        rig.idle(0);
    }
}

#[test]
fn windows_owe_nothing_once_their_pages_are_gone_or_copied() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = anon(&rig, &mm, 512 * PAGE);
    let touch = |pages: core::ops::Range<usize>| pages.for_each(|page| rig.write(&mm, at + page * PAGE, 1).unwrap());
    // Enough for a window of 16 that nothing follows.
    touch(0..440);
    mm.validate();
    let child = mm.fork().unwrap();
    child.validate();
    // The copies are made in both: what was noted in the parent's entries goes.
    touch(0..440);
    mm.validate();
    drop(child);
    mm.advise(at + 100 * PAGE, 200 * PAGE, madv::DONTNEED).unwrap();
    mm.validate();
    touch(100..300);
    let moved = mm.remap(at + 300 * PAGE, 140 * PAGE, 200 * PAGE, Mremap::MAYMOVE, 0).unwrap();
    assert_ne!(moved.get(), at + 300 * PAGE);
    mm.unmap(at + 50 * PAGE, 300 * PAGE).unwrap();
    mm.validate();
}

#[test]
fn invalidation_is_by_page_for_a_few_by_asid_for_many_and_never_for_nothing() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let flushes = |what: &dyn Fn()| {
        let before = rig.sim.tlb_counts();
        what();
        let after = rig.sim.tlb_counts();
        (after.pages - before.pages, after.asid - before.asid)
    };
    let at = anon(&rig, &mm, 64 * PAGE);
    assert_eq!(flushes(&|| mm.unmap(at, PAGE).unwrap()), (0, 0), "never touched");
    (1..64).for_each(|page| rig.write(&mm, at + page * PAGE, 1).unwrap());
    assert_eq!(flushes(&|| mm.unmap(at + PAGE, 8 * PAGE).unwrap()), (1, 0));
    assert_eq!(flushes(&|| mm.unmap(at + 9 * PAGE, 9 * PAGE).unwrap()), (0, 1));
    assert_eq!(flushes(&|| mm.protect(at + 18 * PAGE, PAGE, RW).unwrap()), (0, 0), "no change");
    assert_eq!(flushes(&|| drop(mm.fork().unwrap())), (0, 1), "the parent; the child never ran");
    assert_eq!(flushes(&|| drop(mm.fork().unwrap())), (0, 0), "nothing was writable");
}

#[test]
fn mremap_moves_pages_and_reverse_mapping_finds_them() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = anon(&rig, &mm, 4 * PAGE);
    for page in 0..4 {
        rig.write(&mm, at + page * PAGE, page as u64).unwrap();
    }
    let to = 0x7000_0000;
    let flags = quire_abi::flags::Mremap::MAYMOVE | quire_abi::flags::Mremap::FIXED;
    assert_eq!(mm.remap(at + PAGE, 2 * PAGE, 3 * PAGE, flags, to), Ok(UserAddr::new(to)));
    assert_eq!(rig.read(&mm, to), Ok(1));
    assert_eq!(rig.read(&mm, to + PAGE), Ok(2));
    assert_eq!(rig.read(&mm, to + 2 * PAGE), Ok(0));
    assert_eq!(rig.read(&mm, at + PAGE), Err(FaultError::Unmapped));
    let child = mm.fork().unwrap();
    let pfn = mm.pin(to, false).unwrap().pfn();
    let mut found = std::vec::Vec::new();
    for_each_mapping(rig.sim, pfn, |mm, va| {
        found.push((KArc::as_ptr(mm), va.get()));
        true
    });
    assert_eq!(found, [(KArc::as_ptr(&mm), to), (KArc::as_ptr(&child), to)]);
    let none = quire_abi::flags::Mremap::empty();
    assert_eq!(mm.remap(0x100_0000, PAGE, PAGE, none, 0), Err(Errno::EFAULT));
    assert_eq!(mm.remap(to, PAGE, 0, none, 0), Err(Errno::EINVAL));
    assert_eq!(mm.remap(to, 4 * PAGE, 5 * PAGE, none, 0), Err(Errno::EFAULT), "beyond the area");
    assert_eq!(mm.remap(to, PAGE, 2 * PAGE, none, 0), Err(Errno::ENOMEM), "no room");
    mm.validate();
}

#[test]
fn locked_memory_counts_and_is_limited() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = anon(&rig, &mm, 4 * PAGE);
    rig.sim.set_limit(crate::machine::Limit::MemLock, 2 * PAGE as u64);
    assert_eq!(mm.lock(at, 3 * PAGE, false), Err(Errno::ENOMEM));
    assert_eq!(mm.lock(at, 2 * PAGE, false), Ok(()));
    assert_eq!((mm.stats().locked, mm.stats().rss_anon), (2, 2));
    assert_eq!(mm.advise(at, PAGE, quire_abi::flags::madv::DONTNEED), Err(Errno::EINVAL));
    assert_eq!(map_at(&mm, 0, PAGE, RW, Map::LOCKED), Err(Errno::EAGAIN));
    let child = mm.fork().unwrap();
    assert_eq!(child.stats().locked, 0);
    child.validate();
    mm.unlock(at, 4 * PAGE).unwrap();
    assert_eq!((mm.stats().locked, mm.stats().areas), (0, 1));
    rig.sim.set_limit(crate::machine::Limit::MemLock, 0);
    assert_eq!(mm.lock(at, PAGE, false), Err(Errno::EPERM));
    let mut core = [false; 4];
    mm.in_core(at, 4 * PAGE, |page, there| core[page] = there).unwrap();
    assert_eq!(core, [true, true, false, false]);
    assert_eq!(mm.in_core(at + 4 * PAGE, PAGE, |_, _| {}), Err(Errno::ENOMEM));
}

#[test]
fn locked_memory_that_becomes_writable_is_copied_at_once() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let locked = map_at(&mm, 0x4000_0000, 3 * PAGE, Prot::READ, Map::FIXED).unwrap();
    let on_fault = map_at(&mm, 0x5000_0000, 3 * PAGE, Prot::READ, Map::FIXED).unwrap();
    mm.lock(locked, 3 * PAGE, false).unwrap();
    mm.lock(on_fault, 3 * PAGE, true).unwrap();
    mm.protect(locked + PAGE, 2 * PAGE, RW).unwrap();
    mm.protect(on_fault, 3 * PAGE, RW).unwrap();
    let writable = |at: usize| [0, 1, 2].map(|page| mm.entry(UserAddr::new(at + page * PAGE)).is_writable());
    assert_eq!((writable(locked), writable(on_fault)), ([false, true, true], [false; 3]));
    mm.validate();
    // What cannot be had now is no error of mprotect's.
    mm.protect(locked, 3 * PAGE, Prot::READ).unwrap();
    mm.advise(locked, 3 * PAGE, quire_abi::flags::madv::DONTNEED_LOCKED).unwrap();
    rig.sim.pages().inject_failures(crate::page_alloc::FaultInjection::nth(1));
    assert_eq!(mm.protect(locked, 3 * PAGE, RW), Ok(()));
    rig.sim.pages().inject_failures(crate::page_alloc::FaultInjection::OFF);
    assert_eq!(rig.write(&mm, locked, 7), Ok(()));
}

#[test]
fn mremap_moves_whole_tables_as_such() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let (from, to, len) = (0x4000_0000, 0x5000_0000, 3 * 512 * PAGE);
    map_at(&mm, from, len + PAGE, RW, Map::FIXED).unwrap();
    let pages = [0, 1, 511, 512, 1535, 1536];
    pages.iter().for_each(|page| rig.write(&mm, from + page * PAGE, 1 + *page as u64).unwrap());
    let tables = mm.stats().table_pages;
    let flags = quire_abi::flags::Mremap::MAYMOVE | quire_abi::flags::Mremap::FIXED;
    assert_eq!(mm.remap(from, len + PAGE, len + PAGE, flags, to), Ok(UserAddr::new(to)));
    assert_eq!(mm.stats().table_pages, tables + 1, "one table for the last page; the others moved");
    mm.validate();
    map_at(&mm, from, len, RW, Map::FIXED).unwrap();
    for page in pages {
        assert_eq!(rig.read(&mm, to + page * PAGE), Ok(1 + page as u64));
        if page < 1536 {
            assert_eq!(rig.read(&mm, from + page * PAGE), Ok(0), "page {page}");
        }
    }
    // There are tables now, so entries move one by one.
    assert_eq!(mm.remap(to, len, len, flags, from), Ok(UserAddr::new(from)));
    for page in pages.into_iter().filter(|page| *page < 1536) {
        assert_eq!(rig.read(&mm, from + page * PAGE), Ok(1 + page as u64));
    }
    mm.validate();
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

/// All (space, page) at which `pfn` is mapped, as reverse mapping says.
fn mappings(rig: &Rig, pfn: Pfn) -> Vec<(*const Mm<&'static Sim>, usize)> {
    let mut found = Vec::new();
    for_each_mapping(rig.sim, pfn, |mm, va| {
        found.push((KArc::as_ptr(mm), va.get()));
        true
    });
    found.sort();
    found
}

#[test]
fn a_page_of_an_object_knows_all_that_map_it() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let (at, other) = (0x4000_0000, 0x5000_0000);
    map_at(&mm, at, 8 * PAGE, RW, Map::FIXED | Map::SHARED).unwrap();
    (0..8).for_each(|page| rig.write(&mm, at + page * PAGE, page as u64).unwrap());
    let pfn = mm.pin(at + 3 * PAGE, false).unwrap().pfn();
    let me = KArc::as_ptr(&mm);
    assert_eq!(mappings(&rig, pfn), [(me, at + 3 * PAGE)]);
    // Cut above and below it, moved, doubled (an old length of 0 does that), forked.
    mm.unmap(at + 5 * PAGE, PAGE).unwrap();
    mm.protect(at + 2 * PAGE, 2 * PAGE, Prot::READ).unwrap();
    assert_eq!(mappings(&rig, pfn), [(me, at + 3 * PAGE)]);
    let flags = quire_abi::flags::Mremap::MAYMOVE | quire_abi::flags::Mremap::FIXED;
    mm.remap(at + 3 * PAGE, PAGE, PAGE, flags, other).unwrap();
    assert_eq!(mappings(&rig, pfn), [(me, other)]);
    mm.remap(other, 0, PAGE, flags, other + 16 * PAGE).unwrap();
    assert_eq!(mappings(&rig, pfn), [(me, other)], "the double is not touched yet");
    assert_eq!(rig.read(&mm, other + 16 * PAGE), Ok(3));
    let child = mm.fork().unwrap();
    assert_eq!(rig.read(&child, other), Ok(3));
    let mut expected = [(me, other), (me, other + 16 * PAGE), (KArc::as_ptr(&child), other)];
    expected.sort();
    assert_eq!(mappings(&rig, pfn), expected);
    assert!(audit_page(rig.sim, pfn));
    assert_eq!(Mm::audit(&child, || true), crate::mm::Audit { entries: 1, unlisted: 0 });
    rig.idle(0);
    drop(child);
    mm.unmap(other, PAGE).unwrap();
    assert_eq!(mappings(&rig, pfn), [(me, other + 16 * PAGE)]);
    assert!(audit_page(rig.sim, pfn));
    // What outlives its object is nobody's.
    let held = mm.pin(other + 16 * PAGE, false).unwrap();
    drop(mm);
    assert_eq!(mappings(&rig, held.pfn()), []);
    drop(held);
    rig.assert_balanced();
}

#[test]
fn moved_areas_are_found_among_many() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let (at, to) = (0x4000_0000, 0x5000_0000);
    let flags = quire_abi::flags::Mremap::MAYMOVE | quire_abi::flags::Mremap::FIXED;
    // (What comes to `at` while they claim its numbers gets numbers of its own.)
    let pages: Vec<Pfn> = (0..20)
        .map(|n| {
            map_at(&mm, at, PAGE, RW, Map::FIXED).unwrap();
            rig.write(&mm, at, n as u64).unwrap();
            mm.remap(at, PAGE, PAGE, flags, to + 2 * n * PAGE).unwrap();
            mm.pin(to + 2 * n * PAGE, false).unwrap().pfn()
        })
        .collect();
    let check = |gone: usize| {
        for (n, pfn) in pages.iter().enumerate().skip(gone) {
            assert_eq!(mappings(&rig, *pfn), [(KArc::as_ptr(&mm), to + 2 * n * PAGE)]);
        }
        mm.validate();
    };
    check(0);
    mm.unmap(to, 10 * PAGE).unwrap();
    check(5);
}

#[test]
fn a_fork_that_fails_leaves_the_family_whole() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = anon(&rig, &mm, PAGE);
    rig.write(&mm, at, 1).unwrap();
    let child = mm.fork().unwrap();
    let mut expected = [(KArc::as_ptr(&mm), at), (KArc::as_ptr(&child), at)];
    expected.sort();
    let mut failures = 0;
    loop {
        crate::fallible::inject::fail(Some(failures + 1));
        let made = mm.fork();
        crate::fallible::inject::fail(None);
        let pfn = mm.pin(at, false).unwrap().pfn();
        if made.is_ok() {
            break;
        }
        assert_eq!(mappings(&rig, pfn), expected);
        failures += 1;
    }
    assert!(failures >= 3, "{failures} allocations failed");
    rig.idle(0);
    drop((mm, child));
    rig.assert_balanced();
}

#[test]
fn a_page_that_is_unmapped_while_it_is_moved_is_not_lost() {
    let rig = Rig::new(64);
    let elsewhere = Elsewhere::attach(rig.sim);
    let mm = rig.space();
    let at = anon(&rig, &mm, PAGE);
    rig.write(&mm, at, 1).unwrap();
    let pfn = mm.pin(at, false).unwrap().pfn();
    elsewhere.take_away(&mm, UserAddr::new(at), How::Move);
    mm.advise(at, PAGE, quire_abi::flags::madv::DONTNEED).unwrap();
    assert_eq!(crate::frame::page(rig.sim, pfn).refs(), 0, "frozen");
    assert_eq!(mm.stats().rss_anon, 0);
    mm.validate();
    elsewhere.finish_moves();
    assert_eq!(rig.read(&mm, at), Ok(0));
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

/// A kept area loses its lock with the move, and may then be like its neighbour: as on Linux they stay two areas.
#[test]
fn an_area_that_is_kept_by_a_move_and_unlocked_stays_an_area() {
    for flags in [Map::PRIVATE, Map::SHARED] {
        let rig = Rig::new(64);
        let mm = rig.space();
        let at = map_at(&mm, 0x4000_0000, 3 * PAGE, RW, flags).unwrap();
        mm.lock(at + PAGE, PAGE, true).unwrap();
        let to = mm.remap(at + PAGE, PAGE, PAGE, Mremap::MAYMOVE | Mremap::DONTUNMAP, 0).unwrap();
        mm.validate();
        (0..3).for_each(|n| rig.write(&mm, at + n * PAGE, n as u64).unwrap());
        (0..3).for_each(|n| assert_eq!(rig.read(&mm, at + n * PAGE), Ok(n as u64)));
        assert_eq!(rig.read(&mm, to.get()), Ok(if flags == Map::SHARED { 1 } else { 0 }));
        mm.validate();
        rig.idle(0);
        drop(mm);
        rig.assert_balanced();
    }
}
