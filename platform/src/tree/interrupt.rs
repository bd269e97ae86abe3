//! The interrupt controller, and the decoding of interrupt specifiers.

use heapless::Vec;

use super::walk::{Cells, Node, Scope, strings};
use super::{Board, Oddity, Region};

/// Redistributor regions that are taken from a tree.
const MAX_REDISTRIBUTORS: usize = 8;

/// The interrupt controller with its registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Controller {
    /// A GIC of version 1 or 2 (GIC-400).
    GicV2 {
        /// GICD.
        distributor: Region,
        /// GICC.
        cpu_interface: Region,
    },
    /// A GIC of version 3 or 4, whose CPU interface is system registers.
    GicV3 {
        /// GICD.
        distributor: Region,
        /// GICR; each holds a run of redistributors, the last of which says so in GICR_TYPER.
        redistributors: Vec<Region, MAX_REDISTRIBUTORS>,
        /// Bytes from one redistributor to the next, where the tree overrides what GICR_TYPER implies.
        stride: Option<u64>,
    },
}

impl Controller {
    /// All its registers.
    pub fn regions(&self) -> impl Iterator<Item = Region> + '_ {
        let (fixed, more) = match self {
            Self::GicV2 { distributor, cpu_interface } => ([Some(*distributor), Some(*cpu_interface)], &[][..]),
            Self::GicV3 { distributor, redistributors, .. } => ([Some(*distributor), None], redistributors.as_slice()),
        };
        fixed.into_iter().flatten().chain(more.iter().copied())
    }
}

/// How an interrupt is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// By an edge.
    Edge,
    /// By a level.
    Level,
}

/// An interrupt in the controller's own numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// INTID: 16–31 private to a CPU, 32–1019 shared.
    pub intid: u32,
    /// How it is signalled.
    pub trigger: Trigger,
}

/// The interrupts of the architected timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    /// Secure physical timer.
    pub secure: Option<Interrupt>,
    /// EL1 physical timer.
    pub physical: Option<Interrupt>,
    /// EL1 virtual timer.
    pub virt: Option<Interrupt>,
    /// EL2 physical timer.
    pub hypervisor: Option<Interrupt>,
    /// The frequency, only where firmware failed to set CNTFRQ_EL0.
    pub frequency: Option<u32>,
}

const GIC_V2: [&str; 5] = ["arm,gic-400", "arm,cortex-a15-gic", "arm,cortex-a9-gic", "arm,cortex-a7-gic", "arm,pl390"];
const GIC_V3: [&str; 1] = ["arm,gic-v3"];

/// References that can only be resolved after the whole tree has been read.
#[derive(Default)]
pub(super) struct Specifiers<'a> {
    /// Of the controller that was found: its phandle and `#interrupt-cells`.
    controller: Option<(u32, usize)>,
    timer: Option<(Node<'a>, Wires<'a>)>,
}

/// A device's interrupts in the tree's encoding.
#[derive(Clone, Copy)]
pub(super) struct Wires<'a> {
    /// The controller's phandle, or `None` if each entry names its own.
    parent: Option<u32>,
    cells: &'a [u8],
}

impl<'a> Wires<'a> {
    /// `interrupts-extended` goes before `interrupts`.
    pub fn of(scope: &Scope<'a, '_>, node: &Node<'a>) -> Self {
        match node.property("interrupts-extended") {
            Some(cells) => Self { parent: None, cells },
            None => Self {
                parent: Some(scope.interrupt_parent_of(node)),
                cells: node.property("interrupts").unwrap_or_default(),
            },
        }
    }
}

impl<'a> Specifiers<'a> {
    /// Of a board that was read.
    pub fn of(board: &Board) -> Self {
        Self { controller: board.interrupt_cells, timer: None }
    }

    /// The interrupts in `wires`, an unusable one as `Err`. Ends at the first that goes to another controller, since
    /// its length is unknown.
    pub fn decode(&self, wires: &Wires<'a>) -> impl Iterator<Item = Result<Interrupt, u64>> + use<'a> {
        let (phandle, count) = self.controller.unwrap_or((0, 0));
        let parent = wires.parent;
        let mut cells = Cells(wires.cells);
        core::iter::from_fn(move || {
            let to = match parent {
                Some(parent) => parent,
                None => cells.take(1)? as u32,
            };
            // No node can refer to a controller without a phandle.
            if phandle == 0 || to != phandle {
                return None;
            }
            let specifier = [cells.take(1)?, cells.take(1)?, cells.take(1)?];
            cells.take(count.checked_sub(3)?)?;
            Some(interrupt(specifier))
        })
    }
}

/// The binding of the GIC: kind (0 shared, 1 private), number in its kind, flags (1 and 2 edge, 4 and 8 level).
fn interrupt([kind, number, flags]: [u64; 3]) -> Result<Interrupt, u64> {
    let intid = match (kind, number) {
        (0, 0..=987) => number as u32 + 32,
        (1, 0..=15) => number as u32 + 16,
        _ => return Err(number),
    };
    let trigger = if flags & 3 != 0 { Trigger::Edge } else { Trigger::Level };
    Ok(Interrupt { intid, trigger })
}

impl Board {
    /// Takes `node` if it is a GIC; the first one wins.
    pub(super) fn read_controller<'a>(
        &mut self,
        specifiers: &mut Specifiers<'a>,
        scope: &Scope<'a, '_>,
        node: &Node<'a>,
    ) {
        let v3 = node.is_compatible(&GIC_V3);
        if !(v3 || node.is_compatible(&GIC_V2)) || self.controller.is_some() {
            return;
        }
        let region = |index| scope.mmio(node, index);
        let found = if v3 { gic_v3(node, region) } else { gic_v2(region) };
        let cells = node.interrupt_cells.filter(|cells| (3..=4).contains(cells));
        match (found, cells) {
            (Some(controller), Some(cells)) => {
                self.controller = Some(controller);
                self.interrupt_cells = Some((node.phandle, cells as usize));
                specifiers.controller = self.interrupt_cells;
            }
            _ => self.warn(Oddity::BadDevice, node.name, 0, 0),
        }
    }

    /// Remembers `node` if it is the architected timer.
    pub(super) fn find_timer<'a>(specifiers: &mut Specifiers<'a>, scope: &Scope<'a, '_>, node: &Node<'a>) {
        if specifiers.timer.is_none() && node.is_compatible(&["arm,armv8-timer"]) {
            specifiers.timer = Some((*node, Wires::of(scope, node)));
        }
    }

    /// Runs after the walk, when the controller is known.
    pub(super) fn read_timer(&mut self, specifiers: &Specifiers<'_>) {
        let Some((node, wires)) = &specifiers.timer else { return };
        let mut timer =
            Timer { frequency: node.word("clock-frequency").filter(|hertz| *hertz > 0), ..Timer::default() };
        let named = node.property("interrupt-names");
        let mut names = strings(named.unwrap_or_default());
        let mut order = ["sec-phys", "phys", "virt", "hyp-phys"].into_iter();
        for interrupt in specifiers.decode(wires) {
            let name = if named.is_some() { names.next() } else { order.next() };
            let slot = match name {
                Some("sec-phys") => &mut timer.secure,
                Some("phys") => &mut timer.physical,
                Some("virt") => &mut timer.virt,
                Some("hyp-phys") => &mut timer.hypervisor,
                Some(_) => continue,
                None => break,
            };
            match interrupt {
                Ok(interrupt) => *slot = Some(interrupt),
                Err(number) => self.warn(Oddity::BadInterrupt, node.name, number, 0),
            }
        }
        self.timer = Some(timer);
    }
}

fn gic_v2(region: impl Fn(usize) -> Option<Region>) -> Option<Controller> {
    Some(Controller::GicV2 { distributor: region(0)?, cpu_interface: region(1)? })
}

fn gic_v3(node: &Node<'_>, region: impl Fn(usize) -> Option<Region>) -> Option<Controller> {
    let count = node.word("#redistributor-regions").unwrap_or(1) as usize;
    let redistributors = (1..=count.min(MAX_REDISTRIBUTORS)).map(&region).collect::<Option<Vec<_, _>>>();
    // With a stride that is not a multiple of 64 KiB the search would misread the frames.
    let stride = node.number("redistributor-stride").filter(|stride| *stride > 0 && stride % 0x1_0000 == 0);
    let redistributors = redistributors.filter(|regions| !regions.is_empty())?;
    Some(Controller::GicV3 { distributor: region(0)?, redistributors, stride })
}
