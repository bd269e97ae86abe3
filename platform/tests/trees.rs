//! Whole trees: each is read as its author meant it.

mod common;

use common::{CORPUS, rpi4, tree};
use quire_platform::tree::{
    Board, Clock, Conduit, Controller, Device, EnableMethod, FirmwareClock, Interrupt, MAX_BANKS, MAX_DEPTH,
    MAX_RESERVATIONS, Oddity, Power, Region, ReservationFlags as Flags, TreeError, Trigger, Uart, UartKind, Window,
    for_each_node, property_at, salvage, total_size,
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn board(name: &str) -> Board {
    let board = Board::from_tree(&tree(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    board.validate().unwrap_or_else(|broken| panic!("{name}: {broken}"));
    board
}

/// The settings of a port's pins.
fn pins(uart: &Uart) -> Vec<(u8, u8)> {
    let pins = uart.pins.clone().expect("pins");
    assert_eq!(pins.registers, Region { base: 0xfe20_0000, size: 0xb4 });
    pins.pins.iter().map(|pin| (pin.number, pin.function)).collect()
}

fn banks(board: &Board) -> Vec<(u64, u64, u8)> {
    board.banks.iter().map(|bank| (bank.region.base, bank.region.size, bank.node)).collect()
}

fn mpidrs(board: &Board) -> Vec<u64> {
    board.cpus.iter().map(|cpu| cpu.mpidr).collect()
}

fn warned(board: &Board, what: Oddity, node: &str) -> bool {
    board.warnings.iter().any(|warning| warning.what == what && warning.node == node)
}

const fn level(intid: u32) -> Option<Interrupt> {
    Some(Interrupt { intid, trigger: Trigger::Level })
}

#[test]
fn every_tree_is_read_and_only_the_liar_is_odd() {
    for (name, bytes) in CORPUS {
        let board = board(name);
        assert_eq!(board.warnings.is_empty(), name != "liar", "{name}: {:?}", board.warnings);
        let header = bytes.first_chunk().expect("a header");
        assert_eq!(total_size(header), Ok(bytes.len()), "{name}");
    }
}

fn field(tree: &[u8], at: usize) -> usize {
    u32::from_be_bytes(tree[at..at + 4].try_into().expect("four bytes")) as usize
}

/// A property whose name occurs in `tree`.
fn property(tree: &[u8], name: &str, value: &[u8]) -> Vec<u8> {
    let strings = &tree[field(tree, 12)..];
    let at = strings.windows(name.len() + 1).position(|part| part == [name.as_bytes(), b"\0"].concat());
    let head = [3, value.len() as u32, at.expect("a known name") as u32].map(u32::to_be_bytes);
    let mut bytes = [head.as_flattened(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The tree of a virt machine with a serial port inside as many nodes as make it the `depth`th, the root included.
fn with_port_at(depth: usize) -> Vec<u8> {
    let mut tree = tree("virt-128m");
    let bus = [&1u32.to_be_bytes()[..], b"deep\0\0\0\0", &property(&tree, "ranges", b"")].concat();
    let cells = |name: &str, count: u32| property(&tree, name, &count.to_be_bytes());
    let bus = [bus, cells("#address-cells", 2), cells("#size-cells", 2)].concat();
    let reg = [0, 0x0b00_0000, 0, 0x1000].map(u32::to_be_bytes);
    let reg = property(&tree, "reg", reg.as_flattened());
    let port =
        [&1u32.to_be_bytes()[..], b"port\0\0\0\0", &property(&tree, "compatible", b"arm,pl011\0"), &reg].concat();
    let ends = 2u32.to_be_bytes().repeat(depth - 1);
    let nodes = [bus.repeat(depth - 2), port, ends].concat();
    // Before the root's end and the structure block's.
    let end = field(&tree, 8) + field(&tree, 36) - 8;
    assert!(field(&tree, 12) > end, "the strings come after the structure");
    for at in [4, 12, 36] {
        let grown = (field(&tree, at) + nodes.len()) as u32;
        tree[at..at + 4].copy_from_slice(&grown.to_be_bytes());
    }
    tree.splice(end..end, nodes);
    tree
}

#[test]
fn a_port_in_the_deepest_node_is_found() {
    for depth in [2, 12, 13, 40, MAX_DEPTH] {
        let board = Board::from_tree(&with_port_at(depth)).unwrap_or_else(|error| panic!("{depth}: {error}"));
        assert_eq!(board.validate(), Ok(()));
        assert!(board.uarts.iter().any(|uart| uart.registers.base == 0x0b00_0000), "{depth}: {:?}", board.uarts);
        assert_eq!(board.stdout().map(|uart| uart.registers.base), Some(0x900_0000), "{depth}");
    }
}

#[test]
fn a_deeper_tree_is_refused_and_tells_its_port_and_arguments() {
    let mut tree = with_port_at(MAX_DEPTH + 1);
    assert_eq!(Board::from_tree(&tree).err(), Some(TreeError::TooDeep));
    let salvaged = salvage(&tree);
    assert_eq!(salvaged.ports.iter().map(|port| port.base).collect::<Vec<_>>(), [0x900_0000]);
    assert_eq!(salvaged.bootargs, "");
    // Arguments in place of the seed for random numbers, whose name is as long.
    let mut replace = |old: &[u8], new: &[u8]| {
        let at = tree.windows(old.len()).position(|part| part == old).expect("QEMU writes it");
        tree[at..at + new.len()].copy_from_slice(new);
    };
    replace(b"rng-seed\0", b"bootargs\0");
    replace(&0x5fc1_a441_u32.to_be_bytes(), b"semihosting quiet\0");
    assert_eq!(salvage(&tree).bootargs, "semihosting quiet");
}

#[test]
fn small_virt() {
    let board = board("virt-128m");
    assert_eq!(board.model, "linux,dummy-virt");
    assert_eq!(banks(&board), [(GIB, 128 * MIB, 0)]);
    assert_eq!(mpidrs(&board), [0]);
    assert_eq!(board.cpus[0].enable, EnableMethod::None, "one CPU: QEMU names no method");
    let gic = Controller::GicV2 {
        distributor: Region { base: 0x800_0000, size: 0x1_0000 },
        cpu_interface: Region { base: 0x801_0000, size: 0x1_0000 },
    };
    assert_eq!(board.controller, Some(gic));
    let timer = board.timer.expect("a timer");
    assert_eq!(
        (timer.secure, timer.physical, timer.virt, timer.hypervisor),
        (level(29), level(30), level(27), level(26))
    );
    let uart = board.stdout().expect("a console");
    assert_eq!((uart.kind, uart.registers.base, uart.registers.size), (UartKind::Pl011, 0x900_0000, 0x1000));
    assert_eq!((uart.interrupt, uart.clock, uart.occupied), (level(33), Clock::Fixed(24_000_000), false));
    assert_eq!(board.uart("serial0"), Some(uart));
    assert_eq!(board.uart("/pl011@9000000"), Some(uart));
    assert_eq!(board.uart("/pl011"), Some(uart), "the unit address may be left out");
    assert_eq!(
        (board.uart("serial9"), board.uart("ttyS0"), board.uart("ttyAMA"), board.uart("tty1")),
        (None, None, None, None)
    );
    assert_eq!(board.uart("ttyAMA0"), Some(uart));
    assert_eq!(board.uart("/pl011@900000"), None);
    let psci = board.psci.expect("firmware");
    assert_eq!((psci.conduit, psci.cpu_on), (Conduit::Hvc, Some(0xc400_0003)));
    assert_eq!((psci.system_off, psci.system_reset), (Some(0x8400_0008), Some(0x8400_0009)));
    assert_eq!((board.dma_limit, board.power, board.chosen.initrd), (None, None, None));
    assert_eq!(board.chosen.rng_seed.len(), 32);
    assert!(board.chosen.kaslr_seed.is_some());
}

#[test]
fn virt_with_el2_calls_firmware_by_smc() {
    let board = board("virt-4g-smp4-gic3-el2");
    assert_eq!(board.psci.map(|psci| psci.conduit), Some(Conduit::Smc));
    assert_eq!(mpidrs(&board), [0, 1, 2, 3]);
    assert!(board.cpus.iter().all(|cpu| cpu.enable == EnableMethod::Psci));
    let Some(Controller::GicV3 { distributor, redistributors, stride: None }) = board.controller else {
        panic!("{:?}", board.controller)
    };
    assert_eq!(distributor, Region { base: 0x800_0000, size: 0x1_0000 });
    assert_eq!(redistributors, [Region { base: 0x80a_0000, size: 0xf6_0000 }]);
}

#[test]
fn numa_nodes_and_their_distances() {
    let two = board("virt-1g-smp4-numa2");
    assert_eq!(banks(&two), [(GIB, 512 * MIB, 0), (GIB + 512 * MIB, 512 * MIB, 1)]);
    assert_eq!(two.cpus.iter().map(|cpu| cpu.node).collect::<Vec<_>>(), [0, 0, 1, 1]);
    assert_eq!((two.distances.get(0, 0), two.distances.get(0, 1), two.distances.get(1, 0)), (10, 20, 20));
    let four = board("virt-8g-smp4-numa4-gic3");
    let expected: Vec<_> = (0..4).map(|node| (GIB + node * 2 * GIB, 2 * GIB, node as u8)).collect();
    assert_eq!(banks(&four), expected);
    assert_eq!((four.distances.get(0, 1), four.distances.get(3, 0), four.distances.get(2, 3)), (15, 30, 15));
    assert_eq!(four.distances.get(0, 99), u8::MAX);
    assert_eq!(four.memory_size(), 8 * GIB);
}

#[test]
fn chosen_and_a_second_serial_port() {
    let board = board("virt-512m-two-serials-initrd");
    assert_eq!(board.chosen.bootargs, r#"log=debug init=/bin/init title="a b""#);
    assert_eq!(board.chosen.initrd.map(|initrd| initrd.region.size), Some(3000));
    assert_eq!(board.uarts.len(), 2);
    let second = board.uart("serial1").expect("a second port");
    assert_eq!((second.registers.base, second.interrupt), (0x904_0000, level(40)));
    assert_eq!(board.stdout().map(|uart| uart.registers.base), Some(0x900_0000));
}

#[test]
fn secure_memory_and_devices_are_not_ours() {
    let board = board("virt-256m-secure");
    assert_eq!(banks(&board), [(GIB, 256 * MIB, 0)]);
    assert_eq!(board.uarts.len(), 1);
}

#[test]
fn words_that_were_blanked_out() {
    let board = board("virt-512m-smp4-nops");
    assert_eq!(banks(&board), [(GIB, 512 * MIB, 0)]);
    assert_eq!(board.cpus.len(), 4);
    let region = Region { base: 0x5000_0000, size: MIB };
    assert_eq!((board.reserved[0].region, board.reserved[0].flags), (region, Flags::NO_MAP));
    assert_eq!(board.reserved.len(), 1);
    assert_eq!((board.dynamic[0].size, board.dynamic[0].alignment), (64 * MIB, 4096));
}

#[test]
fn reservations_of_every_form() {
    let board = board("reserved");
    assert_eq!(banks(&board), [(GIB, GIB, 0), (4 * GIB, GIB, 1)], "banks of one node that touch are one");
    let found: Vec<_> = board
        .reserved
        .iter()
        .map(|entry| (entry.name.as_str(), entry.region.base, entry.region.size, entry.flags))
        .collect();
    let pool = Flags::SHARED_POOL | Flags::REUSABLE;
    let expected = [
        ("memreserve", 0x4000_0000, 0x8_0000, Flags::MEMRESERVE),
        ("memreserve", 0x7fff_f000, 0x1000, Flags::MEMRESERVE),
        ("firmware@48000000", 0x4800_0000, 0x1_0000, Flags::NO_MAP),
        ("firmware@48000000", 0x4802_0000, 0x1001, Flags::NO_MAP),
        ("pool@50000000", 0x5000_0000, 16 * MIB, pool),
        ("across@5f000000", 0x5f00_0000, 32 * MIB, pool),
    ];
    assert_eq!(found, expected);
    let [cma, anywhere] = board.dynamic.as_slice() else { panic!("{:?}", board.dynamic) };
    assert_eq!((cma.name.as_str(), cma.size, cma.alignment), ("linux,cma", 64 * MIB, 4 * MIB));
    assert_eq!(cma.ranges, [Region { base: GIB, size: 512 * MIB }, Region { base: 4 * GIB, size: GIB }]);
    assert_eq!(cma.flags, pool | Flags::CMA_DEFAULT);
    assert_eq!((anywhere.size, anywhere.ranges.len(), anywhere.flags), (0x2000, 0, Flags::NO_MAP));
}

#[test]
fn buses_interrupts_and_clocks() {
    let board = board("buses");
    assert_eq!(banks(&board), [(0, 3 * GIB, 0), (4 * GIB, 2 * GIB, 0)]);
    let gic = Controller::GicV2 {
        distributor: Region { base: 0xf000_1000, size: 0x1000 },
        cpu_interface: Region { base: 0xf000_2000, size: 0x2000 },
    };
    assert_eq!(board.controller, Some(gic));
    let [occupied, mini, identity] = board.uarts.as_slice() else { panic!("{:?}", board.uarts) };
    assert_eq!((occupied.registers.base, occupied.interrupt, occupied.occupied), (0xfe20_1000, None, true));
    assert_eq!(
        (mini.kind, mini.registers.base, mini.clock),
        (UartKind::MiniUart, 0xfe20_2000, Clock::Fixed(48_000_000))
    );
    assert_eq!(mini.interrupt, Some(Interrupt { intid: 125, trigger: Trigger::Edge }));
    assert_eq!(mini.alias.as_deref(), Some("serial3"));
    assert_eq!((identity.registers.base, identity.clock), (0xfe30_0000, Clock::Fixed(24_000_000)));
    assert_eq!(board.stdout().map(|uart| uart.path.as_str()), Some("/soc/apb/serial@1000"));
    // A function for each pin; one for all; another device's group for the same pins is not taken.
    assert_eq!(pins(occupied), [(40, 0), (41, 0), (14, 4), (15, 5)]);
    assert_eq!(pins(mini), [(14, 2), (15, 2)]);
    assert_eq!(identity.pins, None, "a nonexistent group");
    assert_eq!(board.chosen.stdout_options, "115200");
    assert_eq!(board.dma_limit, Some(GIB), "the inner window ends lowest");
    assert_eq!(board.power, Some(Power::Bcm2835Pm(Region { base: 0xfe10_0000, size: 0x114 })));
    let timer = board.timer.expect("a timer");
    assert_eq!((timer.secure, timer.virt), (None, level(27)));
    assert_eq!(timer.physical, Some(Interrupt { intid: 30, trigger: Trigger::Edge }));
}

#[test]
fn lies_are_cut_back_to_what_is_safe() {
    let board = board("liar");
    let m = |mib: u64| mib * MIB;
    assert_eq!(banks(&board), [(GIB, m(256), 0), (GIB + m(256), m(128), 1)], "the lower bank keeps the overlap");
    let found: Vec<_> = board.reserved.iter().map(|entry| (entry.name.as_str(), entry.flags)).collect();
    let expected = [
        ("memreserve", Flags::MEMRESERVE),
        ("pool@41000000", Flags::SHARED_POOL),
        ("overlap@42000000", Flags::empty()),
        ("halfout@57000000", Flags::SHARED_POOL),
        ("both@45000000", Flags::NO_MAP),
    ];
    assert_eq!(found, expected);
    assert!(board.dynamic.is_empty(), "{:?}", board.dynamic);
    assert_eq!(mpidrs(&board), [0, 1, 5]);
    let methods: Vec<_> = board.cpus.iter().map(|cpu| cpu.enable).collect();
    assert_eq!(methods, [EnableMethod::None, EnableMethod::None, EnableMethod::SpinTable(0x4000_0008)]);
    assert_eq!((board.psci, board.dma_limit, board.stdout), (None, None, None));
    assert!(board.chosen.bootargs.is_empty() && board.chosen.initrd.is_none() && board.chosen.kaslr_seed.is_none());
    assert!(matches!(board.controller, Some(Controller::GicV3 { stride: None, .. })));
    let [uart] = board.uarts.as_slice() else { panic!("{:?}", board.uarts) };
    assert_eq!((uart.registers.base, uart.interrupt), (0x903_0000, None));
    assert_eq!(board.power, None, "its registers are memory");
    let timer = board.timer.expect("a timer");
    assert_eq!((timer.secure, timer.physical, timer.virt, timer.hypervisor), (level(29), None, level(27), None));
    assert_eq!(board.distances.get(0, 1), 20);
    assert!(warned(&board, Oddity::OverlappingBanks, "memory"));
    assert!(warned(&board, Oddity::BankTooHigh, "memory"), "a frame number of 33 bits");
    let nodes = board.warnings.iter().filter(|warning| warning.what == Oddity::BadNode).map(|warning| warning.base);
    assert!(nodes.eq([9, 7000]), "{:?}", board.warnings);
    assert!(board.warnings_lost > 0, "more lies than room for words");
    assert!(board.warnings.iter().all(|warning| !warning.to_string().is_empty()));
}

/// A region whose property ends in the middle, or is not there, is named.
#[test]
fn reservations_without_a_whole_region_are_named() {
    let reg = [0, 0x4800_0000, 0, 0x1_0000, 0, 0x4802_0000, 0, 0x1001_u32];
    let data: Vec<u8> = reg.iter().flat_map(|cell| cell.to_be_bytes()).collect();
    for (cells, regions) in [(8, 2), (7, 1), (3, 0)] {
        let mut bytes = tree("reserved");
        let at = bytes.windows(32).position(|window| window == data).expect("the node's regions");
        bytes[at - 8..at - 4].copy_from_slice(&(4 * cells as u32).to_be_bytes());
        // What the property loses is no token.
        bytes[at + 4 * cells..at + 32].chunks_mut(4).for_each(|cell| cell.copy_from_slice(&4_u32.to_be_bytes()));
        let board = Board::from_tree(&bytes).expect("a board");
        let left = board.reserved.iter().filter(|entry| entry.name.as_str() == "firmware@48000000").count();
        assert_eq!((left, warned(&board, Oddity::BadRegion, "firmware@48000000")), (regions, regions < 2));
    }
}

/// Writes `reg` of the memory node as firmware does: the tree in the package leaves it 0.
fn with_memory(mut bytes: Vec<u8>, size: u32) -> Vec<u8> {
    let name = bytes.windows(12).position(|window| window == b"memory@0\0\0\0\0").expect("a memory node");
    let mut empty_reg =
        bytes[name..].windows(16).position(|window| window[..4] == [0, 0, 0, 12] && window[8..] == [0; 8]);
    let at = name + empty_reg.take().expect("an empty reg") + 8;
    bytes[at..at + 12].copy_from_slice(&[&[0; 8][..], &size.to_be_bytes()].concat());
    bytes
}

#[test]
fn raspberry_pi_4() {
    let Some(bytes) = rpi4() else { return };
    assert_eq!(Board::from_tree(&bytes).err(), Some(TreeError::NoMemory), "the firmware fills it in");
    let board = Board::from_tree(&with_memory(bytes, 0x3b40_0000)).expect("a good tree");
    assert_eq!(board.validate(), Ok(()));
    assert!(board.warnings.is_empty(), "{:?}", board.warnings);
    assert_eq!((board.model.as_str(), banks(&board)), ("Raspberry Pi 4 Model B", vec![(0, 0x3b40_0000, 0)]));
    let releases: Vec<_> = board.cpus.iter().map(|cpu| cpu.enable).collect();
    assert_eq!(releases, [0xd8, 0xe0, 0xe8, 0xf0].map(EnableMethod::SpinTable));
    assert_eq!((mpidrs(&board), board.psci), (vec![0, 1, 2, 3], None));
    let Some(Controller::GicV2 { distributor, cpu_interface }) = &board.controller else {
        panic!("{:?}", board.controller)
    };
    assert_eq!((distributor.base, cpu_interface.base), (0xff84_1000, 0xff84_2000));
    let pl011 = board.uart("serial0").expect("a PL011");
    assert_eq!((pl011.kind, pl011.registers.base, pl011.interrupt), (UartKind::Pl011, 0xfe20_1000, level(153)));
    assert!(pl011.occupied, "Bluetooth hangs on it");
    assert_eq!(pl011.clock, Clock::Firmware(FirmwareClock::Uart));
    assert_eq!(board.mailbox, Some(Region { base: 0xfe00_b880, size: 0x40 }));
    assert_eq!((board.uart("ttyAMA0"), board.uart("ttyAMA1")), (Some(pl011), None));
    let header = [(30, 0), (31, 0), (32, 0), (33, 0), (14, 4), (15, 4)];
    assert_eq!(pins(pl011), header, "away from Bluetooth, to GPIO 14 and 15 as ALT0");
    let mini = board.stdout().expect("a console");
    assert_eq!((mini.kind, mini.registers.base, mini.interrupt), (UartKind::MiniUart, 0xfe21_5040, level(125)));
    assert_eq!(pins(mini), [(14, 2), (15, 2)], "ALT5");
    assert_eq!(mini.clock, Clock::Firmware(FirmwareClock::Core));
    assert_eq!(mini.switch, Some(Region { base: 0xfe21_5000, size: 8 }));
    assert_eq!((board.uart("ttyS1"), board.uart("ttyS0")), (Some(mini), Some(mini)), "by its alias, and as the first");
    assert_eq!(board.chosen.stdout_options, "115200n8");
    assert_eq!(board.timer.map(|timer| (timer.physical, timer.virt)), Some((level(30), level(27))));
    assert_eq!(board.dma_limit, None, "devices reach all memory below 1 GiB");
    assert_eq!(board.power, Some(Power::Bcm2835Pm(Region { base: 0xfe10_0000, size: 0x114 })));
    let [memreserve] = board.reserved.as_slice() else { panic!("{:?}", board.reserved) };
    assert_eq!((memreserve.region, memreserve.flags), (Region { base: 0, size: 0x1000 }, Flags::MEMRESERVE));
    let [cma] = board.dynamic.as_slice() else { panic!("{:?}", board.dynamic) };
    assert_eq!((cma.size, cma.ranges.as_slice()), (64 * MIB, &[Region { base: 0, size: GIB }][..]));
    assert_eq!(cma.flags, Flags::SHARED_POOL | Flags::REUSABLE | Flags::CMA_DEFAULT);
}

#[test]
fn a_large_pi_has_devices_that_reach_one_gib() {
    let Some(bytes) = rpi4() else { return };
    let board = Board::from_tree(&with_memory(bytes, 0xfc00_0000)).expect("a good tree");
    assert_eq!(board.dma_limit, Some(GIB));
}

#[test]
fn errors_say_what_is_wrong() {
    let whole = tree("virt-128m");
    assert_eq!(Board::from_tree(&[]).err(), Some(TreeError::Size(0)));
    assert_eq!(Board::from_tree(&[0; 64]).err(), Some(TreeError::Magic(0)));
    assert_eq!(Board::from_tree(&whole[..whole.len() - 1]).err(), Some(TreeError::Size(whole.len())));
    let with_word = |index: usize, word: u32| {
        let mut bytes = whole.clone();
        bytes[index * 4..index * 4 + 4].copy_from_slice(&word.to_be_bytes());
        Board::from_tree(&bytes).err()
    };
    assert_eq!(with_word(1, u32::MAX), Some(TreeError::Size(u32::MAX as usize)));
    assert_eq!(with_word(2, u32::MAX), Some(TreeError::Block("structure")));
    assert_eq!(with_word(3, u32::MAX), Some(TreeError::Block("strings")));
    assert_eq!(with_word(4, u32::MAX), Some(TreeError::Block("memory reservation")));
    assert_eq!(with_word(5, 16), Some(TreeError::Version(16)));
    assert_eq!(with_word(8, u32::MAX), Some(TreeError::Block("strings")));
    assert_eq!(with_word(9, 4), Some(TreeError::Structure(0)));
    assert_eq!(with_word(16, 0), Some(TreeError::Structure(0)));
}

/// `tree` with these entries in its memory reservation block, which moves to its end.
fn with_reservations(mut tree: Vec<u8>, entries: impl Iterator<Item = (u64, u64)>) -> Vec<u8> {
    const TOTAL_SIZE: usize = 4;
    const RESERVATIONS: usize = 16;
    tree.resize(tree.len().next_multiple_of(8), 0);
    let start = tree.len() as u32;
    for (base, size) in entries.chain([(0, 0)]) {
        tree.extend([base.to_be_bytes(), size.to_be_bytes()].as_flattened());
    }
    let size = tree.len() as u32;
    tree[RESERVATIONS..RESERVATIONS + 4].copy_from_slice(&start.to_be_bytes());
    tree[TOTAL_SIZE..TOTAL_SIZE + 4].copy_from_slice(&size.to_be_bytes());
    tree
}

/// No reservation is lost: if there is no room for one, its neighbour grows.
#[test]
fn reservations_that_are_too_many_are_joined() {
    for count in [MAX_RESERVATIONS as u64, MAX_RESERVATIONS as u64 + 1, 3 * MAX_RESERVATIONS as u64] {
        let asked: Vec<(u64, u64)> = (0..count).map(|i| (GIB + i * MIB / 2, 0x3000)).collect();
        let board = Board::from_tree(&with_reservations(tree("virt-128m"), asked.iter().copied())).expect("it is read");
        assert_eq!(board.validate(), Ok(()));
        let owned = |(base, size)| board.reserved.iter().any(|r| r.region.contains(&Region { base, size }));
        assert!(asked.iter().copied().all(owned), "{count}");
        let joined = board.reserved.iter().filter(|r| r.flags.contains(Flags::JOINED));
        let joined: Vec<(u64, u64)> = joined.map(|r| (r.region.base, r.region.size)).collect();
        let told = board.warnings.iter().filter(|w| w.what == Oddity::JoinedReservation);
        let told: Vec<(u64, u64)> = told.map(|w| (w.base, w.size)).collect();
        assert_eq!(told, joined[..told.len()], "each is named once, as it is in the end");
        assert_eq!((joined.len() - told.len()) as u32, board.warnings_lost);
        let joins = count.saturating_sub(MAX_RESERVATIONS as u64);
        assert!(joins == 0 || !joined.is_empty());
        let bytes: u64 = board.reserved.iter().map(|reserved| reserved.region.size).sum();
        assert!(bytes <= 0x3000 * count + MIB / 2 * joins, "no more than what lies between");
    }
}

/// `tree` with one more node below its root, which describes memory.
fn with_banks(mut tree: Vec<u8>, banks: &[(u64, u64)]) -> Vec<u8> {
    let reg: Vec<u8> =
        banks.iter().flat_map(|(base, size)| [base.to_be_bytes(), size.to_be_bytes()].concat()).collect();
    let kind = property(&tree, "device_type", b"memory\0");
    let reg = property(&tree, "reg", &reg);
    let node = [&1u32.to_be_bytes()[..], b"more\0\0\0\0", &kind, &reg, &2u32.to_be_bytes()].concat();
    // Before the root's end and the structure block's.
    let end = field(&tree, 8) + field(&tree, 36) - 8;
    assert!(field(&tree, 12) > end, "the strings come after the structure");
    for at in [4, 12, 36] {
        let grown = (field(&tree, at) + node.len()) as u32;
        tree[at..at + 4].copy_from_slice(&grown.to_be_bytes());
    }
    tree.splice(end..end, node);
    tree
}

/// The banks that stay are those with the kernel, and the largest.
#[test]
fn of_too_many_banks_the_needed_and_the_largest_stay() {
    let small = |i: u64| (2 * GIB + i * MIB, 0x1_0000);
    let mut more: Vec<(u64, u64)> = (0..100).map(small).collect();
    more.push((3 * GIB, 64 * MIB));
    let kernel = Region { base: small(80).0 + 0x3000, size: 0x2000 };
    for order in [false, true] {
        if order {
            more.reverse();
        }
        let tree = with_banks(tree("virt-128m"), &more);
        let mut board = Board::new();
        assert_eq!(board.read(&tree, &[kernel]), Ok(()));
        assert_eq!(board.validate(), Ok(()));
        assert_eq!(board.banks.len(), MAX_BANKS);
        let whole = [kernel, Region { base: GIB, size: 128 * MIB }, Region { base: 3 * GIB, size: 64 * MIB }];
        assert!(whole.iter().all(|region| board.is_memory(region)), "{:?}", banks(&board));
        let told = board.warnings.iter().filter(|warning| warning.what == Oddity::TooManyBanks).count();
        assert_eq!(told + board.warnings_lost as usize, 102 - MAX_BANKS);
        assert!(board.warnings.iter().all(|warning| warning.size == 0x1_0000));
    }
}

#[test]
fn banks_that_touch_take_no_room() {
    let more: Vec<(u64, u64)> = (0..200).map(|i| (2 * GIB + i * 4 * MIB, 4 * MIB)).collect();
    let board = Board::from_tree(&with_banks(tree("virt-128m"), &more)).expect("it is read");
    assert_eq!(banks(&board), [(GIB, 128 * MIB, 0), (2 * GIB, 800 * MIB, 0)]);
    assert!(board.warnings.is_empty(), "{:?}", board.warnings);
}

/// A port in memory is not used, except by a kernel that stops.
#[test]
fn ports_in_memory_are_kept_for_a_kernel_that_stops() {
    let read = |name: &str, bank: u64| {
        let board = Board::from_tree(&with_banks(tree(name), &[(bank, 0x1000)])).expect("it is read");
        assert_eq!(board.validate(), Ok(()));
        (board.uarts.len(), board.doubtful_ports().map(|port| port.base).collect::<Vec<_>>())
    };
    assert_eq!(read("virt-128m", 0x900_0000), (0, vec![0x900_0000]));
    assert_eq!(read("virt-128m", 0x800_0000), (1, vec![]));
    let sound = board("virt-512m-two-serials-initrd");
    let over: Vec<_> = sound.uarts.iter().map(|uart| (uart.registers.base, 0x1000)).collect();
    let bytes = with_banks(tree("virt-512m-two-serials-initrd"), &over);
    let both = Board::from_tree(&bytes).expect("it is read");
    let first = sound.stdout().expect("a console").registers.base;
    assert_eq!((both.uarts.len(), both.doubtful_ports().count()), (0, 2));
    assert_eq!(both.doubtful_ports().next().map(|port| port.base), Some(first), "what stdout-path names");
}

/// The devices of a tree that are compatible with `name`.
fn devices(tree: &[u8], name: &str) -> Vec<Device> {
    let mut board = Board::new();
    // (Firmware has yet to write a Pi's memory into its tree.)
    assert!(matches!(board.read(tree, &[]), Ok(()) | Err(TreeError::NoMemory)));
    let mut found = Vec::new();
    let done: Result<(), ()> = for_each_node(tree, |node| {
        if node.is_compatible(name) {
            found.push(node.device(&board));
        }
        Ok(())
    });
    assert_eq!(done, Ok(()));
    found
}

#[test]
fn drivers_find_their_devices() {
    let slots = devices(&tree("virt-8g-smp8-gic3"), "virtio,mmio");
    assert_eq!(slots.len(), 32);
    let first = slots.iter().find(|slot| slot.path == "/virtio_mmio@a000000").expect("the first slot");
    assert_eq!(first.registers, [Region { base: 0xa00_0000, size: 0x200 }]);
    assert_eq!(first.interrupts, [Interrupt { intid: 48, trigger: Trigger::Edge }]);
    assert_eq!(first.windows, [Window { memory: Region { base: 0, size: 1 << 48 }, bus: 0 }]);
    assert!(first.is_coherent);
    let places: std::collections::BTreeSet<_> = slots.iter().map(|slot| slot.node).collect();
    assert_eq!(places.len(), 32, "each has a place of its own");
}

#[test]
fn a_device_on_a_bus_sees_memory_elsewhere() {
    let Some(tree) = rpi4() else { return };
    let [emmc] = &devices(&tree, "brcm,bcm2711-emmc2")[..] else { panic!("one EMMC2") };
    assert_eq!(emmc.registers, [Region { base: 0xfe34_0000, size: 0x100 }]);
    assert_eq!(emmc.interrupts, [Interrupt { intid: 126 + 32, trigger: Trigger::Level }]);
    assert_eq!(emmc.windows, [Window { memory: Region { base: 0, size: GIB }, bus: 0xc000_0000 }]);
    assert!(!emmc.is_coherent);
}

#[test]
fn a_node_is_found_by_its_path_and_hidden_ones_are_not() {
    let tree = tree("buses");
    let mut paths = 0;
    let done: Result<(), ()> = for_each_node(&tree, |node| {
        paths += usize::from(node.has_path("/soc/apb/serial@2000"));
        assert_ne!(node.property("status"), Some(&b"disabled\0"[..]));
        assert_eq!(property_at(&tree, node.place(), "reg"), node.property("reg"));
        Ok(())
    });
    assert_eq!(done, Ok(()));
    assert_eq!(property_at(&tree, usize::MAX, "reg"), None);
    assert_eq!(paths, 1);
}
