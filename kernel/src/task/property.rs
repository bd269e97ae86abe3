//! The properties of a program (PT_GNU_PROPERTY): a note that says which features of the CPU its code keeps to.
//!
//! Quire turns none of them on. It refuses what Linux refuses (fs/binfmt_elf.c of 6.12): a note that is longer than 1 KiB, is
//! of another kind, or whose properties are cut, out of order or of another size than their type has.

use elf::abi::PT_GNU_PROPERTY;
use elf::segment::ProgramHeader;
use quire_abi::Errno;

use super::program::Program;

/// The longest note that is read.
const MAX_NOTE: u64 = 1024;

/// The head of a note: the lengths of its name and of what it holds, its type, and the name that such a note has.
const HEAD: usize = 16;
const NT_GNU_PROPERTY_TYPE_0: u32 = 5;
const NAME: &[u8; 4] = b"GNU\0";

/// The type and the size in front of a property; properties begin at multiples of as many bytes.
const PROPERTY_HEAD: usize = 8;

/// Branch targets and signed return addresses, in four bytes.
const AARCH64_FEATURE_1_AND: u32 = 0xc000_0000;

/// Checks the properties among the segments of a program, the last ones if there are more. ENOEXEC if they are malformed,
/// EIO if the file does not have them.
pub fn check(program: &Program, segments: impl Iterator<Item = ProgramHeader>) -> Result<(), Errno> {
    let Some(segment) = segments.filter(|segment| segment.p_type == PT_GNU_PROPERTY).last() else { return Ok(()) };
    if segment.p_filesz > MAX_NOTE {
        return Err(Errno::ENOEXEC);
    }
    let mut note = [0; MAX_NOTE as usize];
    let note = &mut note[..segment.p_filesz as usize];
    let len = program.read(segment.p_offset, note)?;
    if len < HEAD {
        return Err(Errno::EIO);
    }
    if properties(&note[..len]).is_some_and(are_fine) { Ok(()) } else { Err(Errno::ENOEXEC) }
}

/// What a note of properties holds.
fn properties(note: &[u8]) -> Option<&[u8]> {
    let (name_len, len, kind) = (word(note, 0)? as usize, word(note, 4)? as usize, word(note, 8)?);
    if kind != NT_GNU_PROPERTY_TYPE_0 || name_len != NAME.len() || note.get(12..HEAD)? != NAME {
        return None;
    }
    note.get(HEAD..)?.get(..len)
}

fn are_fine(mut rest: &[u8]) -> bool {
    let mut last = None;
    while !rest.is_empty() {
        let (Some(kind), Some(size)) = (word(rest, 0), word(rest, 4)) else { return false };
        let is_sorted = last.is_none_or(|last| last < kind);
        if !is_sorted || kind == AARCH64_FEATURE_1_AND && size != 4 {
            return false;
        }
        let Some(next) = rest.get(PROPERTY_HEAD + (size as usize).next_multiple_of(PROPERTY_HEAD)..) else {
            return false;
        };
        (last, rest) = (Some(kind), next);
    }
    true
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}
