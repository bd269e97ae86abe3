//! The clock that a serial port's rate is divided from: a fixed clock or, on Broadcom's chips, one of the firmware's,
//! whose frequency is not in the tree.

use heapless::Vec;

use super::walk::{Cells, Node, Scope};
use super::{Board, Oddity, Region};

/// The clock of a serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Its rate in Hz.
    Fixed(u32),
    /// The firmware has to be asked.
    Firmware(FirmwareClock),
    /// Unknown: the divisor stays as firmware left it.
    Unknown,
}

/// A clock of a Raspberry Pi's firmware, by its number in the mailbox's property interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FirmwareClock {
    /// The PL011s'.
    Uart = 2,
    /// The VPU's, which the auxiliary block with its mini-UART divides.
    Core = 4,
}

/// The number of the PL011s' clock among those of the clock manager (`dt-bindings/clock/bcm2835.h`).
const MANAGER_UART: u64 = 19;

/// A node that a port's `clocks` may name.
#[derive(Clone, Copy)]
enum Source {
    Fixed(u32),
    /// The clock manager: a cell says which.
    Manager,
    /// The auxiliary block, and the registers that switch its parts on.
    Auxiliary(Option<Region>),
}

/// The clocks that the tree has.
#[derive(Default)]
pub(super) struct Clocks(Vec<(u32, Source), 16>);

impl Clocks {
    /// Remembers `node` if it is a clock.
    pub(super) fn find<'a>(&mut self, scope: &Scope<'a, '_>, node: &Node<'a>) {
        let source = if node.is_compatible(&["fixed-clock"]) {
            node.word("clock-frequency").filter(|hertz| *hertz > 0).map(Source::Fixed)
        } else if node.is_compatible(&["brcm,bcm2711-cprman", "brcm,bcm2835-cprman"]) {
            Some(Source::Manager)
        } else if node.is_compatible(&["brcm,bcm2835-aux"]) {
            Some(Source::Auxiliary(scope.mmio(node, 0)))
        } else {
            None
        };
        if let Some(source) = source.filter(|_| node.phandle != 0) {
            // If the list is full, a port keeps the divisor that firmware has set.
            let _ = self.0.push((node.phandle, source));
        }
    }

    /// The clock that a port's `clocks` names, and the registers that switch the port on, if there are any.
    pub(super) fn of(&self, clocks: &[u8]) -> (Clock, Option<Region>) {
        let mut cells = Cells(clocks);
        let phandle = cells.take(1).unwrap_or(0);
        let source = self.0.iter().find(|(known, _)| u64::from(*known) == phandle).map(|(_, source)| *source);
        match source {
            Some(Source::Fixed(hertz)) => (Clock::Fixed(hertz), None),
            Some(Source::Manager) if cells.take(1) == Some(MANAGER_UART) => {
                (Clock::Firmware(FirmwareClock::Uart), None)
            }
            Some(Source::Auxiliary(switch)) => (Clock::Firmware(FirmwareClock::Core), switch),
            _ => (Clock::Unknown, None),
        }
    }
}

impl Board {
    /// Takes `node` if it is the mailbox to a Raspberry Pi's firmware.
    pub(super) fn read_mailbox<'a>(&mut self, scope: &Scope<'a, '_>, node: &Node<'a>) {
        if self.mailbox.is_none() && node.is_compatible(&["brcm,bcm2835-mbox"]) {
            match scope.mmio(node, 0) {
                Some(registers) => self.mailbox = Some(registers),
                None => self.warn(Oddity::BadDevice, node.name, 0, 0),
            }
        }
    }
}
