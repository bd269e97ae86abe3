//! Advice about files' bytes, which are in memory already: the arguments are checked, and there is nothing else to do.

use quire_abi::Errno;

use super::file::table;
use super::{Answer, Args};
use crate::ipc::descriptor::{Object, Rights};

pub fn fadvise(a: Args) -> Answer {
    const LAST: u32 = 5;
    let descriptor = table()?.get(a.int(0))?;
    if descriptor.rights.is_empty() {
        return Err(Errno::EBADF);
    }
    if let Object::Pipe(..) = descriptor.file.object {
        return Err(Errno::ESPIPE);
    }
    if (a.0[2] as i64) < 0 || a.uint(3) > LAST { Err(Errno::EINVAL) } else { Ok(0) }
}

pub fn readahead(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file_for(Rights::READ)?;
    match &file.object {
        Object::Archive(node) if !node.is_dir() => Ok(0),
        Object::Memory(_) => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}
