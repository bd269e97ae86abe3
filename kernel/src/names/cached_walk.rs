//! The part of a walk that needs no message, because the server's earlier answers are cached: from name to name, as far
//! as they are known. The server is asked for unknown names, one at a time. The rules are those of the walk and the
//! operations of a server of files (`quire_fs::walk`, tmpfs), which every server must follow that lets its answers be
//! cached.

use alloc::vec::Vec;
use core::ops::Range;

use quire_abi::Errno;
use quire_abi::access::{EXECUTE, Owned, READ, WRITE, Who};
use quire_abi::flags::Open;
use quire_abi::ipc::rights;
use quire_abi::layout::{dtype, mode};
use quire_abi::names::{DONE, HELD, KEPT as MAY_KEEP, LINK, NOTHING, UP, list, node, op};
use quire_ipc::Item;
use quire_mm::fallible::{KArc, TryVec};
use quire_names::Sample;

use super::cache::{Directory, KEPT, Kept, Known, known, owned};
use super::path::{Follow, Path};
use super::walk::{NAME_MAX, Request, Served, Text, Walk, error_of};
use super::{Place, mounts};
use crate::ipc::ask::{Answer, Room};
use crate::ipc::handles::{Handle, Target};
use crate::ipc::memory_file::MemoryFile;
use crate::task::thread::current;

/// A flag of open: a file without a name.
const TMPFILE: u32 = 0o20000000;

/// The maximum length of a directory list that is cached.
const LIST_MAX: usize = 2048;

/// How far a walk has come.
pub enum Progress {
    /// The request is done.
    Done(Served),
    /// It has entered another mount, or the archive.
    Left,
    /// It has come to where the server must do the operation, which changes this.
    Ask(Affects),
}

/// The names that a request changes.
#[derive(Clone, Copy)]
pub enum Affects {
    /// Nothing.
    Nothing,
    /// The name at the beginning of the rest of the path, given by its length; for a rename or a link also the old
    /// name.
    Name(usize),
    /// Attributes of the directory itself.
    Itself,
    /// Unknown: any name may change.
    Anything,
}

/// The caller's identity.
pub struct Asker(pub (u32, u32));

impl Who for Asker {
    fn user(&self) -> u32 {
        self.0.0
    }
    fn group(&self) -> u32 {
        self.0.1
    }
    fn is_also_in(&self, group: u32) -> bool {
        let credentials = current().process().credentials.lock().clone();
        credentials.is_in(group)
    }
}

impl Request<'_> {
    fn flags(&self) -> Open {
        Open::from_bits_retain(self.argument as u32)
    }

    fn creates(&self) -> bool {
        self.op == op::OPEN && self.flags().contains(Open::CREAT)
    }

    /// Whether the operation acts on the last name itself.
    fn is_for_name(&self) -> bool {
        matches!(self.op, op::MKDIR | op::SYMLINK | op::SOCKET | op::LINK | op::UNLINK | op::RENAME | op::PARENT)
    }

    /// Whether it may change something that is cached.
    pub fn changes(&self) -> bool {
        self.creates() || self.op == op::SET || self.is_for_name() && self.op != op::PARENT
    }

    fn affects(&self, what: Affects) -> Affects {
        if self.changes() { what } else { Affects::Nothing }
    }
}

impl Walk {
    /// Continues from the present directory as long as names are known or the server answers what they are.
    pub fn known(
        &mut self,
        path: &mut Path,
        request: &Request<'_>,
        room: &mut Option<Room>,
    ) -> Result<Progress, Errno> {
        let unknown = Progress::Ask(request.affects(Affects::Anything));
        loop {
            path.skip_slashes();
            if path.is_empty() {
                return self.itself(path, request, room);
            }
            self.count_part()?;
            let Some(directory) = self.directory(room)? else { return Ok(unknown) };
            let Kept::Itself(of) = &directory.value else { return Ok(unknown) };
            if !of.owned().permits(&self.asker(), EXECUTE) {
                return Err(Errno::EACCES);
            }
            drop(directory);
            let (len, behind) = path.next_part();
            let is_last = behind != Follow::Parts;
            let name = &path.rest()[..len];
            match name {
                b"." | b".." if is_last && request.is_for_name() => return Ok(Progress::Ask(Affects::Nothing)),
                b"." => {
                    path.advance(len);
                    continue;
                }
                b".." if self.place.number() == 0 => {
                    path.advance(len);
                    self.leave()?;
                    return Ok(Progress::Left);
                }
                name if name.len() > NAME_MAX => return Err(Errno::ENAMETOOLONG),
                _ if is_last && behind == Follow::Slash && request.creates() => return Err(Errno::EISDIR),
                _ => {}
            }
            if is_last && request.is_for_name() && !self.looks(request, behind) {
                return self.with_name(request, len);
            }
            let found = match self.find(name) {
                Some(found) => found,
                None if is_last && request.creates() => return Ok(Progress::Ask(Affects::Name(len))),
                None => match self.look_up(name, room)? {
                    Some(found) => found,
                    None => return Ok(unknown),
                },
            };
            match &found.value {
                Kept::Nothing if is_last && request.creates() => return Ok(Progress::Ask(Affects::Name(len))),
                Kept::Nothing if is_last && request.op == op::PARENT => return self.with_name(request, len),
                Kept::Nothing => return Err(Errno::ENOENT),
                Kept::Link(_, text) if !is_last || request.follow || behind == Follow::Slash => {
                    path.advance(len);
                    self.follow(path, text)?;
                    if path.is_absolute() {
                        self.place = Place::ROOT;
                        return Ok(Progress::Left);
                    }
                }
                _ if is_last && request.op == op::PARENT => return self.with_name(request, len),
                Kept::Directory(number) | Kept::Above(number, _) => {
                    self.place = Place::new(self.place.mount, *number).ok_or(Errno::EIO)?;
                    path.advance(len);
                }
                _ if !is_last => return Err(Errno::ENOTDIR),
                Kept::File(..) | Kept::Link(..) if behind == Follow::Slash => return Err(Errno::ENOTDIR),
                Kept::File(file, number, lent) => return self.at_file(request, (file, *number, *lent), len),
                Kept::Link(words, text) => return self.at_link(request, &found, words, text, len),
                Kept::Itself(_) => return Ok(unknown),
            }
        }
    }

    /// Whether an operation with a name must know what has that name.
    fn looks(&self, request: &Request<'_>, behind: Follow) -> bool {
        request.op == op::PARENT && request.argument == op::LINK && (request.follow || behind == Follow::Slash)
    }

    /// An operation with the next name, of `len` bytes.
    fn with_name(&self, request: &Request<'_>, len: usize) -> Result<Progress, Errno> {
        if request.op == op::PARENT {
            return Ok(self.done([self.place.number(), 0, 0, 0, 0, 0], None));
        }
        Ok(Progress::Ask(request.affects(Affects::Name(len))))
    }

    fn asker(&mut self) -> Asker {
        Asker(self.identity())
    }

    fn done(&self, words: [u64; 6], handle: Option<Handle>) -> Progress {
        let answer = Answer { label: DONE, words, handle };
        Progress::Done(Served { mount: self.place.mount, answer, text: Text::Nothing })
    }

    /// A text that is kept.
    fn done_with(&self, known: &KArc<Known>, part: Range<usize>) -> Progress {
        let answer = Answer { label: DONE, words: [part.len() as u64, 0, 0, 0, 0, 0], handle: None };
        Progress::Done(Served { mount: self.place.mount, answer, text: Text::Known(known.clone(), part) })
    }

    fn at_file(
        &mut self,
        request: &Request<'_>,
        (file, number, lent): (&KArc<MemoryFile>, u64, u32),
        len: usize,
    ) -> Result<Progress, Errno> {
        let asker = self.asker();
        let with = |rights: u32| {
            let mut handle = Handle::new(Target::Memory(file.clone()), 0);
            handle.narrow(rights);
            let mut words = [0; 6];
            (words[node::NUMBER], words[node::MODE]) = (number, mode::REG.into());
            Ok(self.done(words, Some(handle)))
        };
        let may = |wanted: u32| file.owned().permits(&asker, wanted);
        match request.op {
            op::LOOKUP | op::SET => with(rights::READ),
            op::ACCESS if may(request.argument as u32 & 7) => Ok(self.done([0; 6], None)),
            op::ACCESS => Err(Errno::EACCES),
            op::OPEN => {
                let flags = request.flags();
                check_open(flags, false)?;
                if flags.contains(Open::PATH) {
                    return with(rights::READ);
                }
                let (wanted, rights) = access(flags);
                match may(wanted) {
                    true if rights & !lent == 0 => with(rights),
                    // (For rights that were not lent, the server decides.)
                    true => Ok(Progress::Ask(request.affects(Affects::Name(len)))),
                    false => Err(Errno::EACCES),
                }
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn at_link(
        &mut self,
        request: &Request<'_>,
        found: &KArc<Known>,
        words: &[u64; 6],
        text: &[u8],
        len: usize,
    ) -> Result<Progress, Errno> {
        match request.op {
            op::LOOKUP => Ok(self.done(*words, None)),
            op::READLINK => Ok(self.done_with(found, 0..text.len())),
            op::SET => Ok(Progress::Ask(Affects::Name(len))),
            op::ACCESS => {
                check(&owned(words), &self.asker(), request.argument as u32 & 7).map(|()| self.done([0; 6], None))
            }
            op::OPEN => {
                let flags = request.flags();
                check_open(flags, false)?;
                if flags.contains(Open::PATH) { Ok(self.done(*words, None)) } else { Err(Errno::ELOOP) }
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// The path ends at the present directory.
    fn itself(&mut self, path: &Path, request: &Request<'_>, room: &mut Option<Room>) -> Result<Progress, Errno> {
        debug_assert!(path.is_empty());
        match request.op {
            op::LOOKUP | op::OPEN | op::ACCESS | op::READLINK | op::READDIR => {}
            op::SET => return Ok(Progress::Ask(Affects::Itself)),
            _ => return Ok(Progress::Ask(Affects::Nothing)),
        }
        let changes = mounts::changes(self.place.mount);
        let is_true = |known: &KArc<Known>| matches!(&known.value, Kept::Itself(of) if of.as_of.is_some_and(|word| changes.is_as_of(word)));
        let known = match self.find(b"").filter(is_true) {
            Some(known) => known,
            None => match self.look_up(b"", room)? {
                Some(known) => known,
                None => return Ok(Progress::Ask(request.affects(Affects::Anything))),
            },
        };
        let Kept::Itself(of) = &known.value else { return Ok(Progress::Ask(request.affects(Affects::Anything))) };
        match request.op {
            op::LOOKUP => {}
            op::READDIR => return self.list(&known, of, request, room),
            op::ACCESS => check(&of.owned(), &self.asker(), request.argument as u32 & 7)?,
            op::OPEN => {
                let flags = request.flags();
                check_open(flags, true)?;
                if !flags.contains(Open::PATH) {
                    check(&of.owned(), &self.asker(), access(flags).0)?;
                }
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(self.done(of.words, None))
    }

    /// Records of the directory from a position on.
    fn list(
        &mut self,
        known: &KArc<Known>,
        of: &Directory,
        request: &Request<'_>,
        room: &mut Option<Room>,
    ) -> Result<Progress, Errno> {
        if !of.list.is_empty() {
            return Ok(self.done_with(known, records(&of.list, request.argument, request.room)?));
        }
        let before = mounts::changes(self.place.mount).sample();
        let mut text = taken(room)?;
        let answer = self.call(request, request.op, (b"", 0, false), &mut text[..request.room])?;
        let len = answer.words[list::LEN] as usize;
        let is_whole = request.argument == 0 && answer.label == MAY_KEEP && answer.words[list::IS_END] == 1;
        if is_whole
            && (1..=LIST_MAX).contains(&len)
            && before.quiet() == of.as_of
            && let Some(records) = text.get(..len)
            && let Ok(list) = TryVec::try_from_slice(records)
        {
            let kept = Kept::Itself(Directory { words: of.words, as_of: of.as_of, list });
            self.keep(b"", kept, &before);
        }
        match answer.label {
            DONE | MAY_KEEP => Ok(Progress::Done(Served { mount: self.place.mount, answer, text: Text::Room(text) })),
            error => Err(error_of(error)),
        }
    }

    /// The entry of a name in the present directory.
    fn find(&self, name: &[u8]) -> Option<KArc<Known>> {
        let changes = mounts::changes(self.place.mount);
        let found = KEPT.get(self.place.to_word(), name, changes.generation())?;
        match found.value {
            Kept::Above(_, as_of) if !changes.is_as_of(as_of) => None,
            _ => Some(found),
        }
    }

    /// The entry of the present directory.
    fn directory(&mut self, room: &mut Option<Room>) -> Result<Option<KArc<Known>>, Errno> {
        match self.find(b"") {
            Some(known) => Ok(Some(known)),
            None => self.look_up(b"", room),
        }
    }

    /// Caches an answer that was requested after `before`, if that is allowed. `None` if memory is lacking.
    fn keep(&self, name: &[u8], kept: Kept, before: &Sample) -> Option<KArc<Known>> {
        let known = known(self.place, name, before.generation, kept)?;
        let changes = mounts::changes(self.place.mount);
        KEPT.put(known.clone(), || changes.may_keep(before));
        Some(known)
    }

    /// Asks the server for a name in the present directory. `None` if it does not allow the answer to be cached: then
    /// it must be asked about the whole path.
    fn look_up(&mut self, name: &[u8], room: &mut Option<Room>) -> Result<Option<KArc<Known>>, Errno> {
        let before = mounts::changes(self.place.mount).sample();
        let mut text = taken(room)?;
        let answer = self.call(&Request::LOOKUP, op::LOOKUP, (name, name.len(), false), &mut text)?;
        let words = answer.words;
        let kept = match (answer.label, words[node::MODE] as u32 & mode::FMT, answer.handle) {
            (NOTHING, ..) if !name.is_empty() => Kept::Nothing,
            (MAY_KEEP, mode::DIR, _) if name.is_empty() && words[node::NUMBER] == self.place.number() => {
                Kept::Itself(Directory { words, as_of: before.quiet(), list: Vec::new() })
            }
            (MAY_KEEP, mode::DIR, _) if name == b".." => match before.quiet() {
                Some(as_of) => Kept::Above(words[node::NUMBER], as_of),
                // (Will not be found: a change is under way.)
                None => Kept::Directory(words[node::NUMBER]),
            },
            (MAY_KEEP, mode::DIR, _) if !name.is_empty() => Kept::Directory(words[node::NUMBER]),
            (MAY_KEEP, mode::REG, Some(handle)) if !name.is_empty() => {
                let lent = [rights::READ, rights::WRITE].into_iter().filter(|right| handle.allows(*right)).sum();
                let Target::Memory(file) = &handle.target else { return Err(Errno::EIO) };
                Kept::File(file.clone(), words[node::NUMBER], lent)
            }
            (MAY_KEEP, mode::LNK, _) if !name.is_empty() => {
                let text = text.get(..words[node::SIZE] as usize).ok_or(Errno::EIO)?;
                let Ok(text) = TryVec::try_from_slice(text) else { return Ok(None) };
                Kept::Link(words, text)
            }
            (DONE | LINK | UP | HELD | MAY_KEEP | NOTHING, ..) => return Ok(None),
            (error, ..) => return Err(error_of(error)),
        };
        *room = Some(text);
        // If a link has several names, a change by one of them is not noticed at the others.
        let has_one_name = words[node::MODE] >> 32 == 1;
        if matches!(kept, Kept::Link(..)) && !has_one_name {
            return Ok(known(self.place, name, 0, kept));
        }
        Ok(self.keep(name, kept, &before))
    }
}

fn taken(room: &mut Option<Room>) -> Result<Room, Errno> {
    match room.take() {
        Some(room) => Ok(room),
        None => Room::take(),
    }
}

fn check(what: &Owned, who: &Asker, wanted: u32) -> Result<(), Errno> {
    if what.permits(who, wanted) { Ok(()) } else { Err(Errno::EACCES) }
}

/// Whether open's flags are valid for a node that exists.
fn check_open(flags: Open, is_dir: bool) -> Result<(), Errno> {
    let changes = access(flags).0 & WRITE != 0 || flags.contains(Open::CREAT);
    if flags.bits() & TMPFILE == TMPFILE {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags.contains(Open::CREAT | Open::EXCL) && !flags.contains(Open::PATH) {
        return Err(Errno::EEXIST);
    }
    if flags.contains(Open::DIRECTORY) && !is_dir {
        return Err(Errno::ENOTDIR);
    }
    if is_dir && changes && !flags.contains(Open::PATH) { Err(Errno::EISDIR) } else { Ok(()) }
}

/// The access that open's flags ask for, and the corresponding rights of the handle.
fn access(flags: Open) -> (u32, u32) {
    let (access, rights) = match flags.bits() & 3 {
        0 => (READ, rights::READ),
        1 => (WRITE, rights::WRITE),
        _ => (READ | WRITE, rights::READ | rights::WRITE),
    };
    if flags.contains(Open::TRUNC) { (access | WRITE, rights | rights::WRITE) } else { (access, rights) }
}

/// The records of a list that are after a position and fit. EINVAL if not even one fits, EIO for invalid records.
fn records(list: &[u8], place: u64, room: usize) -> Result<Range<usize>, Errno> {
    let (mut start, mut end) = (0, 0);
    while let Some(header) = list[end..].first_chunk::<{ dtype::HEADER }>() {
        let len = usize::from(u16::from_le_bytes([header[16], header[17]]));
        let [.., a, b, c, d, e, f, g, h] = *header.first_chunk::<16>().ok_or(Errno::EIO)?;
        if len <= dtype::HEADER || end + len > list.len() {
            return Err(Errno::EIO);
        }
        let is_behind = u64::from_le_bytes([a, b, c, d, e, f, g, h]) > place;
        if is_behind && end + len - start > room {
            return if end == start { Err(Errno::EINVAL) } else { Ok(start..end) };
        }
        end += len;
        if !is_behind {
            start = end;
        }
    }
    Ok(start..end)
}
