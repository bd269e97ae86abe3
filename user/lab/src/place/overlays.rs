//! Overlays: a program that is larger than memory keeps only those modules in memory that are needed together.
//!
//! The modules form a tree. A module is in memory together with its ancestors, which call it, and starts where its
//! parent ends. Siblings are never needed together, so they start at the same address: one overlays the other. The
//! memory that the program needs is that of the longest path from the root to a leaf. A call loads the module and those
//! of its ancestors that are not in memory. The programmer has to design the tree; virtual memory made that
//! unnecessary.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::MOST_ROWS;
use crate::Error;
use crate::report::{Kind, Map, MapRow, Measure, Picture, Piece, Report};
use crate::trace::{Event, Module, Trace};
use crate::units::Size;

/// A module and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Placed {
    module: Module,
    start: u64,
    /// The number of its ancestors.
    depth: usize,
}

impl Placed {
    fn end(&self) -> u64 {
        self.start + self.module.size
    }
}

/// The tree of modules, and the modules in memory.
#[derive(Default)]
struct Overlays {
    modules: Vec<Placed>,
    /// The modules in memory, by address.
    here: BTreeMap<u64, usize>,
    loads: u64,
    loaded: u64,
}

impl Overlays {
    /// Adds a module after the end of its parent, which was added before.
    fn add(&mut self, module: &Module) {
        let parent = module.parent.as_ref().and_then(|name| self.find(name)).map(|index| &self.modules[index]);
        let (start, depth) = parent.map_or((0, 0), |parent| (parent.end(), parent.depth + 1));
        self.modules.push(Placed { module: module.clone(), start, depth });
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.modules.iter().position(|placed| placed.module.name == name)
    }

    /// The path from the root to a module.
    fn way_to(&self, index: usize) -> Vec<usize> {
        let mut way = Vec::from([index]);
        let mut at = index;
        while let Some(parent) = self.modules[at].module.parent.as_ref().and_then(|name| self.find(name)) {
            way.push(parent);
            at = parent;
        }
        way.reverse();
        way
    }

    /// Loads the modules that a call needs; returns a note.
    fn call(&mut self, name: &str) -> String {
        let Some(called) = self.find(name) else { return String::new() };
        let mut loaded = Vec::new();
        for index in self.way_to(called) {
            let Placed { module, start, .. } = self.modules[index].clone();
            if self.here.get(&start) == Some(&index) {
                continue;
            }
            let end = start + module.size;
            let modules = &self.modules;
            self.here.retain(|&other, &mut index| modules[index].end() <= start || other >= end);
            self.here.insert(start, index);
            self.loads += 1;
            self.loaded += module.size;
            loaded.push(module.name);
        }
        if loaded.is_empty() { "in memory".into() } else { format!("loads {}", loaded.join(", ")) }
    }

    /// The memory of the longest path.
    fn needed(&self) -> u64 {
        self.modules.iter().map(Placed::end).max().unwrap_or(0)
    }

    fn pieces(&self, modules: impl Iterator<Item = usize>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut at = 0;
        let free = |start, end: u64| Piece { start, size: end - start, kind: Kind::Free };
        for placed in modules.filter_map(|index| self.modules.get(index)) {
            if at < placed.start {
                pieces.push(free(at, placed.start));
            }
            let kind = Kind::Used { name: placed.module.name.clone(), wasted: 0 };
            pieces.push(Piece { start: placed.start, size: placed.module.size, kind });
            at = placed.end();
        }
        if at < self.needed() {
            pieces.push(free(at, self.needed()));
        }
        pieces
    }

    /// All paths from a root to a leaf: the sets of modules that may be in memory together.
    fn ways(&self) -> Vec<MapRow> {
        let is_leaf = |placed: &Placed| {
            self.modules.iter().all(|other| other.module.parent.as_deref() != Some(placed.module.name.as_str()))
        };
        let leaves = self.modules.iter().enumerate().filter(|(_, placed)| is_leaf(placed));
        let row = |(index, leaf): (usize, &Placed)| {
            let pieces = self.pieces(self.way_to(index).into_iter());
            MapRow { label: format!("with {}", leaf.module.name), pieces, note: Size(leaf.end()).to_string() }
        };
        leaves.map(row).take(MOST_ROWS).collect()
    }
}

/// Plays the tree of modules and its calls.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    let mut overlays = Overlays::default();
    for step in &trace.steps {
        if let Event::Module(module) = &step.event {
            overlays.add(module);
        }
    }
    if overlays.modules.is_empty() {
        return Err(Error::new("the trace has no 'module', which this scheme needs"));
    }
    let mut rows = overlays.ways();
    let is_drawn = rows.len();
    for step in &trace.steps {
        let Event::Call(name) = &step.event else { continue };
        let note = overlays.call(name);
        if rows.len() < is_drawn + MOST_ROWS {
            let pieces = overlays.pieces(overlays.here.values().copied());
            rows.push(MapRow { label: step.event.to_string(), pieces, note });
        }
    }
    let mut report = Report::new("overlays");
    let whole: u64 = overlays.modules.iter().map(|placed| placed.module.size).sum();
    report.bytes(Measure::Needed, overlays.needed());
    report.bytes(Measure::Whole, whole);
    report.count(Measure::Loads, overlays.loads);
    report.bytes(Measure::Loaded, overlays.loaded);
    for placed in &overlays.modules {
        let indent = "  ".repeat(placed.depth);
        let Placed { module, start, .. } = placed;
        report.notes.push(format!("{indent}{} {} at {}", module.name, Size(module.size), Size(*start)));
    }
    report.pictures.push(Picture::Map(Map { whole: overlays.needed(), rows }));
    Ok(Vec::from([report]))
}
