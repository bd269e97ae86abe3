//! A path while it is walked: the rest of it, behind the walker's position.

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_mm::UserAddr;
use quire_mm::fallible::TryVec;

use crate::arch::uaccess;

/// The maximum length of a path, including its NUL (`PATH_MAX`).
pub const PATH_MAX: usize = 4096;

/// The rest of a path, which symbolic links may extend.
pub struct Path {
    /// The rest begins at `at`; the buffer has room for [`PATH_MAX`] bytes.
    buffer: Vec<u8>,
    at: usize,
}

impl Path {
    /// The path at an address of the program. EFAULT, ENAMETOOLONG.
    pub fn from_user(path: UserAddr) -> Result<Self, Errno> {
        let mut buffer: Vec<u8> = TryVec::try_with_capacity(PATH_MAX)?;
        uaccess::get_string_to(&mut buffer, path)?;
        Ok(Self { buffer, at: 0 })
    }

    /// A path from the kernel. ENAMETOOLONG.
    pub fn new(path: &[u8]) -> Result<Self, Errno> {
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(Self { buffer: TryVec::try_from_slice(path)?, at: 0 })
    }

    /// The rest of the path.
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.at == self.buffer.len()
    }

    /// Whether it begins at the root.
    pub fn is_absolute(&self) -> bool {
        self.rest().starts_with(b"/")
    }

    /// Skips `bytes` bytes.
    pub fn advance(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.buffer.len());
    }

    /// Goes to the next part.
    pub fn skip_slashes(&mut self) {
        let slashes = self.rest().iter().take_while(|&&byte| byte == b'/').count();
        self.advance(slashes);
    }

    /// The length of the next component, and whether slashes or more components follow.
    pub fn next_part(&self) -> (usize, Follow) {
        let rest = self.rest();
        let len = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        let behind = &rest[len..];
        let follow = match behind.iter().any(|&byte| byte != b'/') {
            true => Follow::Parts,
            false if behind.is_empty() => Follow::Nothing,
            false => Follow::Slash,
        };
        (len, follow)
    }

    /// Puts a link's text before the rest. ENOENT for an empty text, ENAMETOOLONG.
    pub fn prepend(&mut self, link: &[u8]) -> Result<(), Errno> {
        if link.is_empty() {
            return Err(Errno::ENOENT);
        }
        let left = self.buffer.len() - self.at;
        if link.len() + left >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if self.at < link.len() {
            let (from, end) = (self.at, self.buffer.len());
            while self.buffer.len() < link.len() + left {
                self.buffer.try_push(0)?;
            }
            self.buffer.copy_within(from..end, link.len());
            self.buffer.truncate(link.len() + left);
            self.at = link.len();
        }
        self.at -= link.len();
        self.buffer[self.at..][..link.len()].copy_from_slice(link);
        Ok(())
    }

    /// Calls `see` with the rest of the path, followed by a second text.
    pub fn with_text<R>(&mut self, text: &[u8], see: impl FnOnce(&[u8]) -> R) -> Result<R, Errno> {
        let end = self.buffer.len();
        self.buffer.try_extend_from_slice(text)?;
        let seen = see(self.rest());
        self.buffer.truncate(end);
        Ok(seen)
    }
}

/// What follows a component of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Nothing.
    Nothing,
    /// Slashes: the component must be a directory.
    Slash,
    /// Other parts.
    Parts,
}
