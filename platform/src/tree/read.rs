//! The order in which a tree is read: one walk, then everything that depends on the whole tree.

use heapless::Vec;

use super::blob::Blob;
use super::chosen::initrd_region;
use super::device::Devices;
use super::interrupt::Specifiers;
use super::walk::{Node, Path, Scope};
use super::{Board, Oddity, Region, TreeError, copy};

/// Work that the walk leaves for later.
#[derive(Default)]
struct Later<'a> {
    chosen: Option<Node<'a>>,
    aliases: Option<Node<'a>>,
    cpus: Option<Node<'a>>,
    reserved: Option<Node<'a>>,
    specifiers: Specifiers<'a>,
    devices: Devices<'a>,
}

/// Regions whose memory is kept, the archive's included.
const MAX_KEPT: usize = 4;

pub(super) fn board(board: &mut Board, bytes: &[u8], keep: &[Region]) -> Result<(), TreeError> {
    let blob = Blob::new(bytes)?;
    let root = Node::root(&blob)?;
    let mut later = Later::default();
    board.identify(&root);
    board.walk(root, &mut later)?;

    let archive = later.chosen.and_then(|chosen| initrd_region(&chosen));
    let mut keep: Vec<Region, MAX_KEPT> = keep.iter().copied().take(MAX_KEPT - 1).collect();
    keep.extend(archive);
    board.read_memory(&root, &keep);
    if board.banks.is_empty() {
        return Err(TreeError::NoMemory);
    }
    board.drop_devices_in_memory(&mut later.devices);
    board.check_dma_limit();
    board.read_reservations(&blob, later.reserved);
    if let Some(cpus) = later.cpus {
        board.read_cpus(&cpus);
    }
    board.read_timer(&later.specifiers);
    let stdout = later.chosen.and_then(|chosen| board.read_chosen(&chosen));
    board.connect_uarts(&later.devices, &later.specifiers, later.aliases, stdout);
    Ok(())
}

impl Board {
    fn identify(&mut self, root: &Node<'_>) {
        if !copy(&mut self.model, root.text("model").unwrap_or_default()) {
            self.warn(Oddity::TextCut, "model", 0, 0);
        }
        for name in root.compatible().take(self.compatible.capacity()) {
            let mut kept = heapless::String::new();
            copy(&mut kept, name);
            // Not more than the capacity are taken.
            let _ = self.compatible.push(kept);
        }
    }

    // A stack frame of its own, since the path is large and not needed afterwards.
    #[inline(never)]
    fn walk<'a>(&mut self, root: Node<'a>, later: &mut Later<'a>) -> Result<(), TreeError> {
        let mut path = Path::new(root);
        while let Some(node) = path.next() {
            let Some(scope) = path.scope() else { break };
            // A node whose status is not "okay" does not exist, and neither do the nodes below it.
            if node.okay && !(scope.is_root() && self.system_node(&node, later)) {
                self.device(&scope, &node, later);
                path.enter(&node)?;
            }
        }
        Ok(())
    }

    /// The nodes that are not devices; true if `node` was one of them and needs no further handling.
    fn system_node<'a>(&mut self, node: &Node<'a>, later: &mut Later<'a>) -> bool {
        let keep = match node.name {
            "chosen" => &mut later.chosen,
            "aliases" => &mut later.aliases,
            "cpus" => &mut later.cpus,
            "reserved-memory" => &mut later.reserved,
            "distance-map" => {
                self.read_distances(node);
                return true;
            }
            // Read when all that depends on nothing else has been read.
            _ if node.device_type == Some("memory") => return true,
            _ => return false,
        };
        *keep = keep.or(Some(*node));
        true
    }

    fn device<'a>(&mut self, scope: &Scope<'a, '_>, node: &Node<'a>, later: &mut Later<'a>) {
        self.read_dma(scope, node);
        self.read_controller(&mut later.specifiers, scope, node);
        Self::find_timer(&mut later.specifiers, scope, node);
        later.devices.clocks.find(scope, node);
        Self::find_pins(&mut later.devices, scope, node);
        self.read_uart(&mut later.devices, scope, node);
        self.read_power(scope, node);
        self.read_mailbox(scope, node);
        if self.psci.is_none() && node.is_compatible(&["arm,psci", "arm,psci-0.2", "arm,psci-1.0"]) {
            self.read_psci(node);
        }
    }
}
