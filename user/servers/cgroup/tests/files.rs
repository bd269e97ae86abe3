//! The files and directories of simulated groups.

use std::cell::RefCell;

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::group::{GroupInfo, event, set};
use quire_abi::layout::{at, mode};
use quire_abi::names::{DONE, node, op, state};
use quire_abi::pressure::{Pressure, Share};
use quire_cgroupfs::facts::Facts;
use quire_cgroupfs::serve::serve;
use quire_fs::request::{Answer, Request};

#[derive(Default)]
struct Machine {
    groups: RefCell<Vec<GroupInfo>>,
    /// Processes and their groups.
    processes: RefCell<Vec<(u32, u64)>>,
    made: RefCell<u64>,
    killed: RefCell<Vec<u64>>,
}

impl Facts for Machine {
    fn group_from(&self, number: u32) -> Option<GroupInfo> {
        let groups = self.groups.borrow();
        let mut all: Vec<_> = groups.iter().filter(|group| (group.key & 0xffff) as u32 >= number).copied().collect();
        all.sort_by_key(|group| group.key & 0xffff);
        let mut first = *all.first()?;
        let within = |mut key: u64, of: u64| {
            while key != of && key != 0 {
                key = groups.iter().find(|group| group.key == key).map_or(0, |group| group.parent);
            }
            key == of
        };
        let processes = self.processes.borrow();
        first.members = processes.iter().filter(|(_, key)| *key == first.key).count() as u32;
        first.is_populated = processes.iter().any(|(_, key)| within(*key, first.key)).into();
        first.descendants =
            groups.iter().filter(|group| group.key != first.key && within(group.key, first.key)).count() as u64;
        first.is_frozen = first.freezes;
        Some(first)
    }
    fn pressure(&self, key: u64) -> Pressure {
        let share = |total| Share { total, ..Share::default() };
        Pressure { some: share(key & 0xffff), full: share(0) }
    }
    fn find(&self, parent: u64, name: &[u8]) -> Option<u64> {
        let is_it =
            |group: &&GroupInfo| group.parent == parent && group.name.starts_with(name) && group.name[name.len()] == 0;
        self.groups.borrow().iter().find(is_it).map(|group| group.key)
    }
    fn make(&self, parent: u64, name: &[u8]) -> Result<(), Errno> {
        *self.made.borrow_mut() += 1;
        let made = *self.made.borrow();
        let mut group = GroupInfo {
            key: made << 16 | made,
            parent,
            limits: [0, 0, u64::MAX, u64::MAX, u64::MAX, u64::MAX],
            max_descendants: u64::MAX,
            max_depth: u64::MAX,
            ..GroupInfo::default()
        };
        group.name[..name.len()].copy_from_slice(name);
        self.groups.borrow_mut().push(group);
        Ok(())
    }
    fn remove(&self, key: u64) -> Result<(), Errno> {
        self.groups.borrow_mut().retain(|group| group.key != key);
        Ok(())
    }
    fn set(&self, key: u64, what: usize, value: u64) -> Result<(), Errno> {
        for group in self.groups.borrow_mut().iter_mut().filter(|group| group.key == key) {
            match what {
                set::DISTRIBUTES => group.distributes = value as u32,
                set::KILLS_ALL => group.kills_all = value as u32,
                set::PEAK => group.peak = group.usage,
                set::FREEZES => (group.freezes, group.changes) = (value as u32, group.changes + 1),
                set::MAX_DESCENDANTS => group.max_descendants = value,
                set::MAX_DEPTH => group.max_depth = value,
                limit => group.limits[limit] = value,
            }
        }
        Ok(())
    }
    fn move_to(&self, key: u64, pid: u32) -> Result<(), Errno> {
        let mut processes = self.processes.borrow_mut();
        processes.iter_mut().find(|(other, _)| *other == pid).map(|process| process.1 = key).ok_or(Errno::ESRCH)
    }
    fn kill(&self, key: u64) -> Result<(), Errno> {
        self.killed.borrow_mut().push(key);
        Ok(())
    }
    fn thread_from(&self, pid: u32, tid: u32) -> Option<u32> {
        [pid, pid + 1].into_iter().find(|thread| *thread >= tid)
    }
    fn reclaim(&self, _: u64, pages: u64) -> Result<u64, Errno> {
        Ok(pages.min(100))
    }
    fn process_from(&self, pid: u32) -> Option<(u32, u64)> {
        self.processes.borrow().iter().filter(|(other, _)| *other >= pid).min().copied()
    }
    fn caller(&self) -> u32 {
        5
    }
    fn now(&self) -> u64 {
        0
    }
}

impl Machine {
    fn new() -> Self {
        let machine = Machine::default();
        *machine.processes.borrow_mut() = vec![(1, 0), (5, 0), (9, 0)];
        machine
    }

    fn ask(&self, user: u32, op: u64, directory: u64, path: &str, argument: u64, text: &str) -> Answer {
        let request = Request {
            op,
            directory,
            argument,
            mode: 0,
            identity: (user, user),
            follow: true,
            path: path.as_bytes(),
            text: text.as_bytes(),
        };
        serve(self, &request, 4096)
    }

    fn done(answer: Answer) -> Result<Answer, Errno> {
        if answer.label == DONE { Ok(answer) } else { Err(Errno::from_ret(answer.label as isize).unwrap_err()) }
    }

    fn node(&self, path: &str) -> Result<u64, Errno> {
        Self::done(self.ask(0, op::LOOKUP, 0, path, 0, "")).map(|answer| answer.words[0])
    }

    fn read(&self, path: &str) -> Result<String, Errno> {
        let number = self.node(path)?;
        Self::done(self.ask(0, op::READ, number, "", 0, "")).map(|answer| String::from_utf8(answer.text).unwrap())
    }

    fn write(&self, path: &str, text: &str) -> Result<(), Errno> {
        let number = self.node(path)?;
        Self::done(self.ask(0, op::WRITE, number, "", 0, text)).map(drop)
    }

    fn mkdir(&self, path: &str) -> Result<(), Errno> {
        Self::done(self.ask(0, op::MKDIR, 0, path, 0o755, "")).map(drop)
    }

    fn rmdir(&self, path: &str) -> Result<(), Errno> {
        Self::done(self.ask(0, op::UNLINK, 0, path, at::REMOVEDIR.into(), "")).map(drop)
    }

    fn open(&self, user: u32, path: &str, flags: Open) -> Result<(), Errno> {
        Self::done(self.ask(user, op::OPEN, 0, path, flags.bits().into(), "")).map(drop)
    }
}

#[test]
fn groups_are_directories() {
    let machine = Machine::new();
    assert_eq!((machine.mkdir("a"), machine.mkdir("a/b")), (Ok(()), Ok(())));
    assert_eq!((machine.mkdir("a"), machine.mkdir("x/y")), (Err(Errno::EEXIST), Err(Errno::ENOENT)));
    assert_eq!(machine.mkdir("a/b/memory.max"), Err(Errno::EINVAL));
    let path = |path: &str| machine.ask(0, op::PATH, machine.node(path).unwrap(), "", 0, "").text;
    assert_eq!(
        (path("a/b"), path("a/b/cgroup.procs"), path(".")),
        (b"/a/b".into(), b"/a/b/cgroup.procs".into(), b"/".into())
    );
    assert_eq!(machine.rmdir("a/cgroup.procs"), Err(Errno::ENOTDIR));
    assert_eq!(
        (machine.rmdir("a/b"), machine.rmdir("."), machine.rmdir("none")),
        (Ok(()), Err(Errno::EBUSY), Err(Errno::ENOENT))
    );
    assert_eq!(Machine::done(machine.ask(7, op::MKDIR, 0, "c", 0, "")).map(drop), Err(Errno::EACCES));
    assert_eq!(
        Machine::done(machine.ask(7, op::UNLINK, 0, "a", at::REMOVEDIR.into(), "")).map(drop),
        Err(Errno::EACCES)
    );
    assert_eq!(Machine::done(machine.ask(0, op::RENAME, 0, "a", 0, "b")).map(drop), Err(Errno::EPERM));
}

#[test]
fn limits_are_written_in_bytes() {
    let machine = Machine::new();
    machine.mkdir("a").unwrap();
    for (text, said) in
        [("max", "max\n"), ("4096\n", "4096\n"), ("5000", "4096\n"), ("2M", "2097152\n"), (" 1g ", "1073741824\n")]
    {
        machine.write("a/memory.max", text).unwrap();
        assert_eq!(machine.read("a/memory.max").as_deref(), Ok(said));
    }
    for text in ["", "-1", "+5", "1x", "M", "1 2", "99999999999999999999"] {
        assert_eq!(machine.write("a/memory.max", text), Err(Errno::EINVAL), "{text}");
    }
    machine.write("a/memory.max", "99999999999T").unwrap();
    assert_eq!(machine.read("a/memory.max").as_deref(), Ok("max\n"));
    for file in ["memory.min", "memory.low", "memory.high", "memory.swap.max"] {
        machine.write(&format!("a/{file}"), "8192").unwrap();
        assert_eq!(machine.read(&format!("a/{file}")).as_deref(), Ok("8192\n"));
    }
    assert_eq!(machine.write("a/memory.oom.group", "2"), Err(Errno::EINVAL));
    machine.write("a/memory.oom.group", "1").unwrap();
    assert_eq!(machine.read("a/memory.oom.group").as_deref(), Ok("1\n"));
    assert_eq!(
        (machine.write("a/memory.reclaim", "4096"), machine.write("a/memory.reclaim", "1M")),
        (Ok(()), Err(Errno::EAGAIN))
    );
    let none = "avg10=0.00 avg60=0.00 avg300=0.00";
    let number = machine.find(0, b"a").unwrap() & 0xffff;
    let pressure = format!("some {none} total={number}\nfull {none} total=0\n");
    assert_eq!(machine.read("a/memory.pressure"), Ok(pressure));
    let set = |path: &str, text: &str| {
        let number = machine.node(path)?;
        Machine::done(machine.ask(0, op::WRITE, number, "", 0, text)).map(|answer| answer.words)
    };
    let key = machine.find(0, b"a").unwrap();
    assert_eq!(set("a/memory.pressure", "full 7 500000\n"), Ok([14, key, 1, 7, 500_000, 0]));
    assert_eq!(set("memory.pressure", "some 7 500000"), Ok([13, 0, 0, 7, 500_000, 0]));
    assert_eq!(set("a/memory.pressure", "full"), Err(Errno::EINVAL));
    let mode = |path: &str| machine.ask(0, op::LOOKUP, 0, path, 0, "").words[node::MODE] as u32;
    assert_eq!(
        (mode("a/memory.pressure"), mode("a/memory.max")),
        (mode::REG | 0o644 | node::TRIGGER, mode::REG | 0o644)
    );
    assert_eq!(machine.read("memory.pressure"), Ok(format!("some {none} total=0\nfull {none} total=0\n")));
}

#[test]
fn processes_are_where_they_were_written_to() {
    let machine = Machine::new();
    machine.mkdir("a").unwrap();
    machine.mkdir("a/b").unwrap();
    assert_eq!(machine.read("cgroup.procs").as_deref(), Ok("1\n5\n9\n"));
    machine.write("a/b/cgroup.procs", "9").unwrap();
    machine.write("a/cgroup.procs", "0").unwrap();
    assert_eq!(
        (machine.read("a/cgroup.procs").as_deref(), machine.read("a/b/cgroup.procs").as_deref()),
        (Ok("5\n"), Ok("9\n"))
    );
    assert_eq!(machine.write("a/cgroup.procs", "77"), Err(Errno::ESRCH));
    assert_eq!(machine.write("a/cgroup.subtree_control", "+memory"), Err(Errno::EBUSY));
    machine.write("cgroup.procs", "5").unwrap();
    machine.write("a/cgroup.subtree_control", "+memory").unwrap();
    assert_eq!(machine.write("a/cgroup.procs", "1"), Err(Errno::EBUSY));
    assert_eq!(machine.read("a/cgroup.events").as_deref(), Ok("populated 1\nfrozen 0\n"));
    assert_eq!(machine.read("cgroup.stat").as_deref(), Ok("nr_descendants 2\n"));
}

#[test]
fn a_group_has_what_the_one_above_distributes() {
    let machine = Machine::new();
    machine.mkdir("a").unwrap();
    machine.mkdir("a/b").unwrap();
    assert_eq!(
        (machine.read("a/cgroup.controllers").as_deref(), machine.read("a/b/cgroup.controllers").as_deref()),
        (Ok("memory pids\n"), Ok("\n"))
    );
    assert_eq!(machine.read("a/b/memory.max"), Err(Errno::ENOENT));
    assert_eq!(machine.write("a/b/cgroup.subtree_control", "+memory"), Err(Errno::ENOENT));
    machine.write("a/cgroup.subtree_control", "+memory").unwrap();
    assert_eq!(machine.read("a/b/memory.max").as_deref(), Ok("max\n"));
    machine.write("a/b/cgroup.subtree_control", "+memory").unwrap();
    assert_eq!(machine.write("a/cgroup.subtree_control", "-memory"), Err(Errno::EBUSY));
    for text in ["memory", "+cpu", "+"] {
        assert_eq!(machine.write("a/cgroup.subtree_control", text), Err(Errno::EINVAL));
    }
    assert_eq!(
        (machine.write("cgroup.subtree_control", "+memory"), machine.write("cgroup.subtree_control", "-memory")),
        (Ok(()), Err(Errno::EBUSY))
    );
    assert_eq!(machine.read("memory.max"), Err(Errno::ENOENT));
}

#[test]
fn controllers_are_distributed_one_by_one() {
    let machine = Machine::new();
    ["a", "a/b"].iter().for_each(|path| machine.mkdir(path).unwrap());
    let has = |file: &str| machine.read(&format!("a/b/{file}")).is_ok();
    machine.write("a/cgroup.subtree_control", "+pids").unwrap();
    assert_eq!((has("pids.max"), has("memory.max"), has("cgroup.freeze")), (true, false, true));
    machine.write("a/cgroup.subtree_control", "-pids +memory +pids").unwrap();
    assert_eq!(machine.read("a/cgroup.subtree_control").as_deref(), Ok("memory pids\n"));
    machine.write("a/b/pids.max", "7").unwrap();
    machine.write("a/b/memory.max", "8192").unwrap();
    // All words or none.
    assert_eq!(machine.write("a/cgroup.subtree_control", "-memory +cpu"), Err(Errno::EINVAL));
    machine.write("a/cgroup.subtree_control", "-pids").unwrap();
    assert_eq!((has("pids.max"), machine.read("a/b/memory.max").as_deref()), (false, Ok("8192\n")));
    machine.write("a/cgroup.subtree_control", "+pids").unwrap();
    assert_eq!(machine.read("a/b/pids.max").as_deref(), Ok("max\n"), "the limit is gone");
}

#[test]
fn tasks_are_counted_and_limited() {
    let machine = Machine::new();
    machine.mkdir("a").unwrap();
    for (text, said) in [("7\n", "7\n"), ("0", "0\n"), ("4194304", "4194304\n"), ("max", "max\n")] {
        machine.write("a/pids.max", text).unwrap();
        assert_eq!(machine.read("a/pids.max").as_deref(), Ok(said));
    }
    for text in ["", "-1", "x", "1K", "4194305"] {
        assert_eq!(machine.write("a/pids.max", text), Err(Errno::EINVAL), "{text}");
    }
    {
        let mut groups = machine.groups.borrow_mut();
        (groups[0].tasks, groups[0].tasks_peak) = (3, 5);
        (groups[0].events[event::TASKS_MAX], groups[0].own_events[event::TASKS_MAX]) = (2, 1);
    }
    let read = |file: &str| machine.read(&format!("a/{file}")).unwrap();
    assert_eq!((read("pids.current"), read("pids.peak")), ("3\n".into(), "5\n".into()));
    assert_eq!((read("pids.events"), read("pids.events.local")), ("max 2\n".into(), "max 1\n".into()));
    assert_eq!(machine.read("pids.max"), Err(Errno::ENOENT), "the root has no limits");
}

#[test]
fn groups_are_frozen_and_killed() {
    let machine = Machine::new();
    ["a", "a/b"].iter().for_each(|path| machine.mkdir(path).unwrap());
    let key = machine.find(0, b"a").unwrap();
    assert_eq!(machine.read("a/cgroup.freeze").as_deref(), Ok("0\n"));
    let number = machine.node("a/cgroup.events").unwrap();
    let events = || machine.ask(0, op::READ, number, "", 0, "");
    assert_eq!(events().words[state::GROUP..=state::CHANGES], [key, 0]);
    machine.write("a/cgroup.freeze", "1").unwrap();
    assert_eq!((machine.read("a/cgroup.freeze").as_deref(), events().words[state::CHANGES]), (Ok("1\n"), 1));
    assert_eq!(machine.read("a/cgroup.events").as_deref(), Ok("populated 0\nfrozen 1\n"));
    for (text, error) in [("2", Errno::ERANGE), ("", Errno::EINVAL), ("-1", Errno::ERANGE), ("x", Errno::EINVAL)] {
        assert_eq!(machine.write("a/cgroup.freeze", text), Err(error), "{text}");
        assert_eq!(machine.write("a/cgroup.kill", text), Err(error), "{text}");
    }
    assert_eq!(machine.write("a/cgroup.kill", "0"), Err(Errno::ERANGE));
    machine.write("a/cgroup.kill", "1\n").unwrap();
    assert_eq!(machine.killed.borrow()[..], [key]);
    let mode = |path: &str| machine.ask(0, op::LOOKUP, 0, path, 0, "").words[node::MODE] as u32;
    assert_eq!(
        (mode("a/cgroup.events"), mode("a/cgroup.kill")),
        (mode::REG | 0o444 | node::TRIGGER, mode::REG | 0o200)
    );
    for file in ["cgroup.freeze", "cgroup.kill", "cgroup.events"] {
        assert_eq!(machine.node(file), Err(Errno::ENOENT), "the root is neither");
    }
}

#[test]
fn groups_below_are_limited_and_threads_listed() {
    let machine = Machine::new();
    ["a", "a/b", "a/b/c"].iter().for_each(|path| machine.mkdir(path).unwrap());
    for file in ["a/cgroup.max.depth", "a/cgroup.max.descendants"] {
        assert_eq!(machine.read(file).as_deref(), Ok("max\n"));
        machine.write(file, "3").unwrap();
        assert_eq!(machine.read(file).as_deref(), Ok("3\n"));
        assert_eq!(machine.write(file, "-1"), Err(Errno::EINVAL));
    }
    assert_eq!(machine.read("a/cgroup.stat").as_deref(), Ok("nr_descendants 2\n"));
    machine.write("a/b/cgroup.procs", "5").unwrap();
    assert_eq!(machine.read("a/b/cgroup.threads").as_deref(), Ok("5\n6\n"));
    assert_eq!(machine.write("a/b/cgroup.threads", "9"), Err(Errno::EOPNOTSUPP));
    assert_eq!(machine.read("a/cgroup.events").as_deref(), Ok("populated 1\nfrozen 0\n"));
}

#[test]
fn files_are_roots_and_read_by_all() {
    let machine = Machine::new();
    machine.mkdir("a").unwrap();
    assert_eq!(machine.open(7, "a/memory.max", Open::empty()), Ok(()));
    assert_eq!(machine.open(7, "a/memory.max", Open::WRONLY), Err(Errno::EACCES));
    assert_eq!(machine.open(0, "a/memory.max", Open::WRONLY | Open::TRUNC), Ok(()));
    assert_eq!(
        (machine.open(0, "a/memory.current", Open::WRONLY), machine.open(0, "a/memory.reclaim", Open::empty())),
        (Err(Errno::EACCES), Err(Errno::EACCES))
    );
    assert_eq!(
        (machine.open(0, "a", Open::WRONLY), machine.open(0, "a/x", Open::CREAT | Open::WRONLY)),
        (Err(Errno::EISDIR), Err(Errno::EACCES))
    );
}

/// A list that is read in pieces contains each name once.
#[test]
fn lists_go_on_where_they_ended() {
    let machine = Machine::new();
    (0..40).for_each(|n| machine.mkdir(&format!("group-with-a-long-name-{n}")).unwrap());
    let (mut place, mut names) = (0, Vec::new());
    loop {
        let request = Request {
            op: op::READDIR,
            directory: 0,
            argument: place,
            mode: 300,
            identity: (0, 0),
            follow: false,
            path: b"",
            text: b"",
        };
        let bytes = serve(&machine, &request, 300).text;
        if bytes.is_empty() {
            break;
        }
        let mut at = 0;
        while at < bytes.len() {
            let len = u16::from_le_bytes([bytes[at + 16], bytes[at + 17]]) as usize;
            place = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap());
            let name = &bytes[at + 19..at + len];
            names.push(String::from_utf8(name[..name.iter().position(|byte| *byte == 0).unwrap()].to_vec()).unwrap());
            at += len;
        }
    }
    assert_eq!(names.iter().filter(|name| name.starts_with("group")).count(), 40);
    assert_eq!(names[..3], [".", "..", "cgroup.controllers"]);
    names.sort();
    names.dedup();
    // (Of the root: cgroup.controllers, procs, stat, subtree_control and threads, and memory.pressure.)
    assert_eq!(names.len(), 2 + 6 + 40);
}
