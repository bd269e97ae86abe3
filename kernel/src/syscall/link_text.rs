//! The text of a link in /proc to an open object, as on Linux: its path, or a word if it has none.

use core::fmt::{self, Write};

use quire_abi::Errno;

use super::lookup::path_of;
use crate::archive;
use crate::ipc::descriptor::Object;
use crate::ipc::memory_file::MemoryFile;
use crate::names::{Place, mounts};

/// A text in a buffer.
struct Text<'a> {
    to: &'a mut [u8],
    len: usize,
}

impl Text<'_> {
    fn put(&mut self, bytes: &[u8]) -> fmt::Result {
        let to = self.to.get_mut(self.len..self.len + bytes.len()).ok_or(fmt::Error)?;
        to.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    /// Writes the path of a place, without its NUL.
    fn put_path(&mut self, place: Place) -> Result<(), Errno> {
        self.len = path_of(place, self.to)? - 1;
        Ok(())
    }

    /// Writes the text for an object that has a number in a mount, and no name any more.
    fn put_number(&mut self, mount: u16, inode: u64) -> fmt::Result {
        let over = archive::by_number(mounts::covered(mount));
        self.len = over.and_then(|over| over.path(self.to).ok()).map_or(0, |len| len - 1);
        write!(self, "/#{inode} (deleted)")
    }
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes())
    }
}

/// Writes the text for an object; returns its length. ENAMETOOLONG; errors of the file's server.
pub(super) fn describe(object: &Object, to: &mut [u8]) -> Result<usize, Errno> {
    let mut text = Text { to, len: 0 };
    let written = match object {
        Object::Archive(node) => {
            text.len = node.path(text.to)? - 1;
            Ok(())
        }
        Object::Name(name) => match text.put_path(name.place) {
            Err(Errno::ENOENT) => text.put_number(name.place.mount, name.place.number() + 1),
            done => return done.map(|()| text.len),
        },
        Object::Memory(file) => return describe_file(file, text),
        Object::Pipe(pipe, _) => write!(text, "pipe:[{}]", pipe.number()),
        Object::Console => text.write_str("/dev/console"),
        Object::Null => text.write_str("/dev/null"),
        Object::Zero => text.write_str("/dev/zero"),
        Object::EventFd(_) => text.write_str("anon_inode:[eventfd]"),
        Object::Epoll(_) => text.write_str("anon_inode:[eventpoll]"),
        Object::TimerFd(_) => text.write_str("anon_inode:[timerfd]"),
        Object::SignalFd(_) => text.write_str("anon_inode:[signalfd]"),
        Object::Socket(socket) => write!(text, "socket:[{}]", socket.number()),
        Object::PidFd(_) => text.write_str("anon_inode:[pidfd]"),
    };
    written.map_err(|_| Errno::ENAMETOOLONG)?;
    Ok(text.len)
}

fn describe_file(file: &MemoryFile, mut text: Text<'_>) -> Result<usize, Errno> {
    let written = match mounts::with_device(file.device()) {
        None => text.put(b"/memfd:").and_then(|()| text.put(&file.name)).and_then(|()| text.put(b" (deleted)")),
        Some(mount) => {
            let place = file.number().checked_sub(1).and_then(|number| Place::new(mount, number)).ok_or(Errno::EIO)?;
            match text.put_path(place) {
                Err(Errno::ENOENT) => text.put_number(mount, file.number()),
                done => return done.map(|()| text.len),
            }
        }
    };
    written.map_err(|_| Errno::ENAMETOOLONG)?;
    Ok(text.len)
}
