//! The table of all processes and threads, by number, and what it covers of each process: its family, its group, and the
//! list of its threads.
//!
//! The lock ([`Rank::Processes`]) is held for O(log n) steps, or a bounded number of them: whoever goes through
//! processes, members of a group or threads does so by number, a few under each hold of the lock
//! ([`walk`](super::walk)).

use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::Ordering;

use alloc::vec::Vec;
use intrusive_collections::intrusive_adapter;
use intrusive_collections::{Bound, KeyAdapter, LinkedList, LinkedListLink, RBTree, RBTreeLink, UnsafeRef};
use quire_abi::Errno;
use quire_abi::flags::si;
use quire_abi::flags::sig;
use quire_mm::fallible::{KArc, TryVec};
use quire_mm::numbers::{LIMIT, Numbers};
use quire_mm::sync::Rank;

use super::children::{Children, News};
use super::membership;
use super::process::Process;
use super::signal::{self, Info};
use super::thread::Thread;
use crate::arch::speculation;
use crate::vm::{Cpu, SpinLock};

/// One more than the highest process or thread number.
const PID_MAX: u32 = LIMIT;

/// Threads of a process that are told of something at once; of others hear the threads that leave, or the
/// [signal thread](super::signal_thread).
pub const AT_ONCE: usize = 8;
/// Threads of a process that ends that are roused by each that leaves.
pub const ROUSED_BY_EACH: usize = 2;

/// Numbers whose entries lie together.
const CHUNK: usize = 256;
const CHUNKS: usize = PID_MAX as usize / CHUNK;

intrusive_adapter!(ByTid = UnsafeRef<Thread>: Thread { sibling_link => RBTreeLink });
intrusive_adapter!(ByPgid = UnsafeRef<Process>: Process { group_link => RBTreeLink });
intrusive_adapter!(ToMark = UnsafeRef<Process>: Process { mark_link => LinkedListLink });

impl<'a> KeyAdapter<'a> for ByTid {
    type Key = u32;
    fn get_key(&self, thread: &'a Thread) -> u32 {
        thread.tid()
    }
}

impl<'a> KeyAdapter<'a> for ByPgid {
    type Key = (u32, u32);
    fn get_key(&self, process: &'a Process) -> (u32, u32) {
        (process.pgid(), process.pid)
    }
}

/// What the table's lock covers of a process.
pub struct Family {
    /// Null for init alone.
    pub parent: *const Process,
    /// Children, dead ones too.
    pub children: Children,
    threads: RBTree<ByTid>,
    /// How many threads there are.
    pub thread_count: u32,
    /// The next thread that is to be roused has this number or a higher one.
    to_rouse: Cell<u32>,
    /// The next thread that is to be marked has this number or a higher one, or is the first.
    to_mark: Cell<u32>,
    /// Threads that are still to be.
    left_to_mark: Cell<u32>,
    /// Session.
    pub sid: u32,
    /// The signal that the parent gets at the end; 0 for none.
    pub exit_signal: u32,
    /// Has ended; all but the number and the status is gone.
    pub is_zombie: bool,
}

impl Family {
    /// Of a process that is alone.
    pub fn new(sid: u32) -> Self {
        Self {
            parent: core::ptr::null(),
            children: Children::new(),
            threads: RBTree::new(ByTid::NEW),
            thread_count: 0,
            to_rouse: Cell::new(u32::MAX),
            to_mark: Cell::new(0),
            left_to_mark: Cell::new(0),
            sid,
            exit_signal: 0,
            is_zombie: false,
        }
    }

    /// The threads with this number or a higher one.
    pub fn threads_from(&self, tid: u32) -> impl Iterator<Item = &Thread> {
        let mut at = self.threads.lower_bound(Bound::Included(&tid));
        core::iter::from_fn(move || {
            let thread = at.get();
            at.move_next();
            thread
        })
        // (A cursor goes from the end to the first again.)
        .fuse()
    }

    /// The thread with the lowest number.
    pub fn first_thread(&self) -> Option<&Thread> {
        self.threads.front().get()
    }
}

/// A number's holder.
pub enum Entry {
    /// A process, owned by the table until it has been waited for.
    Process(KArc<Process>),
    /// A thread other than a process's first.
    Thread(KArc<Thread>),
    /// Somebody that is being made.
    Reserved,
}

type Chunk = Vec<Option<Entry>>;

/// Why there is no number.
#[derive(Debug)]
pub enum Lack {
    /// All are in use.
    Number,
    /// There is no place for it: one is to be [made](Room::new).
    Room,
}

impl From<Lack> for Errno {
    fn from(_: Lack) -> Self {
        Errno::EAGAIN
    }
}

/// Entries for numbers that were never used.
pub struct Room(Chunk);

impl Room {
    /// Some; the table's lock is open.
    pub fn new() -> Result<Self, Errno> {
        let mut chunk: Chunk = TryVec::try_with_capacity(CHUNK)?;
        for _ in 0..CHUNK {
            chunk.try_push(None)?;
        }
        Ok(Self(chunk))
    }
}

/// All numbers in use.
pub struct Table {
    numbers: Numbers,
    /// Those that are processes', to find the next one.
    pids: Numbers,
    /// By number; places stay once they were made.
    entries: [Chunk; CHUNKS],
    /// All processes, by group.
    groups: RBTree<ByPgid>,
    /// Processes with threads that are to be marked. Behind `&Table` only [`Table::mark_all`] goes there.
    to_mark: UnsafeCell<LinkedList<ToMark>>,
    chunks: u32,
    /// Processes and threads that were made.
    made: u64,
    processes: u32,
    threads: u32,
}

/// The one table.
pub static TABLE: SpinLock<Table> = SpinLock::new(Cpu, Rank::Processes, Table::new());

// SAFETY: what it points to is `Sync`, and outlives its membership.
unsafe impl Send for Table {}

impl Table {
    const fn new() -> Self {
        Self {
            numbers: Numbers::new(),
            pids: Numbers::new(),
            entries: [const { Vec::new() }; CHUNKS],
            groups: RBTree::new(ByPgid::NEW),
            to_mark: UnsafeCell::new(LinkedList::new(ToMark::NEW)),
            chunks: 0,
            made: 0,
            processes: 0,
            threads: 0,
        }
    }

    /// Takes the next free number, for somebody that is being made.
    pub fn reserve(&mut self, room: Option<&mut Room>) -> Result<u32, Lack> {
        let number = self.numbers.next_free().ok_or(Lack::Number)?;
        let chunk = &mut self.entries[number as usize / CHUNK];
        if chunk.is_empty() {
            core::mem::swap(chunk, &mut room.ok_or(Lack::Room)?.0);
            self.chunks += 1;
        }
        self.numbers.take(number);
        self.set(number, Entry::Reserved);
        Ok(number)
    }

    fn set(&mut self, number: u32, entry: Entry) {
        if let Some(slot) = self.entries[number as usize / CHUNK].get_mut(number as usize % CHUNK) {
            *slot = Some(entry);
        }
    }

    fn get(&self, number: u32) -> Option<&Entry> {
        let number = speculation::bounded(number as usize, PID_MAX as usize)?;
        self.entries[number / CHUNK].get(number % CHUNK)?.as_ref()
    }

    /// Enters a thread under its number, which was reserved.
    pub fn insert_thread(&mut self, thread: &KArc<Thread>) {
        self.set(thread.tid(), Entry::Thread(thread.clone()));
    }

    /// Enters a process under its number, which was reserved, in its group.
    pub fn insert_process(&mut self, process: &KArc<Process>) {
        self.processes += 1;
        // SAFETY: `remove` takes it out before the table gives it up.
        self.groups.insert(unsafe { UnsafeRef::from_raw(KArc::as_ptr(process)) });
        self.pids.take(process.pid);
        self.set(process.pid, Entry::Process(process.clone()));
    }

    /// Frees a number. The holder comes back, to be dropped when the lock is open.
    pub fn remove(&mut self, number: u32) -> Option<Entry> {
        let entry = self.entries[number as usize / CHUNK].get_mut(number as usize % CHUNK)?.take()?;
        self.numbers.give_back(number);
        match &entry {
            Entry::Process(process) => membership::task_is_gone(process),
            Entry::Thread(thread) => membership::task_is_gone(thread.process()),
            Entry::Reserved => {}
        }
        if let Entry::Process(process) = &entry {
            self.processes -= 1;
            self.pids.give_back(number);
            // SAFETY: `insert_process` put it in; a linked process is in the list of those to mark.
            unsafe {
                self.groups.cursor_mut_from_ptr(KArc::as_ptr(process)).remove();
                if process.mark_link.is_linked() {
                    self.to_mark.get_mut().cursor_mut_from_ptr(KArc::as_ptr(process)).remove();
                }
            }
        }
        Some(entry)
    }

    /// The process with a number.
    pub fn process(&self, pid: u32) -> Option<&KArc<Process>> {
        match self.get(pid)? {
            Entry::Process(p) => Some(p),
            _ => None,
        }
    }

    /// The process that a number belongs to, as its own or as that of one of its threads.
    pub fn owner(&self, number: u32) -> Option<&KArc<Process>> {
        match self.get(number)? {
            Entry::Process(process) => Some(process),
            Entry::Thread(thread) => Some(thread.process()),
            Entry::Reserved => None,
        }
    }

    /// The process with the lowest number from `from` on, zombies too. O(1), however many processes and threads there are.
    pub fn next_process(&self, from: u32) -> Option<&KArc<Process>> {
        // (0 is taken, and nobody's.)
        let from = speculation::bounded(from.max(1) as usize, PID_MAX as usize)? as u32;
        self.process(self.pids.next_used(from)?)
    }

    /// The member of a group with the lowest number above `after`, zombies too.
    pub fn next_member(&self, pgid: u32, after: u32) -> Option<&KArc<Process>> {
        let found = self.groups.lower_bound(Bound::Excluded(&(pgid, after)));
        let pid = found.get().filter(|process| process.pgid() == pgid)?.pid;
        self.process(pid)
    }

    /// The thread with a number, a process's first thread too.
    pub fn thread(&self, tid: u32) -> Option<&Thread> {
        match self.get(tid)? {
            Entry::Thread(t) => Some(t),
            Entry::Process(p) => self.family(p).threads.find(&tid).get(),
            Entry::Reserved => None,
        }
    }

    /// Processes and threads that there are.
    pub fn counts(&self) -> (u32, u32) {
        (self.processes, self.threads)
    }

    /// Threads that were made since power-on, first ones of processes too, and the number that was given last.
    pub fn made(&self) -> (u64, u32) {
        (self.made, self.numbers.last())
    }

    /// Allocations that places for numbers have taken, which stay.
    pub fn allocations(&self) -> u32 {
        self.chunks
    }

    /// The family of a process.
    pub fn family<'a>(&'a self, process: &'a Process) -> &'a Family {
        // SAFETY: `&self` is proof of the lock, and nobody has `&mut self`.
        unsafe { &*process.family.get() }
    }

    /// The family of a process, to change.
    pub fn family_mut<'a>(&'a mut self, process: &'a Process) -> &'a mut Family {
        // SAFETY: `&mut self` is proof of the lock, and borrowed for as long as the answer.
        unsafe { &mut *process.family.get() }
    }

    /// Numbers that a process and its threads have: its own too, if its first thread has ended.
    pub fn tasks(&self, process: &Process) -> usize {
        let family = self.family(process);
        let has_first = family.threads.find(&process.pid).get().is_some();
        family.thread_count as usize + usize::from(!has_first)
    }

    /// Adds a thread to its process.
    pub fn add_thread(&mut self, process: &Process, thread: &KArc<Thread>) {
        let family = self.family_mut(process);
        // SAFETY: `remove_thread` takes it out before its last owner goes.
        family.threads.insert(unsafe { UnsafeRef::from_raw(KArc::as_ptr(thread)) });
        family.thread_count += 1;
        let left = family.left_to_mark.get();
        if left > 0 {
            // It may come before one that is still to be marked.
            family.left_to_mark.set(left + 1);
        }
        self.threads += 1;
        self.made += 1;
    }

    /// Takes a thread out of its process; answers how many are left.
    pub fn remove_thread(&mut self, process: &Process, thread: &Thread) -> u32 {
        let family = self.family_mut(process);
        // SAFETY: a thread is among its process's from `add_thread` until here.
        unsafe { family.threads.cursor_mut_from_ptr(thread).remove() };
        family.thread_count -= 1;
        let left = family.thread_count;
        self.threads -= 1;
        left
    }

    /// All threads of a process that ends, or all but one of one that execs, are to leave: the first few hear of it at
    /// once, and each that leaves [tells others](Table::rouse_some). There may be thousands, and the table is locked.
    pub fn rouse_all(&self, process: &Process) {
        self.family(process).to_rouse.set(0);
        self.rouse_some(process, AT_ONCE);
    }

    /// Rouses some of the threads that are still to be.
    #[inline]
    pub fn rouse_some(&self, process: &Process, count: usize) {
        let family = self.family(process);
        if family.to_rouse.get() != u32::MAX {
            rouse_from(family, count);
        }
    }

    /// Makes threads of a process look at its signals and at whether it is stopped, those that have reason to: a few at
    /// once, the others by the signal thread. True if it has something to do.
    #[must_use]
    pub fn mark_all(&self, process: &Process) -> bool {
        let family = self.family(process);
        if family.thread_count as usize <= AT_ONCE {
            family.threads_from(0).for_each(|thread| signal::mark(self, thread, process));
            return false;
        }
        family.left_to_mark.set(family.thread_count);
        mark_from(self, family, process);
        if !process.mark_link.is_linked() {
            // SAFETY: the table is locked, so this is the only reference to the list; `remove` and `mark_some` take the
            // process out.
            unsafe { (*self.to_mark.get()).push_back(UnsafeRef::from_raw(process)) };
        }
        true
    }

    /// Marks some threads of a process that has some left to mark. False if there is none.
    pub fn mark_some(&mut self) -> bool {
        let Some(process) = self.to_mark.get_mut().pop_front() else { return false };
        let family = self.family(&process);
        mark_from(self, family, &process);
        if family.left_to_mark.get() > 0 {
            self.to_mark.get_mut().push_back(process);
        }
        true
    }

    /// Makes `child` a child of `parent`.
    pub fn adopt(&mut self, parent: &Process, child: &Process) {
        self.family_mut(child).parent = parent;
        child.ppid.store(parent.pid, Ordering::Relaxed);
        // SAFETY: a child stays among its parent's until `give_children` or `reap`, while the table owns it.
        unsafe { self.family(parent).children.add(self, child, News::None) };
    }

    /// The parent of a process, but for init.
    pub fn parent<'a>(&'a self, process: &'a Process) -> Option<&'a Process> {
        // SAFETY: a parent outlives its children's membership, since they are given to init when it ends; and the table
        // is locked.
        unsafe { self.family(process).parent.as_ref() }
    }

    /// There is other news of a process for its parent.
    pub fn tell(&self, process: &Process, news: News) {
        if let Some(parent) = self.parent(process) {
            // SAFETY: a process is among its parent's children.
            unsafe { self.family(parent).children.tell(self, process, news, || {}) };
        }
    }

    /// exec: whatever the parent wanted to hear at the end of the former program, it hears SIGCHLD at the end of this one.
    pub fn reset_exit_signal(&mut self, process: &Process) {
        if self.family(process).exit_signal == sig::CHLD {
            return;
        }
        let Some(parent) = self.parent(process) else { return };
        // SAFETY: a process is among its parent's children, which do not look at its family while they change.
        unsafe {
            let change = || (*process.family.get()).exit_signal = sig::CHLD;
            self.family(parent).children.tell(self, process, process.news(), change);
        }
    }

    /// Puts a process into another group.
    pub fn set_group(&mut self, process: &Process, pgid: u32) {
        // SAFETY: `insert_process` put it in.
        let Some(entry) = (unsafe { self.groups.cursor_mut_from_ptr(process).remove() }) else { return };
        let change = || process.pgid.store(pgid, Ordering::Relaxed);
        match self.parent(process) {
            Some(parent) => {
                // SAFETY: a process is among its parent's children.
                unsafe { self.family(parent).children.tell(self, process, process.news(), change) };
            }
            None => change(),
        }
        self.groups.insert(entry);
    }

    /// Moves a child that has ended among the zombies.
    pub fn make_zombie(&mut self, child: &Process) {
        self.family_mut(child).is_zombie = true;
        self.tell(child, News::Ended);
    }

    /// Takes a zombie out of its parent's children and out of the table.
    pub fn reap(&mut self, zombie: &Process) -> Option<Entry> {
        if let Some(parent) = self.parent(zombie) {
            // SAFETY: a process is among its parent's children.
            unsafe { self.family(parent).children.remove(self, zombie) };
        }
        zombie.is_reaped.store(true, Ordering::Release);
        self.remove(zombie.pid)
    }

    /// Gives some children of a process that ends to `heir`, zombies last, fewer if they are sent signals; answers whether it has none
    /// left, and a zombie of those given.
    pub fn give_children(&mut self, from: &Process, heir: &Process, most: usize) -> (bool, Option<KArc<Process>>) {
        let (mut zombie, mut signals) = (None, 0);
        for _ in 0..most {
            if signals == AT_ONCE {
                break;
            }
            let Some((child, news)) = self.family(from).children.take_any(self) else { return (true, zombie) };
            let family = self.family_mut(&child);
            family.parent = heir;
            // Whatever the signal was to tell is of no use to the heir, which waits for all that it is given.
            family.exit_signal = sig::CHLD;
            child.ppid.store(heir.pid, Ordering::Relaxed);
            // SAFETY: it has just been taken out, and the table owns it still.
            unsafe { self.family(heir).children.add(self, &child, news) };
            let signal = child.parent_death_signal.load(Ordering::Relaxed);
            if signal != 0 {
                signals += 1;
                signal::send_to_process(self, &child, &Info::of_user(signal, si::USER, from.pid, from.uid()));
            }
            if news == News::Ended {
                zombie = self.process(child.pid).cloned();
            }
        }
        (false, zombie)
    }
}

#[cold]
fn rouse_from(family: &Family, count: usize) {
    let mut threads = family.threads_from(family.to_rouse.get());
    threads.by_ref().take(count).for_each(signal::rouse);
    family.to_rouse.set(threads.next().map_or(u32::MAX, Thread::tid));
}

/// Marks a few threads from where the last ones were, round and round until none are left.
fn mark_from(table: &Table, family: &Family, process: &Process) {
    for _ in 0..AT_ONCE {
        let left = family.left_to_mark.get();
        let next = || family.threads_from(family.to_mark.get()).next().or(family.first_thread());
        let Some(thread) = (left > 0).then(next).flatten() else {
            family.left_to_mark.set(0);
            return;
        };
        signal::mark(table, thread, process);
        family.to_mark.set(thread.tid() + 1);
        family.left_to_mark.set(left - 1);
    }
}
