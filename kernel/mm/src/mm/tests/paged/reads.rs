//! Pages that are brought in.

use core::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::Asked::Read;
use super::*;
use crate::fallible::inject;

#[test]
fn a_page_is_read_once_and_ends_with_the_file() {
    let scene = Scene::new(pages(9, 100));
    assert_eq!(scene.file.len(), 9 * PAGE as u64 + 100);
    assert_eq!((scene.word(0), scene.word(3)), (Ok(word_of(0)), Ok(word_of(3))));
    assert_eq!(scene.disk.asked(), [Read(0, 4)]);
    assert_eq!(scene.read(0, 20 * PAGE).unwrap(), scene.disk.bytes());
    // The second run follows the first.
    assert_eq!(scene.disk.asked(), [Read(4, 6)]);
    // A mapping sees zeros behind the end, whatever the pager left there.
    let mm = scene.space();
    scene.map(&mm, AT, 12, Map::SHARED);
    assert_eq!(scene.rig.read(&mm, AT + 9 * PAGE), Ok(word_of(9)));
    assert_eq!(scene.rig.read(&mm, AT + 9 * PAGE + 100), Ok(0));
    assert_eq!(scene.rig.read(&mm, AT + 10 * PAGE - 8), Ok(0));
    assert_eq!(scene.rig.read(&mm, AT + 10 * PAGE), Err(FaultError::BeyondObject));
    assert_eq!(scene.disk.asked(), []);
    assert_eq!((scene.file.cached_pages(), scene.marked().len()), (10, 0));
    drop(mm);
    scene.end();
}

#[test]
fn runs_double_while_they_follow_each_other() {
    let scene = Scene::new(pages(100, 0));
    assert_eq!(scene.read(0, 70 * PAGE).unwrap(), pages(70, 0));
    assert_eq!(scene.disk.asked(), [Read(0, 4), Read(4, 8), Read(12, 16), Read(28, 16), Read(44, 16), Read(60, 16)]);
    // Elsewhere: to the next multiple of 4.
    scene.word(90).unwrap();
    scene.word(97).unwrap();
    assert_eq!(scene.disk.asked(), [Read(90, 2), Read(97, 3)]);
    scene.check();
    // Up to a page that is here, and a gap of one.
    assert_eq!(scene.drop_cache(), 0);
    scene.word(81).unwrap();
    scene.word(80).unwrap();
    assert_eq!(scene.disk.asked(), [Read(81, 3), Read(80, 1)]);
    scene.take_away(82).unwrap();
    assert_eq!(scene.word(82), Ok(word_of(82)));
    assert_eq!(scene.disk.asked(), [Read(82, 1)]);
    // Up to the end.
    scene.word(98).unwrap();
    assert_eq!(scene.disk.asked(), [Read(98, 2)]);
    scene.end();
}

#[test]
fn faults_bring_in_what_they_need() {
    let scene = Scene::new(pages(8, 0));
    let (mm, other) = (scene.space(), scene.space());
    scene.map(&mm, AT, 8, Map::SHARED);
    scene.map(&other, AT, 8, Map::PRIVATE);
    scene.map_with(&other, THERE, 8, Map::PRIVATE, Prot::READ | Prot::EXEC);
    // A store to a shared page, and to a private one.
    assert_eq!(scene.rig.write(&mm, AT + PAGE, 77), Ok(()));
    assert_eq!(scene.rig.write(&other, AT + 4 * PAGE, 78), Ok(()));
    assert_eq!(scene.disk.asked(), [Read(1, 3), Read(4, 4)]);
    assert_eq!((scene.marked(), scene.disk.lock().noted), (vec![1], 1));
    assert_eq!(
        (scene.rig.read(&mm, AT + PAGE + 8), scene.rig.read(&other, AT + 4 * PAGE + 8)),
        (Ok(word_of(1)), Ok(word_of(4)))
    );
    assert_eq!((scene.rig.read(&other, AT + PAGE), scene.rig.read(&mm, AT + 4 * PAGE)), (Ok(77), Ok(word_of(4))));
    assert_eq!((scene.word(1), scene.word(4)), (Ok(77), Ok(word_of(4))));
    // For reading, and to be executed.
    assert_eq!(scene.rig.read(&other, AT + 5 * PAGE), Ok(word_of(5)));
    assert!(scene.rig.touch(0, &other, THERE, Access::Exec).is_ok());
    assert_eq!(scene.disk.asked(), [Read(0, 1)]);
    assert_eq!((mm.stats().rss_shared, mm.stats().rss_file > 0), (0, true), "file pages");
    [&mm, &other].iter().for_each(|mm| mm.validate());
    scene.rig.idle(0);
    drop((mm, other));
    scene.end();
}

#[test]
fn who_needs_a_page_that_cannot_be_read_learns_of_it() {
    let scene = Scene::new(pages(8, 0));
    let mm = scene.space();
    scene.map(&mm, AT, 8, Map::SHARED);
    for error in [Errno::EIO, Errno::EPIPE] {
        scene.disk.lock().unreadable = Some((2, error));
        // Only a neighbour cannot be read.
        assert_eq!(scene.word(1), Ok(word_of(1)));
        assert_eq!(scene.disk.asked(), [Read(1, 3), Read(1, 1)]);
        assert_eq!(scene.resident(4), [false, true, false, false]);
        assert_eq!(scene.word(2), Err(ObjectError::Refused(error)));
        assert_eq!(Errno::from(scene.word(2).unwrap_err()), error);
        assert_eq!(scene.rig.read(&mm, AT + 2 * PAGE), Err(FaultError::BeyondObject));
        assert_eq!(scene.rig.write(&mm, AT + 2 * PAGE, 1), Err(FaultError::BeyondObject));
        assert!(!scene.file.has(2) && !scene.file.has(3), "the words are 0 again");
        // A part of it cannot be written either; all of it can.
        assert_eq!(scene.write(2 * PAGE + 1, &[1]), Err(error));
        assert_eq!(scene.set_len(2 * PAGE + 1), Err(error));
        assert_eq!((scene.file.len(), scene.disk.bytes().len()), (8 * PAGE as u64, 8 * PAGE));
        scene.disk.lock().unreadable = None;
        assert_eq!((scene.word(2), scene.rig.read(&mm, AT + 2 * PAGE)), (Ok(word_of(2)), Ok(word_of(2))));
        scene.check();
        assert_eq!(scene.drop_cache(), 0);
        scene.disk.asked();
    }
    scene.disk.lock().unreadable = Some((2, Errno::EIO));
    assert_eq!(scene.write(2 * PAGE, &[9; PAGE]), Ok(PAGE));
    // A pager that says nonsense.
    scene.disk.lock().answer = Some(4 * PAGE + 1);
    assert_eq!(scene.word(4), Err(ObjectError::Damaged));
    scene.disk.lock().answer = Some(4 * PAGE + 1);
    assert_eq!(scene.rig.read(&mm, AT + 4 * PAGE), Err(FaultError::BeyondObject));
    scene.disk.lock().answer = Some(3);
    assert_eq!(scene.rig.read(&mm, AT + 4 * PAGE), Ok(word_of(4) & 0xff_ffff), "the rest is zeros");
    scene.rig.idle(0);
    drop(mm);
    scene.end();
}

#[test]
fn without_memory_nothing_is_left_behind() {
    // Each allocation on the way fails once: that of the page, or of a node, is an error, and others only shorten the run.
    let mut errors = 0;
    for nth in 1.. {
        let scene = Scene::new(pages(80, 0));
        let mm = scene.space();
        scene.map(&mm, AT, 80, Map::SHARED);
        scene.rig.sim.pages().ask_about_failures();
        inject::fail(Some(nth));
        let got = if nth % 2 == 0 { scene.word(70) } else { scene.word(0) };
        let is_over = inject::is_armed();
        inject::fail(None);
        match got {
            Err(error) => assert_eq!((error, scene.file.cached_pages()), (ObjectError::OutOfMemory, 0)),
            got => assert_eq!(got, Ok(word_of(if nth % 2 == 0 { 70 } else { 0 }))),
        }
        errors += usize::from(got.is_err());
        scene.check();
        inject::fail(Some(nth));
        let got = mm.fault(AT + 65 * PAGE, Access::Write);
        inject::fail(None);
        assert!(matches!(got, Ok(()) | Err(FaultError::OutOfMemory)), "{got:?}");
        assert_eq!(scene.marked().len(), usize::from(got.is_ok()));
        errors += usize::from(got.is_err());
        // The pager has no memory for the run.
        scene.disk.lock().unreadable = Some((6, Errno::ENOMEM));
        assert_eq!((scene.word(5), scene.word(6)), (Ok(word_of(5)), Err(ObjectError::OutOfMemory)));
        assert_eq!(mm.fault(AT + 6 * PAGE, Access::Read), Err(FaultError::OutOfMemory));
        drop(mm);
        scene.end();
        if is_over && nth > 6 {
            break;
        }
    }
    assert!(errors > 2);
}

/// Whoever is killed while it asks leaves the page as it was; another thread that waits for it asks then.
#[test]
fn a_page_that_a_killed_thread_asked_for_can_be_had() {
    let scene = Scene::new(pages(8, 0));
    scene.disk.lock().unreadable = Some((1, Errno::EINTR));
    assert_eq!(scene.word(0), Err(ObjectError::OutOfMemory));
    assert_eq!(scene.disk.asked(), [Read(0, 4)], "it asks no more");
    scene.disk.lock().unreadable = None;
    assert!((0..4).all(|page| !scene.file.has(page)));
    assert_eq!(scene.word(0), Ok(word_of(0)));
    scene.end();
}

/// The file is cut, and grows again, while a page of it is being read.
#[test]
fn what_was_read_before_a_truncate_is_not_seen_after_it() {
    notices(&[Bug::PageInTrustsItsFirstLook], cut_in_the_middle);
}

fn cut_in_the_middle() {
    let scene = ManuallyDrop::new(Scene::new(pages(8, 0)));
    let file = scene.file.clone();
    let cut = move || Object::turn(&file).unwrap().set_len(PAGE as u64).unwrap();
    scene.disk.lock().during_read = Some(Box::new(cut));
    assert_eq!(scene.read(0, 4 * PAGE).unwrap(), pages(1, 0));
    assert_eq!((scene.file.cached_pages(), scene.resident(8)[1..].contains(&true)), (1, false));
    scene.set_len(8 * PAGE).unwrap();
    assert_eq!(scene.word(1), Ok(0));
    assert_eq!(scene.drop_cache(), 0);
    // It grows again at once, and others bring the page in before the first one that asked has it.
    let file = scene.file.clone();
    scene.disk.lock().bytes[PAGE..].fill(9);
    let cut = move || {
        let mut turn = Object::turn(&file).unwrap();
        turn.set_len(PAGE as u64).unwrap();
        turn.set_len(8 * PAGE as u64).unwrap();
        drop(turn);
        assert_eq!(read(&file, 2 * PAGE as u64, 1), Ok(vec![0]));
    };
    scene.disk.lock().during_read = Some(Box::new(cut));
    assert_eq!(scene.read(PAGE, 3 * PAGE).unwrap(), vec![0; 3 * PAGE]);
    let scene = ManuallyDrop::into_inner(scene);
    scene.end();
}

#[test]
fn two_who_want_a_page_ask_once() {
    let scene = Scene::new(pages(8, 0));
    let (began, file) = (Arc::new(AtomicBool::new(false)), &scene.file);
    let noticed = began.clone();
    // The read ends when the other one waits, as far as that can be seen.
    let hook = move || {
        began.store(true, Ordering::SeqCst);
        thread::sleep(core::time::Duration::from_millis(20));
    };
    scene.disk.lock().during_read = Some(Box::new(hook));
    thread::scope(|scope| {
        scope.spawn(|| {
            Sim::set_cpu(1);
            assert_eq!(read(file, 0, 8).unwrap(), [1; 8]);
        });
        while !noticed.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        assert!(!file.is_resident(1) && file.has(1));
        assert_eq!(read(file, PAGE as u64, 8).unwrap(), [2; 8]);
    });
    assert_eq!(scene.disk.asked(), [Read(0, 4)]);
    scene.end();
    // Whatever the order: nobody reads a page that is here, and all see the same.
    for seed in 1..60 {
        let scene = Scene::new(pages(6, 0));
        let bodies = (0..3)
            .map(|cpu| {
                let file = &scene.file;
                let body = move || {
                    Sim::set_cpu(cpu);
                    for page in [cpu, 2, 5 - cpu, 4] {
                        assert_eq!(read(file, (page * PAGE) as u64, 1), Ok(vec![page as u8 + 1]));
                    }
                };
                Box::new(body) as turns::Body
            })
            .collect();
        turns::run(seed, 1 + seed as usize % 20, bodies);
        let pages: usize =
            scene.disk.asked().iter().map(|asked| if let Read(_, count) = asked { *count } else { 0 }).sum();
        assert!(pages <= 6, "{pages} pages were read");
        scene.end();
    }
}
