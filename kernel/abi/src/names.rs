//! How the kernel asks a server what a path names. `docs/names.md` describes the protocol.
//!
//! A request's label is an [`op`]. Its words are those of [`word`]. Window 0 has the path, followed by a second text if
//! the operation needs one; window 1 is a buffer for a text in the answer. The label of an answer is [`DONE`],
//! [`LINK`], [`UP`], [`HELD`], or an error: a negative errno.

/// Operations.
pub mod op {
    /// Finds the end of the path. Answer: [`super::node`].
    pub const LOOKUP: u64 = 0;
    /// As [`LOOKUP`], and opens what is there with the flags of `open` in [`super::word::ARGUMENT`]; with `O_CREAT`, a
    /// file with the mode in [`super::word::MODE`] is made if there is none.
    pub const OPEN: u64 = 1;
    /// Finds the directory that contains the last component of the path, whether or not that component exists, for the
    /// operation in [`super::word::ARGUMENT`]. Answer: the directory's number, and where in the path the last component
    /// begins.
    pub const PARENT: u64 = 2;
    /// Makes a directory with the mode in [`super::word::MODE`]. Answer: [`super::node`].
    pub const MKDIR: u64 = 3;
    /// Makes a symbolic link to the second text.
    pub const SYMLINK: u64 = 4;
    /// Gives the file with the name in the second text, in the directory [`super::word::OTHER`], a second name.
    pub const LINK: u64 = 5;
    /// Removes a name: of a file, or with `AT_REMOVEDIR` in [`super::word::ARGUMENT`] of an empty directory.
    pub const UNLINK: u64 = 6;
    /// Moves the name in the second text, in the directory [`super::word::OTHER`], to the path;
    /// [`super::word::ARGUMENT`] has the flags of `renameat2`.
    pub const RENAME: u64 = 7;
    /// Writes a link's text to window 1. Answer: its length.
    pub const READLINK: u64 = 8;
    /// Writes records of `getdents64` to window 1, of [`super::word::MODE`] bytes at most: the directory's entries
    /// after the position [`super::word::ARGUMENT`], 0 for the beginning. A record's offset is the position after it.
    /// The path is empty. Answer: the number of bytes, 0 at the end.
    pub const READDIR: u64 = 9;
    /// Writes the path of the directory or file relative to the file system's root, with a leading slash, to window 1.
    /// The path is empty. Answer: its length. ENOENT if it has no name any more.
    pub const PATH: u64 = 10;
    /// Changes attributes: the second text is a [`super::Change`]. Answer: [`super::node`]. For a file whose memory
    /// object keeps the attributes, the server only answers: the kernel changes them.
    pub const SET: u64 = 11;
    /// Whether the caller may access what is at the end: [`super::word::ARGUMENT`] has the bits of `access`.
    pub const ACCESS: u64 = 12;
    /// Answer: words of [`super::statfs`]. The path is empty.
    pub const STATFS: u64 = 13;
    /// For a file without a memory object: writes its bytes from the position [`super::word::ARGUMENT`] on,
    /// [`super::word::MODE`] at most, to window 1. The path is empty. Answer: the number of bytes, 0 at the end.
    pub const READ: u64 = 14;
    /// For such a file: writes the second text at the position [`super::word::ARGUMENT`]. The path is empty. Answer:
    /// the number of bytes written; and for a stored file, their position. [`super::word::MODE`] may have
    /// [`super::APPEND`].
    pub const WRITE: u64 = 15;
    /// For such a file: makes what was written to it permanent, whatever happens to the machine. The path is empty.
    pub const SYNC: u64 = 16;
    /// For a disk: the `ioctl` request [`super::word::ARGUMENT`], one of [`crate::block`]. The second text is the
    /// program's argument. The path is empty. Answer: how many bytes of the program's result are in window 1.
    pub const CONTROL: u64 = 17;
    /// For a stored file: sets its length to [`super::word::ARGUMENT`] bytes. The path is empty.
    pub const CUT: u64 = 18;
    /// Makes a node of type socket with the mode in [`super::word::MODE`]; the kernel knows which socket it stands for.
    /// Answer: [`super::node`].
    pub const SOCKET: u64 = 19;
}

/// Words of a request.
pub mod word {
    /// The number of the directory where the path begins.
    pub const DIRECTORY: usize = 0;
    /// The operation's argument.
    pub const ARGUMENT: usize = 1;
    /// For a new node: its permissions, after the umask. For a list: its length.
    pub const MODE: usize = 2;
    /// A second directory.
    pub const OTHER: usize = 2;
    /// The user in the lower half and the group in the upper half, for access to files.
    pub const IDENTITY: usize = 3;
    /// The length of the path, and [`super::FOLLOW`].
    pub const PATH: usize = 4;
    /// The length of the second text, which follows the path.
    pub const TEXT: usize = 5;
}

/// The maximum number of bytes of a [`op::READ`] or [`op::WRITE`].
pub const TRANSFER_MAX: usize = 64 << 10;

/// In [`word::MODE`] of an [`op::WRITE`]: write at the end of the file, whatever the position.
pub const APPEND: u64 = 1;

/// In [`word::PATH`]: a symbolic link at the end of the path is followed too.
pub const FOLLOW: u64 = 1 << 32;

/// An answer: done, or found. The kernel will ask again the next time.
pub const DONE: u64 = 0;
/// An answer: the path leads through a symbolic link, whose text was written to window 1. Words: the directory that
/// contains the link, where the rest of the path behind the link begins, and the text's length.
pub const LINK: u64 = 1;
/// An answer: `..` leads out of the root. Words: the root, and where the rest of the path begins.
pub const UP: u64 = 2;

/// An answer: the path leads through, or for [`op::READLINK`] ends at, a link to something that a process holds. The
/// kernel resolves it for callers that may inspect the process, and continues from there. Words: the process's number,
/// where the rest of the path behind the link begins, a number of [`held`], and for a descriptor its number.
pub const HELD: u64 = 3;

/// What the link of a [`HELD`] answer refers to.
pub mod held {
    /// Its working directory.
    pub const WORKING_DIRECTORY: u64 = 0;
    /// Its root directory.
    pub const ROOT: u64 = 1;
    /// The file of its program.
    pub const PROGRAM: u64 = 2;
    /// The object of a descriptor.
    pub const DESCRIPTOR: u64 = 3;
}

/// The major and minor number in a device number of the type `dev_t`.
pub const fn device_parts(device: u64) -> (u64, u64) {
    (device >> 8 & 0xfff | device >> 32 & !0xfff, device & 0xff | device >> 12 & 0xffff_ff00)
}

/// The device number with these parts; the inverse of [`device_parts`].
pub const fn device_of(major: u64, minor: u64) -> u64 {
    (major & 0xfff) << 8 | (major & !0xfff) << 32 | minor & 0xff | (minor & 0xffff_ff00) << 12
}

/// An answer to [`op::LOOKUP`] and [`op::READDIR`]: as [`DONE`], and the kernel may cache it and use it for other
/// callers, until the kernel itself has had the name or the directory changed, or the server revokes it
/// (`QUIRE_FORGET`). For a symbolic link, its text was written to window 1. From then on the kernel decides by
/// [`access`](crate::access) who may search the directory, or open the file and how.
///
/// A server that gives this answer handles one request at a time: it answers or drops a request before it receives the
/// next one.
pub const KEPT: u64 = 4;
/// An answer to [`op::LOOKUP`]: as ENOENT, the last component does not exist, and the kernel may cache that.
pub const NOTHING: u64 = 5;

/// Bits of the answer to `QUIRE_OPENED`.
pub mod opened {
    /// The file is open or mapped.
    pub const HELD: usize = 1;
    /// Pages of the file have yet to be written back.
    pub const UNWRITTEN: usize = 2;
}

/// Words of an answer to [`op::READDIR`].
pub mod list {
    /// How many bytes.
    pub const LEN: usize = 0;
    /// 1 if there are no entries after these.
    pub const IS_END: usize = 1;
}

/// Words of an answer that describes a node. A regular file comes with a handle of its memory object, which keeps its
/// attributes; a file without one is read and written by messages.
pub mod node {
    /// Its number, below 2⁴⁸; 0 is the root. Its inode number is one more.
    pub const NUMBER: usize = 0;
    /// Its type and permissions, and [`NOTES`]; the upper half is its number of names.
    pub const MODE: usize = 1;
    /// For a regular file without a memory object: its content is stored. It has a size, and can be truncated, synced
    /// and executed.
    pub const STORED: u32 = 1 << 16;
    /// For a regular file without a memory object: a write may set a trigger ([`super::trigger`]) for the open file, or
    /// a read returns the state of a control group ([`super::state`]); poll waits for either.
    pub const TRIGGER: u32 = 1 << 17;
    /// The bits that are not part of the type and permissions.
    pub const NOTES: u32 = STORED | TRIGGER;
    /// User and group, in the format of a request.
    pub const OWNER: usize = 2;
    /// Its size in bytes.
    pub const SIZE: usize = 3;
    /// When its content was last changed, in nanoseconds since 1970.
    pub const MODIFIED: usize = 4;
    /// When its attributes were last changed. For a disk, its device number.
    pub const CHANGED: usize = 5;
}

/// Words of an answer to [`op::READ`] of a file with [`node::TRIGGER`] that returns the state of a control group.
pub mod state {
    /// How many bytes were read.
    pub const LEN: usize = 0;
    /// The key of the group; 0 for any other file.
    pub const GROUP: usize = 1;
    /// How often the state had changed before it was read.
    pub const CHANGES: usize = 2;
}

/// Words of an answer to [`op::WRITE`] to a file with [`node::TRIGGER`].
pub mod trigger {
    /// How many bytes were written.
    pub const LEN: usize = 0;
    /// The key of the control group whose pressure is watched; 0 for the machine.
    pub const GROUP: usize = 1;
    /// 1 for full pressure, 0 for some.
    pub const IS_FULL: usize = 2;
    /// How much pressure causes an event, in microseconds.
    pub const THRESHOLD: usize = 3;
    /// The window in which it must occur, in microseconds. 0: the text was something else, and no trigger is set.
    pub const WINDOW: usize = 4;
}

/// Words of an answer about a file system: sizes in pages, then files.
pub mod statfs {
    /// The maximum number of pages.
    pub const PAGES: usize = 0;
    /// Of these, free ones.
    pub const FREE: usize = 1;
    /// The maximum number of files.
    pub const FILES: usize = 2;
    /// Of these, free ones.
    pub const FREE_FILES: usize = 3;
    /// Linux's number of its kind.
    pub const KIND: usize = 4;
}

/// The changes of [`op::SET`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Change {
    /// Which of the following to change, as the bits below.
    pub what: u32,
    /// Permissions.
    pub mode: u32,
    /// User.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// When it was last read, in nanoseconds since 1970.
    pub accessed: u64,
    /// When its content was changed.
    pub modified: u64,
}

impl Change {
    /// [`Change::mode`].
    pub const MODE: u32 = 1;
    /// [`Change::user`].
    pub const USER: u32 = 2;
    /// [`Change::group`].
    pub const GROUP: u32 = 4;
    /// [`Change::accessed`].
    pub const ACCESSED: u32 = 8;
    /// [`Change::modified`].
    pub const MODIFIED: u32 = 16;
    /// With times: they are the current time, which anybody who may write the file may set too.
    pub const NOW: u32 = 32;
}

crate::layout::pod!(Change);
const _: () = assert!(size_of::<Change>() == 32);
