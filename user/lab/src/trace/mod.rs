//! A trace: what happens, in order.
//!
//! A trace is a small text file. What follows `#` is a comment; the first comment is its title. A line is a statement:
//!
//! ```text
//! # what stands here is the title
//! memory 1M                     a setting: see `Setting`
//! alloc A 212K                  A asks for 212 KiB (a process, a segment, a block)
//! alloc B 4K at 600K            at an address, where a scheme allows that
//! alloc C 16 in 5 6 1 2         in these frames, for paging
//! free A                        A's memory comes back
//! run A                         A gets the processor, for swapping
//! access A:430 A:0x10w          addresses within A; w is a store
//! access 0-64K/64               addresses alone: each 64th from 0 to before 64K
//! ref 7 0 1w 2-5                references to pages
//! module pass1 70K under root   a module of a program, for overlays
//! call pass1                    it is called
//! repeat 10 ref 0-3             a statement ten times
//! ```
//!
//! Sizes may end in K, M, G or T and times in ns, us, ms or s. A scheme looks at the statements that it knows what to do
//! with. Settings hold for the whole trace wherever they stand, and the command line may change them.

pub mod builtin;
mod parse;
mod settings;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::Error;
use crate::units::Size;
pub use settings::{Setting, Settings};

/// The most events that a trace may have, repetitions counted.
pub const MOST_EVENTS: usize = 10_000;

/// A trace that makes sense: what is freed was allocated, what is called is a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The first comment.
    pub title: String,
    /// Sizes, times and numbers that hold for all of it.
    pub settings: Settings,
    /// What happens.
    pub steps: Vec<Step>,
}

/// An event, and the line that it stands in.
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
    /// Somebody asks for memory.
    Alloc(Request),
    /// Somebody gives it back.
    Free(String),
    /// Somebody gets the processor.
    Run(String),
    /// An access to an address.
    Access(Access),
    /// A reference to a page.
    Refer(Reference),
    /// A module of a program that is loaded in parts.
    Module(Module),
    /// A module is called.
    Call(String),
}

/// A request for memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub name: String,
    /// For how many bytes, at least 1.
    pub size: u64,
    /// The address that it must have.
    pub at: Option<u64>,
    /// The frames that it must have.
    pub frames: Vec<u64>,
}

/// An access to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// In whose memory, or in which segment; the address is a machine's if nobody is named.
    pub space: Option<String>,
    /// The address there.
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
    /// The module that calls it and must be in memory with it.
    pub parent: Option<String>,
}

impl Trace {
    /// Reads a trace.
    pub fn parse(text: &str) -> Result<Trace, Error> {
        parse::parse(text)
    }

    /// References to pages: those that are named, and those of accesses to addresses.
    pub fn references(&self) -> Result<Vec<Reference>, Error> {
        let page = self.settings.page();
        let references = self.steps.iter().filter_map(|step| match &step.event {
            Event::Refer(reference) => Some(*reference),
            Event::Access(access) => Some(Reference { page: access.address / page, write: access.write }),
            _ => None,
        });
        some(references.collect(), "ref")
    }

    /// Accesses to addresses.
    pub fn accesses(&self) -> Result<Vec<&Access>, Error> {
        let accesses = self.steps.iter().filter_map(|step| match &step.event {
            Event::Access(access) => Some(access),
            _ => None,
        });
        some(accesses.collect(), "access")
    }
}

/// What was found, unless it is nothing.
fn some<T>(found: Vec<T>, statement: &str) -> Result<Vec<T>, Error> {
    match found.is_empty() {
        true => Err(Error::new(format!("the trace has no '{statement}' for this scheme to work on"))),
        false => Ok(found),
    }
}

/// How a picture's row is called.
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
        }
    }
}
