//! Files and their texts, of a machine that is made up.

use std::cell::Cell;

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::info::{CpuInfo, MountInfo, ProcessInfo, SystemInfo, ZoneInfo};
use quire_abi::layout::{Sysinfo, Utsname, dtype, mode};
use quire_abi::names::{self, DONE, LINK, op};
use quire_abi::statistics::{AreaInfo, Counter, vma};
use quire_fs::request::{Answer, Request};
use quire_procfs::facts::Facts;
use quire_procfs::names::FIXED;
use quire_procfs::serve::serve;

struct Machine {
    ended: Cell<bool>,
}

fn name<const N: usize>(text: &str) -> [u8; N] {
    let mut name = [0; N];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

impl Facts for Machine {
    fn system(&self) -> SystemInfo {
        SystemInfo { managed: 1000, free: 600, uptime_ns: 12_345_678_901, slab: 3, ..SystemInfo::default() }
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
        let cpu = |idle_ns| CpuInfo {
            midr: 0x410f_d083,
            idle_ns,
            system_ns: 1_000_000_000,
            switches: 5,
            ..CpuInfo::default()
        };
        vec![cpu(10_000_000_000), cpu(2_000_000_000)]
    }
    fn zones(&self) -> Vec<ZoneInfo> {
        vec![ZoneInfo { name: name("DMA"), low: 50, blocks: [7; 11], ..ZoneInfo::default() }]
    }
    fn mounts(&self) -> Vec<MountInfo> {
        let mount = |path, kind| MountInfo { device: 1, path: name(path), kind: name(kind) };
        vec![mount("/", "rootfs"), mount("/tmp", "tmpfs"), mount("/run", "tmpfs")]
    }
    fn counters(&self) -> Vec<Counter> {
        vec![Counter { name: name("nr_vmalloc"), value: 4 }]
    }
    fn processes(&self) -> Vec<ProcessInfo> {
        let process = |pid, uid, text| ProcessInfo {
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
            name: name(text),
            ..ProcessInfo::default()
        };
        let mut all = vec![process(1, 0, "init"), process(42, 1000, "a (b)")];
        all.truncate(if self.ended.get() { 1 } else { 2 });
        all
    }
    fn process(&self, pid: u32) -> Option<ProcessInfo> {
        self.processes().into_iter().find(|process| process.pid == pid)
    }
    fn areas(&self, _: u32) -> Vec<AreaInfo> {
        let flags = vma::READ | vma::EXEC;
        let file =
            AreaInfo { start: 0x1_0000, end: 0x1_3000, index: 2, flags, name: name("/bin/a"), ..AreaInfo::default() };
        let heap =
            AreaInfo { start: 0x2_0000, end: 0x2_1000, flags: vma::READ | vma::WRITE | vma::HEAP, resident: 1, ..file };
        vec![file, AreaInfo { name: [0; 64], ..heap }]
    }
    fn caller(&self) -> u32 {
        42
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
    serve(machine, &request, if mode == 0 { 4095 } else { mode as usize })
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
    Machine { ended: Cell::new(false) }
}

#[test]
fn texts_have_linux_s_formats() {
    let machine = machine();
    assert!(read(&machine, "meminfo").starts_with("MemTotal:           4000 kB\nMemFree:            2400 kB\nMemAvailable:       2200 kB\nSwapTotal:             8 kB\n"));
    assert_eq!(read(&machine, "uptime"), "12.34 12.00\n");
    let stat = read(&machine, "stat");
    assert!(stat.starts_with("cpu  1069 0 200 1200 0 0 0 0 0 0\ncpu0 134 0 100 1000 0 0 0 0 0 0\ncpu1 934 "), "{stat}");
    assert!(stat.ends_with("ctxt 10\nbtime 7\nprocs_running 0\nprocs_blocked 0\n"), "{stat}");
    assert_eq!(
        read(&machine, "42/mounts"),
        "rootfs / rootfs ro 0 0\ntmpfs /tmp tmpfs rw 0 0\ntmpfs /run tmpfs rw 0 0\n"
    );
    assert_eq!(read(&machine, "filesystems"), "nodev\trootfs\nnodev\ttmpfs\n");
    assert_eq!(read(&machine, "buddyinfo"), format!("Node 0, zone      DMA {}\n", "     7 ".repeat(11)));
    assert_eq!(read(&machine, "vmstat"), "nr_vmalloc 4\n");
    assert_eq!(read(&machine, "version"), "Linux version 6.1 #1\n");
    assert_eq!(read(&machine, "sys/kernel/hostname"), "here\n");
    assert!(read(&machine, "cpuinfo").contains("CPU part\t: 0xd08\nCPU revision\t: 3\n"));
}

#[test]
fn a_process_has_its_files() {
    let machine = machine();
    let stat = read(&machine, "42/stat");
    assert!(stat.starts_with("42 (a (b)) S 1 7 6 0 -1 0 7 0 2 0 3 2 0 0 20 0 2 0 100 40960 4 18446744073709551615 "));
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split_whitespace().collect();
    // The third field is the first here; the CPU is the 39th.
    assert_eq!((fields.len(), fields[39 - 3], fields[38 - 3]), (50, "3", "17"));
    assert_eq!(read(&machine, "42/statm"), "10 4 1 0 0 0 0\n");
    assert_eq!(read(&machine, "42/comm"), "a (b)\n");
    assert!(read(&machine, "42/status").contains("State:\tS (sleeping)\nTgid:\t42\nPid:\t42\nPPid:\t1\nUid:\t1000\t"));
    let maps = read(&machine, "42/maps");
    assert!(maps.starts_with("00010000-00013000 r-xp 00002000 00:00 0 "), "{maps}");
    assert!(maps.lines().next().unwrap().ends_with(" /bin/a") && maps.ends_with(" [heap]\n"), "{maps}");
    assert!(read(&machine, "42/smaps").contains("Rss:                   4 kB\n"));
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
    for none in ["43", "042", "+42", "42x", "none", "42/none", "4294967338"] {
        assert_eq!(error(&ask(&machine, op::LOOKUP, 0, none, 0, 0, 0)), Some(Errno::ENOENT), "{none}");
    }
    for (directory, text, _) in FIXED.iter().skip(1) {
        assert!(*directory < FIXED.len() && !text.is_empty());
    }
}

#[test]
fn a_directory_is_listed_in_pieces() {
    let machine = machine();
    let (mut place, mut all) = (0, Vec::new());
    loop {
        let text = ask(&machine, op::READDIR, 0, "", place, 64, 0).text;
        if text.is_empty() {
            break;
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
    let root = FIXED.iter().skip(1).filter(|(directory, ..)| *directory == 0).count();
    assert_eq!(all.len(), 2 + root + 2);
    assert!(all.ends_with(&["1".into(), "42".into()]));
    assert_eq!(error(&ask(&machine, op::READDIR, 0, "", 0, 8, 0)), Some(Errno::EINVAL));
}

#[test]
fn who_may_not_read_or_write_is_refused() {
    let machine = machine();
    let open = |path: &str, flags: Open, user| error(&ask(&machine, op::OPEN, 0, path, flags.bits().into(), 0, user));
    assert_eq!(open("42/maps", Open::empty(), 1000), None);
    assert_eq!(open("42/maps", Open::empty(), 0), None);
    assert_eq!(open("42/maps", Open::empty(), 7), Some(Errno::EACCES));
    assert_eq!(open("42/stat", Open::empty(), 7), None);
    let (maps, _) = lookup(&machine, "42/maps");
    assert_eq!(error(&ask(&machine, op::READ, maps, "", 0, 0, 7)), Some(Errno::EACCES));
    assert_eq!(open("meminfo", Open::WRONLY, 0), Some(Errno::EACCES));
    assert_eq!(open("sys", Open::RDWR, 0), Some(Errno::EISDIR));
    assert_eq!(open("new", Open::CREAT, 0), Some(Errno::EACCES));
    assert_eq!(open("mounts", Open::empty(), 0), Some(Errno::ELOOP));
    assert_eq!(error(&ask(&machine, op::MKDIR, 0, "d", 0, 0, 0)), Some(Errno::EACCES));
    assert_eq!(error(&ask(&machine, op::UNLINK, 0, "meminfo", 0, 0, 0)), Some(Errno::EPERM));
    // A process that has ended has no files any more.
    machine.ended.set(true);
    assert_eq!(error(&ask(&machine, op::READ, maps, "", 0, 0, 0)), Some(Errno::ENOENT));
    assert_eq!(open("42/stat", Open::empty(), 0), Some(Errno::ENOENT));
}
