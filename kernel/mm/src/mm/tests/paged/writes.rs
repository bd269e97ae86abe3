//! Writes within the file, and what becomes of them.

use core::mem::ManuallyDrop;

use super::Asked::{Read, Write};
use super::*;

#[test]
fn a_write_marks_and_what_it_leaves_of_a_page_is_the_pager_s() {
    let scene = Scene::new(pages(8, 100));
    // A whole page is not read first.
    assert_eq!(scene.write(PAGE, &[0xaa; PAGE]), Ok(PAGE));
    assert_eq!((scene.disk.asked(), scene.marked(), scene.disk.lock().noted), (vec![], vec![1], 1));
    // A part is.
    assert_eq!(scene.write(3 * PAGE - 10, &[0xbb; 20]), Ok(20));
    assert_eq!(scene.disk.asked(), [Read(2, 2)]);
    assert_eq!((scene.marked(), scene.disk.lock().noted), (vec![1, 2, 3], 1), "it was told before");
    // Up to the end, which is in the middle of a page.
    assert_eq!(scene.write(8 * PAGE, &[0xcc; 100]), Ok(100));
    assert_eq!((scene.marked(), scene.disk.asked()), (vec![1, 2, 3, 8], vec![Read(8, 1)]));
    let mut want = pages(8, 100);
    want[PAGE..2 * PAGE].fill(0xaa);
    want[3 * PAGE - 10..3 * PAGE + 10].fill(0xbb);
    want[8 * PAGE..].fill(0xcc);
    assert_eq!(scene.read(0, 20 * PAGE).unwrap(), want);
    assert_eq!(scene.disk.bytes(), pages(8, 100), "the pager has nothing of it");
    scene.disk.asked();
    assert_eq!(scene.write_back(), Ok(()));
    assert_eq!(scene.disk.asked(), [Write(PAGE as u64, 3 * PAGE, false), Write(8 * PAGE as u64, 100, false)]);
    assert_eq!((scene.disk.bytes(), scene.marked()), (want, vec![]));
    // It tells again.
    assert_eq!((scene.write(5, &[1]), scene.disk.lock().noted), (Ok(1), 2));
    assert_eq!((scene.write_back(), scene.write_back()), (Ok(()), Ok(())));
    assert_eq!(scene.disk.asked(), [Write(0, PAGE, false)]);
    assert_eq!(scene.rig.sim.spaces().cached(), 9);
    scene.end();
}

#[test]
fn many_pages_go_by_runs_of_sixteen() {
    let scene = Scene::new(pages(64, 0));
    let all = vec![7; 40 * PAGE];
    assert_eq!(scene.write(0, &all), Ok(all.len()));
    assert_eq!(scene.write(50 * PAGE, &[7; PAGE]), Ok(PAGE));
    assert_eq!((scene.disk.asked(), scene.marked().len()), (vec![], 41));
    assert_eq!(scene.write_back(), Ok(()));
    let write = |page: usize, count: usize| Write((page * PAGE) as u64, count * PAGE, false);
    assert_eq!(scene.disk.asked(), [write(0, 16), write(16, 16), write(32, 8), write(50, 1)]);
    assert!(scene.disk.bytes()[..40 * PAGE] == all);
    scene.end();
}

/// A buffer that ends in the middle of a page.
#[test]
fn a_short_copy_loses_nothing() {
    notices(&[Bug::ShortCopyLosesRest], copy_short);
}

fn copy_short() {
    let scene = ManuallyDrop::new(Scene::new(pages(8, 0)));
    assert_eq!(write(scene.rig.sim, &scene.file, PAGE as u64, &[0xaa; PAGE], 100), Ok(100));
    let mut want = pages(2, 0).split_off(PAGE);
    want[..100].fill(0xaa);
    assert_eq!(scene.read(PAGE, PAGE).unwrap(), want);
    assert_eq!((scene.marked(), scene.disk.asked()), (vec![1], vec![Read(1, 3)]));
    // Nothing can be copied: nothing happens.
    assert_eq!(write(scene.rig.sim, &scene.file, 5 * PAGE as u64, &[0xaa; PAGE], 0), Ok(0));
    assert_eq!((scene.marked(), scene.file.has(5)), (vec![1], false));
    // The rest cannot be read.
    scene.disk.lock().unreadable = Some((5, Errno::EIO));
    assert_eq!(write(scene.rig.sim, &scene.file, 5 * PAGE as u64, &[0xaa; PAGE], 100), Err(Errno::EIO));
    assert_eq!((scene.marked(), scene.file.has(5)), (vec![1], false));
    // The page is here already.
    assert_eq!(write(scene.rig.sim, &scene.file, PAGE as u64, &[0xbb; PAGE], 50), Ok(50));
    want[..50].fill(0xbb);
    assert_eq!(scene.read(PAGE, PAGE).unwrap(), want);
    ManuallyDrop::into_inner(scene).end();
}

/// Somebody brings in the page that is being written whole.
#[test]
fn a_write_of_a_page_and_who_brings_it_in_agree() {
    for seed in 1..200 {
        let scene = Scene::new(pages(8, 0));
        let (file, sim) = (&scene.file, scene.rig.sim);
        let write = move || {
            Sim::set_cpu(0);
            assert_eq!(super::write(sim, file, 0, &[0xaa; 2 * PAGE], usize::MAX), Ok(2 * PAGE));
        };
        let look = move || {
            Sim::set_cpu(1);
            for page in [1, 0, 1] {
                let byte = read(file, (page * PAGE) as u64 + 9, 1).unwrap()[0];
                assert!(byte == 0xaa || byte == page as u8 + 1, "{byte:#x}");
            }
        };
        let back = move || {
            Sim::set_cpu(2);
            (0..2).for_each(|_| Object::turn(file).unwrap().write_back().unwrap());
        };
        turns::run(seed, 1 + seed as usize % 20, vec![Box::new(write), Box::new(look), Box::new(back)]);
        assert_eq!(scene.read(0, 2 * PAGE).unwrap(), [0xaa; 2 * PAGE]);
        assert_eq!(scene.write_back(), Ok(()));
        assert_eq!(scene.disk.bytes()[..2 * PAGE], [0xaa; 2 * PAGE]);
        assert_eq!((scene.marked(), scene.drop_cache()), (vec![], 0));
        scene.end();
    }
}

#[test]
fn what_the_pager_may_take_later_stays_marked() {
    notices(&[Bug::FailedWriteBackForgets], fail_for_now);
}

fn fail_for_now() {
    let scene = ManuallyDrop::new(Scene::new(pages(8, 0)));
    for error in [Errno::ENOSPC, Errno::ENOMEM, Errno::EINTR] {
        assert_eq!(scene.write(PAGE, &[error.get() as u8; 2 * PAGE]), Ok(2 * PAGE));
        assert_eq!(scene.write(5 * PAGE, &[error.get() as u8; PAGE]), Ok(PAGE));
        scene.disk.lock().refuses = Some(error);
        scene.disk.asked();
        assert_eq!(scene.write_back(), Err(error));
        // A killed thread writes no more.
        assert_eq!(scene.disk.asked().len(), if error == Errno::EINTR { 1 } else { 2 });
        assert_eq!(scene.marked(), [1, 2, 5]);
        assert_eq!([1, 2, 5].map(|page| scene.take_away(page)), [Err(Stays::Marked); 3]);
        let noted = scene.disk.lock().noted;
        scene.disk.lock().refuses = None;
        assert_eq!((scene.write_back(), scene.marked()), (Ok(()), vec![]));
        assert_eq!((scene.disk.at(PAGE), scene.disk.at(6 * PAGE - 1)), (error.get() as u8, error.get() as u8));
        assert_eq!(scene.write(0, &[1]), Ok(1));
        assert_eq!(scene.disk.lock().noted, noted + 1, "it was told that some were left, and is told again");
        scene.write_back().unwrap();
    }
    ManuallyDrop::into_inner(scene).end();
}

#[test]
fn what_the_pager_will_never_take_is_an_error_for_each_who_had_the_file_open() {
    let scene = Scene::new(pages(20, 0));
    let open = || AtomicU64::new(scene.file.errors());
    let told = |who: &AtomicU64| scene.file.error_since(who);
    let (first, second) = (open(), open());
    assert_eq!((told(&first), told(&second)), (Ok(()), Ok(())));
    assert_eq!(scene.write(PAGE, &[7; PAGE]), Ok(PAGE));
    assert_eq!(scene.write(5 * PAGE, &[7; PAGE]), Ok(PAGE));
    scene.disk.lock().refuses = Some(Errno::EIO);
    assert_eq!((scene.write_back(), scene.marked()), (Err(Errno::EIO), vec![]));
    // Nobody was told: whoever opens the file now is as well.
    let third = open();
    assert_eq!((told(&first), told(&first)), (Err(Errno::EIO), Ok(())));
    assert_eq!((told(&third), told(&third)), (Err(Errno::EIO), Ok(())));
    let fourth = open();
    assert_eq!((told(&fourth), told(&second), told(&second), told(&first)), (Ok(()), Err(Errno::EIO), Ok(()), Ok(())));
    // The pages are as they were written, and may go: then they are the pager's again.
    assert_eq!(scene.word(1), Ok(word_of(6)));
    assert_eq!((scene.take_away(1), scene.word(1)), (Ok(()), Ok(word_of(1))));
    // The next error, of another kind; a short write is one too.
    scene.disk.lock().refuses = Some(Errno::EPIPE);
    scene.write(0, &[7]).unwrap();
    assert_eq!(scene.write_back(), Err(Errno::EPIPE));
    assert_eq!((told(&second), told(&fourth)), (Err(Errno::EPIPE), Err(Errno::EPIPE)));
    scene.disk.lock().refuses = None;
    scene.disk.lock().most = 100;
    scene.write(0, &[8; 2 * PAGE]).unwrap();
    assert_eq!((scene.write_back(), scene.marked()), (Err(Errno::EIO), vec![]));
    let last = [&first, &second, &third, &fourth].map(told);
    assert_eq!(last, [Err(Errno::EIO); 4]);
    assert_eq!([&first, &second, &third, &fourth].map(told), [Ok(()); 4]);
    // A killed thread's end is nobody's error.
    scene.disk.lock().most = usize::MAX;
    scene.write(0, &[9]).unwrap();
    scene.disk.lock().refuses = Some(Errno::EINTR);
    assert_eq!((scene.write_back(), told(&first)), (Err(Errno::EINTR), Ok(())));
    scene.disk.lock().refuses = None;
    scene.write_back().unwrap();
    scene.end();
}

/// The first error is the answer, and other runs are written nevertheless.
#[test]
fn one_run_fails_and_others_are_written() {
    let scene = Scene::new(pages(40, 0));
    scene.write(0, &[7; PAGE]).unwrap();
    scene.write(10 * PAGE, &[7; PAGE]).unwrap();
    scene.write(20 * PAGE, &[7; PAGE]).unwrap();
    // The error ends with the first run.
    let disk = scene.disk.clone();
    scene.disk.lock().during_write = Some(Box::new(move || {
        disk.lock().refuses = Some(Errno::EIO);
        let again = disk.clone();
        disk.lock().during_write = Some(Box::new(move || again.lock().refuses = None));
    }));
    assert_eq!(scene.write_back(), Err(Errno::EIO));
    assert_eq!([0, 10, 20].map(|page| scene.disk.at(page * PAGE)), [1, 7, 7]);
    assert_eq!(scene.marked(), []);
    scene.end();
}

/// What is written while the pager writes is not lost, whether it takes the page or not.
#[test]
fn marks_set_while_a_page_is_written_are_kept() {
    for error in [None, Some(Errno::EIO), Some(Errno::ENOSPC)] {
        let scene = Scene::new(pages(8, 0));
        let mm = scene.space();
        scene.map(&mm, AT, 8, Map::SHARED);
        scene.rig.write(&mm, AT + PAGE, 70).unwrap();
        let (mmu, sim, space) = (scene.rig.mmu.clone(), scene.rig.sim, mm.clone());
        let hook = move || {
            let rig = Rig { sim, mmu, free: 0 };
            rig.write(&space, AT + PAGE + 8, 71).unwrap();
        };
        scene.disk.lock().during_write = Some(Box::new(hook));
        scene.disk.lock().refuses = error;
        assert_eq!((scene.write_back().err(), scene.marked()), (error, vec![1]));
        scene.disk.lock().refuses = None;
        assert_eq!((scene.write_back(), scene.marked()), (Ok(()), vec![]));
        assert_eq!((scene.disk.at(PAGE), scene.disk.at(PAGE + 8)), (70, 71));
        scene.rig.idle(0);
        drop(mm);
        scene.end();
    }
}

#[test]
fn there_are_no_holes_in_what_a_pager_has() {
    let scene = Scene::new(pages(8, 0));
    let mm = scene.space();
    scene.map(&mm, AT, 8, Map::SHARED);
    scene.rig.write(&mm, AT, 9).unwrap();
    assert_eq!(mm.advise(AT, 2 * PAGE, quire_abi::flags::madv::REMOVE), Err(Errno::EOPNOTSUPP));
    let mut turn = Object::turn(&scene.file).unwrap();
    assert_eq!(turn.punch(0, 2 * PAGE as u64), Err(Errno::EOPNOTSUPP));
    assert_eq!(turn.allocate(5, &Supply::new(scene.rig.sim)), Err(ObjectError::Refused(Errno::EOPNOTSUPP)));
    drop(turn);
    assert_eq!((scene.word(0), scene.word(5), scene.marked()), (Ok(9), Ok(word_of(5)), vec![0]));
    assert_eq!((scene.file.next_data(5), scene.file.next_hole(5)), (Ok(Some(5)), Ok(Some(8 * PAGE as u64))));
    assert_eq!(scene.file.next_data(8 * PAGE as u64), Ok(None));
    scene.rig.idle(0);
    drop(mm);
    scene.end();
}
