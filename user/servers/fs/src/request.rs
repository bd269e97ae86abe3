//! Requests of the kernel, and a server's answers: the messages of `docs/names.md`, decoded and encoded. Programs may
//! call a server too, so nothing in a message is trusted.

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::names::{Change, DONE, FOLLOW, HELD, KEPT, LINK, NOTHING, TRANSFER_MAX, UP, node, op, word};

use crate::walk::Follow;

/// The maximum length of a path, and of a second text.
pub const TEXT_MAX: usize = 4095;

/// The maximum length of a text in an answer that the kernel accepts.
pub const ROOM: usize = 4096;

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// One of [`quire_abi::names::op`].
    pub op: u64,
    /// The number of the directory where the path begins.
    pub directory: u64,
    /// The operation's argument.
    pub argument: u64,
    /// Permissions, or a second directory's number.
    pub mode: u64,
    /// The caller's user and group.
    pub identity: (u32, u32),
    /// Whether the caller wants a symbolic link at the end followed; see [`Request::follow`].
    pub follow: bool,
    /// The path.
    pub path: &'a [u8],
    /// The second text.
    pub text: &'a [u8],
}

/// The lengths of path and second text of a message with this label. EINVAL if they are too long.
pub fn lengths(label: u64, words: &[u64; 6]) -> Result<(usize, usize), Errno> {
    let len = |word: u64, most: usize| usize::try_from(word).ok().filter(|len| *len <= most).ok_or(Errno::EINVAL);
    let most = if label == op::WRITE { TRANSFER_MAX } else { TEXT_MAX };
    Ok((len(words[word::PATH] & (FOLLOW - 1), TEXT_MAX)?, len(words[word::TEXT], most)?))
}

impl<'a> Request<'a> {
    /// Decodes a message, and the bytes of its window: path and second text. EINVAL if it is invalid.
    pub fn new(label: u64, words: &[u64; 6], texts: &'a [u8]) -> Result<Self, Errno> {
        let (path, text) = lengths(label, words)?;
        let (path, text) =
            texts.get(..path + text).and_then(|texts| texts.split_at_checked(path)).ok_or(Errno::EINVAL)?;
        if path.starts_with(b"/") || path.contains(&0) {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            op: label,
            directory: words[word::DIRECTORY],
            argument: words[word::ARGUMENT],
            mode: words[word::MODE],
            identity: (words[word::IDENTITY] as u32, (words[word::IDENTITY] >> 32) as u32),
            follow: words[word::PATH] & FOLLOW != 0,
            path,
            text,
        })
    }

    /// The second text of [`op::SET`]. EINVAL if it is too short.
    pub fn change(&self) -> Result<Change, Errno> {
        let bytes: &[u8; size_of::<Change>()] = self.text.first_chunk().ok_or(Errno::EINVAL)?;
        let half = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let whole = |at: usize| u64::from(half(at)) | u64::from(half(at + 4)) << 32;
        Ok(Change {
            what: half(0),
            mode: half(4),
            user: half(8),
            group: half(12),
            accessed: whole(16),
            modified: whole(24),
        })
    }

    /// Whether the operation acts on the last name itself, and not on the node that it leads to.
    pub fn is_for_name(&self) -> bool {
        match self.op {
            op::MKDIR | op::SYMLINK | op::SOCKET | op::LINK | op::UNLINK | op::RENAME => true,
            op::PARENT => self.argument == op::RENAME,
            _ => false,
        }
    }

    /// When a symbolic link at the end is followed.
    pub fn follow(&self) -> Follow {
        match self.follow {
            _ if self.is_for_name() => Follow::Never,
            true => Follow::Always,
            false => Follow::BeforeSlash,
        }
    }

    /// Whether the operation acts on the directory itself, and has no path.
    pub fn has_no_path(&self) -> bool {
        matches!(self.op, op::READDIR | op::PATH | op::STATFS | op::READ | op::WRITE | op::SYNC | op::CONTROL | op::CUT)
    }
}

/// An answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The label.
    pub label: u64,
    /// The words.
    pub words: [u64; 6],
    /// The text for window 1.
    pub text: Vec<u8>,
    /// A handle in the answer, and its rights.
    pub handle: Option<(u32, u32)>,
}

impl Answer {
    /// It was done.
    pub fn done(words: [u64; 6]) -> Self {
        Self { label: DONE, words, ..Self::default() }
    }

    /// Success, with the requested text.
    pub fn text(text: Vec<u8>) -> Self {
        Self { words: [text.len() as u64, 0, 0, 0, 0, 0], text, ..Self::default() }
    }

    /// A symbolic link must be followed, which is in the directory with this number; the rest of the path begins at
    /// `behind`.
    pub fn link(directory: u64, behind: usize, text: Vec<u8>) -> Self {
        Self { label: LINK, words: [directory, behind as u64, text.len() as u64, 0, 0, 0], text, handle: None }
    }

    /// The path leads out of the root.
    pub fn up(behind: usize) -> Self {
        Self { label: UP, words: [0, behind as u64, 0, 0, 0, 0], ..Self::default() }
    }

    /// A link leads to an object that the process `pid` holds, one of [`held`](quire_abi::names::held); the rest of the
    /// path begins at `behind`.
    pub fn held(pid: u32, behind: usize, what: u64, number: u32) -> Self {
        Self { label: HELD, words: [pid.into(), behind as u64, what, number.into(), 0, 0], ..Self::default() }
    }

    /// The same answer, which the kernel may cache.
    pub fn kept(self) -> Self {
        Self { label: KEPT, ..self }
    }

    /// There is nothing of that name, and the kernel may cache that.
    pub fn nothing() -> Self {
        Self { label: NOTHING, ..Self::default() }
    }

    /// It failed.
    pub fn error(error: Errno) -> Self {
        Self { label: error.to_ret() as u64, ..Self::default() }
    }
}

/// The description of a node in an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Its number.
    pub number: u64,
    /// Its type and permissions.
    pub mode: u32,
    /// How many names it has.
    pub links: u32,
    /// Its user.
    pub user: u32,
    /// Its group.
    pub group: u32,
    /// Its size in bytes.
    pub size: u64,
    /// When its content was changed.
    pub modified: u64,
    /// When its attributes were changed.
    pub changed: u64,
}

impl Found {
    /// The words of the answer.
    pub fn to_words(self) -> [u64; 6] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let mut words = [0; 6];
        words[node::NUMBER] = self.number;
        words[node::MODE] = pair(self.mode, self.links);
        words[node::OWNER] = pair(self.user, self.group);
        words[node::SIZE] = self.size;
        words[node::MODIFIED] = self.modified;
        words[node::CHANGED] = self.changed;
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_apart() {
        let words = [7, 1, 2, 5 | 6 << 32, 3 | FOLLOW, 2];
        let request = Request::new(op::RENAME, &words, b"a/bxy").unwrap();
        assert_eq!((request.path, request.text, request.follow), (&b"a/b"[..], &b"xy"[..], true));
        assert_eq!((request.directory, request.identity), (7, (5, 6)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |path: u64, text: u64, bytes: &[u8]| {
            assert_eq!(Request::new(op::LOOKUP, &[0, 0, 0, 0, path, text], bytes).err(), Some(Errno::EINVAL));
        };
        refused(4096, 0, &[1; 5000]);
        refused(u64::from(u32::MAX), 0, &[1; 5000]);
        refused(1, u64::MAX, &[1; 5000]);
        refused(3, 0, b"ab");
        refused(2, 2, b"abc");
        refused(2, 0, b"/a");
        refused(2, 0, b"a\0");
    }

    #[test]
    fn a_change_is_read_as_it_was_written() {
        let change = Change { what: 3, mode: 0o644, user: 5, group: 6, accessed: 7 << 40, modified: 8 };
        let text = quire_abi::layout::bytes_of(&change);
        let words = [0, 0, 0, 0, 0, text.len() as u64];
        assert_eq!(Request::new(op::SET, &words, text).unwrap().change(), Ok(change));
        assert_eq!(Request::new(op::SET, &[0; 6], b"").unwrap().change(), Err(Errno::EINVAL));
    }
}
