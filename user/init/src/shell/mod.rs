//! The shell: runs what [`quire_shell`] parses.

mod builtin;
mod children;
mod interact;
mod launch;
mod run;

use alloc::collections::BTreeMap;
use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;

use children::Children;
pub use launch::no_input;
use quire_rt::{env, eprintln, fs, process};
use quire_shell::expand::Context;
use quire_shell::glob::Directories;
use quire_shell::parse;

use crate::limits::Limited;

/// The search path if `PATH` is not set.
const PATH: &[u8] = b"/bin:/tests";

/// Where commands come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A terminal: pipelines are groups of their own, so that Ctrl-C ends them and not the shell.
    Interactive,
    /// A text: everything stays in the shell's group.
    Text,
}

struct Variable {
    value: Vec<u8>,
    exported: bool,
}

/// A shell's state.
pub struct Shell {
    mode: Mode,
    variables: BTreeMap<Vec<u8>, Variable>,
    children: Children,
    /// Where its programs are.
    limited: Option<Limited>,
    /// `$?`
    status: i32,
    /// `$!`
    last_background: Option<i32>,
    /// `exit` was called with this status.
    exit: Option<i32>,
}

impl Shell {
    /// A shell with the environment that this process was given, in a process that takes the shell's name.
    pub fn new(mode: Mode) -> Shell {
        process::set_name(c"sh");
        let mut variables = BTreeMap::new();
        for entry in env() {
            let entry = entry.to_bytes();
            if let Some(at) = entry.iter().position(|byte| *byte == b'=') {
                let variable = Variable { value: entry[at + 1..].to_vec(), exported: true };
                variables.insert(entry[..at].to_vec(), variable);
            }
        }
        let path = Variable { value: PATH.to_vec(), exported: true };
        variables.entry(b"PATH".to_vec()).or_insert(path);
        let children = Children::default();
        Shell { mode, variables, children, limited: None, status: 0, last_background: None, exit: None }
    }

    /// Runs commands and returns the last one's status, which is also the shell's.
    pub fn run_text(&mut self, text: &[u8]) -> i32 {
        match parse::parse(text) {
            Ok(list) => self.run_list(&list),
            Err(error) => {
                eprintln!("sh: {error}");
                self.status = 2;
            }
        }
        self.exit.unwrap_or(self.status)
    }

    fn set(&mut self, name: &[u8], value: Vec<u8>) {
        match self.variables.get_mut(name) {
            Some(variable) => variable.value = value,
            None => {
                self.variables.insert(name.to_vec(), Variable { value, exported: false });
            }
        }
    }

    /// The environment for a program, `extra` set for it alone.
    fn environment(&self, extra: &[(Vec<u8>, Vec<u8>)]) -> Vec<CString> {
        let own = self
            .variables
            .iter()
            .filter(|(name, variable)| variable.exported && !extra.iter().any(|(other, _)| other == *name))
            .map(|(name, variable)| (name, &variable.value));
        own.chain(extra.iter().map(|(name, value)| (name, value)))
            .filter_map(|(name, value)| CString::new([name, &b"="[..], value].concat()).ok())
            .collect()
    }
}

impl Context for Shell {
    fn variable(&self, name: &[u8]) -> Option<Vec<u8>> {
        match name {
            b"?" => Some(format!("{}", self.status).into_bytes()),
            b"$" => Some(format!("{}", process::getpid()).into_bytes()),
            b"!" => self.last_background.map(|pid| format!("{pid}").into_bytes()),
            name => self.variables.get(name).map(|variable| variable.value.clone()),
        }
    }
}

impl Directories for Shell {
    fn names(&self, directory: &[u8]) -> Vec<Vec<u8>> {
        let directory = if directory.is_empty() { b"." } else { directory };
        CString::new(directory)
            .ok()
            .and_then(|path| fs::read_dir(&path).ok())
            .unwrap_or_default()
            .into_iter()
            .map(|entry| entry.name)
            .collect()
    }

    fn exists(&self, path: &[u8]) -> bool {
        CString::new(path).is_ok_and(|path| fs::stat(&path, 0).is_ok())
    }
}
