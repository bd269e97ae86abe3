//! The result of every scheme: figures, pictures and notes.
//!
//! A picture is data. [`crate::draw`] renders it as text, and the page of `cargo xtask lab` as SVG.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::units::{Ratio, Size};

/// The result of one variant of a scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The scheme and its variant: `first fit`.
    pub scheme: String,
    /// Figures, in display order.
    pub figures: Vec<(Measure, Value)>,
    /// Pictures.
    pub pictures: Vec<Picture>,
    /// Lines of text that supplement the pictures, such as translations of addresses.
    pub notes: Vec<String>,
}

impl Report {
    /// Creates an empty report.
    pub fn new(scheme: impl Into<String>) -> Report {
        Report { scheme: scheme.into(), figures: Vec::new(), pictures: Vec::new(), notes: Vec::new() }
    }

    /// Adds a figure.
    pub fn figure(&mut self, measure: Measure, value: Value) {
        self.figures.push((measure, value));
    }

    /// Adds a plain number.
    pub fn count(&mut self, measure: Measure, count: u64) {
        self.figure(measure, Value::Count(count));
    }

    /// Adds a size.
    pub fn bytes(&mut self, measure: Measure, bytes: u64) {
        self.figure(measure, Value::Bytes(bytes));
    }

    /// The value of a measure, if the report has it.
    pub fn value(&self, measure: Measure) -> Option<Value> {
        self.figures.iter().find(|(other, _)| *other == measure).map(|&(_, value)| value)
    }

    /// The value of a measure that is a count or a size; 0 if the report does not have it.
    pub fn get(&self, measure: Measure) -> u64 {
        match self.value(measure) {
            Some(Value::Count(number) | Value::Bytes(number)) => number,
            _ => 0,
        }
    }
}

/// The value of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A count.
    Count(u64),
    /// A size in bytes.
    Bytes(u64),
    /// An average or a percentage.
    Ratio(Ratio),
    /// A time, in the unit of its measure.
    Time(Ratio),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Count(count) => count.fmt(f),
            Value::Bytes(bytes) => Size(*bytes).fmt(f),
            Value::Ratio(ratio) | Value::Time(ratio) => ratio.fmt(f),
        }
    }
}

macro_rules! measures {
    ($($name:ident $heading:literal $meaning:literal;)*) => {
        /// A measure. `lab measures` lists them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Measure {
            $(#[doc = $meaning] $name,)*
        }

        impl Measure {
            /// All of them.
            pub const ALL: &'static [Measure] = &[$(Measure::$name),*];

            /// The heading of its column in a table.
            pub fn heading(self) -> &'static str {
                match self { $(Measure::$name => $heading,)* }
            }

            /// Its meaning.
            pub fn meaning(self) -> &'static str {
                match self { $(Measure::$name => $meaning,)* }
            }
        }
    };
}

measures! {
    Requests "asked" "requests for memory";
    Refused "refused" "requests that were refused";
    Waited "waited" "requests that had to wait for a partition";
    Searched "searched" "holes that were examined";
    Reused "reused" "requests that were satisfied from a free list of their size";
    Splits "splits" "splits of a block into two buddies";
    Merges "merges" "merges of two buddies into one block";
    Moves "moves" "blocks that were moved";
    Moved "moved" "bytes that were copied by moves";
    Internal "internal" "internal fragmentation at the end: allocated but unrequested memory";
    InternalPeak "int.peak" "the peak of internal fragmentation";
    External "external" "external fragmentation at the end: free memory outside the largest hole";
    Holes "holes" "holes at the end";
    Largest "largest" "the size of the largest hole at the end";
    Free "free" "free memory at the end";
    TableBytes "tables" "memory used by page tables";
    FlatBytes "flat" "the size of a single-level page table";
    Accesses "accesses" "accesses to addresses";
    Traps "traps" "accesses that trapped: beyond a limit, or not mapped";
    References "refs" "references to pages";
    Faults "faults" "references to pages that were not in memory";
    Anomalies "anomalies" "numbers of frames that cause more faults than one frame less";
    WriteBacks "writes" "dirty pages that were written back";
    FaultRate "fault %" "faults per hundred references";
    Hits "hits" "accesses that found the translation in the TLB, or the row open";
    Misses "misses" "accesses that did not find the translation in the TLB";
    HitRate "hit %" "hits per hundred accesses";
    Walks "walk" "accesses to memory by page table walks";
    AverageTime "ns each" "the average time of an access in nanoseconds: the effective access time";
    MeanSet "mean set" "the average size of the working set, in pages";
    LargestSet "max set" "the maximum size of the working set, in pages";
    Conflicts "conflicts" "accesses to a bank with another row open";
    Opened "opened" "accesses to a bank with no row open";
    Looks "looks/f" "access flags that were looked at, per fault";
    Swaps "swaps" "transfers of processes to the disk or from it";
    SwapTime "ms swap" "the total time of the transfers, in milliseconds";
    Loads "loads" "loads of modules";
    Loaded "loaded" "bytes that were loaded";
    Needed "needed" "the memory that the program needs with overlays";
    Whole "whole" "the memory that the program needs without overlays";
}

/// A picture of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picture {
    /// Memory after each step.
    Map(Map),
    /// Cells: rows are frames or banks, columns are moments.
    Grid(Grid),
    /// Curves.
    Chart(Chart),
}

/// Memory at several moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// The size of memory.
    pub whole: u64,
    /// The moments, in order.
    pub rows: Vec<MapRow>,
}

/// Memory at one moment. The pieces cover it without gaps, sorted by address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapRow {
    /// The event.
    pub label: String,
    /// The pieces of memory after the event.
    pub pieces: Vec<Piece>,
    /// A note about the outcome; may be empty.
    pub note: String,
}

/// A piece of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its address.
    pub start: u64,
    /// Its size.
    pub size: u64,
    /// Its kind.
    pub kind: Kind,
}

/// The kind of a piece of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A hole.
    Free,
    /// Free, but kept on a list for requests of exactly this size.
    Kept,
    /// In use.
    Used {
        /// The owner.
        name: String,
        /// Internal fragmentation: unrequested bytes at its end.
        wasted: u64,
    },
}

/// Rows of cells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    /// The meaning of a row: `frame`, `bank`.
    pub of: &'static str,
    /// The headings of the columns.
    pub columns: Vec<String>,
    /// The name and the cells of each row; a cell for each column.
    pub rows: Vec<(String, Vec<Cell>)>,
    /// The columns with a mark below.
    pub marks: Vec<bool>,
    /// The meaning of a mark.
    pub mark: &'static str,
    /// Whether the content of a cell lasts until it is replaced, so that equal neighbours show the same thing.
    pub is_lasting: bool,
    /// The number of omitted columns.
    pub left_out: usize,
}

/// A cell of a grid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// The text.
    pub text: String,
    /// The appearance.
    pub look: Look,
}

/// The appearance of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// No event.
    #[default]
    Plain,
    /// A hit.
    Hit,
    /// New content in an empty place.
    Filled,
    /// New content that replaces other content.
    Replaced,
}

/// Curves over whole numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chart {
    /// The meaning of x.
    pub x: &'static str,
    /// The meaning of y.
    pub y: &'static str,
    /// The name of each curve, and its points sorted by x.
    pub lines: Vec<(String, Vec<(u64, u64)>)>,
}

impl Chart {
    /// The largest y.
    pub fn highest(&self) -> u64 {
        self.lines.iter().flat_map(|(_, points)| points.iter().map(|&(_, y)| y)).max().unwrap_or(0)
    }

    /// The smallest and the largest x.
    pub fn span(&self) -> (u64, u64) {
        let all = || self.lines.iter().flat_map(|(_, points)| points.iter().map(|&(x, _)| x));
        (all().min().unwrap_or(0), all().max().unwrap_or(0))
    }
}
