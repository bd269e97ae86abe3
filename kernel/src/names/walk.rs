//! The walk along a path: through the boot archive by the kernel, and through each mount by its server or by the
//! server's cached answers ([`cached_walk`](super::cached_walk)).
//!
//! Cost: O(components) in the archive and among known names. A server that allows no caching gets one message for each
//! stretch of the path in its file system, which ends at a symbolic link, at the file system's root, or at the end of
//! the path; other servers get one message for each name that is not yet known.

use core::ops::{Deref, Range};

use quire_abi::Errno;
use quire_abi::names::{DONE, FOLLOW, HELD, KEPT as MAY_KEEP, LINK, NOTHING, UP, op};
use quire_mm::fallible::KArc;
use quire_mm::machine::Threads;
use quire_names::Change;

use super::Place;
use super::cache::{Directory, KEPT, Kept, Known};
use super::cached_walk::{Affects, Progress};
use super::magic_links;
use super::mounts::{self, ARCHIVE};
use super::path::{Follow, PATH_MAX, Path};
use crate::archive::{self, Node};
use crate::ipc::ask::{self, Answer, ROOM, Room, Run};
use crate::ipc::descriptor::Object;
use crate::task::thread::current;
use crate::vm::Cpu;

/// The maximum number of symbolic links in one walk (Linux's MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// Longest name of a file.
pub const NAME_MAX: usize = 255;

/// The number of components that are followed between two points at which others may run.
const POINT_EVERY: usize = 64;

/// The operation at the end of a path: one of [`quire_abi::names`].
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
    /// User and group, if they are not those for access to files.
    pub identity: Option<(u32, u32)>,
    /// The only mount where the operation makes sense; for the archive, a directory of the archive that no mount
    /// covers.
    pub only: Option<u16>,
    /// The size of the buffer for a text in the answer, at most [`ROOM`].
    pub room: usize,
}

impl Request<'_> {
    /// To look what is there.
    pub const LOOKUP: Self =
        Self { op: op::LOOKUP, argument: 0, mode: 0, text: &[], follow: true, identity: None, only: None, room: ROOM };
}

/// Where a walk has ended.
pub enum Reached {
    /// In the boot archive: this node, or an existing directory that does not contain the last component.
    Archive(Option<&'static Node>),
    /// At a server, which has done the operation.
    Server(Served),
    /// At an object that a process holds. The operation was not done.
    Held(Object),
}

/// The result of an operation of a server.
pub struct Served {
    /// Its mount.
    pub mount: u16,
    /// The words of the answer.
    pub answer: Answer,
    /// The text in the answer.
    pub text: Text,
}

/// A text that was answered.
pub enum Text {
    /// None.
    Nothing,
    /// The window that the server may have written to.
    Room(Room),
    /// A part of a cached text.
    Known(KArc<Known>, Range<usize>),
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Room(room) => room,
            Self::Known(known, part) => match &known.value {
                Kept::Link(_, text) | Kept::Itself(Directory { list: text, .. }) => &text[part.clone()],
                _ => &[],
            },
        }
    }
}

/// Walks a path from a directory, and has the request done at its end. ENOENT for an empty path.
pub fn walk(start: Place, path: &mut Path, request: &Request<'_>) -> Result<Reached, Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    walk_from(start, path, request)
}

/// The same; if the path is empty, the request is about the start itself.
pub fn walk_from(start: Place, path: &mut Path, request: &Request<'_>) -> Result<Reached, Errno> {
    let place = if path.is_absolute() { Place::ROOT } else { start };
    let mut walk = Walk { place, links: 0, parts: 0, identity: request.identity };
    let mut room = None;
    loop {
        if walk.place.mount == ARCHIVE {
            if let Some(end) = walk.in_archive(path, request)? {
                return Ok(Reached::Archive(end));
            }
            continue;
        }
        let affects = match walk.among_known(path, request, &mut room)? {
            Progress::Done(served) => return Ok(Reached::Server(served)),
            Progress::Left => continue,
            Progress::Ask(affects) => affects,
        };
        let mut text = match room.take() {
            Some(room) => room,
            None => Room::take()?,
        };
        let len = request.room.min(ROOM);
        match walk.at_server(path, request, affects, &mut text[..len])? {
            Step::Done(answer) => {
                return Ok(Reached::Server(Served { mount: walk.place.mount, answer, text: Text::Room(text) }));
            }
            Step::Held(Object::Archive(node)) if request.op != op::READLINK => return Ok(Reached::Archive(Some(node))),
            Step::Held(object) => return Ok(Reached::Held(object)),
            Step::On => {}
        }
        room = Some(text);
    }
}

/// The result of a walk of the kernel itself, only in the boot archive.
pub fn in_archive(path: &[u8]) -> Result<&'static Node, Errno> {
    match walk(Place::ROOT, &mut Path::new(path)?, &Request::LOOKUP)? {
        Reached::Archive(Some(node)) => Ok(node),
        Reached::Archive(None) => Err(Errno::ENOENT),
        Reached::Server(_) | Reached::Held(_) => Err(Errno::EXDEV),
    }
}

/// A walk that is under way.
pub struct Walk {
    /// Where it is.
    pub place: Place,
    links: u32,
    parts: usize,
    /// User and group, once they are known.
    identity: Option<(u32, u32)>,
}

/// What a server's answer means for a walk.
enum Step {
    /// The request was done.
    Done(Answer),
    /// The path ends at an object that a process holds.
    Held(Object),
    /// It goes on elsewhere.
    On,
}

impl Walk {
    /// Continues in the archive, to the end of the path: `Some`, or to a mount.
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
            self.count_part()?;
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

    /// Counts one more component. EINTR if the caller was killed.
    pub fn count_part(&mut self) -> Result<(), Errno> {
        self.parts += 1;
        if self.parts.is_multiple_of(POINT_EVERY) {
            Cpu.resched_point().map_err(|_| Errno::EINTR)?;
        }
        Ok(())
    }

    /// The caller's user and group, for a request that accesses files.
    pub fn identity(&mut self) -> (u32, u32) {
        *self.identity.get_or_insert_with(for_files)
    }

    /// In a server's file system: continues as far as names are known.
    fn among_known(
        &mut self,
        path: &mut Path,
        request: &Request<'_>,
        room: &mut Option<Room>,
    ) -> Result<Progress, Errno> {
        if request.only.is_some_and(|only| only != self.place.mount) {
            return Ok(Progress::Ask(Affects::Nothing));
        }
        if mounts::keeps(self.place.mount) {
            return self.known(path, request, room);
        }
        Ok(Progress::Ask(if request.changes() { Affects::Anything } else { Affects::Nothing }))
    }

    /// Leaves the present mount through its root.
    pub fn leave(&mut self) -> Result<(), Errno> {
        let covered = archive::by_number(mounts::covered(self.place.mount)).ok_or(Errno::ENOENT)?;
        self.place = Place::archive(covered.parent);
        Ok(())
    }

    /// Calls the server of the mount with an operation at the end of a path from the present directory; `texts`
    /// consists of the path, and the second text.
    pub fn call(
        &mut self,
        request: &Request<'_>,
        op: u64,
        (texts, path, follows): (&[u8], usize, bool),
        room: &mut [u8],
    ) -> Result<Answer, Errno> {
        let (endpoint, badge) = mounts::server(self.place.mount)?;
        let words = words_of(self.place, request, self.identity(), (path, follows), texts.len() - path);
        let answer = ask::ask((&endpoint, badge), op, words, texts, room);
        let answer = answer.map_err(|e| if e == Errno::EPIPE { Errno::EIO } else { e })?;
        if matches!(answer.label, MAY_KEEP | NOTHING) {
            mounts::note_keeps(self.place.mount);
        }
        Ok(answer)
    }

    /// Removes what is cached of the names that a request changes. The change is under way until the result is dropped.
    fn begin(&self, affects: Affects, path: &Path, request: &Request<'_>) -> Option<Change<'static>> {
        if let Affects::Nothing = affects {
            return None;
        }
        let changes = mounts::changes(self.place.mount);
        let change = changes.begin();
        match affects {
            Affects::Nothing => {}
            Affects::Name(len) => {
                KEPT.remove(self.place.to_word(), &path.rest()[..len]);
                if matches!(request.op, op::RENAME | op::LINK)
                    && let Some(old) = Place::new(self.place.mount, request.mode)
                {
                    let slashes = request.text.iter().rev().take_while(|byte| **byte == b'/').count();
                    KEPT.remove(old.to_word(), &request.text[..request.text.len() - slashes]);
                }
            }
            Affects::Itself => KEPT.remove(self.place.to_word(), b""),
            Affects::Anything => changes.revoke(),
        }
        Some(change)
    }

    /// Continues at the server of the mount: to the end of the path, to a link, or out of the mount.
    fn at_server(
        &mut self,
        path: &mut Path,
        request: &Request<'_>,
        affects: Affects,
        room: &mut [u8],
    ) -> Result<Step, Errno> {
        path.skip_slashes();
        let len = path.rest().len();
        let is_other = request.only.is_some_and(|only| only != self.place.mount);
        let op = if is_other { op::PARENT } else { request.op };
        let answer = {
            let _change = self.begin(affects, path, request);
            path.with_text(request.text, |texts| self.call(request, op, (texts, len, request.follow), room))??
        };
        let [directory, behind, text_len, ..] = answer.words;
        match answer.label {
            DONE | MAY_KEEP if is_other => Err(Errno::EXDEV),
            DONE | MAY_KEEP => Ok(Step::Done(answer)),
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
                let named = path.is_empty() && request.op == op::READLINK;
                self.enter(path, request, magic_links::find(pid, what, number, named)?)
            }
            UP => {
                // This limits a server that gives such answers for ever.
                self.parts += POINT_EVERY;
                if behind == 0 || self.parts > PATH_MAX * POINT_EVERY {
                    return Err(Errno::EIO);
                }
                self.pass(path, len, behind)?;
                self.leave()?;
                Ok(Step::On)
            }
            error => Err(error_of(error)),
        }
    }

    /// Advances over the part up to `behind` that the server has walked: EIO if that is not the end of a component.
    fn pass(&self, path: &mut Path, len: usize, behind: u64) -> Result<(), Errno> {
        let behind = usize::try_from(behind).ok().filter(|behind| *behind <= len).ok_or(Errno::EIO)?;
        path.advance(behind);
        if path.is_empty() || path.is_absolute() { Ok(()) } else { Err(Errno::EIO) }
    }

    /// Replaces the part that was walked by the text of a symbolic link.
    pub fn follow(&mut self, path: &mut Path, link: &[u8]) -> Result<(), Errno> {
        self.count_link()?;
        path.prepend(link)
    }

    fn count_link(&mut self) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_LINKS { Err(Errno::ELOOP) } else { Ok(()) }
    }

    /// Continues at an object that a process holds, if it is a directory or a node of a server. A link is read, not
    /// followed.
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

/// The words of a request at a place, with the first bytes of a path, whether a link at its end is followed, and the
/// length of a second text.
fn words_of(
    place: Place,
    request: &Request<'_>,
    (user, group): (u32, u32),
    (path, follows): (usize, bool),
    text: usize,
) -> [u64; 6] {
    [
        place.number(),
        request.argument,
        request.mode,
        u64::from(user) | u64::from(group) << 32,
        path as u64 | if follows { FOLLOW } else { 0 },
        text as u64,
    ]
}

/// Has a request done for a server's node itself, which neither follows a link nor leads elsewhere. The text in the
/// answer is written to `room`, which may have any length.
pub fn ask_at(place: Place, request: &Request<'_>, room: &mut [u8]) -> Result<Answer, Errno> {
    let (endpoint, badge) = mounts::server(place.mount)?;
    let identity = request.identity.unwrap_or_else(for_files);
    let words = words_of(place, request, identity, (0, request.follow), request.text.len());
    done(ask::ask((&endpoint, badge), request.op, words, request.text, room))
}

/// The same with frames in place of a text, or of the buffer: `len` bytes, which the server reads, or writes.
pub fn ask_about(place: Place, request: &Request<'_>, run: &Run<'_>, len: usize, write: bool) -> Result<Answer, Errno> {
    let (endpoint, badge) = mounts::server(place.mount)?;
    let identity = request.identity.unwrap_or_else(for_files);
    let words = words_of(place, request, identity, (0, request.follow), if write { 0 } else { len });
    done(ask::ask_about_frames((&endpoint, badge), request.op, words, run, len, write))
}

/// An answer that neither follows a link nor leads elsewhere.
fn done(asked: Result<Answer, Errno>) -> Result<Answer, Errno> {
    let answer = asked.map_err(|e| if e == Errno::EPIPE { Errno::EIO } else { e })?;
    match answer.label {
        DONE | MAY_KEEP => Ok(answer),
        LINK | UP | HELD => Err(Errno::EIO),
        error => Err(error_of(error)),
    }
}

/// The user and group of the current process for access to files; those of root for a thread of the kernel's own.
fn for_files() -> (u32, u32) {
    let Some(process) = &current().process else { return (0, 0) };
    let credentials = process.credentials.lock();
    (credentials.user.files, credentials.group.files)
}

/// The error in an answer's label; EIO for a label without a meaning.
pub fn error_of(label: u64) -> Errno {
    if label == NOTHING {
        return Errno::ENOENT;
    }
    match Errno::from_ret(label as isize) {
        // The server's lack of memory is not the caller's, whose call would be repeated because of it.
        Err(Errno::ENOMEM) => Errno::ENOSPC,
        Err(error) => error,
        Ok(_) => Errno::EIO,
    }
}
