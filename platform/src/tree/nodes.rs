//! The tree's devices as drivers see them while the machine runs: each is a node with registers, interrupts, and the
//! memory that it can reach.
//!
//! A node that is not "okay" does not exist, and neither do those below it.

use heapless::{String, Vec};

use super::blob::Blob;
use super::device::path;
use super::interrupt::{Interrupt, Specifiers, Wires};
use super::walk::{Cells, Node, Path, Scope};
use super::{Board, PA_LIMIT, Region};

/// Register ranges of a device that are taken from the tree.
pub const MAX_RANGES: usize = 8;
/// Interrupts of a device that are taken from the tree.
pub const MAX_INTERRUPTS: usize = 8;
/// Windows through which a device reaches memory that are taken from the tree.
pub const MAX_WINDOWS: usize = 4;

/// A part of memory that a device can reach, and its address on the device's bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// As the CPU sees it.
    pub memory: Region,
    /// The bus address of its first byte.
    pub bus: u64,
}

/// The information that a driver needs about its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The position of its node in the tree.
    pub node: usize,
    /// The node's path, truncated if it does not fit.
    pub path: String<96>,
    /// Its registers.
    pub registers: Vec<Region, MAX_RANGES>,
    /// Its interrupts, those of the machine's controller.
    pub interrupts: Vec<Interrupt, MAX_INTERRUPTS>,
    /// The memory that it reaches.
    pub windows: Vec<Window, MAX_WINDOWS>,
    /// Whether its accesses to memory are coherent with the CPUs' caches.
    pub is_coherent: bool,
}

/// Calls `see` for every node that exists, in the tree's order, until it returns an error. The tree was checked before;
/// if it was not, the walk may end early.
// A stack frame of its own, since the path is large.
#[inline(never)]
pub fn for_each_node<'a, E>(tree: &'a [u8], mut see: impl FnMut(&NodeView<'a, '_>) -> Result<(), E>) -> Result<(), E> {
    let Ok(root) = Blob::checked(tree).and_then(|blob| Node::root(&blob)) else { return Ok(()) };
    let mut path = Path::new(root);
    while let Some(node) = path.next() {
        if !node.okay {
            continue;
        }
        let Some(scope) = path.scope() else { break };
        see(&NodeView { node, scope })?;
        // (It cannot be deeper than the tree was when it was checked.)
        if path.enter(&node).is_err() {
            break;
        }
    }
    Ok(())
}

/// The value of a property of the node at a [place](NodeView::place), in a tree that was checked before.
pub fn property_at<'a>(tree: &'a [u8], place: usize, name: &str) -> Option<&'a [u8]> {
    let mut inside = Blob::checked(tree).ok()?.tokens_at(place)?.properties();
    inside.find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// A node of a walk.
pub struct NodeView<'a, 's> {
    node: Node<'a>,
    scope: Scope<'a, 's>,
}

impl<'a> NodeView<'a, '_> {
    /// Whether it is compatible with `name`.
    pub fn is_compatible(&self, name: &str) -> bool {
        self.node.is_compatible(&[name])
    }

    /// Whether this is its path. O(length of the path).
    pub fn has_path(&self, wanted: &str) -> bool {
        path(&self.scope, &self.node) == wanted
    }

    /// Its place in the tree.
    pub fn place(&self) -> usize {
        self.node.place()
    }

    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&'a [u8]> {
        self.node.property(name)
    }

    /// Its memory-mapped registers, at the CPU's addresses.
    pub fn registers(&self) -> impl Iterator<Item = Region> + '_ {
        (0..MAX_RANGES).map_while(|index| self.scope.mmio(&self.node, index))
    }

    /// All that a driver needs.
    pub fn device(&self, board: &Board) -> Device {
        let decoded = Specifiers::of(board).decode(&Wires::of(&self.scope, &self.node));
        Device {
            node: self.place(),
            path: path(&self.scope, &self.node),
            registers: self.registers().collect(),
            interrupts: decoded.take(MAX_INTERRUPTS).map_while(Result::ok).collect(),
            windows: self.windows(),
            is_coherent: self.scope.is_coherent(&self.node),
        }
    }

    /// The memory that the device can reach: all, if no bus above it has `dma-ranges`.
    fn windows(&self) -> Vec<Window, MAX_WINDOWS> {
        let Some((ranges, bus, parent, above)) = self.scope.dma_ranges() else {
            let all = Window { memory: Region { base: 0, size: PA_LIMIT }, bus: 0 };
            return [all].into_iter().collect();
        };
        let cells = bus.address.saturating_add(parent.address).saturating_add(bus.size);
        let entries = ranges.chunks_exact(cells.saturating_mul(4).max(1));
        let window = |entry| {
            let mut cells = Cells(entry);
            let (from, to, size) = (cells.take(bus.address)?, cells.take(parent.address)?, cells.take(bus.size)?);
            let base = above.translate_dma(to, size)?;
            Some(Window { memory: Region::new(base, size)?, bus: from })
        };
        entries.filter_map(window).take(MAX_WINDOWS).collect()
    }
}
