//! What is wrong with a trace or a command line.

use alloc::string::String;
use core::fmt;

/// Why there is no report: what is wrong, and in which line of the trace if it is one line's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The line, counted from 1.
    pub line: Option<usize>,
    /// What is wrong with which value, and what to do.
    pub what: String,
}

impl Error {
    /// Something that is no single line's fault.
    pub fn new(what: impl Into<String>) -> Error {
        Error { line: None, what: what.into() }
    }

    /// Something wrong in this line.
    pub fn at(line: usize, what: impl Into<String>) -> Error {
        Error { line: Some(line), what: what.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl core::error::Error for Error {}
