//! Records of a directory's list, in the format of `getdents64`.

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::layout::{dtype, mode};

use crate::request::Answer;

/// A list whose length in bytes is limited.
pub struct Records {
    bytes: Vec<u8>,
    room: usize,
}

impl Records {
    /// An empty one.
    pub fn new(room: usize) -> Self {
        Self { bytes: Vec::new(), room }
    }

    /// Adds an entry: its name, the node's number, and the type in `full_mode`. `next` is the position after it, where
    /// a continued list begins. `false` if there is no room for it: EINVAL if that is the first one. EIO if memory is
    /// lacking.
    pub fn push(&mut self, name: &[u8], number: u64, full_mode: u32, next: u64) -> Result<bool, Errno> {
        let start = self.bytes.len();
        let len = (dtype::HEADER + name.len() + 1).next_multiple_of(8);
        if start + len > self.room {
            return if start == 0 { Err(Errno::EINVAL) } else { Ok(false) };
        }
        self.bytes.try_reserve(len).map_err(|_| Errno::EIO)?;
        // (The inode number is one more than the number.)
        self.bytes.extend_from_slice(&(number + 1).to_le_bytes());
        self.bytes.extend_from_slice(&next.to_le_bytes());
        self.bytes.extend_from_slice(&(len as u16).to_le_bytes());
        self.bytes.push(match full_mode & mode::FMT {
            mode::DIR => dtype::DIR,
            mode::LNK => dtype::LNK,
            mode::SOCK => dtype::SOCK,
            mode::REG => dtype::REG,
            mode::BLK => dtype::BLK,
            _ => dtype::UNKNOWN,
        });
        self.bytes.extend_from_slice(name);
        self.bytes.resize(start + len, 0);
        Ok(true)
    }

    /// The answer.
    pub fn into_answer(self) -> Answer {
        Answer::text(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_cut_where_the_room_ends() {
        let mut records = Records::new(24 + 32);
        assert_eq!(records.push(b"abcd", 6, mode::DIR | 0o755, 1), Ok(true));
        assert_eq!(records.push(b"a-longer-name", 1, mode::LNK, 2), Ok(false));
        assert_eq!(records.push(b"efgh", 1, mode::REG, 2), Ok(true));
        let text = records.into_answer().text;
        assert_eq!((text.len(), text[0], text[8], text[16], text[18]), (48, 7, 1, 24, dtype::DIR));
        assert_eq!((&text[19..24], text[24 + 18]), (&b"abcd\0"[..], dtype::REG));
        assert_eq!(Records::new(23).push(b"a", 0, 0, 1), Err(Errno::EINVAL));
    }
}
