//! cpuinfo: the processors: what they are, as in /proc/cpuinfo of Linux, and what they did.

#![no_std]
#![no_main]

use core::fmt;

use quire_bin::Options;
use quire_rt::abi::info::{CpuInfo, cpu_feature};
use quire_rt::{eprintln, info, println};

quire_rt::entry!(main);

fn main() -> i32 {
    if let Err(status) = Options::none("cpuinfo") {
        return status;
    }
    if let Err(error) = info::record::<CpuInfo>(0) {
        eprintln!("cpuinfo: {error}");
        return 1;
    }
    let mut is_first = true;
    // A CPU that never started is left out.
    for (number, cpu) in info::records::<CpuInfo>().enumerate().filter(|(_, cpu)| cpu.online == 1) {
        if !core::mem::take(&mut is_first) {
            println!();
        }
        // Fields of MIDR_EL1 and MPIDR_EL1, Arm Architecture Reference Manual, D24.2.
        let (implementer, part) = (cpu.midr >> 24 & 0xff, cpu.midr >> 4 & 0xfff);
        println!("processor       : {number}");
        println!("model name      : {}", model(implementer, part));
        println!("CPU implementer : {implementer:#04x}");
        println!("CPU variant     : {:#x}", cpu.midr >> 20 & 0xf);
        println!("CPU part        : {part:#05x}");
        println!("CPU revision    : {}", cpu.midr & 0xf);
        println!("MMU features    : {}", Features(cpu.features));
        println!("affinity        : {:#x}", cpu.mpidr & 0xff_00ff_ffff);
        println!("node            : {}", cpu.node);
        println!("idle            : {}.{:03} s", cpu.idle_ns / 1_000_000_000, cpu.idle_ns / 1_000_000 % 1000);
        println!("switches        : {}", cpu.switches);
        println!("timer interrupts: {}", cpu.ticks);
    }
    0
}

/// Words for the bits of [`cpu_feature`].
struct Features(u32);

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (cpu_feature::ACCESS_FLAG, "hw_af"),
            (cpu_feature::DIRTY_STATE, "hw_dbm"),
            (cpu_feature::PAN, "pan"),
            (cpu_feature::ASID_16, "asid16"),
        ];
        let mut words = names.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| name);
        words.next().map_or(Ok(()), |first| write!(f, "{first}"))?;
        words.try_for_each(|name| write!(f, " {name}"))
    }
}

/// Names of processors that the supported boards and QEMU have.
fn model(implementer: u64, part: u64) -> &'static str {
    match (implementer, part) {
        (0x41, 0xd03) => "Cortex-A53",
        (0x41, 0xd05) => "Cortex-A55",
        (0x41, 0xd07) => "Cortex-A57",
        (0x41, 0xd08) => "Cortex-A72",
        (0x41, 0xd0b) => "Cortex-A76",
        (0x41, 0xd0c) => "Neoverse N1",
        (0x41, 0xd40) => "Neoverse V1",
        (0x41, 0xd49) => "Neoverse N2",
        (0x00, 0x051) => "QEMU's maximal processor",
        _ => "unknown",
    }
}
