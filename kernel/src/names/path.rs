//! A path while it is walked: what is behind the walker's place.

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_mm::UserAddr;
use quire_mm::fallible::TryVec;

use crate::arch::uaccess;

/// Longest path, its NUL included (`PATH_MAX`).
pub const PATH_MAX: usize = 4096;

/// The part of a path that is left, which symbolic links may make longer.
pub struct Path {
    /// The part from `at` on is left; there is room for [`PATH_MAX`] bytes.
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

    /// A path that the kernel has. ENAMETOOLONG.
    pub fn new(path: &[u8]) -> Result<Self, Errno> {
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(Self { buffer: TryVec::try_from_slice(path)?, at: 0 })
    }

    /// What is left.
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

    /// The length of the part that comes next, and whether slashes or more parts follow.
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

    /// Puts a link's text before what is left. ENOENT for an empty one, ENAMETOOLONG.
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

    /// Has `see` look at what is left, with a second text behind it.
    pub fn with_text<R>(&mut self, text: &[u8], see: impl FnOnce(&[u8]) -> R) -> Result<R, Errno> {
        let end = self.buffer.len();
        self.buffer.try_extend_from_slice(text)?;
        let seen = see(self.rest());
        self.buffer.truncate(end);
        Ok(seen)
    }
}

/// What comes behind a part of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Nothing.
    Nothing,
    /// Slashes: it must be a directory.
    Slash,
    /// Other parts.
    Parts,
}
