//! The steps of a random program and their results, as lines that a program on a real machine can repeat
//! (user/tests/src/bin/replay.rs): numbers in hexadecimal, memory in pages, the outcome behind `=`. Where the kernel
//! chose an address, the line requests that address. brk becomes mmap and munmap, since a script cannot choose the
//! address of a real heap.

use std::format;
use std::string::String;
use std::vec::Vec;

use quire_abi::Errno;
use quire_abi::flags::{Map, Mremap, Prot};

use crate::mm::{Access, FaultError};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trace {
    lines: Vec<String>,
}

fn outcome(done: Result<usize, Errno>) -> String {
    match done {
        Ok(value) => format!("{value:x}"),
        Err(errno) => format!("!{}", errno.get()),
    }
}

impl Trace {
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    fn line(&mut self, call: &str, slot: usize, args: &[usize], outcome: &str) {
        let args: String = args.iter().map(|arg| format!(" {arg:x}")).collect();
        self.lines.push(format!("{call} {slot}{args} = {outcome}"));
    }

    /// A process comes into being from nothing.
    pub fn process(&mut self, slot: usize) {
        self.line("process", slot, &[], "0");
    }

    /// A call that returns 0 or an error.
    pub fn call(&mut self, call: &str, slot: usize, args: &[usize], done: Result<(), Errno>) {
        self.line(call, slot, args, &outcome(done.map(|()| 0)));
    }

    pub fn map(
        &mut self,
        slot: usize,
        (at, len): (usize, usize),
        prot: Prot,
        flags: Map,
        file: Option<(usize, usize)>,
        done: Result<usize, Errno>,
    ) {
        let exact = if flags.contains(Map::FIXED) { Map::FIXED } else { Map::FIXED_NOREPLACE };
        let (at, flags) = done.map_or((at, flags), |at| (at, flags | exact));
        let (number, index) = file.map_or((0, 0), |(file, index)| (file + 1, index));
        let args = [at, len, prot.bits() as usize, flags.bits() as usize, number, index];
        self.line("map", slot, &args, &outcome(done));
    }

    pub fn brk(&mut self, slot: usize, old: usize, new: usize) {
        if new > old {
            let flags = Map::PRIVATE | Map::ANONYMOUS;
            self.map(slot, (old, new - old), Prot::READ | Prot::WRITE, flags, None, Ok(old));
        } else if new < old {
            self.call("unmap", slot, &[new, old - new], Ok(()));
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub fn remap(
        &mut self,
        slot: usize,
        at: usize,
        old: usize,
        new: usize,
        flags: Mremap,
        to: usize,
        done: Result<usize, Errno>,
    ) {
        let moved = done.ok().filter(|there| *there != at);
        let flags = if moved.is_some() { flags | Mremap::FIXED } else { flags };
        let args = [at, old, new, flags.bits() as usize, moved.unwrap_or(to)];
        self.line("remap", slot, &args, &outcome(done));
    }

    pub fn touch(
        &mut self,
        slot: usize,
        cpu: usize,
        page: usize,
        access: Access,
        value: u64,
        seen: Result<u64, FaultError>,
    ) {
        let outcome = match seen {
            Ok(word) => format!("{word:x}"),
            Err(FaultError::Unmapped) => "!maperr".into(),
            Err(FaultError::Protection) => "!accerr".into(),
            Err(FaultError::BeyondObject) => "!adrerr".into(),
            Err(FaultError::OutOfMemory) => return,
        };
        match access {
            Access::Read => self.line("read", slot, &[cpu, page], &outcome),
            Access::Write => self.line("write", slot, &[cpu, page, value as usize], &outcome),
            // What the pages hold is no program.
            Access::Exec => {}
        }
    }
}
