//! The devices that the kernel itself drives: serial ports and the power switch.

use heapless::{String, Vec};

use super::clock::{Clock, Clocks};
use super::interrupt::{Interrupt, Specifiers, Wires};
use super::pins::{Controller, Pins};
use super::walk::{Node, Scope};
use super::{Board, MAX_UARTS, Oddity, Region, copy};

/// A serial port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uart {
    /// The kind of the port.
    pub kind: UartKind,
    /// Its registers.
    pub registers: Region,
    /// Its interrupt.
    pub interrupt: Option<Interrupt>,
    /// The clock that its rate is divided from.
    pub clock: Clock,
    /// The registers that switch it on, where firmware may have left it off.
    pub switch: Option<Region>,
    /// The path of its node.
    pub path: String<96>,
    /// Its alias, `serial0` for example.
    pub alias: Option<String<16>>,
    /// Its node has children: the wires lead to a device (Bluetooth on a Pi 4), not to a connector.
    pub occupied: bool,
    /// The pin settings that lead the port to a person's connector, if they are known.
    pub pins: Option<Pins>,
}

/// The kinds of serial ports that Quire drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UartKind {
    /// Arm PrimeCell PL011.
    Pl011,
    /// The mini-UART of Broadcom's auxiliary block.
    MiniUart,
}

/// A way to switch off and reset the board where there is no PSCI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Broadcom's power manager with its watchdog; its registers.
    Bcm2835Pm(Region),
}

impl Power {
    /// Its registers.
    pub fn registers(&self) -> Region {
        let Self::Bcm2835Pm(registers) = self;
        *registers
    }
}

impl Uart {
    /// Whether `name` is its alias, its path, or its path with some unit addresses left out.
    pub fn is_called(&self, name: &str) -> bool {
        let is_alias = self.alias.as_ref().is_some_and(|alias| alias == name);
        is_alias || (name.starts_with('/') && same_path(&self.path, name))
    }
}

fn same_path(full: &str, given: &str) -> bool {
    let base = |part: &'_ str| part.split_once('@').map_or(part.len(), |(base, _)| base.len());
    let mut full = full.split('/');
    given.split('/').all(|given| full.next().is_some_and(|full| full == given || &full[..base(full)] == given))
        && full.next().is_none()
}

/// A serial port's references to other nodes.
struct Wiring<'a> {
    interrupts: Wires<'a>,
    /// The property that names its clock.
    clocks: &'a [u8],
    /// The groups of pins.
    pinctrl: Option<&'a [u8]>,
}

/// References that can only be resolved after the whole tree has been read.
#[derive(Default)]
pub(super) struct Devices<'a> {
    uarts: Vec<Wiring<'a>, MAX_UARTS>,
    pub(super) clocks: Clocks,
    pins: Option<Controller<'a>>,
}

impl Board {
    /// Takes `node` if it is a serial port.
    pub(super) fn read_uart<'a>(&mut self, devices: &mut Devices<'a>, scope: &Scope<'a, '_>, node: &Node<'a>) {
        let kind = if node.is_compatible(&["arm,pl011"]) {
            UartKind::Pl011
        } else if node.is_compatible(&["brcm,bcm2835-aux-uart"]) {
            UartKind::MiniUart
        } else {
            return;
        };
        let Some(registers) = scope.mmio(node, 0) else {
            return self.warn(Oddity::BadDevice, node.name, 0, 0);
        };
        let clocks = node.property("clocks").unwrap_or_default();
        let uart = Uart {
            kind,
            registers,
            interrupt: None,
            clock: node.word("clock-frequency").filter(|hertz| *hertz > 0).map_or(Clock::Unknown, Clock::Fixed),
            switch: None,
            path: path(scope, node),
            alias: None,
            occupied: node.children().next().is_some(),
            pins: None,
        };
        let (interrupts, pinctrl) = (Wires::of(scope, node), node.property("pinctrl-0"));
        match self.uarts.push(uart) {
            // As long as the board's list: entries of the same index belong together.
            Ok(()) => drop(devices.uarts.push(Wiring { interrupts, clocks, pinctrl })),
            Err(_) => self.warn(Oddity::TooMany, node.name, registers.base, registers.size),
        }
    }

    /// Remembers `node` if it controls pins.
    pub(super) fn find_pins<'a>(devices: &mut Devices<'a>, scope: &Scope<'a, '_>, node: &Node<'a>) {
        if devices.pins.is_none() && node.is_compatible(&["brcm,bcm2711-gpio", "brcm,bcm2835-gpio"]) {
            devices.pins = scope.mmio(node, 0).map(|registers| Controller { node: *node, registers });
        }
    }

    /// Takes `node` if it is a power switch.
    pub(super) fn read_power<'a>(&mut self, scope: &Scope<'a, '_>, node: &Node<'a>) {
        if self.power.is_none() && node.is_compatible(&["brcm,bcm2835-pm", "brcm,bcm2835-pm-wdt"]) {
            match scope.mmio(node, 0) {
                Some(registers) => self.power = Some(Power::Bcm2835Pm(registers)),
                None => self.warn(Oddity::BadDevice, node.name, 0, 0),
            }
        }
    }

    /// Runs after the banks are settled. Registers that are memory at the same time are an error in the tree: using
    /// them would corrupt memory.
    pub(super) fn drop_devices_in_memory(&mut self, devices: &mut Devices<'_>) {
        for at in (0..self.uarts.len()).rev() {
            let registers = self.uarts[at].registers;
            if self.touches_memory(&registers) {
                self.warn(Oddity::BadDevice, "serial", registers.base, registers.size);
                // This list has room, like the one that the port comes from.
                let _ = self.in_memory.insert(0, self.uarts.remove(at));
                devices.uarts.remove(at);
            }
        }
        let in_memory =
            self.controller.as_ref().and_then(|gic| gic.regions().find(|region| self.touches_memory(region)));
        if let Some(registers) = in_memory {
            self.warn(Oddity::BadDevice, "interrupt-controller", registers.base, registers.size);
            self.controller = None;
        }
        if let Some(Power::Bcm2835Pm(registers)) = self.power.filter(|power| self.touches_memory(&power.registers())) {
            self.warn(Oddity::BadDevice, "power", registers.base, registers.size);
            self.power = None;
        }
        if let Some(registers) = self.mailbox.filter(|registers| self.touches_memory(registers)) {
            self.warn(Oddity::BadDevice, "mailbox", registers.base, registers.size);
            self.mailbox = None;
        }
    }

    /// The port that Linux calls `name`: a PL011 is `ttyAMA`, the others are `ttyS`, and the number comes from the
    /// port's alias (`serial1`) or, if no alias has that number, from its position among ports of its kind.
    pub(super) fn uart_of_linux(&self, name: &str) -> Option<&Uart> {
        let numbered = |prefix| name.strip_prefix(prefix).and_then(|number: &str| number.parse::<usize>().ok());
        let (kind, number) = match (numbered("ttyAMA"), numbered("ttyS")) {
            (Some(number), _) => (UartKind::Pl011, number),
            (None, number) => (UartKind::MiniUart, number?),
        };
        let mut of_kind = self.uarts.iter().filter(move |uart| uart.kind == kind);
        let alias = |uart: &Uart| uart.alias.as_ref()?.strip_prefix("serial")?.parse::<usize>().ok();
        of_kind.clone().find(|uart| alias(uart) == Some(number)).or_else(|| of_kind.nth(number))
    }

    /// Runs after the walk: interrupts, clocks, aliases, which port is the console, and pins.
    pub(super) fn connect_uarts<'a>(
        &mut self,
        devices: &Devices<'a>,
        specifiers: &Specifiers<'a>,
        aliases: Option<Node<'a>>,
        stdout: Option<&'a str>,
    ) {
        for (at, wiring) in devices.uarts.iter().enumerate() {
            let interrupt = specifiers.decode(&wiring.interrupts).next();
            if let Some(Err(number)) = interrupt {
                self.warn(Oddity::BadInterrupt, "serial", number, 0);
            }
            let (clock, switch) = devices.clocks.of(wiring.clocks);
            let switch = switch.filter(|registers| !self.touches_memory(registers));
            let uart = &mut self.uarts[at];
            uart.interrupt = interrupt.and_then(Result::ok);
            uart.switch = switch;
            if uart.clock == Clock::Unknown {
                uart.clock = clock;
            }
        }
        for (alias, target) in aliases.iter().flat_map(Node::properties) {
            let target = super::walk::text(target).unwrap_or_default();
            let found = self.uarts.iter_mut().find(|uart| uart.alias.is_none() && uart.path == target);
            if let Some(uart) = found {
                uart.alias = String::try_from(alias).ok();
            }
        }
        if let Some(stdout) = stdout {
            let target = aliases.and_then(|aliases| aliases.text(stdout)).unwrap_or(stdout);
            self.stdout = self.uarts.iter().position(|uart| uart.is_called(target));
            if let Some(at) = self.in_memory.iter().position(|uart| uart.is_called(target)) {
                self.in_memory[..=at].rotate_right(1);
            } else if self.stdout.is_none() {
                self.warn(Oddity::NoSuchDevice, stdout, 0, 0);
            }
        }
        self.connect_pins(devices.pins, |at| devices.uarts.get(at)?.pinctrl);
    }
}

/// The path of `node`, cut if it does not fit; such a port cannot be found by its path.
pub(super) fn path<'a>(scope: &Scope<'a, '_>, node: &Node<'a>) -> String<96> {
    let mut path = String::new();
    for (name, unit) in scope.names().chain([(node.name, node.unit)]) {
        let at = if unit.is_some() { "@" } else { "" };
        for part in ["/", name, at, unit.unwrap_or_default()] {
            copy(&mut path, part);
        }
    }
    path
}
