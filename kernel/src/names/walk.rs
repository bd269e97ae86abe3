//! The walk along a path: through the boot archive by the kernel, and through each mount by its server.
//!
//! Cost: O(parts) in the archive, and one message for each stretch in a server's file system, which ends at a symbolic link, at
//! its root, or at the path's end.

use quire_abi::Errno;
use quire_abi::names::{DONE, FOLLOW, HELD, LINK, UP, op};
use quire_mm::machine::Threads;

use super::Place;
use super::held;
use super::mounts::{self, ARCHIVE};
use super::path::{Follow, PATH_MAX, Path};
use crate::archive::{self, Node};
use crate::ipc::ask::{self, Answer, ROOM, Room};
use crate::ipc::descriptor::Object;
use crate::task::thread::current;
use crate::vm::Cpu;

/// The most symbolic links in one walk (Linux's MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// Longest name of a file.
const NAME_MAX: usize = 255;

/// Parts of a path that are followed between two points at which others may run.
const POINT_EVERY: usize = 64;

/// What is to be done at the end of a path: an operation of [`quire_abi::names`].
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Which.
    pub op: u64,
    /// Its argument.
    pub argument: u64,
    /// Its mode, or its second directory.
    pub mode: u64,
    /// Its second text.
    pub text: &'a [u8],
    /// Whether a symbolic link at the end is followed.
    pub follow: bool,
    /// User and group, where they are not those for access to files.
    pub identity: Option<(u32, u32)>,
    /// The only mount where the operation makes sense; of the archive, one that no mount covers.
    pub only: Option<u16>,
    /// Room for the text that comes back, [`ROOM`] at most.
    pub room: usize,
}

impl Request<'_> {
    /// To look what is there.
    pub const LOOKUP: Self =
        Self { op: op::LOOKUP, argument: 0, mode: 0, text: &[], follow: true, identity: None, only: None, room: ROOM };
}

/// Where a walk has ended.
pub enum Reached {
    /// In the boot archive, which has this, or nothing of the last name in an existing directory.
    Archive(Option<&'static Node>),
    /// At a server, which has done what was asked.
    Server(Served),
    /// At something that a process holds. Nothing was done with it.
    Held(Object),
}

/// What a server has done.
pub struct Served {
    /// Its mount.
    pub mount: u16,
    /// What it answered.
    pub answer: Answer,
    /// The window that it may have written to.
    pub text: Room,
}

/// Walks a path from a directory, and has the request done at its end. ENOENT for an empty path.
pub fn walk(start: Place, path: &mut Path, request: &Request<'_>) -> Result<Reached, Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    walk_from(start, path, request)
}

/// The same; with an empty path the request is for the start itself.
pub fn walk_from(start: Place, path: &mut Path, request: &Request<'_>) -> Result<Reached, Errno> {
    let mut walk = Walk { place: if path.is_absolute() { Place::ROOT } else { start }, links: 0, parts: 0 };
    let mut room = None;
    loop {
        if walk.place.mount == ARCHIVE {
            if let Some(end) = walk.in_archive(path, request)? {
                return Ok(Reached::Archive(end));
            }
            continue;
        }
        let mut text = match room.take() {
            Some(room) => room,
            None => Room::take()?,
        };
        let len = request.room.min(ROOM);
        match walk.at_server(path, request, &mut text[..len])? {
            Step::Done(answer) => return Ok(Reached::Server(Served { mount: walk.place.mount, answer, text })),
            Step::Held(Object::Archive(node)) if request.op != op::READLINK => return Ok(Reached::Archive(Some(node))),
            Step::Held(object) => return Ok(Reached::Held(object)),
            Step::On => {}
        }
        room = Some(text);
    }
}

/// What a walk of the kernel's own finds in the boot archive alone.
pub fn in_archive(path: &[u8]) -> Result<&'static Node, Errno> {
    match walk(Place::ROOT, &mut Path::new(path)?, &Request::LOOKUP)? {
        Reached::Archive(Some(node)) => Ok(node),
        Reached::Archive(None) => Err(Errno::ENOENT),
        Reached::Server(_) | Reached::Held(_) => Err(Errno::EXDEV),
    }
}

struct Walk {
    place: Place,
    links: u32,
    parts: usize,
}

/// What an answer of a server means for a walk.
enum Step {
    /// The request was done.
    Done(Answer),
    /// The path ends at something that a process holds.
    Held(Object),
    /// It goes on elsewhere.
    On,
}

impl Walk {
    /// Goes on in the archive, to the end: `Some`, or to a mount.
    fn in_archive(&mut self, path: &mut Path, request: &Request<'_>) -> Result<Option<Option<&'static Node>>, Errno> {
        let mut at = archive::by_number(self.place.number() as u32).ok_or(Errno::ENOENT)?;
        loop {
            path.skip_slashes();
            if path.is_empty() {
                return Ok(Some(Some(at)));
            }
            if !at.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            self.parts += 1;
            if self.parts.is_multiple_of(POINT_EVERY) {
                Cpu.resched_point().map_err(|_| Errno::EINTR)?;
            }
            let (len, behind) = path.next_part();
            if len > NAME_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            let next = match &path.rest()[..len] {
                b"." => Some(at),
                b".." => archive::by_number(at.parent),
                name => at.child(name),
            };
            let next = match next {
                Some(next) => next,
                None if behind == Follow::Parts => return Err(Errno::ENOENT),
                None => return Ok(Some(None)),
            };
            path.advance(len);
            if next.is_link() && (request.follow || behind != Follow::Nothing) {
                self.follow(path, next.data)?;
                if path.is_absolute() {
                    at = archive::by_number(0).ok_or(Errno::ENOENT)?;
                }
                continue;
            }
            if behind != Follow::Nothing && !next.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            if next.ino != at.ino
                && request.only != Some(ARCHIVE)
                && let Some(mount) = mounts::over(next.ino)
            {
                self.place = Place::root_of(mount);
                return Ok(None);
            }
            at = next;
        }
    }

    /// Goes on at the server of the mount, to the end, or to a link or out of it.
    fn at_server(&mut self, path: &mut Path, request: &Request<'_>, room: &mut [u8]) -> Result<Step, Errno> {
        path.skip_slashes();
        let (endpoint, badge) = mounts::server(self.place.mount)?;
        let len = path.rest().len();
        let words = words_of(self.place, request, len);
        let is_other = request.only.is_some_and(|only| only != self.place.mount);
        let op = if is_other { op::PARENT } else { request.op };
        let asked = path.with_text(request.text, |text| ask::ask((&endpoint, badge), op, words, text, room))?;
        let answer = asked.map_err(|e| if e == Errno::EPIPE { Errno::EIO } else { e })?;
        let [directory, behind, text_len, ..] = answer.words;
        match answer.label {
            DONE if is_other => Err(Errno::EXDEV),
            DONE => Ok(Step::Done(answer)),
            LINK => {
                let text = room.get(..text_len as usize).ok_or(Errno::EIO)?;
                self.pass(path, len, behind)?;
                self.follow(path, text)?;
                let place = Place::new(self.place.mount, directory).ok_or(Errno::EIO)?;
                self.place = if path.is_absolute() { Place::ROOT } else { place };
                Ok(Step::On)
            }
            HELD => {
                let [pid, behind, what, number, ..] = answer.words;
                self.pass(path, len, behind)?;
                self.count_link()?;
                self.enter(path, request, held::find(pid, what, number)?)
            }
            UP => {
                // A server that answers so for ever is held back by this.
                self.parts += POINT_EVERY;
                if behind == 0 || self.parts > PATH_MAX * POINT_EVERY {
                    return Err(Errno::EIO);
                }
                self.pass(path, len, behind)?;
                let covered = archive::by_number(mounts::covered(self.place.mount)).ok_or(Errno::ENOENT)?;
                self.place = Place::archive(covered.parent);
                Ok(Step::On)
            }
            error => Err(error_of(error)),
        }
    }

    /// The server has walked so far: EIO if that is not the end of a part.
    fn pass(&self, path: &mut Path, len: usize, behind: u64) -> Result<(), Errno> {
        let behind = usize::try_from(behind).ok().filter(|behind| *behind <= len).ok_or(Errno::EIO)?;
        path.advance(behind);
        if path.is_empty() || path.is_absolute() { Ok(()) } else { Err(Errno::EIO) }
    }

    /// A symbolic link takes the place of what was walked.
    fn follow(&mut self, path: &mut Path, link: &[u8]) -> Result<(), Errno> {
        self.count_link()?;
        path.prepend(link)
    }

    fn count_link(&mut self) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_LINKS { Err(Errno::ELOOP) } else { Ok(()) }
    }

    /// Goes on at something that a process holds, if that is a directory or the server's alone. A link is read, not followed.
    fn enter(&mut self, path: &Path, request: &Request<'_>, object: Object) -> Result<Step, Errno> {
        if path.is_empty() && request.op == op::READLINK {
            return Ok(Step::Held(object));
        }
        match object {
            Object::Archive(node) if node.is_dir() && !path.is_empty() => self.place = Place::archive(node.ino),
            Object::Name(name) => self.place = name.place,
            object if path.is_empty() => return Ok(Step::Held(object)),
            _ => return Err(Errno::ENOTDIR),
        }
        Ok(Step::On)
    }
}

/// The words of a request at a place, with so many bytes of a path.
fn words_of(place: Place, request: &Request<'_>, len: usize) -> [u64; 6] {
    let follow = if request.follow { FOLLOW } else { 0 };
    let (user, group) = request.identity.unwrap_or_else(for_files);
    [
        place.number(),
        request.argument,
        request.mode,
        u64::from(user) | u64::from(group) << 32,
        len as u64 | follow,
        request.text.len() as u64,
    ]
}

/// Has a request done for a place itself that is a server's, where it neither follows a link nor leads elsewhere. What comes back is written to
/// `room`, of any length.
pub fn ask_at(place: Place, request: &Request<'_>, room: &mut [u8]) -> Result<Answer, Errno> {
    let (endpoint, badge) = mounts::server(place.mount)?;
    let asked = ask::ask((&endpoint, badge), request.op, words_of(place, request, 0), request.text, room);
    let answer = asked.map_err(|e| if e == Errno::EPIPE { Errno::EIO } else { e })?;
    match answer.label {
        DONE => Ok(answer),
        LINK | UP | HELD => Err(Errno::EIO),
        error => Err(error_of(error)),
    }
}

/// The user and the group of the current process for access to files.
fn for_files() -> (u32, u32) {
    let credentials = current().process().credentials.lock();
    (credentials.user.files, credentials.group.files)
}

/// The error that an answer's label says; EIO for a label that has no meaning.
fn error_of(label: u64) -> Errno {
    match Errno::from_ret(label as isize) {
        // The server's want of memory is not the caller's, who would be repeated for it.
        Err(Errno::ENOMEM) => Errno::ENOSPC,
        Err(error) => error,
        Ok(_) => Errno::EIO,
    }
}
