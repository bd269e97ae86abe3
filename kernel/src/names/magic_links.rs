//! What processes hold: the destinations of links of /proc that are not followed by their text. Following such a link
//! leads to the object itself, whatever has become of its name.

use quire_abi::Errno;
use quire_abi::layout::mode;
use quire_abi::names::held;

use super::Place;
use super::mounts::ARCHIVE;
use super::target::Name;
use crate::archive;
use crate::ipc::descriptor::Object;
use crate::task::credentials::{permit_authority, permits_look};
use crate::task::process::TABLE;

/// What the process with this number holds: its `number`th descriptor, or one of the other objects. EACCES if the
/// caller may not inspect the process; also for a descriptor, unless it is only `named`, if the process has more
/// authority: the caller might act through the descriptor, for instance by the other end of a pipe, which pidfd_getfd
/// refuses too. ENOENT if the process no longer holds it, or has ended.
pub fn find(pid: u64, what: u64, number: u64, named: bool) -> Result<Object, Errno> {
    let pid = u32::try_from(pid).map_err(|_| Errno::EIO)?;
    let process = TABLE.lock().process(pid).cloned().ok_or(Errno::ENOENT)?;
    if !permits_look(&process) {
        return Err(Errno::EACCES);
    }
    match what {
        held::WORKING_DIRECTORY => at_place(Place::from_word(process.directory.get())),
        held::ROOT => at_place(Place::ROOT),
        held::PROGRAM => {
            let loaded = process.space.lock().as_ref().and_then(|space| space.loaded());
            loaded.map(|loaded| loaded.file).ok_or(Errno::ENOENT)
        }
        held::DESCRIPTOR => {
            if !named {
                permit_authority(&process).map_err(|why| if why == Errno::EPERM { Errno::EACCES } else { why })?;
            }
            let number = i32::try_from(number).map_err(|_| Errno::EIO)?;
            let table = process.descriptors().map_err(|_| Errno::ENOENT)?;
            let descriptor = table.get(number).map_err(|_| Errno::ENOENT)?;
            Ok(descriptor.file.object.clone())
        }
        _ => Err(Errno::EIO),
    }
}

/// A directory.
fn at_place(place: Place) -> Result<Object, Errno> {
    if place.mount == ARCHIVE {
        return archive::by_number(place.number() as u32).map(Object::Archive).ok_or(Errno::ENOENT);
    }
    Ok(Object::Name(Name { place, mode: mode::DIR | 0o755, file: None, trigger: None }))
}
