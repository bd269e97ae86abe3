//! Salvage from an unreadable tree: finds a serial port, so that the error can be reported, and the kernel arguments,
//! which tell how the machine is to stop.
//!
//! [`salvage`] trusts only the tokens that it can follow from the structure block's start to the first damage. The
//! ports are guesses: the caller must identify the device before writing to it ([`crate::uart::Pl011::is_one`]). So it
//! only looks for PrimeCell ports, which have identification registers.

use heapless::Vec;

use super::Region;
use super::blob::{BEGIN_NODE, END_NODE, MAX_DEPTH, NOP, PROP, be32};
use super::walk::{CellCounts, pairs, text, translate_once};

/// The maximum number of ports that are reported.
pub const MAX_PORTS: usize = 4;

/// The usable parts of a tree that may be damaged anywhere.
#[derive(Clone, Debug, Default)]
pub struct Salvage<'a> {
    /// Registers of PL011 ports in the tree's order.
    pub ports: Vec<Region, MAX_PORTS>,
    /// The kernel arguments in `/chosen`.
    pub bootargs: &'a str,
}

/// A node whose end has not been met.
#[derive(Clone, Copy, Default)]
struct Open<'a> {
    is_chosen: bool,
    cells: CellCounts,
    ranges: Option<&'a [u8]>,
    compatible: &'a [u8],
    reg: &'a [u8],
}

/// Finds what `bytes` contain before the first damage. O(size).
pub fn salvage(bytes: &[u8]) -> Salvage<'_> {
    let mut found = Salvage::default();
    // The scan ends at damage, which is expected here.
    let _ = scan(bytes, &mut found);
    found
}

/// Follows the tokens. Ends with `None` if the next one is invalid.
fn scan<'a>(bytes: &'a [u8], found: &mut Salvage<'a>) -> Option<()> {
    let strings = bytes.get(be32(bytes, 12)? as usize..)?;
    let mut at = be32(bytes, 8)? as usize;
    let mut open: Vec<Open<'_>, MAX_DEPTH> = Vec::new();
    // The number of open nodes below the deepest one that is examined.
    let mut too_deep = 0usize;
    loop {
        let token = be32(bytes, at)?;
        at += 4;
        match token {
            NOP => {}
            BEGIN_NODE => {
                let len = bytes.get(at..)?.iter().position(|byte| *byte == 0)?;
                let is_chosen = open.len() == 1 && bytes.get(at..at + len)? == b"chosen";
                at = (at + len + 1).next_multiple_of(4);
                if open.push(Open { is_chosen, ..Open::default() }).is_err() {
                    too_deep += 1;
                }
            }
            PROP => {
                let (len, name) = (be32(bytes, at)? as usize, be32(bytes, at + 4)? as usize);
                let value = bytes.get(at + 8..)?.get(..len)?;
                at = (at + 8 + len).next_multiple_of(4);
                if too_deep == 0
                    && let Some(bootargs) = open.last_mut()?.take(strings.get(name..)?, value)
                {
                    found.bootargs = bootargs;
                }
            }
            END_NODE if too_deep > 0 => too_deep -= 1,
            END_NODE => {
                let node = open.pop()?;
                if let Some(port) = node.port(&open) {
                    // There is room for as many as a caller tries.
                    let _ = found.ports.push(port);
                }
            }
            _ => return None,
        }
    }
}

impl<'a> Open<'a> {
    /// Keeps a property, or returns the kernel arguments if it is these.
    fn take(&mut self, name: &[u8], value: &'a [u8]) -> Option<&'a str> {
        let is = |wanted: &[u8]| name.strip_prefix(wanted).is_some_and(|rest| rest.first() == Some(&0));
        let word = || be32(value, 0).map_or(0, |cells| cells as usize);
        if is(b"compatible") {
            self.compatible = value;
        } else if is(b"reg") {
            self.reg = value;
        } else if is(b"ranges") {
            self.ranges = Some(value);
        } else if is(b"#address-cells") {
            self.cells.address = word();
        } else if is(b"#size-cells") {
            self.cells.size = word();
        } else if self.is_chosen && is(b"bootargs") {
            return text(value);
        }
        None
    }

    /// The registers of this node as the CPU sees them, if it is a port; `above` are the nodes that it lies in.
    fn port(&self, above: &[Open<'_>]) -> Option<Region> {
        if !self.compatible.split(|byte| *byte == 0).any(|name| name == b"arm,pl011") {
            return None;
        }
        let (mut address, size) = pairs(self.reg, above.last()?.cells).next()??;
        for pair in above.windows(2).rev() {
            let (parent, bus) = (&pair[0], &pair[1]);
            let ranges = bus.ranges?;
            if !ranges.is_empty() {
                address = translate_once(ranges, bus.cells, parent.cells, address, size)?;
            }
        }
        Region::new(address, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIRT: &[u8] = include_bytes!("../../trees/virt-128m.dtb");
    const BUSES: &[u8] = include_bytes!("../../trees/buses.dtb");

    #[test]
    fn a_sound_tree_has_the_ports_that_its_reader_finds() {
        for tree in [VIRT, BUSES] {
            let board = super::super::Board::from_tree(tree).unwrap();
            let pl011 = |uart: &&super::super::Uart| uart.kind == super::super::UartKind::Pl011;
            let known: std::vec::Vec<_> = board.uarts.iter().filter(pl011).map(|uart| uart.registers).collect();
            let salvaged = salvage(tree).ports;
            assert!(known.iter().all(|port| salvaged.contains(port)), "{known:?} {salvaged:?}");
        }
        assert_eq!(salvage(VIRT).ports[0].base, 0x900_0000);
    }

    #[test]
    fn a_port_before_the_damage_is_found() {
        let mut tree = VIRT.to_vec();
        // Damages the whole header except the two offsets, and the end of the structure block.
        tree[0..8].fill(0xff);
        tree[16..40].fill(0xff);
        assert_eq!(salvage(&tree).ports[0].base, 0x900_0000);
        let structure = be32(&tree, 8).unwrap() as usize;
        tree[structure..structure + 4].fill(0);
        assert!(salvage(&tree).ports.is_empty());
    }
}
