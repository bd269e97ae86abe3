//! Handles: the rights that the program was given in addition to files, and those that it passes on.
//!
//! A program finds the handles that its starter granted in its auxiliary vector. They are passed to a child or to the
//! next program only if this program grants them in turn, with the rights that it names. For the programs of the
//! archive, the text file [`GRANTS`] lists them.

use core::ffi::CStr;

use quire_abi::flags::{Control, Open};
use quire_abi::layout::{HandleInfo, at};
use quire_abi::{Errno, nr};

use crate::start::auxv;
use crate::{fs, sys};

/// The file that lists the rights of machine control of each program.
pub const GRANTS: &CStr = c"/etc/grants";

/// The handles that the program was started with.
pub fn all() -> &'static [HandleInfo] {
    match (auxv(at::HANDLES), auxv(at::HANDLE_COUNT)) {
        // SAFETY: the kernel put that many records there, above the vectors, and nothing here writes to them.
        (Some(list), Some(count)) if count > 0 => unsafe {
            core::slice::from_raw_parts(list as *const HandleInfo, count as usize)
        },
        _ => &[],
    }
}

fn machine() -> Option<&'static HandleInfo> {
    all().iter().find(|handle| handle.kind == HandleInfo::MACHINE)
}

/// The number of the program's handle of machine control; 0, which is not a valid handle, if it has none.
pub fn control() -> u32 {
    machine().map_or(0, |handle| handle.number)
}

/// Grants machine control to children and the next program, with those of `rights` that this program has.
pub fn grant(rights: Control) -> Result<(), Errno> {
    match machine() {
        Some(handle) => sys::plain!(nr::QUIRE_GRANT, handle.number, handle.rights & rights.bits()).map(drop),
        None => Ok(()),
    }
}

/// Grants what [`GRANTS`] lists for the program at `path`: nothing if there is no file, or no line for the program.
pub fn grant_to(path: &[u8]) -> Result<(), Errno> {
    if machine().is_none() {
        return Ok(());
    }
    let text = fs::File::open(GRANTS, Open::empty()).and_then(|file| file.read_to_end()).unwrap_or_default();
    grant(rights_of(&text, path))
}

/// The rights that the text of [`GRANTS`] lists for a path. A line is a path and words; `#` begins a comment. An
/// unknown word grants nothing.
fn rights_of(text: &[u8], path: &[u8]) -> Control {
    let lines = text.split(|&b| b == b'\n').map(|line| line.split(|&b| b == b'#').next().unwrap_or(line));
    for line in lines {
        let mut words = line.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
        if words.next() == Some(path) {
            return words.map(right).fold(Control::empty(), Control::union);
        }
    }
    Control::empty()
}

fn right(word: &[u8]) -> Control {
    match word {
        b"power" => Control::POWER,
        b"settings" => Control::SETTINGS,
        b"audit" => Control::AUDIT,
        b"contiguous" => Control::CONTIGUOUS,
        b"oom" => Control::OOM,
        b"inject" => Control::INJECT,
        b"processes" => Control::PROCESSES,
        b"mount" => Control::MOUNT,
        b"devices" => Control::DEVICES,
        b"groups" => Control::GROUPS,
        _ => Control::empty(),
    }
}
