//! The file of a program, wherever it is: in the boot archive, or in memory.

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::access::EXECUTE;
use quire_abi::names::op;
use quire_mm::fallible::{KArc, try_zeroed};

use super::process::Process;
use super::thread::current;
use crate::arch::mem;
use crate::archive::Node;
use crate::ipc::descriptor;
use crate::ipc::memory_file::MemoryFile;
use crate::names::Place;
use crate::names::inodes;
use crate::names::path::Path;
use crate::names::target::Found;
use crate::names::walk::{Request, ask_at, walk};
use crate::vm::Object;

/// See the module.
#[derive(Clone)]
pub enum Program {
    /// In the boot archive.
    Archive(&'static Node),
    /// In memory.
    Memory(KArc<MemoryFile>),
}

impl Program {
    /// The file that a process starts by this path: the errors of the path, and EACCES.
    pub fn find(path: &[u8]) -> Result<Self, Errno> {
        let of = |process: &KArc<Process>| Place::from_word(process.directory.get());
        let directory = current().process.as_ref().map_or(Place::ROOT, of);
        Self::of(Found::of(walk(directory, &mut Path::new(path)?, &Request::LOOKUP)?)?)
    }

    /// What was found, if it may be started at all: EACCES, and ELOOP for a symbolic link.
    pub fn of(found: Found) -> Result<Self, Errno> {
        let program = match found {
            Found::Archive(node) if node.is_link() => return Err(Errno::ELOOP),
            Found::Name(name) if name.is_link() => return Err(Errno::ELOOP),
            Found::Archive(node) if !node.is_dir() => Self::Archive(node),
            Found::File(file, _) => Self::Memory(file),
            Found::Name(name) if name.is_stored() => {
                // The permissions are its server's.
                let asked = Request { op: op::ACCESS, argument: EXECUTE.into(), ..Request::LOOKUP };
                ask_at(name.place, &asked, &mut [])?;
                return inodes::open(&name).map(Self::Memory);
            }
            _ => return Err(Errno::EACCES),
        };
        if program.may_execute() { Ok(program) } else { Err(Errno::EACCES) }
    }

    /// Whether the current process may execute it. (Root needs one of the three permissions; the archive's files are for all.)
    fn may_execute(&self) -> bool {
        match self {
            Self::Archive(node) => node.mode & 0o111 != 0,
            Self::Memory(file) => file.may_execute(&current().process().credentials.lock().clone()),
        }
    }

    /// Its bytes from `at` on; fewer at its end, or where they cannot be had. An error if that is the first one.
    pub fn read(&self, at: u64, to: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < to.len() {
            let rest = &mut to[done..];
            let (to, room) = (rest.as_mut_ptr(), rest.len());
            let copy = |from: *const u8, n: usize| {
                // SAFETY: the bytes may be read, and there is room for them.
                unsafe { mem::copy_shared(to, from, n) };
                n
            };
            let n = match self {
                Self::Archive(node) => {
                    let from = usize::try_from(at).ok().and_then(|at| node.data.get(at + done..)).unwrap_or(&[]);
                    let n = from.len().min(room);
                    copy(from.as_ptr(), n)
                }
                Self::Memory(file) => {
                    let at = at.saturating_add(done as u64);
                    match file.content.read(at, room, copy) {
                        // The page is not in memory.
                        Some(0) => match file.content.bring_in_at(at) {
                            Err(error) if done == 0 => return Err(error.into()),
                            Err(_) => 0,
                            Ok(_) => continue,
                        },
                        n => n.unwrap_or(0),
                    }
                }
            };
            if n == 0 {
                break;
            }
            done += n;
        }
        Ok(done)
    }

    /// `len` bytes of it from `at` on; `None` if it does not have them.
    pub fn part(&self, at: u64, len: usize) -> Result<Option<Vec<u8>>, Errno> {
        let mut bytes = try_zeroed(len)?;
        let is_there = self.read(at, &mut bytes)? == len;
        Ok(is_there.then_some(bytes))
    }

    /// Its length.
    pub fn len(&self) -> u64 {
        match self {
            Self::Archive(node) => node.data.len() as u64,
            Self::Memory(file) => file.content.len(),
        }
    }

    /// As what can be open.
    pub fn to_open(&self) -> descriptor::Object {
        match self {
            Self::Archive(node) => descriptor::Object::Archive(node),
            Self::Memory(file) => descriptor::Object::Memory(file.clone()),
        }
    }

    /// Its memory object.
    pub fn object(&self) -> Result<KArc<Object>, Errno> {
        match self {
            Self::Archive(node) => node.object(),
            Self::Memory(file) => Ok(file.content.clone()),
        }
    }
}
