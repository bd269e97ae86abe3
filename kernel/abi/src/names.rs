//! How the kernel asks a server for what a path names. `docs/names.md` has the protocol.
//!
//! A request's label is an [`op`]. Its words are those of [`word`]; window 0 has the path, followed by a second text if
//! the operation has one, and window 1 is room for a text that is answered. An answer's label is [`DONE`], [`LINK`],
//! [`UP`], [`HELD`], or an error: an errno, negative.

/// Operations.
pub mod op {
    /// What is at the end of the path. Answer: [`super::node`].
    pub const LOOKUP: u64 = 0;
    /// As [`LOOKUP`], opened with the flags of `open` in [`super::word::ARGUMENT`]; with `O_CREAT` a file with the mode
    /// in [`super::word::MODE`] is made if there is none.
    pub const OPEN: u64 = 1;
    /// The directory in which the last part of the path is, whether there is something of that name or not, for the
    /// operation in [`super::word::ARGUMENT`]. Answer: its number, and where in the path the name begins.
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
    /// behind the place [`super::word::ARGUMENT`], 0 for its beginning; a record's offset is the place behind it. The
    /// path is empty. Answer: how many bytes, 0 at the end.
    pub const READDIR: u64 = 9;
    /// Writes the path of the directory or file from the root of the file system, which begins with a slash, to
    /// window 1. The path is empty. Answer: its length. ENOENT for what has no name any more.
    pub const PATH: u64 = 10;
    /// Changes attributes: the second text is a [`super::Change`]. Answer: [`super::node`]; of a file, whose attributes
    /// its memory object has, that is all.
    pub const SET: u64 = 11;
    /// Whether the caller may access what is at the end: [`super::word::ARGUMENT`] has the bits of `access`.
    pub const ACCESS: u64 = 12;
    /// Answer: words of [`super::statfs`]. The path is empty.
    pub const STATFS: u64 = 13;
    /// Of a file without a memory object: writes the bytes from the place [`super::word::ARGUMENT`] on,
    /// [`super::word::MODE`] at most, to window 1. The path is empty. Answer: how many, 0 at the end.
    pub const READ: u64 = 14;
    /// Of such a file: the second text is to be written at the place [`super::word::ARGUMENT`]. The path is empty.
    /// Answer: how many bytes were; and of a stored file, where they begin. [`super::word::MODE`] may have
    /// [`super::APPEND`].
    pub const WRITE: u64 = 15;
    /// Of such a file: what was written to it is kept from now on, whatever happens to the machine. The path is empty.
    pub const SYNC: u64 = 16;
    /// Of a disk: what `ioctl` asks by the request [`super::word::ARGUMENT`], of those in [`crate::block`]. The second
    /// text is what the program gives. The path is empty. Answer: how many bytes of what the program gets are in
    /// window 1.
    pub const CONTROL: u64 = 17;
    /// Of a stored file: it is [`super::word::ARGUMENT`] bytes long from now on. The path is empty.
    pub const CUT: u64 = 18;
    /// Makes a node of the type for sockets with the mode in [`super::word::MODE`]; what it stands for the kernel
    /// knows. Answer: [`super::node`].
    pub const SOCKET: u64 = 19;
}

/// Words of a request.
pub mod word {
    /// The number of the directory where the path begins.
    pub const DIRECTORY: usize = 0;
    /// Of the operation.
    pub const ARGUMENT: usize = 1;
    /// For what is made: its permissions, after the umask. For a list: its length.
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

/// The most bytes that a [`op::READ`] or a [`op::WRITE`] is for.
pub const TRANSFER_MAX: usize = 64 << 10;

/// In [`word::MODE`] of an [`op::WRITE`]: at the end of the file, whatever the place.
pub const APPEND: u64 = 1;

/// In [`word::PATH`]: a link at the end of the path is followed too.
pub const FOLLOW: u64 = 1 << 32;

/// An answer: it was done, or what was found. The kernel asks again the next time.
pub const DONE: u64 = 0;
/// An answer: on the way is a symbolic link, whose text was written to window 1. Words: the directory in which it is,
/// where in the path what is behind it begins, and the text's length.
pub const LINK: u64 = 1;
/// An answer: `..` leads out of the root. Words: the root, and where in the path what is behind it begins.
pub const UP: u64 = 2;

/// An answer: on the way, or for [`op::READLINK`] at the end, is a link to what a process holds. The kernel gives that
/// to those who may inspect the process, and goes on there. Words: the process's number, where in the path what is
/// behind the link begins, a number of [`held`], and for a descriptor its number.
pub const HELD: u64 = 3;

/// What a process holds, as words of [`HELD`] say.
pub mod held {
    /// Its working directory.
    pub const WORKING_DIRECTORY: u64 = 0;
    /// Its root directory.
    pub const ROOT: u64 = 1;
    /// The file of its program.
    pub const PROGRAM: u64 = 2;
    /// What a descriptor refers to.
    pub const DESCRIPTOR: u64 = 3;
}

/// The major and the minor number of a device number, as `dev_t` has them.
pub const fn device_parts(device: u64) -> (u64, u64) {
    (device >> 8 & 0xfff | device >> 32 & !0xfff, device & 0xff | device >> 12 & 0xffff_ff00)
}

/// The device number with these parts, as [`device_parts`] takes it apart.
pub const fn device_of(major: u64, minor: u64) -> u64 {
    (major & 0xfff) << 8 | (major & !0xfff) << 32 | minor & 0xff | (minor & 0xffff_ff00) << 12
}

/// An answer to [`op::LOOKUP`] and [`op::READDIR`]: as [`DONE`], and the kernel may keep it, and give it to others,
/// until it has the name or the directory changed itself, or the server revokes it (`QUIRE_FORGET`). For a symbolic
/// link its text was written to window 1. From then on the kernel decides who may search the directory, or open the
/// file and for what, by [`access`](crate::access).
///
/// A server that answers so handles one request after the other: it has answered or dropped one before it receives the
/// next.
pub const KEPT: u64 = 4;
/// An answer to [`op::LOOKUP`]: as ENOENT, there is nothing of the last name, and the kernel may keep that.
pub const NOTHING: u64 = 5;

/// Bits of the answer to `QUIRE_OPENED`.
pub mod opened {
    /// Somebody has the file open, or mapped.
    pub const HELD: usize = 1;
    /// Pages of it have still to be written.
    pub const UNWRITTEN: usize = 2;
}

/// Words of an answer to [`op::READDIR`].
pub mod list {
    /// How many bytes.
    pub const LEN: usize = 0;
    /// 1 if nothing comes behind them.
    pub const IS_END: usize = 1;
}

/// Words of an answer with what was found. A regular file comes with a handle of its memory object, which has its
/// attributes; without one it is read and written by messages.
pub mod node {
    /// Its number, below 2⁴⁸; 0 is the root. Its inode number is one more.
    pub const NUMBER: usize = 0;
    /// Its type and permissions, and [`NOTES`]; in the upper half its number of names.
    pub const MODE: usize = 1;
    /// Of a regular file without a memory object: its content is kept. It has a size, and can be cut, synced, executed.
    pub const STORED: u32 = 1 << 16;
    /// Of a regular file without a memory object: what is written to it may set a trigger ([`super::trigger`]) of the
    /// open file, or what is read is the state of a control group ([`super::state`]), and poll waits for that.
    pub const TRIGGER: u32 = 1 << 17;
    /// What is no part of the type and permissions.
    pub const NOTES: u32 = STORED | TRIGGER;
    /// User and group, as in a request.
    pub const OWNER: usize = 2;
    /// Its size in bytes.
    pub const SIZE: usize = 3;
    /// When its content was changed, in nanoseconds since 1970.
    pub const MODIFIED: usize = 4;
    /// When its attributes were changed. A disk has its device number here.
    pub const CHANGED: usize = 5;
}

/// Words of an answer to [`op::READ`] of a file with [`node::TRIGGER`] that says the state of a control group.
pub mod state {
    /// How many bytes were read.
    pub const LEN: usize = 0;
    /// The key of the group; 0 if it is another file.
    pub const GROUP: usize = 1;
    /// How often that state had changed before it was looked at.
    pub const CHANGES: usize = 2;
}

/// Words of an answer to [`op::WRITE`] to a file with [`node::TRIGGER`].
pub mod trigger {
    /// How many bytes were written.
    pub const LEN: usize = 0;
    /// The key of the control group whose pressure it is about; 0 for the machine.
    pub const GROUP: usize = 1;
    /// 1 for full pressure, 0 for some.
    pub const IS_FULL: usize = 2;
    /// How much of it is an event, in microseconds.
    pub const THRESHOLD: usize = 3;
    /// Within what time, in microseconds. 0: the text was something else, and no trigger is set.
    pub const WINDOW: usize = 4;
}

/// Words of an answer about a file system: sizes in pages, then files.
pub mod statfs {
    /// Pages that it may have at most.
    pub const PAGES: usize = 0;
    /// Of these, free ones.
    pub const FREE: usize = 1;
    /// Files that it may have at most.
    pub const FILES: usize = 2;
    /// Of these, free ones.
    pub const FREE_FILES: usize = 3;
    /// Linux's number of its kind.
    pub const KIND: usize = 4;
}

/// What [`op::SET`] changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Change {
    /// Which of the following, by the bits below.
    pub what: u32,
    /// Permissions.
    pub mode: u32,
    /// User.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// When it was read, in nanoseconds since 1970.
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
    /// With times: they are the present, which whoever may write the file may set too.
    pub const NOW: u32 = 32;
}

crate::layout::pod!(Change);
const _: () = assert!(size_of::<Change>() == 32);
