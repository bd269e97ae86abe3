//! A device tree's contents as plain data.
//!
//! [`Board::from_tree`] checks the bytes ([`blob`]), walks the nodes once ([`walk`]) and leaves fixed-size arrays
//! behind: nothing in a [`Board`] points into the tree, and everything in it was checked. A tree that is not well
//! formed, or describes no memory, is a [`TreeError`]. Any other defect is left out or reduced to something safe, and
//! recorded in [`Board::warnings`] for the boot log. [`Board::validate`] states the invariants that readers may rely
//! on.
//!
//! Addresses are physical addresses as the CPU sees them, translated through the `ranges` of every bus above.

mod blob;
mod chosen;
mod clock;
mod cpus;
mod device;
mod dma;
mod interrupt;
mod memory;
mod nodes;
mod pins;
mod read;
mod reserved;
mod salvage;
mod walk;
mod warning;

use core::fmt;

use heapless::{String, Vec};

pub use blob::{HEADER_SIZE, MAX_DEPTH, MAX_SIZE, total_size};
pub use chosen::{Chosen, Initrd};
pub use clock::{Clock, FirmwareClock};
pub use cpus::{Conduit, Cpu, EnableMethod, Psci};
pub use device::{Power, Uart, UartKind};
pub use interrupt::{Controller, Interrupt, Timer, Trigger};
pub use memory::{Bank, Distances};
pub use nodes::{Device, MAX_INTERRUPTS, MAX_RANGES, MAX_WINDOWS, NodeView, Window, for_each_node, property_at};
pub use pins::{MAX_PINS, Pin, Pins};
pub use reserved::{DynamicReservation, Reservation, ReservationFlags};
pub use salvage::{MAX_PORTS, Salvage, salvage};
pub use warning::{Oddity, Warning};

/// Physical addresses end here: 48 bits, which is what Quire's page tables hold.
pub const PA_LIMIT: u64 = 1 << 48;
/// Memory ends here: frame numbers have 32 bits, and the last block of frames is left unused.
pub const MEMORY_LIMIT: u64 = (1 << 44) - (4 << 20);
/// Banks of memory that are taken from a tree.
pub const MAX_BANKS: usize = 64;
/// NUMA nodes; their numbers are below this. The memory manager's own limit.
pub const MAX_NODES: usize = 8;
/// CPUs that are taken from a tree.
pub const MAX_CPUS: usize = 64;
/// Static reservations, `/memreserve/` entries included. Where a tree has more, neighbours are joined.
pub const MAX_RESERVATIONS: usize = 64;
/// Reservations that the kernel has to place.
pub const MAX_DYNAMIC: usize = 8;
/// Serial ports.
pub const MAX_UARTS: usize = 8;
/// Warnings that are kept; later ones are only counted.
pub const MAX_WARNINGS: usize = 32;

/// Bytes in a page, the granule to which memory banks are cut.
const PAGE: u64 = 4096;

/// A node's name with its unit address, cut to length.
pub type Name = String<32>;

/// A region of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first address.
    pub base: u64,
    /// Bytes; never 0.
    pub size: u64,
}

impl Region {
    /// The address after the last. [`Board::validate`] promises that this does not wrap.
    pub fn end(&self) -> u64 {
        self.base + self.size
    }

    /// Whether the two share an address.
    pub fn overlaps(&self, other: &Region) -> bool {
        self.base < other.end() && other.base < self.end()
    }

    /// Bytes between the two; 0 if they touch or overlap.
    pub fn gap(&self, other: &Region) -> u64 {
        self.base.saturating_sub(other.end()).max(other.base.saturating_sub(self.end()))
    }

    /// Whether all of `other` lies inside.
    pub fn contains(&self, other: &Region) -> bool {
        self.base <= other.base && other.end() <= self.end()
    }

    /// `base` and `size` as a region, if it is not empty and ends at [`PA_LIMIT`] or below.
    pub fn new(base: u64, size: u64) -> Option<Self> {
        let end = base.checked_add(size)?;
        (size > 0 && end <= PA_LIMIT).then_some(Self { base, size })
    }
}

/// The hardware description that the kernel boots with. About 16 KiB: keep it in a `static` and fill it with
/// [`Board::read`].
#[derive(Clone, Debug)]
pub struct Board {
    /// The board's name, for people.
    pub model: String<64>,
    /// The root's `compatible` strings.
    pub compatible: Vec<String<40>, 4>,
    /// Memory, sorted by address, without overlaps, cut to whole pages.
    pub banks: Vec<Bank, MAX_BANKS>,
    /// The distances between NUMA nodes.
    pub distances: Distances,
    /// Memory that is already in use.
    pub reserved: Vec<Reservation, MAX_RESERVATIONS>,
    /// Memory to be reserved at a place that the kernel chooses.
    pub dynamic: Vec<DynamicReservation, MAX_DYNAMIC>,
    /// The boot loader's parameters.
    pub chosen: Chosen,
    /// CPUs in the tree's order, each MPIDR once.
    pub cpus: Vec<Cpu, MAX_CPUS>,
    /// How firmware is called, if it has PSCI.
    pub psci: Option<Psci>,
    /// The interrupt controller.
    pub controller: Option<Controller>,
    /// Its phandle, and the cells of an interrupt.
    interrupt_cells: Option<(u32, usize)>,
    /// The architected timer's interrupts.
    pub timer: Option<Timer>,
    /// Serial ports in the tree's order.
    pub uarts: Vec<Uart, MAX_UARTS>,
    /// Ports that are not in `uarts` because their registers are in memory too: for a kernel that stops.
    in_memory: Vec<Uart, MAX_UARTS>,
    /// The index in `uarts` of the port that `stdout-path` names.
    pub stdout: Option<usize>,
    /// The first physical address that the most restricted bus device cannot reach; `None` if every device reaches all
    /// memory.
    pub dma_limit: Option<u64>,
    /// A block of registers that switches the board off, where there is no PSCI.
    pub power: Option<Power>,
    /// The registers of the mailbox to a Raspberry Pi's firmware.
    pub mailbox: Option<Region>,
    /// Defects of the tree that were worked around.
    pub warnings: Vec<Warning, MAX_WARNINGS>,
    /// Warnings that did not fit.
    pub warnings_lost: u32,
}

impl Board {
    /// A board without anything.
    pub const fn new() -> Self {
        Self {
            model: String::new(),
            compatible: Vec::new(),
            banks: Vec::new(),
            distances: Distances::new(),
            reserved: Vec::new(),
            dynamic: Vec::new(),
            chosen: Chosen::new(),
            cpus: Vec::new(),
            psci: None,
            controller: None,
            interrupt_cells: None,
            timer: None,
            uarts: Vec::new(),
            in_memory: Vec::new(),
            stdout: None,
            dma_limit: None,
            power: None,
            mailbox: None,
            warnings: Vec::new(),
            warnings_lost: 0,
        }
    }

    /// Reads the tree in `bytes`, which may be longer than the tree.
    pub fn from_tree(bytes: &[u8]) -> Result<Self, TreeError> {
        let mut board = Self::new();
        board.read(bytes, &[])?;
        Ok(board)
    }

    /// As [`Board::from_tree`], in place: `self` must be fresh. After an error only its warnings can be used. If there
    /// are too many banks of memory, those that overlap `keep` (three regions at most) or the boot archive are kept.
    pub fn read(&mut self, bytes: &[u8], keep: &[Region]) -> Result<(), TreeError> {
        read::board(self, bytes, keep)
    }

    /// The registers of PL011s that the tree also describes as memory, starting with the one that `stdout-path` names.
    /// The caller must identify the device before it writes to it ([`crate::uart::Pl011::is_one`]).
    pub fn doubtful_ports(&self) -> impl Iterator<Item = Region> + '_ {
        self.in_memory.iter().filter(|uart| uart.kind == UartKind::Pl011).map(|uart| uart.registers)
    }

    /// The serial port that the tree names as the console.
    pub fn stdout(&self) -> Option<&Uart> {
        self.uarts.get(self.stdout?)
    }

    /// The serial port with this alias (`serial0`), path (`/soc/serial@7e201000`) or name in Linux (`ttyAMA0`,
    /// `ttyS0`).
    pub fn uart(&self, name: &str) -> Option<&Uart> {
        self.uarts.iter().find(|uart| uart.is_called(name)).or_else(|| self.uart_of_linux(name))
    }

    /// The sum of all banks in bytes.
    pub fn memory_size(&self) -> u64 {
        self.banks.iter().map(|bank| bank.region.size).sum()
    }

    /// Whether all of `region` is memory; it may span banks that touch.
    pub fn is_memory(&self, region: &Region) -> bool {
        let mut base = region.base;
        for bank in &self.banks {
            if (bank.region.base..bank.region.end()).contains(&base) {
                base = bank.region.end();
            }
        }
        base >= region.end()
    }

    /// Whether any of `region` is memory.
    pub fn touches_memory(&self, region: &Region) -> bool {
        self.banks.iter().any(|bank| bank.region.overlaps(region))
    }

    /// The registers of the devices that the kernel itself drives.
    pub fn kernel_registers(&self) -> impl Iterator<Item = Region> + '_ {
        let gic = self.controller.iter().flat_map(Controller::regions);
        let ports = self
            .uarts
            .iter()
            .flat_map(|uart| [Some(uart.registers), uart.switch, uart.pins.as_ref().map(|pins| pins.registers)]);
        gic.chain(ports.flatten()).chain(self.power.map(|power| power.registers())).chain(self.mailbox)
    }

    fn warn(&mut self, what: Oddity, node: &str, base: u64, size: u64) {
        let node = name(node, None);
        if self.warnings.push(Warning { what, node, base, size }).is_err() {
            self.warnings_lost = self.warnings_lost.saturating_add(1);
        }
    }

    /// Checks the invariants that every reader may rely on, whatever the tree. The error names the one that is
    /// violated.
    pub fn validate(&self) -> Result<(), &'static str> {
        let promise = |holds: bool, broken: &'static str| if holds { Ok(()) } else { Err(broken) };
        let sane = |region: &Region| Region::new(region.base, region.size) == Some(*region);
        promise(!self.banks.is_empty(), "there is memory")?;
        let whole = |bank: &Bank| {
            sane(&bank.region) && bank.region.base.is_multiple_of(PAGE) && bank.region.size.is_multiple_of(PAGE)
        };
        promise(self.banks.iter().all(whole), "banks are whole pages below the limit")?;
        let low = self.banks.iter().all(|bank| bank.region.end() <= MEMORY_LIMIT);
        promise(low, "all memory has frame numbers")?;
        let apart = self.banks.windows(2).all(|pair| pair[0].region.end() <= pair[1].region.base);
        promise(apart, "banks are sorted and apart")?;
        promise(self.banks.iter().all(|bank| usize::from(bank.node) < MAX_NODES), "banks have known nodes")?;
        self.distances.validate()?;
        for reserved in &self.reserved {
            promise(sane(&reserved.region), "reservations are sane")?;
            promise(self.touches_memory(&reserved.region), "reservations touch memory")?;
            let lendable = !reserved.flags.contains(ReservationFlags::REUSABLE) || self.is_memory(&reserved.region);
            promise(lendable, "reusable reservations are memory")?;
        }
        self.dynamic.iter().try_for_each(|wish| wish.validate(self.memory_size()))?;
        let mpidrs_differ =
            self.cpus.iter().enumerate().all(|(at, cpu)| self.cpus[..at].iter().all(|other| other.mpidr != cpu.mpidr));
        promise(mpidrs_differ, "each MPIDR occurs once")?;
        promise(self.cpus.iter().all(|cpu| usize::from(cpu.node) < MAX_NODES), "CPUs have known nodes")?;
        let initrd = self.chosen.initrd.as_ref();
        promise(initrd.is_none_or(|initrd| self.is_memory(&initrd.region)), "the initrd is in memory")?;
        let ports = self.uarts.iter().flat_map(|uart| [Some(uart.registers), uart.switch]).flatten();
        let mut registers = ports.chain(self.power.map(|power| power.registers())).chain(self.mailbox);
        let mut pins = self.uarts.iter().filter_map(|uart| uart.pins.as_ref());
        let mut gic = self.controller.iter().flat_map(Controller::regions);
        let device = |region: Region| sane(&region) && !self.touches_memory(&region);
        promise(registers.all(device) && gic.all(device), "registers are no memory")?;
        promise(pins.all(|pins| device(pins.registers)), "the pins' registers are no memory")?;
        promise(self.stdout.is_none_or(|at| at < self.uarts.len()), "stdout is a known port")?;
        let limit_useful = self.dma_limit.is_none_or(|limit| self.banks.iter().any(|bank| bank.region.base < limit));
        promise(limit_useful, "DMA reaches some memory")
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

/// As much of `base` and `unit` as fits a [`Name`].
fn name(base: &str, unit: Option<&str>) -> Name {
    let mut name = Name::new();
    let at = unit.map(|_| "@").unwrap_or_default();
    for part in [base, at, unit.unwrap_or_default()] {
        copy(&mut name, part);
    }
    name
}

/// Appends as much of `text` as fits; false if that was not all.
fn copy<const N: usize>(to: &mut String<N>, text: &str) -> bool {
    text.chars().all(|letter| to.push(letter).is_ok())
}

/// Why a tree cannot be used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// The first word is not the magic number.
    Magic(u32),
    /// The header claims a size that is impossible or more than there is.
    Size(usize),
    /// A version that is not compatible with 17.
    Version(u32),
    /// A block of the tree lies outside it, or is not terminated.
    Block(&'static str),
    /// The structure block is damaged at this offset.
    Structure(usize),
    /// Nodes are nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// No memory is described that could be used.
    NoMemory,
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(word) => write!(f, "no device tree: it starts with {word:#010x} instead of 0xd00dfeed"),
            Self::Size(size) => write!(f, "device tree with an impossible size of {size} bytes"),
            Self::Version(version) => write!(f, "device tree of version {version}, which is not compatible with 17"),
            Self::Block(which) => write!(f, "damaged device tree: bad {which} block"),
            Self::Structure(offset) => write!(f, "damaged device tree: bad structure at offset {offset:#x}"),
            Self::TooDeep => write!(f, "damaged device tree: nodes nested more than {MAX_DEPTH} deep"),
            Self::NoMemory => write!(f, "the device tree describes no usable memory"),
        }
    }
}

impl core::error::Error for TreeError {}
