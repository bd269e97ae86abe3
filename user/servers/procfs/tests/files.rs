//! Files and their texts, for a simulated machine.

use std::cell::{Cell, RefCell};

use quire_abi::Errno;
use quire_abi::flags::{Open, setting};
use quire_abi::group::GroupInfo;
use quire_abi::info::{CpuInfo, MountInfo, NodeInfo, ProcessInfo, SystemInfo, ZoneInfo};
use quire_abi::layout::{Rlimit, Sysinfo, Utsname, dtype, mode, rlimit};
use quire_abi::names::{self, DONE, HELD, LINK, held, op};
use quire_abi::pressure::{Pressure, Share};
use quire_abi::process::{DescriptorInfo, MemoryLayout, ProcessDetail, ThreadInfo, flag, object};
use quire_abi::statistics::{AreaInfo, Counter, PageTypeInfo, SlabCacheInfo, VmallocInfo, vma};
use quire_fs::request::{Answer, Request};
use quire_procfs::facts::Facts;
use quire_procfs::names::{FILES, FIXED, Fixed, LINKS, Node, System, Tree};
use quire_procfs::out::Marks;
use quire_procfs::serve::serve;

struct Machine {
    ended: Cell<bool>,
    /// The caller.
    caller: Cell<(u32, u32)>,
    /// The changes that were made.
    changes: RefCell<Vec<String>>,
    marks: RefCell<Marks>,
    /// The file system that is requested.
    system: Cell<System>,
}

fn name<const N: usize>(text: &str) -> [u8; N] {
    let mut name = [0; N];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

impl Facts for Machine {
    fn control_group(&self, key: u64) -> Option<GroupInfo> {
        let group = |text, parent| GroupInfo { key, parent, name: name(text), ..GroupInfo::default() };
        match key {
            0x3_0003 => Some(group("inner", 0x2_0002)),
            0x2_0002 => Some(group("outer", 0)),
            _ => None,
        }
    }
    fn pressure(&self) -> Pressure {
        let share = |total| Share { total, averages: [1234, 5, 0], pad: 0 };
        Pressure { some: share(77), full: share(0) }
    }
    fn system(&self) -> SystemInfo {
        SystemInfo {
            managed: 1000,
            free: 600,
            uptime_ns: 12_345_678_901,
            slab: 3,
            made: 99,
            loads: [1024, 2048 + 20, 0],
            running: 2,
            threads: 9,
            last_pid: 77,
            ..SystemInfo::default()
        }
    }
    fn memory(&self) -> Sysinfo {
        Sysinfo { totalswap: 8192, freeswap: 4096, mem_unit: 1, ..Sysinfo::default() }
    }
    fn uname(&self) -> Utsname {
        Utsname {
            sysname: name("Linux"),
            nodename: name("here"),
            release: name("6.1"),
            version: name("#1"),
            ..Utsname::default()
        }
    }
    fn now(&self) -> u64 {
        20_000_000_000
    }
    fn cpus(&self) -> Vec<CpuInfo> {
        let cpu = |idle_ns, online| CpuInfo {
            online,
            midr: 0x410f_d083,
            idle_ns,
            system_ns: 1_000_000_000,
            switches: 5,
            ..CpuInfo::default()
        };
        vec![cpu(10_000_000_000, 1), cpu(2_000_000_000, 1), cpu(0, 0)]
    }
    fn nodes(&self) -> Vec<NodeInfo> {
        vec![NodeInfo { distances: [10, 20, 0, 0, 0, 0, 0, 0] }, NodeInfo { distances: [20, 10, 0, 0, 0, 0, 0, 0] }]
    }
    fn zones(&self) -> Vec<ZoneInfo> {
        vec![ZoneInfo {
            name: name("DMA"),
            min: 40,
            low: 50,
            managed: 100,
            free: 20,
            per_cpu: 5,
            blocks: [7; 11],
            ..ZoneInfo::default()
        }]
    }
    fn page_type(&self, index: usize) -> Option<PageTypeInfo> {
        let types = ["Unmovable", "Movable"];
        (index < 4).then(|| PageTypeInfo {
            node: (index / 2) as u32,
            zone: name("DMA"),
            name: name(types[index % 2]),
            page_blocks: index as u64,
            free: [index as u64; 11],
            ..PageTypeInfo::default()
        })
    }
    fn slab(&self, index: usize) -> Option<SlabCacheInfo> {
        let cache = SlabCacheInfo {
            name: name("kmalloc-64"),
            object_size: 64,
            stride: 80,
            active: 90,
            total: 100,
            slabs: 2,
            pages: 4,
        };
        [cache, SlabCacheInfo { name: name("(no slabs)"), ..SlabCacheInfo::default() }].into_iter().nth(index)
    }
    fn vmalloc_from(&self, from: u64) -> Option<VmallocInfo> {
        // More than fits into one answer.
        let start = from.next_multiple_of(0x2000);
        let area = VmallocInfo { start, end: start + 0x2000, phys: u64::MAX, pages: 1, ..VmallocInfo::default() };
        (start < 0x40_0000).then_some(VmallocInfo { caller: name("a.rs:1"), ..area })
    }
    fn random(&self) -> [u8; 16] {
        [0xff; 16]
    }
    fn features(&self) -> u64 {
        0b1001
    }
    fn setting(&self, which: usize) -> u64 {
        // (A number that has a name.)
        if which == setting::HUGE_PAGES {
            return 1;
        }
        which as u64 + 10
    }
    fn set_setting(&self, which: usize, value: u64) -> Result<(), Errno> {
        self.changes.borrow_mut().push(format!("setting {which} {value}"));
        Ok(())
    }
    fn compact(&self) -> Result<(), Errno> {
        self.changes.borrow_mut().push("compact".into());
        Ok(())
    }
    fn set_uname(&self, name: &[u8], is_domain: bool) -> Result<(), Errno> {
        self.changes.borrow_mut().push(format!("name {} {is_domain}", name.escape_ascii()));
        Ok(())
    }
    fn mounts(&self) -> Vec<MountInfo> {
        let mount = |path, kind, source, flags| MountInfo {
            device: 1,
            path: name(path),
            kind: name(kind),
            source: name(source),
            flags,
        };
        vec![
            mount("/", "rootfs", "", MountInfo::READ_ONLY),
            mount("/tmp", "tmpfs", "", 0),
            mount("/run", "tmpfs", "", 0),
            mount("/sd", "vfat", "/dev/block/vda1", MountInfo::READ_ONLY),
        ]
    }
    fn counters(&self) -> Vec<Counter> {
        vec![Counter { name: name("nr_vmalloc"), value: 4 }]
    }
    fn process_from(&self, pid: u32) -> Option<ProcessInfo> {
        let process = |pid, uid, text| ProcessInfo {
            control_group: if pid == 42 { 3 << 16 | 3 } else { 0 },
            pid,
            uid,
            gid: uid,
            ppid: 1,
            pgid: 7,
            sid: 6,
            threads: 2,
            state: b'S'.into(),
            cpu: 3,
            vsize: 10,
            rss: 4,
            shared: 1,
            tables: 2,
            cpu_ns: 50_000_000,
            system_ns: 20_000_000,
            started_ns: 1_000_000_000,
            faults: 9,
            major_faults: 2,
            flags: flag::DUMPABLE | flag::MEMORY,
            name: name(text),
        };
        let mut all = vec![process(1, 0, "init"), process(42, 1000, "a (b)")];
        all.truncate(if self.ended.get() { 1 } else { 2 });
        all.into_iter().find(|process| process.pid >= pid)
    }
    fn detail(&self, pid: u32) -> Option<ProcessDetail> {
        let process = self.process(pid)?;
        let mut limits = [Rlimit { cur: rlimit::INFINITY, max: rlimit::INFINITY }; rlimit::COUNT];
        limits[rlimit::NOFILE] = Rlimit { cur: 1024, max: 4096 };
        let mut further = [0; 32];
        further[..2].copy_from_slice(&[5, 6]);
        Some(ProcessDetail {
            users: [process.uid; 4],
            groups: [process.gid; 4],
            flags: flag::DUMPABLE | flag::MEMORY,
            umask: 0o22,
            oom_score_adj: 500,
            descriptors: 64,
            group_count: 2,
            limits,
            further,
            caught: 1 << 63 | 2,
            children_ns: [70_000_000, 80_000_000],
            children_faults: [5, 1],
            peak: 20,
            data: 3,
            stack: 2,
            layout: MemoryLayout {
                code: [0x1_0010, 0x1_2001],
                stack: 77,
                arguments: [8, 9],
                ..MemoryLayout::default()
            },
            ..ProcessDetail::default()
        })
    }
    fn thread_from(&self, pid: u32, tid: u32) -> Option<ThreadInfo> {
        let thread = |tid, text| ThreadInfo {
            tid,
            state: b'R'.into(),
            affinity: u64::MAX,
            user_ns: 10_000_000,
            blocked: 0x100,
            name: name(text),
            ..ThreadInfo::default()
        };
        self.process(pid)?;
        let all = if pid == 42 { vec![thread(42, "a (b)"), thread(45, "second")] } else { vec![thread(pid, "init")] };
        all.into_iter().find(|thread| thread.tid >= tid)
    }
    fn descriptor_from(&self, pid: u32, number: u32) -> Option<DescriptorInfo> {
        self.process(pid)?;
        let descriptor = |number, kind, rights| DescriptorInfo {
            number,
            kind,
            rights,
            flags: 0o2000002,
            position: 9,
            inode: 8,
            pid: 1,
            ..DescriptorInfo::default()
        };
        let all = [descriptor(0, object::CONSOLE, 1), descriptor(7, object::PIDFD, 3)];
        all.into_iter().find(|descriptor| descriptor.number >= number)
    }
    fn area_from(&self, _: u32, from: u64, is_counted: bool) -> Option<AreaInfo> {
        let flags = vma::READ | vma::EXEC;
        let file =
            AreaInfo { start: 0x1_0000, end: 0x1_3000, index: 2, flags, name: name("/bin/a"), ..AreaInfo::default() };
        let heap = AreaInfo {
            start: 0x2_0000,
            end: 0x2_1000,
            flags: vma::READ | vma::WRITE | vma::HEAP,
            ..AreaInfo::default()
        };
        let mut found = [file, heap].into_iter().find(|area| area.end > from)?;
        found.resident = is_counted.into();
        Some(found)
    }
    fn text(&self, pid: u32, which: usize, offset: u64, to: &mut [u8]) -> usize {
        let whole = match pid {
            0 => String::from("swap=off init"),
            pid => format!("of {pid}\0number {which}\0"),
        };
        let rest = whole.as_bytes().get(offset as usize..).unwrap_or(&[]);
        let len = rest.len().min(to.len());
        to[..len].copy_from_slice(&rest[..len]);
        len
    }
    fn caller(&self) -> (u32, u32) {
        self.caller.get()
    }
    fn set_name(&self, tid: u32, name: &[u8; 16]) -> Result<(), Errno> {
        self.changes.borrow_mut().push(format!("{tid} {}", name.escape_ascii()));
        Ok(())
    }
    fn set_oom_score_adj(&self, pid: u32, adj: i32, is_privileged: bool) -> Result<(), Errno> {
        self.changes.borrow_mut().push(format!("{pid} {adj} {is_privileged}"));
        Ok(())
    }
}

fn ask(machine: &Machine, op: u64, directory: u64, path: &str, argument: u64, mode: u64, user: u32) -> Answer {
    let request = Request {
        op,
        directory,
        argument,
        mode,
        identity: (user, user),
        follow: false,
        path: path.as_bytes(),
        text: b"",
    };
    let room = if mode == 0 { 4095 } else { mode as usize };
    serve(&Tree(machine, machine.system.get()), &mut machine.marks.borrow_mut(), &request, room)
}

fn lookup(machine: &Machine, path: &str) -> (u64, u32) {
    let answer = ask(machine, op::LOOKUP, 0, path, 0, 0, 0);
    assert_eq!(answer.label, DONE, "{path}");
    (answer.words[names::node::NUMBER], answer.words[names::node::MODE] as u32)
}

fn read(machine: &Machine, path: &str) -> String {
    let (number, _) = lookup(machine, path);
    // In small pieces, as a program may read it.
    let mut text = Vec::new();
    loop {
        let piece = ask(machine, op::READ, number, "", text.len() as u64, 10, 0);
        assert_eq!(piece.label, DONE, "{path}");
        if piece.text.is_empty() {
            return String::from_utf8(text).unwrap();
        }
        text.extend(piece.text);
    }
}

fn error(answer: &Answer) -> Option<Errno> {
    Errno::from_ret(answer.label as isize).err()
}

fn machine() -> Machine {
    Machine {
        ended: Cell::new(false),
        caller: Cell::new((42, 45)),
        changes: RefCell::default(),
        marks: RefCell::default(),
        system: Cell::new(System::Proc),
    }
}

#[test]
fn texts_have_linux_s_formats() {
    let machine = machine();
    assert!(read(&machine, "meminfo").starts_with("MemTotal:           4000 kB\nMemFree:            2400 kB\nMemAvailable:       2200 kB\nBuffers:               0 kB\nCached:                0 kB\nSwapTotal:             8 kB\n"));
    assert_eq!(read(&machine, "uptime"), "12.34 12.00\n");
    let stat = read(&machine, "stat");
    assert!(stat.starts_with("cpu  1069 0 200 1200 0 0 0 0 0 0\ncpu0 134 0 100 1000 0 0 0 0 0 0\ncpu1 934 "), "{stat}");
    assert!(stat.ends_with("ctxt 15\nbtime 7\nprocesses 99\nprocs_running 2\nprocs_blocked 0\n"), "{stat}");
    assert!(!stat.contains("cpu2"), "{stat}");
    assert_eq!(read(&machine, "loadavg"), "0.50 1.01 0.00 2/9 77\n");
    assert_eq!(read(&machine, "cmdline"), "swap=off init\n");
    let swaps = read(&machine, "swaps");
    assert!(swaps.starts_with("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n(memory) "), "{swaps}");
    assert!(swaps.ends_with("compressed\t8\t\t4\t\t0\n"), "{swaps}");
    assert!(
        read(&machine, "zoneinfo").starts_with("Node 0, zone      DMA\n  pages free     20\n        min      40\n")
    );
    let types = read(&machine, "pagetypeinfo");
    assert!(types.contains("\nNode    1, zone      DMA, type      Movable      3      3 "), "{types}");
    assert!(
        types.ends_with(
            "\nNode 0, zone      DMA            0            1 \nNode 1, zone      DMA            2            3 \n"
        ),
        "{types}"
    );
    let slabs = read(&machine, "slabinfo");
    let line =
        "kmalloc-64            90    100     80   50    2 : tunables    0    0    0 : slabdata      2      2      0\n";
    assert!(slabs.ends_with(line) && slabs.starts_with("slabinfo - version: 2.1\n# name "), "{slabs}");
    let areas = read(&machine, "vmallocinfo");
    let line = "0x0000000000000000-0x0000000000002000    8192 a.rs:1 pages=1 vmalloc\n";
    assert_eq!((areas.starts_with(line), areas.len()), (true, line.len() * 512));
    assert_eq!(
        read(&machine, "42/mounts"),
        "rootfs / rootfs ro 0 0\ntmpfs /tmp tmpfs rw 0 0\ntmpfs /run tmpfs rw 0 0\n\
         /dev/block/vda1 /sd vfat ro 0 0\n"
    );
    assert_eq!(read(&machine, "filesystems"), "nodev\trootfs\nnodev\ttmpfs\n\tvfat\n");
    assert_eq!(read(&machine, "buddyinfo"), format!("Node 0, zone      DMA {}\n", "     7 ".repeat(11)));
    assert_eq!(read(&machine, "vmstat"), "nr_vmalloc 4\n");
    let pressure =
        "some avg10=12.34 avg60=0.05 avg300=0.00 total=77\nfull avg10=12.34 avg60=0.05 avg300=0.00 total=0\n";
    assert_eq!(read(&machine, "pressure/memory"), pressure);
    assert_eq!(read(&machine, "version"), "Linux version 6.1 #1\n");
    assert_eq!(read(&machine, "sys/kernel/hostname"), "here\n");
    assert_eq!(read(&machine, "sys/kernel/random/uuid"), "ffffffff-ffff-4fff-bfff-ffffffffffff\n");
    assert_eq!(read(&machine, "sys/vm/overcommit_ratio"), "11\n");
    assert_eq!(read(&machine, "sys/vm/min_free_kbytes"), "160\n");
    assert!(read(&machine, "cpuinfo").starts_with("processor\t: 0\nFeatures\t: fp aes\nCPU implementer\t: 0x41\n"));
    assert!(read(&machine, "cpuinfo").contains("CPU part\t: 0xd08\nCPU revision\t: 3\n"));
}

#[test]
fn a_process_has_its_files() {
    let machine = machine();
    let stat = read(&machine, "42/stat");
    assert!(
        stat.starts_with("42 (a (b)) S 1 7 6 0 -1 0 7 4 2 1 3 2 7 8 20 0 2 0 100 40960 4 18446744073709551615 "),
        "{stat}"
    );
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split_whitespace().collect();
    // The third field is the first here; the CPU is the 39th.
    assert_eq!((fields.len(), fields[39 - 3], fields[38 - 3]), (50, "3", "17"));
    assert_eq!([26, 27, 28, 48].map(|field: usize| fields[field - 3]), ["65552", "73729", "77", "8"]);
    assert_eq!(read(&machine, "42/statm"), "10 4 1 3 0 5 0\n");
    assert_eq!(read(&machine, "42/comm"), "a (b)\n");
    assert_eq!(read(&machine, "42/cmdline"), "of 42\0number 0\0");
    assert_eq!(read(&machine, "42/environ"), "of 42\0number 1\0");
    assert_eq!(read(&machine, "42/auxv"), "of 42\0number 2\0");
    let status = read(&machine, "42/status");
    for part in [
        "Name:\ta (b)\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t42\nNgid:\t0\nPid:\t42\nPPid:\t1\nTracerPid:\t0\nUid:\t1000\t",
        "FDSize:\t64\nGroups:\t5 6 \nVmPeak:\t      80 kB\nVmSize:\t      40 kB\n",
        "VmExe:\t      12 kB\n",
        "SigBlk:\t0000000000000100\nSigIgn:\t0000000000000000\nSigCgt:\t8000000000000002\n",
        "Cpus_allowed:\t7\nCpus_allowed_list:\t0-2\n",
    ] {
        assert!(status.contains(part), "{part:?} in {status}");
    }
    let limits = read(&machine, "42/limits");
    assert!(
        limits.contains("Max open files            1024                 4096                 files     \n"),
        "{limits}"
    );
    assert!(limits.contains("Max nice priority         unlimited            unlimited            \n"), "{limits}");
    // (1000 + (4 + 2 + 500) * 1000 / 1000) * 2 / 3
    assert_eq!(read(&machine, "42/oom_score"), "1004\n");
    assert_eq!(read(&machine, "42/oom_score_adj"), "500\n");
    let maps = read(&machine, "42/maps");
    assert!(maps.starts_with("00010000-00013000 r-xp 00002000 00:00 0 "), "{maps}");
    assert!(maps.lines().next().unwrap().ends_with(" /bin/a") && maps.ends_with(" [heap]\n"), "{maps}");
    assert!(read(&machine, "42/smaps").contains("Rss:                   4 kB\n"));
    let sum = read(&machine, "42/smaps_rollup");
    assert!(
        sum.starts_with("00010000-00021000 ---p 00000000 00:00 0 ")
            && sum.contains("[rollup]\nRss:                   8 kB\n")
    );
}

#[test]
fn a_process_has_threads_and_descriptors() {
    let machine = machine();
    assert!(read(&machine, "42/task/45/stat").starts_with("45 (second) R 1 7 6 0 -1 0 0 4 0 1 1 0 7 8 "));
    assert_eq!(read(&machine, "42/task/45/comm"), "second\n");
    assert!(read(&machine, "42/task/45/status").contains("Tgid:\t42\nNgid:\t0\nPid:\t45\n"));
    assert_eq!(read(&machine, "42/fdinfo/7"), "pos:\t9\nflags:\t02000002\nmnt_id:\t0\nino:\t8\nPid:\t1\nNSpid:\t1\n");
    assert_eq!(names_in(&machine, "42/task"), [".", "..", "42", "45"]);
    assert_eq!(names_in(&machine, "42/fd"), [".", "..", "0", "7"]);
    let number = |path| ask(&machine, op::LOOKUP, 0, path, 0, 0, 1000);
    assert_eq!(number("42/fd/0").words[names::node::MODE] as u32, mode::LNK | 0o500);
    assert_eq!(number("42/fd/7").words[names::node::MODE] as u32, mode::LNK | 0o700);
    for none in ["42/task/44", "42/task/1", "42/fd/1", "42/fd/00", "42/fdinfo/-1", "42/fd/4294967296", "1/task/45"] {
        assert_eq!(error(&ask(&machine, op::LOOKUP, 0, none, 0, 0, 0)), Some(Errno::ENOENT), "{none}");
    }
    // The kernel follows and reads links to objects that it holds.
    let of = |op, path| {
        let answer = ask(&machine, op, 0, path, 0, 0, 1000);
        assert_eq!(answer.label, HELD, "{path}");
        answer.words[..4].to_vec()
    };
    assert_eq!(of(op::LOOKUP, "42/cwd/a/b"), [42, 6, held::WORKING_DIRECTORY, 0]);
    assert_eq!(of(op::READLINK, "42/exe"), [42, 6, held::PROGRAM, 0]);
    assert_eq!(of(op::LOOKUP, "42/fd/7/"), [42, 7, held::DESCRIPTOR, 7]);
    assert_eq!(ask(&machine, op::READLINK, 0, "thread-self", 0, 0, 0).text, b"42/task/45");
}

#[test]
fn numbers_and_nodes_are_each_other_s() {
    let (most, tid) = (FILES.len() - 1, 32767);
    let nodes = [
        Node::Fixed(0),
        Node::Fixed(FIXED.len() - 1),
        Node::Process(tid),
        Node::Of(1, 0),
        Node::Of(tid, most),
        Node::Link(tid, LINKS.len() - 1),
        Node::Tasks(tid),
        Node::Task(tid, tid),
        Node::OfTask(tid, tid, most),
        Node::Descriptors(tid),
        Node::Descriptor(tid, 0),
        Node::Descriptor(tid, (1 << 20) - 1),
        Node::Infos(tid),
        Node::Info(tid, (1 << 20) - 1),
        Node::One(0, 63),
        Node::OfOne(1, 7, 3),
    ];
    for node in nodes {
        assert!(node.number() < 1 << 48);
        assert_eq!(Node::from_number(node.number()), Some(node), "{node:?}");
    }
    for seed in 0..100_000_u64 {
        let number = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        if let Some(node) = Node::from_number(number) {
            assert_eq!(node.number(), number);
        }
    }
}

#[test]
fn what_may_be_written_is_changed() {
    let machine = machine();
    let write = |path: &str, text: &str, user: u32| {
        let (number, _) = lookup(&machine, path);
        let request = Request {
            op: op::WRITE,
            directory: number,
            argument: 0,
            mode: 0,
            identity: (user, user),
            follow: false,
            path: b"",
            text: text.as_bytes(),
        };
        let answer = serve(&Tree(&machine, System::Proc), &mut machine.marks.borrow_mut(), &request, 0);
        match error(&answer) {
            Some(error) => Err(error),
            None => Ok(answer.words[0]),
        }
    };
    assert_eq!(write("42/comm", "a name of more than fifteen bytes", 1000), Ok(33));
    assert_eq!(write("42/task/45/comm", "b", 1000), Ok(1));
    assert_eq!(write("42/comm", "x", 7), Err(Errno::EACCES));
    assert_eq!(write("1/comm", "x", 0), Err(Errno::EINVAL));
    assert_eq!(write("42/oom_score_adj", " -5\n", 1000), Ok(4));
    assert_eq!(write("42/oom_score_adj", "1000", 0), Ok(4));
    for wrong in ["", "1001", "-1001", "x", "1 2", "99999999999999999999"] {
        assert_eq!(write("42/oom_score_adj", wrong, 0), Err(Errno::EINVAL), "{wrong}");
    }
    assert_eq!(write("sys/vm/overcommit_memory", "2\n", 0), Ok(2));
    assert_eq!(write("sys/vm/overcommit_memory", "2\n", 1000), Err(Errno::EACCES));
    assert_eq!(write("sys/vm/overcommit_memory", "-1", 0), Err(Errno::EINVAL));
    assert_eq!(write("sys/vm/compact_memory", "1\n", 0), Ok(2));
    assert_eq!(write("sys/vm/compact_memory", "0\n", 0), Err(Errno::EINVAL));
    assert_eq!(write("sys/vm/compact_memory", "1\n", 1000), Err(Errno::EACCES));
    assert_eq!(write("sys/kernel/hostname", "there\nx", 0), Ok(7));
    assert_eq!(write("sys/vm/max_map_count", "1", 0), Err(Errno::EACCES));
    assert_eq!(write("42/stat", "x", 0), Err(Errno::EACCES));
    assert_eq!(write("meminfo", "x", 0), Err(Errno::EACCES));
    let wanted = [
        "42 a name of more \\x00",
        "45 b",
        "42 -5 false",
        "42 1000 true",
        "setting 0 2",
        "compact",
        "name there false",
    ];
    let changes = machine.changes.borrow();
    assert!(changes.iter().zip(wanted).all(|(change, wanted)| change.starts_with(wanted)), "{changes:?}");
    assert_eq!(changes.len(), wanted.len());
}

#[test]
fn names_lead_where_they_do_on_linux() {
    let machine = machine();
    let link = ask(&machine, op::LOOKUP, 0, "self/stat", 0, 0, 0);
    assert_eq!((link.label, link.words[1], &link.text[..]), (LINK, 4, &b"42"[..]));
    assert_eq!(ask(&machine, op::READLINK, 0, "mounts", 0, 0, 0).text, b"self/mounts");
    assert_eq!(lookup(&machine, "sys/kernel/../..").0, 0);
    let (kernel, kind) = lookup(&machine, "sys/kernel");
    assert_eq!(kind, mode::DIR | 0o555);
    assert_eq!(ask(&machine, op::PATH, kernel, "", 0, 0, 0).text, b"/sys/kernel");
    for none in ["43", "042", "0", "+42", "42x", "none", "42/none", "4294967338"] {
        assert_eq!(error(&ask(&machine, op::LOOKUP, 0, none, 0, 0, 0)), Some(Errno::ENOENT), "{none}");
    }
    // Each name is in a directory, once.
    for (n, (directory, text, _)) in FIXED.iter().enumerate().filter(|(_, (.., text, _))| !text.is_empty()) {
        assert!(FIXED.iter().any(|other| matches!(other.2, Fixed::Directory(path) if path == *directory)), "{text}");
        assert!(FIXED[..n].iter().all(|other| (other.0, other.1) != (*directory, *text)), "{text}");
    }
}

/// The names in a directory, from small pieces of its list.
fn names_in(machine: &Machine, path: &str) -> Vec<String> {
    let (directory, _) = lookup(machine, path);
    let (mut place, mut all) = (0, Vec::new());
    loop {
        let text = ask(machine, op::READDIR, directory, "", place, 64, 0).text;
        if text.is_empty() {
            return all;
        }
        let mut rest = &text[..];
        while !rest.is_empty() {
            let len = usize::from(u16::from_le_bytes([rest[16], rest[17]]));
            place = u64::from_le_bytes(rest[8..16].try_into().unwrap());
            let name = rest[dtype::HEADER..len].split(|byte| *byte == 0).next().unwrap();
            all.push(String::from_utf8(name.to_vec()).unwrap());
            rest = &rest[len..];
        }
    }
}

#[test]
fn a_directory_is_listed_in_pieces() {
    let machine = machine();
    let all = names_in(&machine, "");
    let root = FIXED.iter().skip(1).filter(|(directory, ..)| directory.is_empty()).count();
    assert_eq!(all.len(), 2 + root + 2);
    assert!(all.ends_with(&["1".into(), "42".into()]));
    assert_eq!(error(&ask(&machine, op::READDIR, 0, "", 0, 8, 0)), Some(Errno::EINVAL));
    // Each name that a process's directory lists is there.
    for name in names_in(&machine, "42") {
        lookup(&machine, &format!("42/{name}"));
    }
    for name in names_in(&machine, "42/task/45") {
        lookup(&machine, &format!("42/task/45/{name}"));
    }
}

#[test]
fn who_may_not_read_or_write_is_refused() {
    let machine = machine();
    let open = |path: &str, flags: Open, user| error(&ask(&machine, op::OPEN, 0, path, flags.bits().into(), 0, user));
    assert_eq!(open("42/maps", Open::empty(), 1000), None);
    assert_eq!(open("42/maps", Open::empty(), 0), None);
    machine.caller.set((50, 50));
    for private in ["maps", "smaps", "environ", "auxv", "fd", "fdinfo/7"] {
        let path = format!("42/{private}");
        assert_eq!(open(&path, Open::empty(), 1000), None, "{private}");
        assert_eq!(open(&path, Open::empty(), 7), Some(Errno::EACCES), "{private}");
    }
    assert_eq!(error(&ask(&machine, op::LOOKUP, 0, "42/fd/7", 0, 0, 7)), Some(Errno::EACCES));
    assert_eq!(open("1/maps", Open::empty(), 1000), Some(Errno::EACCES));
    // Only readers that may inspect it see addresses.
    let number = lookup(&machine, "42/stat").0;
    let stat = String::from_utf8(ask(&machine, op::READ, number, "", 0, 0, 7).text).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split_whitespace().collect();
    assert_eq!([26, 27, 28, 48].map(|field: usize| fields[field - 3]), ["1", "1", "0", "0"]);
    assert_eq!(open("42/stat", Open::empty(), 7), None);
    let (maps, _) = lookup(&machine, "42/maps");
    assert_eq!(error(&ask(&machine, op::READ, maps, "", 0, 0, 7)), Some(Errno::EACCES));
    assert_eq!(open("meminfo", Open::WRONLY, 0), Some(Errno::EACCES));
    assert_eq!(open("sys", Open::RDWR, 0), Some(Errno::EISDIR));
    assert_eq!(open("new", Open::CREAT, 0), Some(Errno::EACCES));
    assert_eq!(open("mounts", Open::empty(), 0), Some(Errno::ELOOP));
    assert_eq!(open("42/oom_score_adj", Open::WRONLY | Open::CREAT | Open::TRUNC, 1000), None);
    assert_eq!(open("42/oom_score_adj", Open::WRONLY, 7), Some(Errno::EACCES));
    assert_eq!(open("42/stat", Open::WRONLY, 0), Some(Errno::EACCES));
    assert_eq!(error(&ask(&machine, op::MKDIR, 0, "d", 0, 0, 0)), Some(Errno::EACCES));
    assert_eq!(error(&ask(&machine, op::UNLINK, 0, "meminfo", 0, 0, 0)), Some(Errno::EPERM));
    // A process that has ended has no files any more.
    machine.ended.set(true);
    assert_eq!(error(&ask(&machine, op::READ, maps, "", 0, 0, 0)), Some(Errno::ESRCH));
    assert_eq!(open("42/stat", Open::empty(), 0), Some(Errno::ENOENT));
}

#[test]
fn huge_pages_are_a_setting_in_sys() {
    let machine = machine();
    machine.system.set(System::Sys);
    let folder = "kernel/mm/transparent_hugepage";
    assert_eq!(names_in(&machine, folder), [".", "..", "enabled", "hpage_pmd_size"]);
    assert_eq!(read(&machine, &format!("{folder}/enabled")), "always [madvise] never\n");
    assert_eq!(read(&machine, &format!("{folder}/hpage_pmd_size")), "2097152\n");
    for (text, number) in
        [("never\n", Ok(0)), ("always", Ok(2)), ("", Err(Errno::EINVAL)), ("[always]", Err(Errno::EINVAL))]
    {
        let facts: &dyn Facts = &machine;
        let set = quire_procfs::settings::set_huge_pages(facts, text.as_bytes());
        assert_eq!(set, number.map(|_| ()), "{text}");
        if let Ok(number) = number {
            let change = machine.changes.borrow_mut().pop();
            assert_eq!(change, Some(format!("setting {} {number}", setting::HUGE_PAGES)));
        }
    }
    assert!(machine.changes.borrow().is_empty());
}

#[test]
fn cpus_and_nodes_are_in_sys() {
    let machine = machine();
    machine.system.set(System::Sys);
    assert_eq!(names_in(&machine, ""), [".", "..", "devices", "fs", "kernel"]);
    let cpu = "devices/system/cpu";
    let sets = ["online", "offline", "present", "possible"].map(|set| read(&machine, &format!("{cpu}/{set}")));
    assert_eq!(sets, ["0-1\n", "2\n", "0-2\n", "0-2\n"]);
    assert!(names_in(&machine, cpu).ends_with(&["cpu0".into(), "cpu1".into(), "cpu2".into()]));
    assert_eq!([0, 2].map(|n| read(&machine, &format!("{cpu}/cpu{n}/online"))), ["1\n", "0\n"]);
    for none in ["cpu3", "cpu00", "cpu", "cpu-1", "node0", "cpu0/none"] {
        let path = format!("{cpu}/{none}");
        assert_eq!(error(&ask(&machine, op::LOOKUP, 0, &path, 0, 0, 0)), Some(Errno::ENOENT), "{none}");
    }
    let node = "devices/system/node";
    assert_eq!(read(&machine, &format!("{node}/online")), "0-1\n");
    assert_eq!(read(&machine, &format!("{node}/has_memory")), "0\n");
    assert_eq!(read(&machine, &format!("{node}/node0/cpulist")), "0-1\n");
    assert_eq!(read(&machine, &format!("{node}/node1/cpulist")), "\n");
    assert_eq!(read(&machine, &format!("{node}/node0/cpumap")), "3\n");
    assert_eq!(read(&machine, &format!("{node}/node1/distance")), "20 10\n");
    let memory =
        "Node 0 MemTotal:            400 kB\nNode 0 MemFree:             100 kB\nNode 0 MemUsed:             300 kB\n";
    assert_eq!(read(&machine, &format!("{node}/node0/meminfo")), memory);
    assert_eq!(lookup(&machine, &format!("{node}/node1/..")), lookup(&machine, node));
    assert_eq!(lookup(&machine, "devices/.."), lookup(&machine, ""));
    let (number, _) = lookup(&machine, &format!("{node}/node1/distance"));
    assert_eq!(ask(&machine, op::PATH, number, "", 0, 0, 0).text, b"/devices/system/node/node1/distance");
    assert_eq!(ask(&machine, op::LOOKUP, 0, "..", 0, 0, 0).label, names::UP);
}

#[test]
fn a_process_is_in_a_control_group() {
    let machine = machine();
    assert_eq!(
        (read(&machine, "1/cgroup"), read(&machine, "42/cgroup")),
        ("0::/\n".into(), "0::/outer/inner\n".into())
    );
}
