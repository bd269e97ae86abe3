//! Addresses of local sockets (`struct sockaddr_un`): a path, an abstract name, or nothing.
//!
//! A path ends at its first NUL, and is returned with one. An abstract name begins with a NUL, and all its bytes are
//! significant.

use quire_abi::Errno;

/// The address family, with which every address begins.
pub const FAMILY: u16 = 1;
/// Bytes of the family.
pub const HEADER: usize = 2;
/// The maximum length of a name in an address from a program.
pub const PATH_MAX: usize = 108;
/// The maximum length of an address from a program.
pub const GIVEN_MAX: usize = HEADER + PATH_MAX;
/// The maximum length of an address that a program receives: the NUL after a path may have been missing.
pub const TOLD_MAX: usize = GIVEN_MAX + 1;

/// A name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    bytes: [u8; PATH_MAX + 1],
    len: u8,
}

/// The kind of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// A path, without NUL.
    Path(&'a [u8]),
    /// A name outside of all file systems, including its leading NUL.
    Abstract(&'a [u8]),
}

impl Address {
    /// The abstract name for a socket that asks for any name: five digits.
    pub fn any(number: u32) -> Self {
        const DIGITS: usize = 5;
        let mut bytes = [0; PATH_MAX + 1];
        for (i, byte) in bytes[1..=DIGITS].iter_mut().enumerate() {
            let digit = number >> (4 * (DIGITS - 1 - i)) & 0xf;
            *byte = char::from_digit(digit, 16).map_or(b'0', |digit| digit as u8);
        }
        Self { bytes, len: DIGITS as u8 + 1 }
    }

    /// Parses an address from a program; `None` if it has only the family. EINVAL.
    pub fn parse(given: &[u8]) -> Result<Option<Self>, Errno> {
        if !(HEADER..=GIVEN_MAX).contains(&given.len()) || given[..HEADER] != FAMILY.to_ne_bytes() {
            return Err(Errno::EINVAL);
        }
        let path = &given[HEADER..];
        let len = match path.first() {
            None => return Ok(None),
            Some(0) => path.len(),
            Some(_) => path.iter().position(|byte| *byte == 0).unwrap_or(path.len()) + 1,
        };
        let mut bytes = [0; PATH_MAX + 1];
        let copied = len.min(path.len());
        bytes[..copied].copy_from_slice(&path[..copied]);
        Ok(Some(Self { bytes, len: len as u8 }))
    }

    /// The kind of this name.
    pub fn name(&self) -> Name<'_> {
        let bytes = self.bytes();
        match bytes {
            [0, ..] => Name::Abstract(bytes),
            [path @ .., _] => Name::Path(path),
            [] => Name::Abstract(bytes),
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Writes an address, or an empty one, for a program; returns its length.
    pub fn tell(address: Option<&Self>, to: &mut [u8; TOLD_MAX]) -> usize {
        to[..HEADER].copy_from_slice(&FAMILY.to_ne_bytes());
        let name = address.map_or(&[][..], Self::bytes);
        to[HEADER..HEADER + name.len()].copy_from_slice(name);
        HEADER + name.len()
    }
}
