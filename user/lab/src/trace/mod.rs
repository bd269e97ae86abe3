//! A trace: events in order, and settings.
//!
//! A trace is a small text file. `#` starts a comment; the first comment is the title. Each line is a statement:
//!
//! ```text
//! # the title
//! memory 1M                     a setting: see `Setting`
//! alloc A 212K                  A asks for 212 KiB (a process, a segment, a block)
//! alloc B 4K at 600K            at an address, where a scheme allows that
//! alloc C 16 in 5 6 1 2         in these frames, for paging
//! free A                        A frees its memory
//! run A                         A gets the processor, for swapping
//! access A:430 A:0x10w          addresses within A; w means a store
//! access 0-64K/64               machine addresses: every 64th below 64K
//! ref 7 0 1w 2-5                references to pages
//! module pass1 70K under root   a module of a program, for overlays
//! call pass1                    a call of the module
//! repeat 10 ref 0-3             the statement ten times
//! pattern sweep                 a pattern of references: see `Pattern`
//! ```
//!
//! Sizes may end in K, M, G or T; times end in ns, us, ms or s. Each scheme uses the statements that concern it. A
//! setting applies to the whole trace wherever it stands, and the command line can override it.

pub mod builtin;
mod parse;
pub mod pattern;
mod settings;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::Error;
use crate::units::Size;
use pattern::Pattern;
pub use settings::{Setting, Settings};

/// The maximum number of events in a trace, including repetitions.
pub const MOST_EVENTS: usize = 10_000;

/// A valid trace: only allocated names are freed, and only modules are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The first comment.
    pub title: String,
    /// The settings, which apply to the whole trace.
    pub settings: Settings,
    /// What happens.
    pub steps: Vec<Step>,
}

/// An event and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The line, counted from 1.
    pub line: usize,
    /// What happens.
    pub event: Event,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request for memory.
    Alloc(Request),
    /// Memory is freed.
    Free(String),
    /// A process gets the processor.
    Run(String),
    /// An access to an address.
    Access(Access),
    /// A reference to a page.
    Refer(Reference),
    /// A module of a program with overlays.
    Module(Module),
    /// A module is called.
    Call(String),
    /// A pattern of references.
    Pattern(Pattern),
}

/// A request for memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The name of the process, segment or block.
    pub name: String,
    /// The size in bytes, at least 1.
    pub size: u64,
    /// The required address, if any.
    pub at: Option<u64>,
    /// The required frames, if any.
    pub frames: Vec<u64>,
}

/// An access to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The process or segment; without one, the address is a machine address.
    pub space: Option<String>,
    /// The address within it.
    pub address: u64,
    /// Whether it is a store.
    pub write: bool,
}

/// A reference to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The page's number.
    pub page: u64,
    /// Whether it is a store.
    pub write: bool,
}

/// A module of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Its size.
    pub size: u64,
    /// The module that calls it and must be in memory together with it.
    pub parent: Option<String>,
}

impl Trace {
    /// Reads a trace.
    pub fn parse(text: &str) -> Result<Trace, Error> {
        parse::parse(text)
    }

    /// All references to pages: `ref` statements, and the pages of `access` statements.
    pub fn references(&self) -> Result<Vec<Reference>, Error> {
        let page = self.settings.page();
        let references = self.steps.iter().filter_map(|step| match &step.event {
            Event::Refer(reference) => Some(*reference),
            Event::Access(access) => Some(Reference { page: access.address / page, write: access.write }),
            _ => None,
        });
        some(references.collect(), "ref")
    }

    /// The pattern of references.
    pub fn pattern(&self) -> Result<Pattern, Error> {
        let patterns = self.steps.iter().filter_map(|step| match step.event {
            Event::Pattern(pattern) => Some(pattern),
            _ => None,
        });
        Ok(some(patterns.collect(), "pattern")?[0])
    }

    /// All accesses to addresses.
    pub fn accesses(&self) -> Result<Vec<&Access>, Error> {
        let accesses = self.steps.iter().filter_map(|step| match &step.event {
            Event::Access(access) => Some(access),
            _ => None,
        });
        some(accesses.collect(), "access")
    }
}

/// The list, or an error if it is empty.
fn some<T>(found: Vec<T>, statement: &str) -> Result<Vec<T>, Error> {
    match found.is_empty() {
        true => Err(Error::new(format!("the trace has no '{statement}', which this scheme needs"))),
        false => Ok(found),
    }
}

/// The label of a picture's row.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Alloc(request) => write!(f, "+{} {}", request.name, Size(request.size)),
            Event::Free(name) => write!(f, "-{name}"),
            Event::Run(name) => write!(f, "run {name}"),
            Event::Access(Access { space, address, .. }) => match space {
                Some(space) => write!(f, "{space}:{address}"),
                None => write!(f, "{address}"),
            },
            Event::Refer(reference) => write!(f, "{}", reference.page),
            Event::Module(module) => write!(f, "module {} {}", module.name, Size(module.size)),
            Event::Call(name) => write!(f, "call {name}"),
            Event::Pattern(pattern) => write!(f, "pattern {}", pattern.name()),
        }
    }
}
