//! Writes that make the file longer, and its length.

use super::Asked::{Len, Read, SetLen, Write};
use super::*;

#[test]
fn small_appends_go_together() {
    let scene = Scene::new(vec![]);
    let mut want = Vec::new();
    {
        let mut turn = Object::turn(&scene.file).unwrap();
        for n in 0..300_usize {
            let piece = vec![n as u8; 100];
            let mut done = 0;
            while done < piece.len() {
                let left = &piece[done..];
                let at = (want.len() + done) as u64;
                let copy = |to: *mut u8, n: usize| {
                    // SAFETY: the page's bytes.
                    unsafe { to.copy_from_nonoverlapping(left.as_ptr(), n) };
                    n
                };
                done += turn.write(at, left.len(), &Supply::new(scene.rig.sim), copy).unwrap();
            }
            want.extend(piece);
        }
        // Nobody sees it yet.
        assert_eq!((scene.file.len(), scene.disk.asked()), (0, vec![]));
        assert_eq!(read(&scene.file, 0, 10), Ok(vec![]));
        assert_eq!(turn.commit(), Ok(()));
    }
    assert_eq!(scene.disk.asked(), [Write(0, 30000, true)]);
    assert_eq!((scene.file.len(), scene.marked(), scene.disk.lock().noted), (30000, vec![], 0));
    assert!(scene.read(0, 40000).unwrap() == want && scene.disk.bytes() == want);
    // A piece within the file, and behind it.
    assert_eq!(scene.write(29990, &[9; 30]), Ok(30));
    assert_eq!((scene.disk.asked(), scene.marked()), (vec![Write(30000, 20, true)], vec![7]));
    want.truncate(29990);
    want.extend([9; 30]);
    assert!(scene.read(0, 40000).unwrap() == want);
    assert_eq!((scene.write_back(), scene.disk.bytes() == want), (Ok(()), true));
    assert_eq!(scene.drop_cache(), 0);
    assert!(scene.read(0, 40000).unwrap() == want);
    scene.end();
}

/// 64 KiB at a time, and not more.
#[test]
fn large_appends_go_in_messages_of_64_kib() {
    for start in [0, 100, 4095] {
        let scene = Scene::new(pages(0, start));
        let all: Vec<u8> = (0..300_000).map(|at| (at / 7) as u8).collect();
        assert_eq!(scene.write(start, &all), Ok(all.len()));
        let asked = scene.disk.asked();
        let len = |asked: &Asked| if let Write(_, len, true) = asked { *len } else { 0 };
        assert_eq!(asked.iter().map(len).sum::<usize>(), all.len());
        let most = asked.iter().map(len).max();
        assert!(most <= Some(16 * PAGE) && most > Some(15 * PAGE), "{most:?}");
        assert_eq!((scene.file.len(), scene.marked()), ((start + all.len()) as u64, vec![]));
        assert!(scene.read(start, all.len()).unwrap() == all && scene.disk.bytes()[start..] == all);
        assert_eq!(scene.drop_cache(), 0);
        assert!(scene.read(start, all.len()).unwrap() == all);
        scene.end();
    }
}

#[test]
fn what_is_refused_is_not_there() {
    for (room, taken) in [
        (PAGE + 10, None),
        (PAGE + 50, Some(40)),
        (3 * PAGE, Some(2 * PAGE - 10)),
        (20 * PAGE + 5, Some(19 * PAGE - 5)),
    ] {
        let scene = Scene::new(pages(1, 10));
        let mm = scene.space();
        scene.map(&mm, AT, 40, Map::SHARED);
        scene.disk.lock().room = room;
        let all: Vec<u8> = vec![0xaa; 30 * PAGE];
        assert_eq!(scene.write(PAGE + 10, &all), taken.ok_or(Errno::ENOSPC));
        assert_eq!((scene.file.len(), scene.disk.bytes().len()), (room as u64, room));
        scene.check();
        assert!(scene.file.cached_pages() <= room.div_ceil(PAGE));
        let bus = Err(FaultError::BeyondObject);
        assert_eq!(scene.rig.read(&mm, AT + room.next_multiple_of(PAGE)), bus);
        // What lies behind the end is zeros, now and when the file is longer.
        let last = AT + room / PAGE * PAGE;
        if room % PAGE != 0 {
            assert_eq!(scene.rig.read(&mm, last + PAGE - 8), Ok(0));
        }
        scene.disk.lock().room = usize::MAX;
        scene.set_len(40 * PAGE).unwrap();
        let mut want = pages(1, 10);
        want.resize(room, 0xaa);
        want.resize(40 * PAGE, 0);
        assert!(scene.read(0, 40 * PAGE).unwrap() == want);
        assert_eq!((scene.write_back(), scene.disk.bytes() == want), (Ok(()), true));
        scene.rig.idle(0);
        drop(mm);
        scene.end();
    }
    // All of it, and by an error.
    let scene = Scene::new(pages(1, 10));
    scene.disk.lock().refuses = Some(Errno::EIO);
    assert_eq!(scene.write(PAGE + 5, &[0xaa; PAGE]), Ok(5), "that much lies within the file");
    assert_eq!(scene.write(PAGE + 10, &[0xaa; PAGE]), Err(Errno::EIO));
    assert_eq!(scene.write(5 * PAGE, &[0xaa; PAGE]), Err(Errno::EIO));
    assert_eq!((scene.file.len(), scene.file.cached_pages(), scene.marked()), (PAGE as u64 + 10, 1, vec![1]));
    scene.disk.lock().refuses = None;
    scene.set_len(2 * PAGE).unwrap();
    let mut want = pages(1, 10);
    want[PAGE + 5..].fill(0xaa);
    want.resize(2 * PAGE, 0);
    assert!(scene.read(0, 3 * PAGE).unwrap() == want);
    scene.write_back().unwrap();
    assert!(scene.disk.bytes() == want);
    scene.end();
}

#[test]
fn a_gap_is_zeros() {
    let scene = Scene::new(pages(1, 10));
    let mm = scene.space();
    scene.map(&mm, AT, 8, Map::SHARED);
    // A mapping has stored behind the end.
    scene.rig.write(&mm, AT + PAGE + 100, 77).unwrap();
    scene.rig.write(&mm, AT + PAGE, 78).unwrap();
    assert_eq!(scene.write(5 * PAGE + 50, &[0xaa; 10]), Ok(10));
    let mut want = pages(1, 10);
    want[PAGE..PAGE + 8].copy_from_slice(&78_u64.to_ne_bytes());
    want.resize(5 * PAGE + 50, 0);
    want.resize(5 * PAGE + 60, 0xaa);
    assert_eq!(scene.disk.asked().last(), Some(&Write((5 * PAGE + 50) as u64, 10, true)));
    assert!(scene.read(0, 8 * PAGE).unwrap() == want);
    scene.write_back().unwrap();
    assert!(scene.disk.bytes() == want);
    // Within the last page, twice in a turn.
    {
        let mut turn = Object::turn(&scene.file).unwrap();
        for at in [5 * PAGE + 100, 5 * PAGE + 200, 7 * PAGE + 1, 5 * PAGE + 55] {
            let put = |to: *mut u8, n: usize| {
                // SAFETY: the page's bytes.
                unsafe { to.write_bytes(0xbb, n) };
                n
            };
            assert_eq!(turn.write(at as u64, 10, &Supply::new(scene.rig.sim), put), Ok(10));
            want.resize(want.len().max(at + 10), 0);
            want[at..at + 10].fill(0xbb);
        }
        turn.commit().unwrap();
    }
    assert!(scene.read(0, 9 * PAGE).unwrap() == want);
    scene.write_back().unwrap();
    assert!(scene.disk.bytes() == want);
    assert_eq!(scene.drop_cache(), 0);
    assert!(scene.read(0, 9 * PAGE).unwrap() == want);
    scene.rig.idle(0);
    drop(mm);
    scene.end();
}

/// A call that changes the length is killed: nobody knows what the pager has done, until it is asked.
#[test]
fn the_length_is_asked_again_after_a_call_that_was_killed() {
    let scene = Scene::new(pages(2, 10));
    scene.disk.lock().ends = Some(Errno::EINTR);
    assert_eq!(scene.write(2 * PAGE + 10, &[0xaa; 2 * PAGE]), Err(Errno::EINTR));
    assert_eq!((scene.file.len(), scene.disk.bytes().len()), (2 * PAGE as u64 + 10, 4 * PAGE + 10));
    scene.disk.lock().ends = None;
    scene.disk.asked();
    Object::turn(&scene.file).unwrap().agree().unwrap();
    Object::turn(&scene.file).unwrap().agree().unwrap();
    assert_eq!(scene.disk.asked(), [Len, Read(2, 1)], "and for what it has added to a page that is here");
    // What is in memory and what the pager has is the same, also after both have forgotten.
    let seen = scene.read(0, 8 * PAGE).unwrap();
    assert_eq!((seen.len(), scene.write_back()), (4 * PAGE + 10, Ok(())));
    assert!(seen == scene.disk.bytes() && seen[2 * PAGE + 10..] == [0xaa; 2 * PAGE]);
    assert_eq!(scene.drop_cache(), 0);
    assert!(seen == scene.read(0, 8 * PAGE).unwrap());
    // The pager has cut the file, of which a page has to be written.
    scene.write(3 * PAGE, &[0xbb; PAGE]).unwrap();
    scene.disk.lock().ends = Some(Errno::EINTR);
    assert_eq!(scene.set_len(PAGE + 5), Err(Errno::EINTR));
    scene.disk.lock().ends = None;
    assert_eq!(scene.file.len(), 4 * PAGE as u64 + 10);
    Object::turn(&scene.file).unwrap().agree().unwrap();
    assert_eq!((scene.file.len(), scene.marked(), scene.file.cached_pages()), (PAGE as u64 + 5, vec![], 2));
    assert_eq!(scene.write_back(), Ok(()));
    assert_eq!(scene.disk.bytes(), pages(1, 5));
    // What it has added cannot be read: the length stays unknown, until that can.
    scene.disk.lock().ends = Some(Errno::EINTR);
    assert_eq!(scene.set_len(2 * PAGE), Err(Errno::EINTR));
    scene.disk.lock().ends = None;
    scene.disk.lock().unreadable = Some((1, Errno::EIO));
    assert_eq!(Object::turn(&scene.file).unwrap().agree(), Err(Errno::EIO));
    scene.disk.lock().unreadable = None;
    assert_eq!((scene.write(PAGE + 7, &[3; 2]), scene.file.len()), (Ok(2), 2 * PAGE as u64));
    let mut want = pages(1, 5);
    want.extend([0, 0, 3, 3]);
    want.resize(2 * PAGE, 0);
    assert_eq!(scene.read(0, 3 * PAGE).unwrap(), want);
    scene.end();
}

#[test]
fn a_truncate_is_the_pager_s_first() {
    let scene = Scene::new(pages(8, 0));
    let (mm, other) = (scene.space(), scene.space());
    scene.map(&mm, AT, 12, Map::SHARED);
    scene.map(&other, AT, 12, Map::PRIVATE);
    (0..8).for_each(|page| scene.rig.write(&mm, AT + page * PAGE, 70 + page as u64).unwrap());
    scene.rig.write(&other, AT + 5 * PAGE, 9).unwrap();
    scene.disk.asked();
    for error in [Errno::EIO, Errno::EPIPE] {
        scene.disk.lock().refuses = Some(error);
        assert_eq!((scene.set_len(2 * PAGE + 4), scene.set_len(9 * PAGE)), (Err(error), Err(error)));
        assert_eq!((scene.file.len(), scene.marked().len()), (8 * PAGE as u64, 8));
    }
    scene.disk.lock().refuses = None;
    scene.disk.asked();
    scene.set_len(2 * PAGE + 4).unwrap();
    assert_eq!(scene.disk.asked(), [Len, SetLen(2 * PAGE as u64 + 4)]);
    assert_eq!((scene.marked(), scene.file.cached_pages()), (vec![0, 1, 2], 3));
    for (mm, page) in [(&mm, 5), (&other, 5), (&mm, 3)] {
        assert_eq!(scene.rig.read(mm, AT + page * PAGE), Err(FaultError::BeyondObject));
    }
    assert_eq!(scene.rig.read(&mm, AT + 2 * PAGE), Ok(72));
    assert_eq!(scene.rig.read(&mm, AT + 2 * PAGE + 8), Ok(0));
    scene.set_len(12 * PAGE).unwrap();
    assert_eq!(scene.rig.read(&mm, AT + 5 * PAGE), Ok(0));
    scene.write_back().unwrap();
    let bytes = scene.disk.bytes();
    assert_eq!((bytes.len(), &bytes[2 * PAGE..2 * PAGE + 9]), (12 * PAGE, &[72, 0, 0, 0, 0, 0, 0, 0, 0][..]));
    assert!(scene.read(0, 12 * PAGE).unwrap() == bytes);
    // To the length that it has: nothing is asked.
    scene.disk.asked();
    scene.set_len(12 * PAGE).unwrap();
    assert_eq!(scene.disk.asked(), []);
    // A cut within a turn that has grown the file.
    {
        let mut turn = Object::turn(&scene.file).unwrap();
        let put = |_: *mut u8, n: usize| n;
        assert_eq!(turn.write(12 * PAGE as u64, 100, &Supply::new(scene.rig.sim), put), Ok(100));
        turn.set_len(12 * PAGE as u64 + 50).unwrap();
    }
    assert_eq!((scene.file.len(), scene.disk.bytes().len()), (12 * PAGE as u64 + 50, 12 * PAGE + 50));
    scene.rig.idle(0);
    drop((mm, other));
    scene.end();
}
