//! Shared ownership under loom: all interleavings of owners that release the value, of new owners, and of threads that
//! find a value that is about to be dropped.
//!
//! The file is compiled into this test with loom's atomics in place of the machine's.

extern crate alloc;

mod atomic {
    pub use loom::sync::atomic::{AtomicUsize, Ordering, fence};
}

#[allow(dead_code)]
#[path = "../src/fallible/karc.rs"]
mod karc;

use std::ptr::NonNull;

use karc::KArc;
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;

/// What karc.rs finds in the module above it.
#[derive(Debug)]
struct AllocError;

fn try_place<T>() -> Result<NonNull<T>, AllocError> {
    Ok(NonNull::from(Box::leak(Box::<T>::new_uninit())).cast())
}

/// Where a value is found by those who do not own it, as a space is by its family.
#[derive(Default)]
struct Family(Mutex<Option<usize>>);

impl Family {
    /// Comes to own the member, if it is not on its way out.
    fn find(&self) -> Option<KArc<Member>> {
        let member = self.0.lock().unwrap();
        // SAFETY: a member that ends takes this lock before its memory goes.
        member.and_then(|at| unsafe { KArc::upgrade(std::ptr::with_exposed_provenance::<Member>(at)) })
    }
}

/// A value, a cell of which each owner uses as its own, and how often it has ended.
struct Member {
    family: Arc<Family>,
    cells: [UnsafeCell<u32>; 2],
    ended: std::rc::Rc<std::cell::Cell<u32>>,
}

// SAFETY: loom runs its threads one at a time, on one thread of the host.
unsafe impl Send for Member {}
// SAFETY: as above.
unsafe impl Sync for Member {}

impl Member {
    fn new(family: &Arc<Family>, ended: &std::rc::Rc<std::cell::Cell<u32>>) -> KArc<Self> {
        let cells = std::array::from_fn(|_| UnsafeCell::new(0));
        let this = KArc::try_new(Self { family: family.clone(), cells, ended: ended.clone() }).unwrap();
        *family.0.lock().unwrap() = Some(KArc::as_ptr(&this).expose_provenance());
        this
    }

    /// What an owner does: loom fails if it is unordered with what the value's end does.
    fn use_cell(&self, i: usize) {
        assert_eq!(self.ended.get(), 0, "an owner of what has ended");
        // SAFETY: each owner has a cell of its own, until the value ends: which is what the model checks.
        self.cells[i].with_mut(|cell| unsafe { *cell += 1 });
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        *self.family.0.lock().unwrap() = None;
        // SAFETY: nobody owns the value any more.
        self.cells.iter().for_each(|cell| cell.with_mut(|cell| unsafe { *cell = u32::MAX }));
        self.ended.set(self.ended.get() + 1);
    }
}

fn model(check: impl Fn(Arc<Family>, KArc<Member>) + Sync + Send + 'static) {
    loom::model(move || {
        let (family, ended) = (Arc::new(Family::default()), std::rc::Rc::default());
        let member = Member::new(&family, &ended);
        check(family.clone(), member);
        assert_eq!(ended.get(), 1, "a value ends once");
        assert!(family.find().is_none());
    });
}

#[test]
fn whoever_finds_a_value_owns_it_or_comes_too_late() {
    model(|family, member| {
        let other = thread::spawn(move || {
            member.use_cell(0);
            drop(member);
        });
        if let Some(found) = family.find() {
            found.use_cell(1);
        }
        other.join().unwrap();
    });
}

#[test]
fn two_that_find_a_value_while_its_owner_ends_agree() {
    model(|family, member| {
        let far = family.clone();
        let finder = thread::spawn(move || drop(far.find().inspect(|found| found.use_cell(0))));
        let other = thread::spawn(move || drop(member));
        drop(family.find().inspect(|found| found.use_cell(1)));
        finder.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn the_last_of_several_owners_ends_the_value_after_all_others() {
    model(|_, member| {
        let copy = member.clone();
        let other = thread::spawn(move || {
            copy.use_cell(0);
            drop(copy);
        });
        member.use_cell(1);
        drop(member);
        other.join().unwrap();
    });
}

#[test]
fn owners_that_records_stand_for_count_like_others() {
    model(|_, member| {
        KArc::add_owners(&member, 2);
        let at = KArc::as_ptr(&member).expose_provenance();
        let records = thread::spawn(move || {
            let member = std::ptr::with_exposed_provenance::<Member>(at);
            // SAFETY: the two owners that were added are this thread's.
            unsafe {
                (*member).use_cell(0);
                KArc::drop_owners(member, 2);
            }
        });
        member.use_cell(1);
        drop(member);
        records.join().unwrap();
    });
}

#[test]
fn owners_that_come_at_once_all_count() {
    model(|_, member| {
        let other = member.clone();
        let far = thread::spawn(move || {
            let copy = other.clone();
            drop(other);
            copy.use_cell(0);
        });
        let copy = member.clone();
        drop(copy);
        member.use_cell(1);
        drop(member);
        far.join().unwrap();
    });
}

#[test]
fn records_that_come_at_once_all_count() {
    model(|_, member| {
        let other = member.clone();
        let far = thread::spawn(move || {
            KArc::add_owners(&other, 1);
            let at = KArc::as_ptr(&other);
            drop(other);
            // SAFETY: the owner that was added is this thread's.
            unsafe {
                (*at).use_cell(0);
                KArc::drop_owners(at, 1);
            }
        });
        KArc::add_owners(&member, 1);
        // SAFETY: as above.
        unsafe { KArc::drop_owners(KArc::as_ptr(&member), 1) };
        member.use_cell(1);
        drop(member);
        far.join().unwrap();
    });
}
