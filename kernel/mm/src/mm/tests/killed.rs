//! Calls of a thread that is killed: each ends at its next preemption point, and leaves the space whole.

use super::*;
use quire_abi::flags::madv;

const AREAS: usize = 8;
/// A table each.
const AREA: usize = 512 * PAGE;

/// Areas side by side that do not merge, without pages.
fn areas(rig: &Rig, mm: &Space) -> usize {
    let at = anon(rig, mm, AREAS * AREA);
    for area in (0..AREAS).step_by(2) {
        mm.advise(at + area * AREA, AREA, madv::SEQUENTIAL).unwrap();
    }
    assert_eq!(mm.stats().areas, AREAS);
    at
}

/// Makes a call with the thread killed after 0, 1, 2 and more points, until it is done before it is killed; returns how
/// many points that takes.
fn points(error: Errno, call: impl Fn(&Space, usize) -> Result<(), Errno>) -> usize {
    let rig = Rig::new(64);
    for lives in 0.. {
        let mm = rig.space();
        let at = areas(&rig, &mm);
        for area in 0..AREAS {
            rig.write(&mm, at + area * AREA, 1).unwrap();
        }
        Sim::kill_after(lives);
        let done = call(&mm, at);
        Sim::kill_after(usize::MAX);
        mm.validate();
        rig.idle(0);
        drop(mm);
        rig.assert_balanced();
        match done {
            Ok(()) => return lives,
            Err(other) => assert_eq!(other, error, "killed after {lives} points"),
        }
    }
    unreachable!()
}

#[test]
fn each_call_ends_at_its_next_point() {
    const LEN: usize = AREAS * AREA;
    let by_area = [
        ("fork", points(Errno::ENOMEM, |mm, _| mm.fork().map(drop))),
        ("mprotect", points(Errno::EINTR, |mm, at| mm.protect(at, LEN, Prot::READ))),
        ("madvise", points(Errno::EINTR, |mm, at| mm.advise(at, LEN, madv::COLD))),
    ];
    for (call, points) in by_area {
        assert!(points >= AREAS, "{call}: {points} points for {AREAS} areas");
    }
    let by_page = [
        ("populate", points(Errno::ENOMEM, |mm, at| mm.advise(at, LEN, madv::POPULATE_WRITE))),
        ("mincore", points(Errno::EINTR, |mm, at| mm.in_core(at, LEN, |_, _| ()))),
    ];
    for (call, points) in by_page {
        assert!(points >= LEN / PAGE / 256, "{call}: {points} points for {} pages", LEN / PAGE);
    }
}

/// mlock notices the kill when it marks the areas, and when it brings their pages in.
#[test]
fn a_killed_thread_locks_no_more() {
    let rig = Rig::new(64);
    let mut before_pages = 0;
    for lives in 0.. {
        let mm = rig.space();
        let at = areas(&rig, &mm);
        Sim::kill_after(lives);
        let done = mm.lock(at, AREAS * AREA, false);
        Sim::kill_after(usize::MAX);
        mm.validate();
        let locked = mm.stats().locked * PAGE / AREA;
        match done {
            Ok(()) => break,
            Err(Errno::EINTR) => before_pages = lives + 1,
            Err(other) => assert_eq!((other, locked), (Errno::EAGAIN, AREAS)),
        }
        assert_eq!(locked, AREAS.min(lives));
    }
    assert_eq!(before_pages, AREAS);
}

/// What MAP_POPULATE cannot bring in, it does not report: its pages show where it ended.
#[test]
fn a_killed_thread_is_given_no_more_pages() {
    let rig = Rig::new(64);
    let all = AREA / PAGE;
    for lives in [0, 1, 5, all] {
        let mm = rig.space();
        Sim::kill_after(lives);
        map_at(&mm, 0, AREA, RW, Map::POPULATE).unwrap();
        Sim::kill_after(usize::MAX);
        let given = mm.stats().rss_anon;
        assert!(given <= 64 * lives, "{given} pages for a thread that was killed after {lives} points");
        assert_eq!(given == all, lives == all);
    }
    rig.assert_balanced();
}
