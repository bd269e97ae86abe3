//! Threads of one space on several CPUs at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::page::PageFlags;

/// Two threads fault, one maps and unmaps elsewhere, one forks: what each wrote stays what it is.
#[test]
fn faults_run_beside_changes_of_the_map() {
    let rig = Rig::new(128);
    let mm = rig.space();
    let shared = anon(&rig, &mm, 1024 * PAGE);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (rig, mm, done) = (&rig, &mm, &done);
        let faulters: std::vec::Vec<_> = (0..2)
            .map(|cpu| {
                scope.spawn(move || {
                    for round in 0..4_u64 {
                        for page in 0..512 {
                            let va = shared + (2 * page + cpu) * PAGE;
                            let at = rig.touch(cpu, mm, va, Access::Write).unwrap().cast::<u64>();
                            // SAFETY: this thread alone writes to the page, which stays mapped.
                            unsafe { at.write_volatile(round << 32 | page as u64) };
                        }
                        Sim::set_cpu(cpu);
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            Sim::set_cpu(2);
            while !done.load(Ordering::Relaxed) {
                let at = anon(rig, mm, 7 * PAGE);
                rig.touch(2, mm, at + 3 * PAGE, Access::Write).unwrap();
                mm.protect(at + PAGE, PAGE, Prot::READ).unwrap();
                mm.unmap(at, 7 * PAGE).unwrap();
            }
        });
        scope.spawn(move || {
            Sim::set_cpu(3);
            while !done.load(Ordering::Relaxed) {
                drop(mm.fork().unwrap());
                thread::yield_now();
            }
        });
        let ends = faulters.into_iter().map(|faulter| faulter.join());
        let ends: std::vec::Vec<_> = ends.collect();
        // Whatever became of them: the others wait for that.
        done.store(true, Ordering::Relaxed);
        ends.into_iter().for_each(|end| end.unwrap());
    });
    mm.validate();
    for page in 0..512_u64 {
        for cpu in 0..2 {
            assert_eq!(rig.read(&mm, shared + (2 * page as usize + cpu) * PAGE), Ok(3 << 32 | page));
        }
    }
    (0..4).for_each(|cpu| rig.idle(cpu));
    drop(mm);
    rig.assert_balanced();
}

/// Two threads read and write shared memory on CPUs that update entries, while others take rights away and give them back,
/// make pages old, and map the pages a second time: whatever was written is known to be dirty.
#[test]
fn what_hardware_marks_dirty_meanwhile_is_not_lost() {
    const PAGES: usize = 256;
    let rig = Rig::new(128);
    rig.sim.spaces().set_hardware_updates();
    let mm = rig.space();
    let shared = map_at(&mm, 0, PAGES * PAGE, RW, Map::SHARED).unwrap();
    let done = AtomicBool::new(false);
    // The simulated hardware does not know that a lock orders one CPU's stores before another one's, so all pages are there
    // before several CPUs look.
    for page in 0..PAGES {
        rig.touch(0, &mm, shared + page * PAGE, Access::Read).unwrap();
    }
    thread::scope(|scope| {
        let (rig, mm, done) = (&rig, &mm, &done);
        let touchers: std::vec::Vec<_> = (0..2)
            .map(|cpu| {
                scope.spawn(move || {
                    for n in 0..20 * PAGES {
                        let page = (n * 7 + cpu) % PAGES;
                        rig.touch(cpu, mm, shared + page * PAGE, Access::Read).unwrap();
                        if page.is_multiple_of(8) {
                            // (Refused where another has just taken the right away.)
                            let _ = rig.touch(cpu, mm, shared + page * PAGE, Access::Write);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            Sim::set_cpu(2);
            // Just when this thread has looked at an entry somebody writes to the page.
            rig.mmu.stir(1);
            while !done.load(Ordering::Relaxed) {
                mm.protect(shared, PAGES * PAGE, Prot::READ).unwrap();
                mm.protect(shared, PAGES * PAGE, RW).unwrap();
                mm.advise(shared, PAGES * PAGE, quire_abi::flags::madv::COLD).unwrap();
            }
        });
        scope.spawn(move || {
            Sim::set_cpu(3);
            rig.mmu.stir(2);
            let flags = quire_abi::flags::Mremap::MAYMOVE;
            while !done.load(Ordering::Relaxed) {
                // All entries go, as the pages' dirty state must not; they come back with the next touches.
                let twin = mm.remap(shared, 0, PAGES * PAGE, flags, 0).unwrap().get();
                mm.advise(shared, PAGES * PAGE, quire_abi::flags::madv::DONTNEED).unwrap();
                mm.unmap(twin, PAGES * PAGE).unwrap();
            }
        });
        let ends = touchers.into_iter().map(|toucher| toucher.join());
        let ends: std::vec::Vec<_> = ends.collect();
        // Whatever became of them: the others wait for that.
        done.store(true, Ordering::Relaxed);
        ends.into_iter().for_each(|end| end.unwrap());
    });
    mm.validate();
    for page in 0..PAGES {
        let pinned = mm.pin(shared + page * PAGE, false).unwrap();
        let record = crate::frame::page(rig.sim, pinned.pfn());
        let entry = mm.entry(UserAddr::new(shared + page * PAGE));
        let dirty = entry.is_dirty() || record.flags().contains(PageFlags::DIRTY);
        assert!(dirty || !rig.mmu.written().contains(&pinned.pfn().0), "page {page} was written and is clean");
    }
    assert!(rig.mmu.written().len() >= PAGES / 8, "most writes were refused");
    (0..4).for_each(|cpu| rig.idle(cpu));
    drop(mm);
    rig.assert_balanced();
}
