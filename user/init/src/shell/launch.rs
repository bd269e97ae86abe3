//! From an expanded command to a program: redirections, the search through `PATH`, and exec.

use alloc::ffi::CString;
use alloc::vec::Vec;

use quire_rt::abi::flags::Open;
use quire_rt::abi::{layout::mode, nr};
use quire_rt::{Errno, eprintln, fs, handles, io, process, sched, sys};
use quire_shell::token::Direction;

use super::builtin::Builtin;
use super::{PATH, Shell};

/// Status of a command that was not found, and of one that cannot be run.
const NOT_FOUND: i32 = 127;
const NOT_RUNNABLE: i32 = 126;

/// A descriptor, what happens to it, and the path or number.
pub type Redirect = (i32, Direction, Vec<u8>);

/// A command after expansion.
pub struct Launch {
    /// Program and arguments.
    pub arguments: Vec<Vec<u8>>,
    /// Set for the program alone.
    pub assignments: Vec<(Vec<u8>, Vec<u8>)>,
    /// In order.
    pub redirects: Vec<Redirect>,
}

/// For messages: bytes as text.
pub fn show(bytes: &[u8]) -> alloc::borrow::Cow<'_, str> {
    alloc::string::String::from_utf8_lossy(bytes)
}

fn redirect((fd, direction, target): &Redirect) -> Result<(), Errno> {
    let flags = match direction {
        Direction::Duplicate => {
            let source = core::str::from_utf8(target).ok().and_then(|text| text.parse::<i32>().ok());
            let source = source.ok_or(Errno::EBADF)?;
            if source != *fd {
                io::dup3(source, *fd, 0)?;
            }
            return Ok(());
        }
        Direction::Read => Open::empty(),
        Direction::Write => Open::WRONLY | Open::CREAT | Open::TRUNC,
        Direction::Append => Open::WRONLY | Open::CREAT | Open::APPEND,
    };
    let path = CString::new(&target[..]).map_err(|_| Errno::EINVAL)?;
    let opened = fs::open(&path, flags)?;
    if opened != *fd {
        let moved = io::dup3(opened, *fd, 0);
        let _ = io::close(opened);
        moved?;
    }
    Ok(())
}

fn redirect_all(redirects: &[Redirect]) -> Result<(), ()> {
    for change in redirects {
        redirect(change).map_err(|error| eprintln!("sh: {}: {error}", show(&change.2)))?;
    }
    Ok(())
}

/// Puts descriptors back when dropped: where each was kept, or `None` if it was closed.
pub struct Restore(Vec<(i32, Option<i32>)>);

impl Drop for Restore {
    fn drop(&mut self) {
        io::flush();
        for (fd, kept) in self.0.drain(..).rev() {
            match kept {
                Some(kept) => {
                    let _ = io::dup3(kept, fd, 0);
                    let _ = io::close(kept);
                }
                None => {
                    let _ = io::close(fd);
                }
            }
        }
    }
}

/// Redirects within the shell itself; an error has been printed.
pub fn redirect_saving(redirects: &[Redirect]) -> Result<Restore, ()> {
    const F_DUPFD_CLOEXEC: usize = 1030;
    let mut restore = Restore(Vec::new());
    if !redirects.is_empty() {
        io::flush();
    }
    for change in redirects {
        // SAFETY: duplicates a descriptor to a number from 10 up; no memory is involved.
        let kept = unsafe { sys::call(nr::FCNTL, [change.0 as usize, F_DUPFD_CLOEXEC, 10]) }.ok();
        restore.0.push((change.0, kept.map(|fd| fd as i32)));
        redirect_all(core::slice::from_ref(change))?;
    }
    Ok(restore)
}

/// Replaces standard input by one at its end: background processes and scripts get no keyboard input.
pub fn no_input() {
    if let Ok((read, write)) = io::pipe(0) {
        let _ = io::close(write);
        let _ = io::dup3(read, 0, 0);
        let _ = io::close(read);
    }
}

impl Shell {
    /// Runs a command in the child that was made for it; does not return.
    pub(super) fn run_child(&mut self, launch: &Launch) -> ! {
        if redirect_all(&launch.redirects).is_err() {
            process::exit_now(1);
        }
        let status = match launch.arguments.first().map(|name| Builtin::find(name)) {
            None => 0,
            Some(Some(builtin)) => self.run_builtin(builtin, &launch.arguments),
            Some(None) => self.exec(&launch.arguments, &launch.assignments),
        };
        process::exit(self.exit.unwrap_or(status))
    }

    /// `exec`: becomes the program, or keeps the redirections if there is none.
    pub(super) fn replace(&mut self, launch: &Launch) -> i32 {
        io::flush();
        if redirect_all(&launch.redirects).is_err() {
            return 1;
        }
        match &launch.arguments[1..] {
            [] => 0,
            arguments => {
                if let Some(limited) = self.limited.take() {
                    limited.enter();
                    let _ = sched::set_nice(0, false);
                }
                let status = self.exec(arguments, &launch.assignments);
                self.exit = Some(status);
                status
            }
        }
    }

    /// Executes a program; returns only on failure, with the status for the error.
    fn exec(&self, arguments: &[Vec<u8>], assignments: &[(Vec<u8>, Vec<u8>)]) -> i32 {
        let name = &arguments[0];
        // A word contains a NUL only if one was typed; no file has such a name.
        let Ok(argv) = arguments.iter().map(|argument| CString::new(&argument[..])).collect::<Result<Vec<_>, _>>()
        else {
            eprintln!("sh: {}: not found", show(name));
            return NOT_FOUND;
        };
        let environment = self.environment(assignments);
        let mut failure = Errno::ENOENT;
        for path in self.candidates(name) {
            let Ok(path) = CString::new(path) else { continue };
            // A program that the file does not name gets nothing.
            let _ = handles::grant_to(path.to_bytes());
            let error = process::execve(&path, argv.iter().map(|arg| &**arg), environment.iter().map(|entry| &**entry));
            // exec answers "permission denied" for a directory; say that it is one.
            let is_directory = fs::stat(&path, 0).is_ok_and(|stat| stat.mode & mode::FMT == mode::DIR);
            match error {
                Errno::EACCES if is_directory => failure = Errno::EISDIR,
                Errno::ENOENT | Errno::ENOTDIR if failure != Errno::ENOENT => {}
                Errno::EACCES | Errno::ENOENT | Errno::ENOTDIR => failure = error,
                _ => {
                    failure = error;
                    break;
                }
            }
        }
        match failure {
            Errno::ENOENT | Errno::ENOTDIR => {
                eprintln!("sh: {}: not found", show(name));
                NOT_FOUND
            }
            error => {
                eprintln!("sh: {}: {error}", show(name));
                NOT_RUNNABLE
            }
        }
    }

    /// Paths at which a command may be.
    fn candidates(&self, name: &[u8]) -> Vec<Vec<u8>> {
        if name.is_empty() {
            return Vec::new();
        }
        if name.contains(&b'/') {
            return Vec::from([name.to_vec()]);
        }
        self.search_path().split(|byte| *byte == b':').map(|directory| [directory, b"/", name].concat()).collect()
    }

    /// The value of `PATH`.
    pub(super) fn search_path(&self) -> &[u8] {
        self.variables.get(&b"PATH"[..]).map_or(PATH, |variable| &variable.value)
    }
}
