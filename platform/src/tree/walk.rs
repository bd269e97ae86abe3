//! Nodes, properties, and the values that a node inherits from its ancestors: cells, addresses, interrupt parent.
//!
//! A walk is one pass over the tree's tokens. It keeps a [`Path`] of the nodes above, at most [`MAX_DEPTH`], through
//! which an address is translated level by level.

use heapless::Vec;

use super::blob::{Blob, MAX_DEPTH, Token, Tokens, be32};
use super::{Region, TreeError};

/// The `#address-cells` and `#size-cells` that a node sets for its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CellCounts {
    pub address: usize,
    pub size: usize,
}

/// The specification's defaults.
impl Default for CellCounts {
    fn default() -> Self {
        Self { address: 2, size: 1 }
    }
}

/// One node, with the properties that nearly every decision needs already picked out.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    /// The tokens after the node's name: its properties, its children, its end.
    inside: Tokens<'a>,
    pub name: &'a str,
    pub unit: Option<&'a str>,
    compatible: &'a [u8],
    pub device_type: Option<&'a str>,
    pub okay: bool,
    pub phandle: u32,
    pub cells: CellCounts,
    ranges: Option<&'a [u8]>,
    pub dma_ranges: Option<&'a [u8]>,
    is_coherent: bool,
    interrupt_parent: Option<u32>,
    pub interrupt_cells: Option<u32>,
}

impl<'a> Node<'a> {
    /// The root of a checked tree.
    pub fn root(blob: &Blob<'a>) -> Result<Self, TreeError> {
        let mut tokens = blob.tokens();
        match tokens.next() {
            Some(Token::Begin(name)) => Ok(Self::read(name, tokens)),
            _ => Err(TreeError::Structure(0)),
        }
    }

    fn read(full_name: &'a str, inside: Tokens<'a>) -> Self {
        let (name, unit) = full_name.split_once('@').map_or((full_name, None), |(name, unit)| (name, Some(unit)));
        let mut node = Self {
            inside,
            name,
            unit,
            compatible: &[],
            device_type: None,
            okay: true,
            phandle: 0,
            cells: CellCounts::default(),
            ranges: None,
            dma_ranges: None,
            is_coherent: false,
            interrupt_parent: None,
            interrupt_cells: None,
        };
        for (name, value) in inside.properties() {
            match name {
                "compatible" => node.compatible = value,
                "device_type" => node.device_type = text(value),
                "status" => node.okay = matches!(text(value), Some("okay" | "ok")),
                "phandle" | "linux,phandle" => node.phandle = be32(value, 0).unwrap_or(0),
                "#address-cells" => node.cells.address = be32(value, 0).map_or(usize::MAX, |cells| cells as usize),
                "#size-cells" => node.cells.size = be32(value, 0).map_or(usize::MAX, |cells| cells as usize),
                "ranges" => node.ranges = Some(value),
                "dma-ranges" => node.dma_ranges = Some(value),
                "dma-coherent" => node.is_coherent = true,
                "interrupt-parent" => node.interrupt_parent = be32(value, 0),
                "#interrupt-cells" => node.interrupt_cells = be32(value, 0),
                _ => {}
            }
        }
        node
    }

    /// Its place in the tree.
    pub fn place(&self) -> usize {
        self.inside.place()
    }

    /// The children of this node.
    pub fn children(&self) -> Children<'a> {
        Children(self.inside)
    }

    /// The value of a property: its bytes in the tree.
    pub fn property(&self, name: &str) -> Option<&'a [u8]> {
        self.properties().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Every property as (name, value).
    pub fn properties(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.inside.properties()
    }

    /// A property that is one string.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.property(name).and_then(text)
    }

    /// A property that is one or two cells, as real trees write sizes and addresses in `/chosen`.
    pub fn number(&self, name: &str) -> Option<u64> {
        let value = self.property(name)?;
        match value.len() {
            4 | 8 => Cells(value).number(value.len() / 4),
            _ => None,
        }
    }

    /// One property of one cell.
    pub fn word(&self, name: &str) -> Option<u32> {
        self.property(name).and_then(|value| be32(value, 0))
    }

    /// The strings of `compatible`, most specific first.
    pub fn compatible(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        strings(self.compatible)
    }

    /// Whether `compatible` names any of `wanted`. Asked often, so it compares bytes.
    pub fn is_compatible(&self, wanted: &[&str]) -> bool {
        let mut names = self.compatible.split(|byte| *byte == 0);
        names.any(|name| wanted.iter().any(|wanted| wanted.as_bytes() == name))
    }
}

/// The children of a node.
pub(super) struct Children<'a>(Tokens<'a>);

impl<'a> Iterator for Children<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.0.next_child()?;
        let node = Node::read(name, self.0);
        self.0.skip_node();
        Some(node)
    }
}

/// The values that a node passes on to its children while they are visited.
struct Level<'a> {
    name: &'a str,
    unit: Option<&'a str>,
    cells: CellCounts,
    ranges: Option<&'a [u8]>,
    dma_ranges: Option<&'a [u8]>,
    is_coherent: bool,
    /// The phandle of the interrupt controller for the children; 0 if none is given.
    interrupt_parent: u32,
}

/// The path from the root to the node that is being visited. A walk is a loop over this and not a recursion, so that no
/// tree can exhaust the boot stack.
pub(super) struct Path<'a> {
    levels: Vec<Level<'a>, MAX_DEPTH>,
    /// The tokens that have not been visited.
    rest: Tokens<'a>,
    /// `rest` begins inside the node that the walk met last, which was not entered.
    is_inside: bool,
}

impl<'a> Path<'a> {
    /// At the root, before its first child.
    pub fn new(root: Node<'a>) -> Self {
        let mut path = Self { levels: Vec::new(), rest: root.inside, is_inside: true };
        // An empty vector has room.
        let _ = path.push(&root, root.interrupt_parent.unwrap_or(0));
        path
    }

    /// The next node in depth-first order: below the last one if that was entered, beside it or further up if not.
    pub fn next(&mut self) -> Option<Node<'a>> {
        if self.is_inside {
            self.rest.skip_node();
        }
        while !self.levels.is_empty() {
            if let Some(name) = self.rest.next_child() {
                self.is_inside = true;
                return Some(Node::read(name, self.rest));
            }
            self.levels.pop();
        }
        None
    }

    /// Descends into `node`, which must be the node that the walk met last: its children come next.
    pub fn enter(&mut self, node: &Node<'a>) -> Result<(), TreeError> {
        let interrupt_parent = self.scope().map_or(0, |scope| scope.interrupt_parent_of(node));
        self.push(node, interrupt_parent)
    }

    /// The scope of the node that the walk met last.
    pub fn scope(&self) -> Option<Scope<'a, '_>> {
        let (bus, above) = self.levels.split_last()?;
        Some(Scope { above, bus })
    }

    /// `interrupt_parent` is that of `node`. A node with interrupt cells is itself the controller for its children.
    fn push(&mut self, node: &Node<'a>, interrupt_parent: u32) -> Result<(), TreeError> {
        let level = Level {
            name: node.name,
            unit: node.unit,
            cells: node.cells,
            ranges: node.ranges,
            dma_ranges: node.dma_ranges,
            is_coherent: node.is_coherent,
            interrupt_parent: if node.interrupt_cells.is_some() { node.phandle } else { interrupt_parent },
        };
        self.is_inside = false;
        self.levels.push(level).map_err(|_| TreeError::TooDeep)
    }
}

/// What a node inherits: the nodes above it.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a, 's> {
    above: &'s [Level<'a>],
    bus: &'s Level<'a>,
}

impl<'a, 's> Scope<'a, 's> {
    /// Whether nodes here are children of the root.
    pub fn is_root(&self) -> bool {
        self.above.is_empty()
    }

    /// The cells of addresses here.
    pub fn cells(&self) -> CellCounts {
        self.bus.cells
    }

    /// The names and unit addresses from below the root down to the parent of the nodes here.
    pub fn names(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a, 's> {
        self.above.iter().chain([self.bus]).skip(1).map(|level| (level.name, level.unit))
    }

    /// Each bus on the way up with the cells of the one above it.
    fn buses(&self) -> impl Iterator<Item = (&'s Level<'a>, CellCounts)> + use<'a, 's> {
        let (mut above, mut bus) = (self.above, self.bus);
        core::iter::from_fn(move || {
            let (parent, further) = above.split_last()?;
            let step = (bus, parent.cells);
            (above, bus) = (further, parent);
            Some(step)
        })
    }

    /// Whether `child` or a bus above it is marked as coherent with the CPUs' caches.
    pub fn is_coherent(&self, child: &Node<'a>) -> bool {
        child.is_coherent || self.bus.is_coherent || self.above.iter().any(|level| level.is_coherent)
    }

    /// The first bus on the way up that limits or moves what devices see of memory: its `dma-ranges`, the cells below
    /// and above it, and where it is itself.
    pub fn dma_ranges(&self) -> Option<(&'a [u8], CellCounts, CellCounts, Self)> {
        let mut here = *self;
        loop {
            let (parent, further) = here.above.split_last()?;
            let up = Scope { above: further, bus: parent };
            if let Some(ranges) = here.bus.dma_ranges.filter(|ranges| !ranges.is_empty()) {
                return Some((ranges, here.bus.cells, parent.cells, up));
            }
            here = up;
        }
    }

    /// The phandle of the controller that `child`'s interrupts go to: its own property or the inherited one.
    pub fn interrupt_parent_of(&self, child: &Node<'a>) -> u32 {
        child.interrupt_parent.unwrap_or(self.bus.interrupt_parent)
    }

    /// The `index`th (address, size) of `child`'s `reg`, as the CPU sees it.
    pub fn mmio(&self, child: &Node<'a>, index: usize) -> Option<Region> {
        let (address, size) = pairs(child.property("reg")?, self.cells()).nth(index)??;
        self.translate(address, size)
    }

    /// A child's registers on this bus, as the CPU sees them. `None` where a bus on the way up has no `ranges` (its
    /// children are not memory mapped) or none that holds all of the region.
    fn translate(&self, address: u64, size: u64) -> Option<Region> {
        let mut address = address;
        for (bus, parent) in self.buses() {
            let ranges = bus.ranges?;
            if !ranges.is_empty() {
                address = translate_once(ranges, bus.cells, parent, address, size)?;
            }
        }
        Region::new(address, size)
    }

    /// As [`Scope::translate`], for a device's accesses: through `dma-ranges`; a bus without that property changes
    /// nothing.
    pub fn translate_dma(&self, address: u64, size: u64) -> Option<u64> {
        let mut address = address;
        for (bus, parent) in self.buses() {
            if let Some(ranges) = bus.dma_ranges.filter(|ranges| !ranges.is_empty()) {
                address = translate_once(ranges, bus.cells, parent, address, size)?;
            }
        }
        Some(address)
    }
}

/// One step of translation, through one bus's `ranges`.
pub(super) fn translate_once(
    ranges: &[u8],
    child: CellCounts,
    parent: CellCounts,
    address: u64,
    size: u64,
) -> Option<u64> {
    let end = address.checked_add(size)?;
    let entry = child.address.checked_add(parent.address)?.checked_add(child.size)?.checked_mul(4)?;
    if entry == 0 || child.address > 2 {
        return None;
    }
    ranges.chunks_exact(entry).find_map(|entry| {
        let mut cells = Cells(entry);
        let bus = cells.take(child.address)?;
        let cpu = cells.take(parent.address)?;
        let len = cells.take(child.size)?;
        let inside = address >= bus && end <= bus.checked_add(len)?;
        if inside { cpu.checked_add(address - bus) } else { None }
    })
}

/// (address, size) pairs of an array property.
pub(super) fn pairs<'a>(value: &'a [u8], counts: CellCounts) -> impl Iterator<Item = Option<(u64, u64)>> + use<'a> {
    let pair = counts.address.checked_add(counts.size).and_then(|cells| cells.checked_mul(4)).filter(|len| *len > 0);
    // Cell counts that no property can hold leave nothing to iterate over.
    let (value, pair) = pair.map_or((&[][..], 1), |pair| (value, pair));
    value.chunks_exact(pair).map(move |pair| {
        let mut cells = Cells(pair);
        Some((cells.take(counts.address)?, cells.take(counts.size)?))
    })
}

/// The remaining cells of an array property.
pub(super) struct Cells<'a>(pub &'a [u8]);

impl Cells<'_> {
    /// The next `count` cells as one number. `None` where there are fewer, or more than 64 bits of value.
    pub fn take(&mut self, count: usize) -> Option<u64> {
        let number = self.number(count)?;
        self.0 = self.0.get(count * 4..)?;
        Some(number)
    }

    fn number(&self, count: usize) -> Option<u64> {
        let bytes = self.0.get(..count.checked_mul(4)?)?;
        let (high, low) = bytes.split_at(bytes.len().saturating_sub(8));
        let fits = high.iter().all(|byte| *byte == 0);
        fits.then(|| low.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// A value that is one NUL-terminated string.
pub(super) fn text(value: &[u8]) -> Option<&str> {
    strings(value).next()
}

/// The strings of a string list; ends at the first that is not UTF-8 or not terminated.
pub(super) fn strings(value: &[u8]) -> impl Iterator<Item = &str> {
    let mut rest = value;
    core::iter::from_fn(move || {
        let len = rest.iter().position(|byte| *byte == 0)?;
        let string = core::str::from_utf8(&rest[..len]).ok()?;
        rest = &rest[len + 1..];
        Some(string)
    })
}
