//! Boots the matrix of machines: each reports its memory correctly and passes its own tests.

use crate::harness::{Machine, Outcome};

/// What a machine has.
#[derive(Clone, Copy)]
struct Hardware {
    mebibytes: u64,
    nodes: usize,
    cpus: usize,
}

const VIRT: Hardware = Hardware { mebibytes: 1024, nodes: 1, cpus: 4 };
/// The hardware that QEMU's tree for the Pi describes, whatever the board has.
const RPI4: Hardware = Hardware { mebibytes: 960, nodes: 1, cpus: 4 };

/// Boots, looks at the memory and runs the machine's self-tests.
fn check(machine: &Machine, hardware: Hardware) -> Outcome {
    let outcome = machine.exec("memmap; free; cpuinfo; selftest");
    let output = outcome.succeeded();

    let memory = Memory::read(output).unwrap_or_else(|| panic!("free's words are not understood\n{outcome}"));
    let all = hardware.mebibytes * 1024;
    assert_eq!(memory.total + memory.never_given, all, "all memory is accounted for\n{outcome}");
    // A record of at most 32 bytes per page, the kernel itself, and other memory needed at boot.
    let overhead = all / 128 + 6 * 1024 + memory.archive;
    assert!(memory.never_given <= overhead, "{} KiB never came to the allocator\n{outcome}", memory.never_given);
    assert!(memory.free <= memory.total && memory.free > memory.total / 2, "{outcome}");

    let in_all = output.lines().find_map(|line| line.trim().strip_suffix("  in all"));
    assert_eq!(in_all.and_then(kibibytes), Some(all), "the banks of memory\n{outcome}");
    for node in 0..hardware.nodes {
        assert!(output.contains(&format!("memory, node {node}")), "a bank of node {node}\n{outcome}");
    }
    assert!(!output.contains(&format!("memory, node {}", hardware.nodes)), "{outcome}");
    for part in ["kernel", "boot archive", "device tree", "page records"] {
        assert!(output.lines().any(|line| line.starts_with("0x") && line.contains(part)), "no {part}\n{outcome}");
    }

    let online = output.lines().filter(|line| line.starts_with("processor")).count();
    assert_eq!(online, hardware.cpus, "CPUs\n{outcome}");
    let cpus = if hardware.cpus == 1 { "] 1 CPU\n".to_owned() } else { format!("] {} CPUs\n", hardware.cpus) };
    assert!(outcome.log.replace('\r', "").contains(&cpus), "{outcome}");

    let passed = output.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(passed > 0, "selftest ran nothing\n{outcome}");
    assert!(!output.contains("not ok"), "a test failed\n{outcome}");
    assert!(output.contains(&format!("# {passed} programs, 0 failed")), "{outcome}");
    outcome
}

/// What `free` prints, in KiB.
struct Memory {
    total: u64,
    free: u64,
    archive: u64,
    never_given: u64,
}

impl Memory {
    fn read(output: &str) -> Option<Memory> {
        let field = |name: &str, index: usize| -> Option<u64> {
            let rest = output.lines().find_map(|line| line.strip_prefix(name))?;
            rest.split_whitespace().nth(index)?.parse().ok()
        };
        Some(Memory {
            total: field("Mem:", 0)?,
            free: field("Mem:", 2)?,
            archive: field("boot archive", 0)?,
            never_given: field("never given to the allocator", 0)?,
        })
    }
}

/// "960 MiB" in KiB.
fn kibibytes(text: &str) -> Option<u64> {
    let (number, unit) = text.trim().split_once(' ')?;
    let shift = ["KiB", "MiB", "GiB"].iter().position(|&u| u == unit)? * 10;
    Some(number.parse::<u64>().ok()? << shift)
}

/// The memory that xtask says a boot archive needs is enough for it.
#[test]
fn the_least_memory_boots() {
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/quire/release/boot.cpio");
    let machine = |memory: &str| Machine::new(&["--smp", "1", "--mem", memory, "--add", archive]);
    let refused = machine("31M").exec("true");
    assert_eq!(refused.status, 1, "an archive of twice the size fits\n{refused}");
    let needed = refused.log.lines().find_map(|line| line.rsplit_once("the machine needs ").map(|(_, size)| size));
    let needed = needed.unwrap_or_else(|| panic!("no word of what is needed\n{refused}"));
    let outcome = machine(needed).exec("selftest accounts fork");
    assert!(outcome.succeeded().contains("# 2 programs, 0 failed"), "{outcome}");
}

#[test]
fn virt() {
    let outcome = check(&Machine::virt(), VIRT);
    assert!(outcome.log.contains("access flag and dirty state: by faults"), "{outcome}");
}

#[test]
fn rpi4() {
    let outcome = check(&Machine::rpi4(), RPI4);
    let area = outcome.output.lines().find(|line| line.contains("contiguous memory area"));
    assert!(area.is_some_and(|line| line.contains(" 64 MiB ")), "the tree's linux,cma\n{outcome}");
}

#[test]
fn one_cpu() {
    check(&Machine::new(&["--smp", "1"]), Hardware { cpus: 1, ..VIRT });
}

#[test]
#[ignore = "matrix"]
fn eight_cpus() {
    check(&Machine::new(&["--smp", "8"]), Hardware { cpus: 8, ..VIRT });
}

#[test]
#[ignore = "matrix"]
fn el2() {
    check(&Machine::new(&["--el2"]), VIRT);
}

#[test]
#[ignore = "matrix"]
fn gic_3() {
    check(&Machine::new(&["--gic", "3"]), VIRT);
}

#[test]
#[ignore = "matrix"]
fn el2_gic_3() {
    check(&Machine::new(&["--el2", "--gic", "3"]), VIRT);
}

/// With all features of the architecture: CPUs set access flags and dirty state, and there is PAN.
#[test]
fn max_cpu_updates_page_tables() {
    let outcome = Machine::new(&["--cpu", "max"]).exec("cpuinfo; selftest dirty fork madvise mprotect mremap thread");
    assert!(outcome.succeeded().contains("# 6 programs, 0 failed"), "{outcome}");
    assert!(outcome.log.contains("access flag and dirty state: by hardware"), "{outcome}");
    assert!(outcome.output.contains("hw_af hw_dbm pan"), "{outcome}");
}

#[test]
#[ignore = "matrix"]
fn max_cpu() {
    check(&Machine::new(&["--cpu", "max"]), VIRT);
}

#[test]
#[ignore = "matrix"]
fn max_cpu_el2_gic_3() {
    check(&Machine::new(&["--cpu", "max", "--el2", "--gic", "3"]), VIRT);
}

/// Memory in blocks of 2 MiB, wherever that can be.
const HUGE: &str = "transparent_hugepage=always";

#[test]
fn huge_pages_everywhere() {
    let machine = |cpu| Machine::new(&["--cpu", cpu, "--append", HUGE]);
    for cpu in ["max", "cortex-a72"] {
        let outcome = machine(cpu).exec("selftest huge fork madvise mprotect mremap thread; vmstat thp_fault_alloc");
        assert!(outcome.succeeded().contains("# 6 programs, 0 failed"), "{outcome}");
        let blocks = outcome.output.lines().find_map(|line| line.strip_prefix("thp_fault_alloc ")?.parse::<u32>().ok());
        assert!(blocks.is_some_and(|blocks| blocks > 20), "{outcome}");
    }
}

#[test]
#[ignore = "matrix"]
fn max_cpu_debug_assertions() {
    check(&Machine::new(&["--cpu", "max", "--debug", "--append", HUGE]), VIRT);
}

#[test]
#[ignore = "matrix"]
fn little_memory() {
    check(&Machine::new(&["--mem", "128M"]), Hardware { mebibytes: 128, ..VIRT });
}

#[test]
#[ignore = "matrix"]
fn much_memory() {
    check(&Machine::new(&["--mem", "8G"]), Hardware { mebibytes: 8192, ..VIRT });
}

#[test]
#[ignore = "matrix"]
fn two_nodes() {
    check(&Machine::new(&["--numa", "2"]), Hardware { nodes: 2, ..VIRT });
}

#[test]
#[ignore = "matrix"]
fn debug_assertions() {
    check(&Machine::new(&["--debug"]), VIRT);
}

#[test]
fn runs_are_deterministic_when_instructions_are_counted() {
    let machine = Machine::new(&["--icount"]);
    let [first, second] = [(); 2].map(|()| machine.exec("echo hello"));
    assert_eq!(first.succeeded(), second.succeeded());
    assert_eq!(first.log, second.log, "the kernel's messages and their times");
}

/// Checks the memory manager's metadata in KiB: page records, tables, per-CPU memory and slabs, as `memmap` and
/// `vmstat` show them, are at most nine thousandths of memory.
fn check_metadata(outcome: &Outcome, memory: u64) {
    let gauge = |name: &str| {
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok();
        outcome.output.lines().find_map(value).unwrap_or_else(|| panic!("no {name}\n{outcome}")) * 4
    };
    let regions = |what: &str| {
        let size = |line: &str| {
            let words: Vec<&str> = line.strip_suffix(what)?.split_once(" - ")?.1.split_whitespace().collect();
            kibibytes(&words.get(1..3)?.join(" "))
        };
        outcome.output.lines().filter_map(size).sum::<u64>()
    };
    let records = regions("page records");
    let gauges = ["nr_kernel_page_tables", "nr_slab", "nr_per_cpu_areas", "nr_vmalloc", "nr_cma_bitmaps"];
    let all = records + regions("boot allocations") + gauges.map(gauge).iter().sum::<u64>();
    assert!(records >= memory / 128, "a record of 32 bytes a page\n{outcome}");
    assert!(all <= memory * 9 / 1000, "{all} KiB of metadata for {memory} KiB\n{outcome}");
}

/// The page allocator has all of 8 GiB soon after boot: the kernel sums up the buddy's lists before it prints the line.
#[test]
fn much_memory_is_handed_out_in_time() {
    let outcome = Machine::new(&["--icount", "--mem", "8G"]).exec("memmap; vmstat");
    outcome.succeeded();
    let after =
        |line: &str| line.split_once(" handed out ")?.1.split_once(" after ")?.1.strip_suffix(" ms")?.parse().ok();
    let milliseconds: Option<f64> = outcome.log.lines().find_map(after);
    assert!(milliseconds.is_some_and(|milliseconds| milliseconds < 5.0), "{milliseconds:?} ms\n{outcome}");
    check_metadata(&outcome, 8 << 20);
}

/// With 1 GiB, at most 12.5 MiB are in use when the shell runs, the kernel and its page records (8 MiB) among them; the
/// boot archive is not counted.
#[test]
fn little_memory_is_gone_after_boot() {
    let outcome = Machine::new(&["--mem", "1G"]).exec("free; memmap; vmstat");
    let memory =
        Memory::read(outcome.succeeded()).unwrap_or_else(|| panic!("free's words are not understood\n{outcome}"));
    let gone = memory.total + memory.never_given - memory.free - memory.archive;
    assert!(gone <= 12 * 1024 + 512, "{gone} KiB are gone\n{outcome}");
    check_metadata(&outcome, 1 << 20);
}
