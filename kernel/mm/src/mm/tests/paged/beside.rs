//! Calls, faults and reclaim side by side, at every order that a seed makes.

use core::mem::ManuallyDrop;

use super::*;
use crate::frame;
use crate::mm::migrate;
use crate::sim::mmu::Drain;

/// What stands at a place of the file of [`append_beside_readers`].
fn byte_at(at: usize) -> u8 {
    (at / 97 % 250 + 1) as u8
}

/// A file becomes longer, by pieces of all sizes, of which some are refused at first; who reads it by calls and by a mapping sees nothing else
/// than what was appended, while pages go and move.
fn append_beside_readers(seed: u64) {
    const END: usize = 6 * PAGE + 123;
    let scene = ManuallyDrop::new(Scene::new((0..300).map(byte_at).collect()));
    scene.rig.mmu.set_chance(seed, Drain::Late);
    let mm = scene.space();
    scene.map(&mm, AT, 8, Map::SHARED);
    let program = Rig { sim: scene.rig.sim, mmu: scene.rig.mmu.clone(), free: 0 };
    let (sim, file, disk, mm_, program) = (scene.rig.sim, &scene.file, &scene.disk, &mm, &program);
    let bug = seeded::current();
    let bodies = vec![
        body(0, bug, move || {
            let mut random = super::super::script::Random::new(seed);
            let mut at = 300;
            while at < END {
                let most = [50, 700, 3 * PAGE][random.below(3)];
                let len = (1 + random.below(most)).min(END - at);
                let bytes: Vec<u8> = (at..at + len).map(byte_at).collect();
                disk.lock().room = if random.below(3) == 0 { at + random.below(len) } else { usize::MAX };
                match write(sim, file, at as u64, &bytes, usize::MAX) {
                    Ok(done) => at += done,
                    Err(error) => assert_eq!(error, Errno::ENOSPC),
                }
            }
        }),
        body(1, bug, move || {
            let mut from = 0;
            while from < 8 {
                let seen = read(file, 200 * from as u64, 5000).unwrap();
                let wrong = seen.iter().enumerate().position(|(n, byte)| *byte != byte_at(200 * from + n));
                assert_eq!(wrong, None, "seed {seed}, from {}", 200 * from);
                from += 1;
            }
        }),
        body(2, bug, move || {
            for n in 0..12 {
                let at = (n * 1999 + seed as usize * 7) % END;
                let Ok(byte) = program.touch(2, mm_, AT + at, Access::Read) else { continue };
                // SAFETY: the MMU allows it, and the turn does not pass in between.
                let byte = unsafe { byte.read() };
                // (Behind the end it is 0, or what is just being appended.)
                assert!(byte == byte_at(at) || byte == 0 && at >= 300, "seed {seed}: {byte} at {at}");
            }
        }),
        body(3, bug, move || {
            for n in 0..8 {
                if let Some(Ok(pfn)) = file.look_at(n % 4) {
                    match n & 4 {
                        0 => _ = page_out(sim, pfn, OUT),
                        _ => _ = migrate(sim, pfn, || frame::alloc_to_move(sim)),
                    }
                }
            }
        }),
    ];
    turns::run(seed, 1 + seed as usize % 20, bodies);
    Sim::set_cpu(0);
    let want: Vec<u8> = (0..END).map(byte_at).collect();
    assert!(scene.read(0, END + PAGE).unwrap() == want && scene.disk.bytes() == want, "seed {seed}");
    assert_eq!((scene.marked(), scene.drop_cache()), (vec![], 0));
    assert!(scene.read(0, END + PAGE).unwrap() == want);
    mm.validate();
    (0..4).for_each(|cpu| scene.rig.idle(cpu));
    drop(mm);
    ManuallyDrop::into_inner(scene).end();
}

#[test]
fn readers_see_what_was_appended() {
    (1..200).for_each(append_beside_readers);
}

/// The file is cut and grows, while pages of it are brought in by calls and by two mappings, of which one has copies of its own, and go. In the
/// end nothing from before the cut is left, and all see the same.
fn cut_beside_everything(seed: u64) {
    let scene = ManuallyDrop::new(Scene::new(pages(6, 0)));
    scene.rig.mmu.set_chance(seed, Drain::Late);
    let (mm, other) = (scene.space(), scene.space());
    scene.map(&mm, AT, 8, Map::SHARED);
    scene.map(&other, AT, 8, Map::PRIVATE);
    let program = Rig { sim: scene.rig.sim, mmu: scene.rig.mmu.clone(), free: 0 };
    let (sim, file, mm_, other_, program) = (scene.rig.sim, &scene.file, &mm, &other, &program);
    let bug = seeded::current();
    let cut = [PAGE, PAGE + 50, 3 * PAGE - 1][seed as usize % 3];
    let bodies = vec![
        body(0, bug, move || {
            let mut turn = Object::turn(file).unwrap();
            turn.set_len(cut as u64).unwrap();
            turn.set_len(6 * PAGE as u64 + 7).unwrap();
            turn.write_back().unwrap();
        }),
        body(1, bug, move || {
            for page in [4, 1, 2] {
                let seen = read(file, (page * PAGE) as u64 + 60, 1).unwrap();
                assert!(seen.iter().all(|byte| [0, 200, page as u8 + 1].contains(byte)));
            }
        }),
        body(2, bug, move || {
            for page in [2, 1, 5] {
                if let Ok(at) = program.touch(2, mm_, AT + page * PAGE + 60, Access::Write) {
                    // SAFETY: the MMU allows it, and the turn does not pass in between.
                    unsafe { at.write(200) };
                }
                // (A copy of before the cut is gone with it, and one of after it is zeros.)
                _ = program.touch(2, other_, AT + page * PAGE + 60, Access::Write);
            }
        }),
        body(3, bug, move || {
            for n in 0..6 {
                if let Some(Ok(pfn)) = file.look_at(1 + n % 3) {
                    _ = if n % 2 == 0 { page_out(sim, pfn, OUT) } else { Ok(()) };
                    _ = migrate(sim, pfn, || frame::alloc_to_move(sim));
                }
            }
        }),
    ];
    turns::run(seed, 1 + seed as usize % 20, bodies);
    Sim::set_cpu(0);
    let seen = scene.read(0, 8 * PAGE).unwrap();
    let mut want = pages(6, 0);
    want[cut..].fill(0);
    want.resize(6 * PAGE + 7, 0);
    // The stores were before the cut, or after it.
    for page in [2, 1, 5] {
        let at = page * PAGE + 60;
        assert!(seen[at] == 200 || seen[at] == want[at], "seed {seed}: {} at {at:#x}", seen[at]);
        want[at] = seen[at];
        for (mm, is_private) in [(&mm, false), (&other, true)] {
            let byte = scene.rig.read(mm, AT + at).unwrap() as u8;
            // (Copies of the page that was cut in the middle stay.)
            let may_be_copy = is_private && (byte == 0 || page * PAGE < cut && [200, page as u8 + 1].contains(&byte));
            assert!(byte == want[at] || may_be_copy, "seed {seed}: {byte} at {at:#x}");
        }
    }
    assert!(seen == want, "seed {seed}");
    scene.write_back().unwrap();
    assert!(scene.disk.bytes() == want, "seed {seed}");
    [&mm, &other].iter().for_each(|mm| mm.validate());
    (0..4).for_each(|cpu| scene.rig.idle(cpu));
    drop((mm, other));
    assert_eq!((scene.marked(), scene.drop_cache()), (vec![], 0));
    ManuallyDrop::into_inner(scene).end();
}

#[test]
fn nothing_comes_back_from_before_a_cut() {
    notices(&[Bug::PageInTrustsItsFirstLook], || (1..300).for_each(cut_beside_everything));
}

/// A file is cut just when pages behind its new end are asked for: none is there afterwards.
fn cut_beside_reads(seed: u64) {
    let scene = ManuallyDrop::new(Scene::new(pages(6, 0)));
    let mm = scene.space();
    scene.map(&mm, AT, 8, Map::SHARED);
    let program = Rig { sim: scene.rig.sim, mmu: scene.rig.mmu.clone(), free: 0 };
    let (file, mm_, program) = (&scene.file, &mm, &program);
    let bodies = vec![
        body(0, None, move || Object::turn(file).unwrap().set_len(PAGE as u64).unwrap()),
        body(1, None, move || _ = read(file, 2 * PAGE as u64, 1).unwrap()),
        body(2, None, move || _ = program.touch(2, mm_, AT + 4 * PAGE, Access::Write)),
    ];
    turns::run(seed, 1 + seed as usize % 20, bodies);
    Sim::set_cpu(0);
    assert_eq!((1..8).find(|page| scene.file.has(*page)), None, "seed {seed}");
    assert_eq!((scene.marked(), scene.word(0)), (vec![], Ok(word_of(0))));
    (0..4).for_each(|cpu| scene.rig.idle(cpu));
    drop(mm);
    ManuallyDrop::into_inner(scene).end();
}

#[test]
fn no_page_is_brought_in_behind_the_end() {
    (1..500).for_each(cut_beside_reads);
}

/// Reads that fail, in all ways, beside others that want the same pages: each gets the page, or the error of its own read.
fn fail_beside_others(seed: u64) {
    let scene = ManuallyDrop::new(Scene::new(pages(8, 0)));
    let (file, disk) = (&scene.file, &scene.disk);
    let bug = seeded::current();
    let bodies = (0..4)
        .map(|cpu| {
            body(cpu, bug, move || {
                for n in 0..6 {
                    let page = (cpu + 3 * n + seed as usize) % 8;
                    if cpu == 0 {
                        let error = [Errno::EINTR, Errno::EIO, Errno::ENOMEM][n % 3];
                        disk.lock().unreadable = (n % 2 == 0).then_some((page, error));
                    }
                    match read(file, (page * PAGE) as u64, 1) {
                        Ok(seen) => assert_eq!(seen, [page as u8 + 1]),
                        Err(error) => {
                            assert!(matches!(error, ObjectError::OutOfMemory | ObjectError::Refused(Errno::EIO)));
                        }
                    }
                    if cpu == 3
                        && let Some(Ok(pfn)) = file.look_at(page)
                    {
                        _ = page_out(disk.sim, pfn, OUT);
                    }
                }
            })
        })
        .collect();
    turns::run(seed, 1 + seed as usize % 20, bodies);
    scene.disk.lock().unreadable = None;
    assert_eq!(scene.read(0, 8 * PAGE).unwrap(), pages(8, 0));
    assert_eq!(scene.drop_cache(), 0);
    ManuallyDrop::into_inner(scene).end();
}

#[test]
fn an_error_is_the_one_s_who_asked() {
    (1..200).for_each(fail_beside_others);
}

/// A thread that waits for a page that another one brings in can be killed.
#[test]
fn a_killed_thread_does_not_wait_for_a_page() {
    let scene = Scene::new(pages(4, 0));
    let file = scene.file.clone();
    let hook = move || {
        Sim::kill_after(0);
        assert_eq!(file.bring_in(1), Err(ObjectError::OutOfMemory));
        Sim::kill_after(usize::MAX);
        assert!(file.has(1) && !file.is_resident(1));
    };
    scene.disk.lock().during_read = Some(Box::new(hook));
    assert_eq!(scene.word(0), Ok(word_of(0)));
    scene.end();
}
