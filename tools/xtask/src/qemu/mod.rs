//! QEMU's arguments for the requested machine.

mod control;
mod cpu;
mod tree;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::options::{Board, MachineOptions, MemorySize};

pub use control::{Commands, Control};
pub use cpu::check as check_cpu;

/// The emulator.
pub const QEMU: &str = "qemu-system-aarch64";

/// The Pi's CPU, which the default machine has too.
const CPU: &str = "cortex-a72";

/// A GICv2 distributor addresses eight CPUs.
const GIC2_CPUS: u32 = 8;

/// The memory of a `virt` if none is asked for.
const VIRT_MEMORY: MemorySize = MemorySize { mebibytes: 1024 };

/// The only memory size that QEMU's Pi has.
const RPI4_MEMORY: MemorySize = MemorySize { mebibytes: 2048 };
const RPI4_CPUS: u32 = 4;

/// The smallest disk.
const SECTOR: u64 = 512;

/// A QEMU command for this board, without kernel, archive, kernel arguments and serial ports.
///
/// An option that the board cannot honour is refused, never ignored.
pub fn machine(board: Board, options: &MachineOptions) -> Result<Command> {
    let mut qemu = Command::new(QEMU);
    qemu.args(["-display", "none", "-no-reboot"]);
    if let Some(tree) = &options.dtb {
        tree::check(board, tree)?;
    }
    match board {
        Board::Virt => virt(&mut qemu, options)?,
        Board::Rpi4 => rpi4(&mut qemu, options)?,
    }
    if options.icount {
        // A disk is as fast as the host's. With a clock that goes on to the next timer whenever nothing runs, its driver would have waited for
        // half a minute before the host has done anything.
        // And a page shows what happens in no other time than the viewer's.
        let rest = if options.disk.is_some() || options.view.is_some() { "on" } else { "off" };
        let icount = format!("shift=0,sleep={rest}");
        qemu.args(["-icount", &icount, "-rtc", "base=2026-01-01T00:00:00,clock=vm", "-seed", "1"]);
    }
    Ok(qemu)
}

fn virt(qemu: &mut Command, options: &MachineOptions) -> Result<()> {
    let smp = options.smp.unwrap_or(4);
    let gic = options.gic.unwrap_or(2);
    let memory = options.mem.unwrap_or(VIRT_MEMORY);
    let nodes = options.numa.unwrap_or(1);
    promised(memory, &host_memory())?;
    ensure!(gic != 2 || smp <= GIC2_CPUS, "a GICv2 serves {GIC2_CPUS} CPUs at most: add --gic 3 for --smp {smp}");

    let mut model = format!("virt,gic-version={gic}");
    if options.el2 {
        model += ",virtualization=on";
    }
    if options.icount {
        model += ",dtb-randomness=off";
    }
    let cpu = options.cpu.as_deref().unwrap_or(CPU);
    qemu.args(["-M", &model, "-cpu", cpu, "-nic", "none", "-m", &memory.to_string()]);
    // A socket belongs to one node, so there are as many sockets as nodes if the CPUs divide evenly.
    let sockets = if smp.is_multiple_of(nodes) { nodes } else { smp };
    qemu.args(["-smp", &format!("{smp},sockets={sockets},cores={}", smp / sockets)]);
    if nodes > 1 {
        numa(qemu, nodes, smp, memory)?;
    }
    if let Some(disk) = &options.disk {
        qemu.arg("-drive").arg(drive(disk, "if=none,id=disk,")?);
        qemu.args(["-device", "virtio-blk-device,drive=disk"]);
    }
    if let Some(fd) = options.view {
        qemu.args(["-chardev", &format!("socket,id=view,fd={fd}"), "-device", "virtio-serial-device"]);
        qemu.args(["-device", "virtconsole,chardev=view"]);
    }
    if options.disk.is_some() || options.view.is_some() {
        qemu.args(["-global", "virtio-mmio.force-legacy=false"]);
    }
    Ok(())
}

/// Refuses memory in which QEMU finds no room for a boot archive of this many bytes and the device tree.
pub fn room_for_archive(board: Board, options: &MachineOptions, archive: u64) -> Result<()> {
    let memory = match board {
        Board::Virt => options.mem.unwrap_or(VIRT_MEMORY),
        Board::Rpi4 => RPI4_MEMORY,
    };
    if has_room(memory, archive) {
        return Ok(());
    }
    let more = (memory.mebibytes..).map(|mebibytes| MemorySize { mebibytes });
    let enough = more.into_iter().find(|size| has_room(*size, archive)).unwrap_or(memory);
    bail!(
        "--mem {memory}: the boot archive of {}K does not fit; with it the machine needs {enough}",
        archive.div_ceil(1024)
    )
}

/// Whether QEMU finds room: it puts the archive into the middle of memory, but at most 128 MiB from its start, and the
/// tree behind it at a multiple of 2 MiB.
fn has_room(memory: MemorySize, archive: u64) -> bool {
    const MIB: u64 = 1 << 20;
    const TREE: u64 = MIB;
    let memory = memory.mebibytes * MIB;
    let end = (memory / 2).min(128 * MIB).saturating_add(archive);
    end.checked_next_multiple_of(2 * MIB).is_some_and(|tree| tree + TREE <= memory)
}

/// The host's memory, as far as Linux's policy limits what QEMU may allocate.
struct HostMemory {
    /// /proc/sys/vm/overcommit_memory
    policy: String,
    /// /proc/meminfo
    memory: String,
}

fn host_memory() -> HostMemory {
    // Without these files the limit is unknown, and QEMU's own error has to do.
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    HostMemory { policy: read("/proc/sys/vm/overcommit_memory"), memory: read("/proc/meminfo") }
}

/// Refuses more memory than Linux grants one process: by its default policy, all memory and swap of the host.
fn promised(memory: MemorySize, host: &HostMemory) -> Result<()> {
    let field = |name: &str| {
        let rest = host.memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (Some(memory_there), "0") = (field("MemTotal"), host.policy.trim()) else { return Ok(()) };
    let mebibytes = (memory_there + field("SwapTotal").unwrap_or(0)) >> 10;
    ensure!(
        memory.mebibytes <= mebibytes,
        "--mem {memory}: this host has {mebibytes}M of memory and swap, and Linux grants no more than that"
    );
    Ok(())
}

/// Splits CPUs and memory over the nodes; the last node takes what does not divide.
fn numa(qemu: &mut Command, nodes: u32, smp: u32, memory: MemorySize) -> Result<()> {
    let share = memory.mebibytes / u64::from(nodes);
    ensure!(share > 0, "--mem {memory} is too little for {nodes} nodes");
    for node in 0..nodes {
        let last = node == nodes - 1;
        let size = if last { memory.mebibytes - share * u64::from(nodes - 1) } else { share };
        qemu.args(["-object", &format!("memory-backend-ram,id=memory{node},size={size}M")]);
        let (first, end) = (smp * node / nodes, smp * (node + 1) / nodes);
        let cpus = if first < end { format!(",cpus={first}-{}", end - 1) } else { String::new() };
        qemu.args(["-numa", &format!("node,nodeid={node},memdev=memory{node}{cpus}")]);
    }
    Ok(())
}

fn rpi4(qemu: &mut Command, options: &MachineOptions) -> Result<()> {
    let refuse = |option: &str, has: &str| bail!("--board rpi4 has {has}: {option} cannot be changed");
    ensure!(options.view.is_none(), "--board rpi4 has no virtio, by which a view gets its pictures: view shows virt");
    match options {
        MachineOptions { smp: Some(smp), .. } if *smp != RPI4_CPUS => refuse("--smp", "4 CPUs")?,
        MachineOptions { mem: Some(mem), .. } if *mem != RPI4_MEMORY => refuse("--mem", "2G of memory in QEMU")?,
        MachineOptions { numa: Some(numa), .. } if *numa != 1 => refuse("--numa", "one memory node")?,
        MachineOptions { gic: Some(gic), .. } if *gic != 2 => refuse("--gic", "a GICv2")?,
        MachineOptions { cpu: Some(cpu), .. } if cpu != CPU => refuse("--cpu", CPU)?,
        _ => {}
    }
    qemu.args(["-M", "raspi4b", "-m", &RPI4_MEMORY.to_string(), "-smp", &RPI4_CPUS.to_string()]);
    if let Some(disk) = &options.disk {
        let drive = drive(disk, "if=sd,")?;
        let size = std::fs::metadata(disk)?.len();
        ensure!(size.is_power_of_two(), "--disk {}: an SD card's size is a power of two in QEMU", disk.display());
        qemu.arg("-drive").arg(drive);
    }
    Ok(())
}

/// A raw drive; QEMU wants commas in the name doubled.
fn drive(file: &Path, options: &str) -> Result<OsString> {
    let there = std::fs::metadata(file).with_context(|| format!("--disk {}", file.display()))?;
    let kind = there.file_type();
    ensure!(kind.is_file() || kind.is_block_device(), "--disk {}: neither a file nor a disk", file.display());
    ensure!(!kind.is_file() || there.len() >= SECTOR, "--disk {}: a disk has at least {SECTOR} bytes", file.display());
    // QEMU opens it for both, and reports less clearly what is missing.
    let opened = OpenOptions::new().read(true).write(true).open(file);
    opened.with_context(|| format!("--disk {}: opening it to read and write", file.display()))?;
    let name = file.to_str().context("--disk: the name is not UTF-8")?.replace(',', ",,");
    Ok(format!("{options}format=raw,file={name}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(board: Board, options: &MachineOptions) -> Result<String> {
        let qemu = machine(board, options)?;
        Ok(qemu.get_args().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn nodes_share_cpus_and_memory() {
        let size = |mebibytes| Some(MemorySize { mebibytes });
        let options = MachineOptions { numa: Some(3), smp: Some(4), mem: size(1000), ..Default::default() };
        let line = arguments(Board::Virt, &options).unwrap();
        for part in ["memory0,size=333M", "memory2,size=334M", "memdev=memory0,cpus=0-0", "memdev=memory2,cpus=2-3"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        let options = MachineOptions { numa: Some(2), smp: Some(1), ..Default::default() };
        let line = arguments(Board::Virt, &options).unwrap();
        assert!(line.contains("nodeid=0,memdev=memory0 ") && line.contains("memdev=memory1,cpus=0-0"), "{line}");
    }

    #[test]
    fn more_memory_than_the_host_promises_is_refused() {
        let host = |policy: &str| HostMemory {
            policy: policy.to_owned(),
            memory: "MemTotal:        2097152 kB\nMemFree: 5 kB\nSwapTotal:       1048576 kB\n".to_owned(),
        };
        let ask = |gibibytes: u64, policy: &str| promised(MemorySize { mebibytes: gibibytes << 10 }, &host(policy));
        assert!(ask(3, "0\n").is_ok());
        let why = ask(4, "0\n").unwrap_err().to_string();
        assert!(why.contains("--mem 4G") && why.contains("3072M"), "{why}");
        assert!(ask(4, "1\n").is_ok(), "the host promises anything");
        let unknown = HostMemory { policy: String::new(), memory: String::new() };
        assert!(promised(MemorySize { mebibytes: 1 << 20 }, &unknown).is_ok());
    }

    #[test]
    fn memory_without_room_for_the_archive_is_refused() {
        const MIB: u64 = 1 << 20;
        let ask = |mebibytes: u64, archive: u64| {
            let options = MachineOptions { mem: Some(MemorySize { mebibytes }), ..Default::default() };
            room_for_archive(Board::Virt, &options, archive).map_err(|error| error.to_string())
        };
        assert_eq!(ask(18, 6 * MIB), Ok(()));
        assert_eq!(ask(17, 7 * MIB), Ok(()));
        let why = ask(16, 6 * MIB + 1).unwrap_err();
        assert!(why.contains("6145K") && why.ends_with("needs 17M"), "{why}");
        assert!(ask(64, 40 * MIB).unwrap_err().ends_with("needs 83M"));
        assert_eq!(ask(512, 382 * MIB), Ok(()));
        assert!(ask(512, 383 * MIB).unwrap_err().ends_with("needs 513M"));
        let usual = MachineOptions::default();
        assert!(room_for_archive(Board::Rpi4, &usual, 600 * MIB).is_ok());
        assert!(room_for_archive(Board::Virt, &usual, 1000 * MIB).is_err());
    }

    #[test]
    fn options_that_a_board_cannot_honour_are_refused() {
        let refused = |board, options: MachineOptions| arguments(board, &options).is_err();
        assert!(refused(Board::Rpi4, MachineOptions { smp: Some(2), ..Default::default() }));
        assert!(refused(Board::Rpi4, MachineOptions { mem: Some("1G".parse().unwrap()), ..Default::default() }));
        assert!(refused(Board::Rpi4, MachineOptions { numa: Some(2), ..Default::default() }));
        assert!(refused(Board::Rpi4, MachineOptions { gic: Some(3), ..Default::default() }));
        assert!(refused(Board::Rpi4, MachineOptions { cpu: Some("max".into()), ..Default::default() }));
        assert!(refused(Board::Virt, MachineOptions { smp: Some(9), ..Default::default() }));
        assert!(refused(Board::Virt, MachineOptions { disk: Some("/nonexistent".into()), ..Default::default() }));
        assert!(refused(Board::Rpi4, MachineOptions { dtb: Some("/nonexistent".into()), ..Default::default() }));

        let pi = MachineOptions { smp: Some(4), mem: Some(RPI4_MEMORY), gic: Some(2), el2: true, ..Default::default() };
        assert!(!refused(Board::Rpi4, pi));
        assert!(!refused(Board::Virt, MachineOptions { smp: Some(9), gic: Some(3), ..Default::default() }));
    }
}
