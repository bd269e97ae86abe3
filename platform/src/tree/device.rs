//! The devices that the kernel itself drives: serial ports and the power switch.

use heapless::{String, Vec};

use super::interrupt::{Interrupt, Specifiers, Wires};
use super::pins::{Controller, Pins};
use super::walk::{Cells, Node, Scope};
use super::{Board, MAX_UARTS, Oddity, Region, copy};

/// A serial port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uart {
    /// What it is.
    pub kind: UartKind,
    /// Its registers.
    pub registers: Region,
    /// Its interrupt.
    pub interrupt: Option<Interrupt>,
    /// The frequency of its clock in Hz, where the tree says. Otherwise its divisor stays as firmware left it.
    pub clock: Option<u32>,
    /// The path of its node.
    pub path: String<96>,
    /// Its alias, `serial0` for example.
    pub alias: Option<String<16>>,
    /// Its node has children: the wires lead to a device (Bluetooth on a Pi 4), not to a person.
    pub occupied: bool,
    /// What pins have to be set to for a person to be at its wires, where that is known.
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

/// What a serial port's node says of others.
struct Wiring<'a> {
    interrupts: Wires<'a>,
    /// The phandle of its clock.
    clock: u32,
    /// The groups of pins.
    pinctrl: Option<&'a [u8]>,
}

/// What has to wait until the whole tree was seen.
#[derive(Default)]
pub(super) struct Devices<'a> {
    uarts: Vec<Wiring<'a>, MAX_UARTS>,
    clocks: Vec<(u32, u32), 16>,
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
        let clock_phandle = node.property("clocks").and_then(|clocks| Cells(clocks).take(1)).unwrap_or(0) as u32;
        let uart = Uart {
            kind,
            registers,
            interrupt: None,
            clock: node.word("clock-frequency").filter(|hertz| *hertz > 0),
            path: path(scope, node),
            alias: None,
            occupied: node.children().next().is_some(),
            pins: None,
        };
        let (interrupts, pinctrl) = (Wires::of(scope, node), node.property("pinctrl-0"));
        match self.uarts.push(uart) {
            // As long as the board's list: entries of the same index belong together.
            Ok(()) => drop(devices.uarts.push(Wiring { interrupts, clock: clock_phandle, pinctrl })),
            Err(_) => self.warn(Oddity::TooMany, node.name, registers.base, registers.size),
        }
    }

    /// Remembers `node` if it is a clock that ticks at one frequency.
    pub(super) fn find_clock(devices: &mut Devices<'_>, node: &Node<'_>) {
        if node.is_compatible(&["fixed-clock"]) && node.phandle != 0 {
            let hertz = node.word("clock-frequency").filter(|hertz| *hertz > 0);
            // With no room, a port keeps the divisor that firmware has set.
            let _ = hertz.map(|hertz| devices.clocks.push((node.phandle, hertz)));
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

    /// Runs after the banks are settled. Registers that are memory at the same time are a lie: to use them would
    /// overwrite what is kept there.
    pub(super) fn drop_devices_in_memory(&mut self, devices: &mut Devices<'_>) {
        for at in (0..self.uarts.len()).rev() {
            let registers = self.uarts[at].registers;
            if self.touches_memory(&registers) {
                self.warn(Oddity::BadDevice, "serial", registers.base, registers.size);
                self.uarts.remove(at);
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
            let fixed = devices.clocks.iter().find(|(phandle, _)| *phandle == wiring.clock);
            let uart = &mut self.uarts[at];
            uart.interrupt = interrupt.and_then(Result::ok);
            uart.clock = uart.clock.or(fixed.map(|(_, hertz)| *hertz));
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
            if self.stdout.is_none() {
                self.warn(Oddity::NoSuchDevice, stdout, 0, 0);
            }
        }
        self.connect_pins(devices.pins, |at| devices.uarts.get(at)?.pinctrl);
    }
}

/// The path of `node`; what does not fit is cut, and then nobody finds it by path.
fn path<'a>(scope: &Scope<'a, '_>, node: &Node<'a>) -> String<96> {
    let mut path = String::new();
    for node in scope.nodes().chain([node]) {
        let at = if node.unit.is_some() { "@" } else { "" };
        for part in ["/", node.name, at, node.unit.unwrap_or_default()] {
            copy(&mut path, part);
        }
    }
    path
}
