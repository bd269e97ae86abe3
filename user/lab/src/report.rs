//! What every scheme answers: figures, pictures and notes.
//!
//! A picture is data, not ink: [`crate::draw`] makes text of it, and the host's page makes a drawing of the same data.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::units::{Ratio, Size};

/// What one scheme made of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The scheme and its variant: `first fit`.
    pub scheme: String,
    /// Figures, in the order in which they are shown.
    pub figures: Vec<(Measure, Value)>,
    /// Pictures.
    pub pictures: Vec<Picture>,
    /// What a picture does not show, such as how an address was translated; a line each.
    pub notes: Vec<String>,
}

impl Report {
    /// A report without anything in it.
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

    /// A figure, if the scheme has it.
    pub fn value(&self, measure: Measure) -> Option<Value> {
        self.figures.iter().find(|(other, _)| *other == measure).map(|&(_, value)| value)
    }

    /// A figure that is a number or a size; 0 if the scheme does not have it.
    pub fn get(&self, measure: Measure) -> u64 {
        match self.value(measure) {
            Some(Value::Count(number) | Value::Bytes(number)) => number,
            _ => 0,
        }
    }
}

/// A figure's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// So many.
    Count(u64),
    /// Bytes.
    Bytes(u64),
    /// An average, or a part of a hundred.
    Ratio(Ratio),
    /// Nanoseconds, perhaps an average.
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
        /// What is measured. The name is a table's heading; the meaning is what `lab measures` says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Measure {
            $(#[doc = $meaning] $name,)*
        }

        impl Measure {
            /// All of them.
            pub const ALL: &'static [Measure] = &[$(Measure::$name),*];

            /// The heading of its column.
            pub fn heading(self) -> &'static str {
                match self { $(Measure::$name => $heading,)* }
            }

            /// What it means.
            pub fn meaning(self) -> &'static str {
                match self { $(Measure::$name => $meaning,)* }
            }
        }
    };
}

measures! {
    Requests "asked" "requests for memory";
    Refused "refused" "requests that were not met: no place was large enough, or none was free";
    Waited "waited" "requests that had to wait for a partition";
    Searched "searched" "holes that were looked at to find a place";
    Reused "reused" "requests that a list of freed blocks of the same size met at once";
    Splits "splits" "blocks that were halved";
    Merges "merges" "pairs of buddies that became one block again";
    Moves "moves" "blocks that were moved to another address";
    Moved "moved" "bytes that were copied by moves";
    Internal "internal" "internal fragmentation at the end: memory that was handed out and that nobody asked for";
    InternalPeak "int.peak" "the most internal fragmentation there was at one time";
    External "external" "external fragmentation at the end: free memory outside the largest hole";
    Holes "holes" "holes at the end";
    Largest "largest" "the largest hole at the end";
    Free "free" "free memory at the end";
    TableBytes "tables" "memory that page tables take";
    FlatBytes "flat" "memory that one table of a single level would take";
    Accesses "accesses" "accesses to addresses";
    Traps "traps" "accesses that the hardware refused: beyond a limit, or to what is not there";
    References "refs" "references to pages";
    Faults "faults" "references to pages that were not in memory";
    Anomalies "anomalies" "numbers of frames with which there are more faults than with one frame less";
    WriteBacks "writes" "pages that were written back because they had changed";
    FaultRate "fault %" "faults in a hundred references";
    Hits "hits" "accesses that found what they needed in the fast place";
    Misses "misses" "accesses that did not";
    HitRate "hit %" "hits in a hundred";
    Walks "walk" "accesses to memory that walks of the page tables took";
    AverageTime "ns each" "average time of an access, in nanoseconds: the effective access time";
    MeanSet "mean set" "average number of pages in the working set";
    LargestSet "max set" "largest number of pages in the working set";
    Conflicts "conflicts" "accesses to a bank that had another row open";
    Opened "opened" "accesses to a bank that had no row open";
    Swaps "swaps" "processes that were written to the disk or read from it";
    SwapTime "ms swap" "time that the disk took for swaps, in milliseconds";
    Loads "loads" "modules that were loaded";
    Loaded "loaded" "bytes that were loaded";
    Needed "needed" "memory that the program needs";
    Whole "whole" "memory that the program would need without overlays";
}

/// What a report shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picture {
    /// Memory, once for each step.
    Map(Map),
    /// A cell for each place and moment: frames or banks down, time across.
    Grid(Grid),
    /// Lines over a scale.
    Chart(Chart),
}

/// Memory from its first byte to its last, in several moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// The size of memory.
    pub whole: u64,
    /// Moments, each below the one before.
    pub rows: Vec<MapRow>,
}

/// Memory in one moment. The pieces cover it without gaps, in order of address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapRow {
    /// What has just happened.
    pub label: String,
    /// What memory consists of.
    pub pieces: Vec<Piece>,
    /// What came of it, if that is not seen.
    pub note: String,
}

/// A piece of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its address.
    pub start: u64,
    /// Its size.
    pub size: u64,
    /// What it is.
    pub kind: Kind,
}

/// What a piece of memory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A hole.
    Free,
    /// Free, and kept on a list for requests of exactly this size.
    Kept,
    /// Somebody's; so many bytes at its end were not asked for.
    Used {
        /// Whose.
        name: String,
        /// The internal fragmentation in it.
        wasted: u64,
    },
}

/// Rows of cells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    /// What the rows are: `frame`, `bank`.
    pub of: &'static str,
    /// What stands above each column.
    pub columns: Vec<String>,
    /// A name for each row, and its cells, as many as columns.
    pub rows: Vec<(String, Vec<Cell>)>,
    /// What stands below each column: a mark where something of note happened.
    pub marks: Vec<bool>,
    /// What a mark means.
    pub mark: &'static str,
    /// Whether what stands in a cell stays until something else comes, so that equal neighbours are one thing.
    pub is_lasting: bool,
    /// Columns that there were beyond those that are here.
    pub left_out: usize,
}

/// A cell of a grid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// What stands in it.
    pub text: String,
    /// How it is shown.
    pub look: Look,
}

/// How a cell is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// Nothing of note.
    #[default]
    Plain,
    /// What was needed was there.
    Hit,
    /// Something came into an empty place.
    Filled,
    /// Something came into the place of something else.
    Replaced,
}

/// Lines over a scale of whole numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chart {
    /// What is across.
    pub x: &'static str,
    /// What is up.
    pub y: &'static str,
    /// A name for each line, and its points in order of x.
    pub lines: Vec<(String, Vec<(u64, u64)>)>,
}

impl Chart {
    /// The largest y there is.
    pub fn highest(&self) -> u64 {
        self.lines.iter().flat_map(|(_, points)| points.iter().map(|&(_, y)| y)).max().unwrap_or(0)
    }

    /// The least and the largest x there are.
    pub fn span(&self) -> (u64, u64) {
        let all = || self.lines.iter().flat_map(|(_, points)| points.iter().map(|&(x, _)| x));
        (all().min().unwrap_or(0), all().max().unwrap_or(0))
    }
}
