//! The list of schemes: what `lab NAME` plays, and the default trace of each.

use alloc::vec::Vec;

use crate::{Error, Report, Trace, dram, place, pressure, replace, translate};

/// A scheme, or several that are compared.
pub struct Scheme {
    /// Its name on the command line.
    pub name: &'static str,
    /// A one-line description.
    pub summary: &'static str,
    /// Suitable built-in traces; the first is the default.
    pub traces: &'static [&'static str],
    /// Plays a trace; returns a report for each variant.
    pub run: fn(&Trace) -> Result<Vec<Report>, Error>,
}

/// All schemes, in the usual order of a course.
pub const SCHEMES: &[Scheme] = &[
    Scheme {
        name: "fixed",
        summary: "fixed partitions, of equal size and of unequal",
        traces: &["t2", "t1", "t3"],
        run: place::fixed::run,
    },
    Scheme {
        name: "fits",
        summary: "dynamic partitions: first, next, best, worst and quick fit",
        traces: &["t1", "t3", "t4", "t5"],
        run: place::fits::run,
    },
    Scheme {
        name: "compact",
        summary: "compaction, with static and with dynamic relocation",
        traces: &["t6", "t3"],
        run: place::compact::run,
    },
    Scheme { name: "buddy", summary: "the buddy system", traces: &["t7", "t3", "t5"], run: place::buddy::run },
    Scheme {
        name: "overlays",
        summary: "overlays: a tree of modules in a few regions",
        traces: &["t8"],
        run: place::overlays::run,
    },
    Scheme { name: "swap", summary: "swapping of whole processes", traces: &["t9"], run: place::swap::run },
    Scheme { name: "paging", summary: "paging", traces: &["t10", "t5"], run: translate::paging::run },
    Scheme { name: "segments", summary: "segmentation", traces: &["t11"], run: translate::segments::run },
    Scheme { name: "segpaging", summary: "segmented paging", traces: &["t12"], run: translate::paging::run_segmented },
    Scheme { name: "tables", summary: "multi-level page tables", traces: &["t13"], run: translate::tables::run },
    Scheme {
        name: "tlb",
        summary: "the TLB, and the effective access time",
        traces: &["t14", "t18"],
        run: translate::tlb::run,
    },
    Scheme {
        name: "replace",
        summary: "page replacement: nine policies",
        traces: &["t15", "t16", "t17", "t20"],
        run: replace::run,
    },
    Scheme {
        name: "belady",
        summary: "page replacement with one frame, two, three and so on",
        traces: &["t16", "t15"],
        run: replace::belady::run,
    },
    Scheme {
        name: "workingset",
        summary: "the size of the working set",
        traces: &["t18"],
        run: replace::working_set::run,
    },
    Scheme {
        name: "pressure",
        summary: "page replacement when memory is a little too small",
        traces: &["t21", "t22", "t23", "t24", "t25", "t26", "t27"],
        run: pressure::run,
    },
    Scheme { name: "dram", summary: "banks and rows of DRAM", traces: &["t19"], run: dram::run },
];

impl Scheme {
    /// The scheme of this name.
    pub fn named(name: &str) -> Option<&'static Scheme> {
        SCHEMES.iter().find(|scheme| scheme.name == name)
    }
}
