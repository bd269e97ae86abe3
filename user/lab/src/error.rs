//! What is wrong with a trace or a command line.

use alloc::string::String;
use core::fmt;

/// The reason why there is no report, and the line of the trace if a single line is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The line, counted from 1.
    pub line: Option<usize>,
    /// What is wrong, with which value, and what to do.
    pub what: String,
}

impl Error {
    /// An error that does not belong to a single line.
    pub fn new(what: impl Into<String>) -> Error {
        Error { line: None, what: what.into() }
    }

    /// An error in this line.
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
