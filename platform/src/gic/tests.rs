//! The drivers on plain memory: which words they write, and how they react to the words that they read.

use core::cell::Cell;
use std::thread_local;

use super::*;
use crate::tree::Trigger;

const DISTRIBUTOR: Region = Region { base: 0x800_0000, size: 0x1_0000 };
const CPU_INTERFACE: Region = Region { base: 0x801_0000, size: 0x1_0000 };
const REDISTRIBUTORS: [Region; 2] =
    [Region { base: 0x80a_0000, size: 0x4_0000 }, Region { base: 0x900_0000, size: 0x10_0000 }];

/// Registers of several regions, word by word.
struct Bench(Vec<(Region, &'static [Cell<u32>])>);

impl Bench {
    fn new(regions: &[Region]) -> Self {
        let zeros = |region: &Region| &*Vec::leak(vec![Cell::new(0); region.size as usize / 4]);
        Self(regions.iter().map(|region| (*region, zeros(region))).collect())
    }

    fn word(&self, address: u64) -> &Cell<u32> {
        let (region, words) = self.0.iter().find(|(region, _)| (region.base..region.end()).contains(&address)).unwrap();
        &words[(address - region.base) as usize / 4]
    }

    fn byte(&self, address: u64) -> u8 {
        self.word(address).get().to_le_bytes()[address as usize % 4]
    }

    fn map(&self, region: Region) -> Option<NonNull<u8>> {
        let (_, words) = self.0.iter().find(|(known, _)| *known == region)?;
        // From all of the words, so that the pointer may reach all of them.
        NonNull::new(words.as_ptr().cast_mut().cast())
    }
}

#[derive(Default)]
struct Sys {
    mpidr: Cell<u64>,
    sre: Cell<u64>,
    withhold_sre: Cell<bool>,
    iar: Cell<u64>,
    eoir: Cell<u64>,
    sgi: Cell<u64>,
    igrpen: Cell<u64>,
}

thread_local!(static SYS: Sys = Sys::default());

struct Mock;

impl SysRegs for Mock {
    fn mpidr() -> u64 {
        SYS.with(|sys| sys.mpidr.get())
    }
    fn dsb_ishst() {}
    fn isb() {}
    fn read_icc_sre() -> u64 {
        SYS.with(|sys| sys.sre.get())
    }
    fn write_icc_sre(value: u64) {
        SYS.with(|sys| sys.sre.set(if sys.withhold_sre.get() { 0 } else { value }));
    }
    fn write_icc_pmr(_: u64) {}
    fn write_icc_bpr1(_: u64) {}
    fn write_icc_ctlr(_: u64) {}
    fn write_icc_igrpen1(value: u64) {
        SYS.with(|sys| sys.igrpen.set(value));
    }
    fn read_icc_iar1() -> u64 {
        SYS.with(|sys| sys.iar.get())
    }
    fn write_icc_eoir1(value: u64) {
        SYS.with(|sys| sys.eoir.set(value));
    }
    fn write_icc_sgi1r(value: u64) {
        SYS.with(|sys| sys.sgi.set(value));
    }
}

fn controller(bench: &Bench, controller: &Controller) -> Result<InterruptController<Mock>, GicError> {
    // SAFETY: the words live for ever and may be written through shared references; nobody else writes during a call.
    unsafe { InterruptController::new(controller, |region| bench.map(region)) }
}

fn gicv2() -> (Bench, InterruptController<Mock>) {
    let bench = Bench::new(&[DISTRIBUTOR, CPU_INTERFACE]);
    bench.word(DISTRIBUTOR.base + 4).set(2);
    let described = Controller::GicV2 { distributor: DISTRIBUTOR, cpu_interface: CPU_INTERFACE };
    let gic = controller(&bench, &described).expect("registers");
    gic.init_distributor().expect("a distributor");
    (bench, gic)
}

/// Four redistributors in two regions: MPIDR 0, 1, 0x100 (with the extra frames of version 4), 0x1_0000_0002.
fn gicv3() -> (Bench, InterruptController<Mock>) {
    let bench = Bench::new(&[DISTRIBUTOR, REDISTRIBUTORS[0], REDISTRIBUTORS[1]]);
    bench.word(DISTRIBUTOR.base + 4).set(2);
    let [first, second] = REDISTRIBUTORS.map(|region| region.base);
    let typers = [
        (first, 0, 0),
        (first + 0x2_0000, 1 << 4, 1),
        (second, 1 << 1, 0x100),
        (second + 0x4_0000, 1 << 4, 0x100_0002),
    ];
    for (frame, low, affinity) in typers {
        bench.word(frame + 8).set(low);
        bench.word(frame + 0xc).set(affinity);
        bench.word(frame + 0x14).set(2);
    }
    let redistributors = REDISTRIBUTORS.into_iter().collect();
    let described = Controller::GicV3 { distributor: DISTRIBUTOR, redistributors, stride: None };
    let gic = controller(&bench, &described).expect("registers");
    gic.init_distributor().expect("a distributor");
    (bench, gic)
}

const SERIAL: Interrupt = Interrupt { intid: 33, trigger: Trigger::Level };
const EDGE: Interrupt = Interrupt { intid: 95, trigger: Trigger::Edge };
const TIMER: Interrupt = Interrupt { intid: 27, trigger: Trigger::Level };

#[test]
fn v2_learns_each_cpus_bit() {
    let (bench, gic) = gicv2();
    assert_eq!(gic.send(0, 1), Err(GicError::NoSuchCpu(0)), "not before it has come up");
    // The registers are each CPU's own: CPU 0 has bit 2, CPU 1 has bit 0.
    for (cpu, mask) in [(0, 0x0404_0404), (1, 0x0101_0101)] {
        (0..8).for_each(|word| bench.word(DISTRIBUTOR.base + 0x800 + word * 4).set(mask));
        gic.init_cpu(cpu).expect("a CPU");
    }
    gic.send(0, 5).expect("a target");
    assert_eq!(bench.word(DISTRIBUTOR.base + 0xf00).get(), 4 << 16 | 5);
    gic.send_to_others(6).expect("an SGI");
    assert_eq!(bench.word(DISTRIBUTOR.base + 0xf00).get(), 1 << 24 | 6);
    assert_eq!(gic.send(0, 16), Err(GicError::NoSuchInterrupt(16)));
    assert_eq!(gic.init_cpu(8), Err(GicError::NoSuchCpu(8)));
    gic.configure(1, SERIAL, Priority::Urgent).expect("a line");
    assert_eq!(bench.byte(DISTRIBUTOR.base + 0x800 + 33), 1);
}

#[test]
fn v2_configures_one_interrupt_and_not_its_neighbours() {
    let (bench, gic) = gicv2();
    gic.init_cpu(0).expect("a CPU");
    bench.word(DISTRIBUTOR.base + 0xc14).set(u32::MAX);
    gic.configure(0, SERIAL, Priority::Urgent).expect("a line");
    gic.configure(0, EDGE, Priority::Normal).expect("a line");
    let priorities: Vec<_> = (32..36).map(|intid| bench.byte(DISTRIBUTOR.base + 0x400 + intid)).collect();
    assert_eq!(priorities, [0xa0, 0x80, 0xa0, 0xa0]);
    assert_eq!(bench.word(DISTRIBUTOR.base + 0xc08).get(), 0, "level");
    assert_eq!(bench.word(DISTRIBUTOR.base + 0xc14).get(), 1 << 31 | 0x7fff_ffff, "edge");
    assert_eq!(bench.word(DISTRIBUTOR.base + 0x104).get(), 1 << 1, "enabled");
    assert_eq!(bench.word(DISTRIBUTOR.base + 0x184).get(), 1 << 1, "disabled before it was changed");
    let none = Interrupt { intid: 96, trigger: Trigger::Level };
    assert_eq!(gic.configure(0, none, Priority::Normal), Err(GicError::NoSuchInterrupt(96)));
}

#[test]
fn v2_ends_what_it_acknowledged() {
    let (bench, gic) = gicv2();
    gic.init_cpu(0).expect("a CPU");
    assert_eq!(bench.word(CPU_INTERFACE.base).get(), 1);
    bench.word(CPU_INTERFACE.base + 0xc).set(3 << 10 | 7);
    let active = gic.acknowledge().expect("an SGI");
    assert_eq!(active.intid(), 7);
    gic.end(active);
    assert_eq!(bench.word(CPU_INTERFACE.base + 0x10).get(), 3 << 10 | 7, "with its sender");
    bench.word(CPU_INTERFACE.base + 0xc).set(1023);
    assert_eq!(gic.acknowledge(), None);
}

#[test]
fn v3_finds_each_cpus_redistributor() {
    let (bench, gic) = gicv3();
    let [first, second] = REDISTRIBUTORS.map(|region| region.base);
    // The bits outside the affinity fields are ignored by the search.
    let cpus = [(0, first), (1, first + 0x2_0000), (0x100, second), (0x1_0000_0002, second + 0x4_0000)];
    for (cpu, (mpidr, frame)) in cpus.into_iter().enumerate() {
        SYS.with(|sys| sys.mpidr.set(mpidr | 1 << 31 | 1 << 24));
        gic.init_cpu(cpu).expect("a CPU");
        assert_eq!(bench.word(frame + 0x14).get(), 0, "CPU {cpu} is awake");
        assert_eq!(bench.word(frame + 0x1_0080).get(), u32::MAX, "group 1");
        gic.configure(cpu, TIMER, Priority::Urgent).expect("a line");
        assert_eq!((bench.word(frame + 0x1_0100).get(), bench.byte(frame + 0x1_041b)), (1 << 27, 0x80));
    }
    SYS.with(|sys| sys.mpidr.set(2));
    assert_eq!(gic.init_cpu(4), Err(GicError::NoRedistributor(2)));
    assert_eq!(gic.enable(4, 27), Err(GicError::NoSuchCpu(4)));
}

#[test]
fn v3_routes_and_sends_by_affinity() {
    let (bench, gic) = gicv3();
    SYS.with(|sys| sys.mpidr.set(0x1_0000_0002));
    gic.init_cpu(3).expect("a CPU");
    gic.configure(3, SERIAL, Priority::Normal).expect("a line");
    let route = DISTRIBUTOR.base + 0x6000 + 33 * 8;
    assert_eq!((bench.word(route).get(), bench.word(route + 4).get()), (2, 1));
    gic.send(3, 9).expect("a target");
    assert_eq!(SYS.with(|sys| sys.sgi.get()), 1 << 48 | 9 << 24 | 1 << 2);
    gic.send_to_others(1).expect("an SGI");
    assert_eq!(SYS.with(|sys| sys.sgi.get()), 1 << 40 | 1 << 24);
    assert_eq!(bench.word(DISTRIBUTOR.base).get(), 0x13);
    assert_eq!(SYS.with(|sys| sys.igrpen.get()), 1);
}

#[test]
fn v3_acknowledges_by_system_register() {
    let (_bench, gic) = gicv3();
    SYS.with(|sys| sys.iar.set(8192));
    let active = gic.acknowledge().expect("an interrupt");
    assert_eq!(active.intid(), 8192);
    gic.end(active);
    assert_eq!(SYS.with(|sys| sys.eoir.get()), 8192);
    SYS.with(|sys| sys.iar.set(1023));
    assert_eq!(gic.acknowledge(), None);
}

#[test]
fn what_does_not_answer_is_an_error() {
    let (bench, gic) = gicv3();
    SYS.with(|sys| sys.withhold_sre.set(true));
    assert_eq!(gic.init_cpu(0), Err(GicError::NoSystemRegisters));
    bench.word(REDISTRIBUTORS[0].base + 0x14).set(4);
    assert_eq!(gic.init_cpu(0), Err(GicError::Stuck), "its children sleep on");
    let tiny = Region { base: DISTRIBUTOR.base, size: 0x800 };
    let described = Controller::GicV2 { distributor: tiny, cpu_interface: CPU_INTERFACE };
    assert_eq!(controller(&bench, &described).err(), Some(GicError::Registers(tiny)));
}
