//! The flattened tree as bytes: everything is checked here, once, before anyone reads a node.
//!
//! [`Blob::new`] establishes:
//!
//! 1. header fields lie inside the buffer, their sums do not wrap, blocks are aligned;
//! 2. the strings block is ASCII and ends in NUL, so every offset inside it is a string;
//! 3. the structure block is balanced, at most [`MAX_DEPTH`] deep, properties come before child nodes, every name and
//!    value ends inside the block, and its last word is the only FDT_END;
//! 4. the memory reservation block has a terminator before its end.
//!
//! What these checks need to know of the format, a walk needs too, so there is no crate underneath. (`fdt` 0.1 panics
//! on FDT_NOP words; the nested iterators of `fdt` 0.2.0-alpha3 take 17 KiB of stack for 64 levels, and it indexes with
//! fields that are not checked.)
//!
//! After that [`Tokens`] are met as the format has them. On any other bytes they would end early; they never panic.

use super::TreeError;

/// The maximum nesting of nodes, including the root, as on Linux; a Pi 4's tree has 6. It bounds the stack that a walk
/// needs, 100 bytes for each level.
pub const MAX_DEPTH: usize = 64;
/// The arm64 boot protocol allows a tree of 2 MiB.
pub const MAX_SIZE: usize = 2 << 20;
/// Bytes of a tree that [`total_size`] needs to see.
pub const HEADER_SIZE: usize = 40;

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
pub(super) const BEGIN_NODE: u32 = 1;
pub(super) const END_NODE: u32 = 2;
pub(super) const PROP: u32 = 3;
pub(super) const NOP: u32 = 4;
const END: u32 = 9;

/// The size that a tree's header claims, for a caller that has only its address and must know how much to map.
pub fn total_size(header: &[u8; HEADER_SIZE]) -> Result<usize, TreeError> {
    let word = |at: usize| be32(header, at).unwrap_or(0);
    if word(0) != MAGIC {
        return Err(TreeError::Magic(word(0)));
    }
    let size = word(4) as usize;
    if !(HEADER_SIZE..=MAX_SIZE).contains(&size) {
        return Err(TreeError::Size(size));
    }
    Ok(size)
}

/// A tree whose bytes satisfy the conditions in this file's head.
#[derive(Clone, Copy)]
pub struct Blob<'a> {
    bytes: &'a [u8],
    reservations: usize,
    tokens: Tokens<'a>,
}

impl<'a> Blob<'a> {
    /// Checks `bytes`, which may be longer than the tree in it.
    pub fn new(bytes: &'a [u8]) -> Result<Self, TreeError> {
        let (blob, strings) = Self::laid_out(bytes)?;
        check_strings(strings)?;
        check_structure(blob.tokens.structure, strings.len())?;
        blob.check_reservations()?;
        Ok(blob)
    }

    /// A tree that was checked before. (If it was not, walks over it end early.)
    pub fn checked(bytes: &'a [u8]) -> Result<Self, TreeError> {
        Self::laid_out(bytes).map(|(blob, _)| blob)
    }

    /// A tree with the blocks that the header describes; also its strings.
    fn laid_out(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), TreeError> {
        let header = bytes.first_chunk::<HEADER_SIZE>().ok_or(TreeError::Size(bytes.len()))?;
        let size = total_size(header)?;
        let bytes = bytes.get(..size).ok_or(TreeError::Size(size))?;
        let field = |index: usize| be32(header, index * 4).unwrap_or(0);
        let (version, compatible) = (field(5), field(6));
        if version < VERSION || compatible > VERSION {
            return Err(TreeError::Version(version));
        }
        let reservations = field(4) as usize;
        let structure = block(bytes, field(2), field(9)).filter(|_| field(2) % 4 == 0 && field(9) % 4 == 0);
        let strings = block(bytes, field(3), field(8)).ok_or(TreeError::Block("strings"))?;
        let structure = structure.ok_or(TreeError::Block("structure"))?;
        let tokens = Tokens { structure, strings, at: 0 };
        Ok((Self { bytes, reservations, tokens }, strings))
    }

    /// The structure block from its start.
    pub fn tokens(&self) -> Tokens<'a> {
        self.tokens
    }

    /// The structure block from a [place](Tokens::place) on. `None` for one that is not in it.
    pub fn tokens_at(&self, place: usize) -> Option<Tokens<'a>> {
        (place < self.tokens.structure.len() && place.is_multiple_of(4)).then_some(Tokens { at: place, ..self.tokens })
    }

    /// The `/memreserve/` entries as (address, size), the terminator left out.
    pub fn reservations(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let entries = self.bytes.get(self.reservations..).unwrap_or(&[]);
        entries.chunks_exact(16).map_while(reservation)
    }

    fn check_reservations(&self) -> Result<(), TreeError> {
        let entries = self.bytes.get(self.reservations..).ok_or(TreeError::Block("memory reservation"))?;
        let terminated = entries.chunks_exact(16).any(|entry| reservation(entry).is_none());
        if self.reservations.is_multiple_of(8) && terminated {
            Ok(())
        } else {
            Err(TreeError::Block("memory reservation"))
        }
    }
}

/// The tokens of the structure block.
#[derive(Clone, Copy, Debug)]
pub(super) enum Token<'a> {
    /// The beginning of a node, with this name and unit address.
    Begin(&'a str),
    /// A property's name and value.
    Property(&'a str, &'a [u8]),
    /// The innermost node ends.
    End,
}

/// The structure block from some token on.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        while be32(self.structure, self.at)? == NOP {
            self.at += 4;
        }
        let rest = &self.structure[self.at + 4..];
        let (token, len) = match be32(self.structure, self.at)? {
            BEGIN_NODE => {
                let name = c_string(rest)?;
                (Token::Begin(name), name.len() + 1)
            }
            PROP => {
                let (len, name) = (be32(rest, 0)? as usize, be32(rest, 4)? as usize);
                let value = rest.get(8..)?.get(..len)?;
                (Token::Property(c_string(self.strings.get(name..)?)?, value), 8 + len)
            }
            END_NODE => (Token::End, 0),
            _ => return None,
        };
        self.at += 4 + len.next_multiple_of(4);
        Some(token)
    }
}

impl<'a> Tokens<'a> {
    /// How many bytes of the structure block come before.
    pub fn place(&self) -> usize {
        self.at
    }

    /// The properties of the node inside which these tokens begin.
    pub fn properties(self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.map_while(|token| match token {
            Token::Property(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// The name of the next child of the node inside which these tokens begin; they begin inside the child then. `None`
    /// where there is none: they begin after the node.
    pub fn next_child(&mut self) -> Option<&'a str> {
        self.find_map(|token| match token {
            Token::Begin(name) => Some(Some(name)),
            Token::Property(..) => None,
            Token::End => Some(None),
        })?
    }

    /// Leaves the node inside which these tokens begin, and all nodes in it.
    pub fn skip_node(&mut self) {
        let mut depth = 1usize;
        while depth > 0 {
            match self.next() {
                Some(Token::Begin(_)) => depth += 1,
                Some(Token::Property(..)) => {}
                Some(Token::End) => depth -= 1,
                None => return,
            }
        }
    }
}

/// The string that `bytes` start with, up to its NUL.
fn c_string(bytes: &[u8]) -> Option<&str> {
    let len = bytes.iter().position(|byte| *byte == 0)?;
    core::str::from_utf8(&bytes[..len]).ok()
}

/// An entry of the memory reservation block; `None` is its terminator.
fn reservation(entry: &[u8]) -> Option<(u64, u64)> {
    let (base, size) = (be64(entry, 0)?, be64(entry, 8)?);
    ((base, size) != (0, 0)).then_some((base, size))
}

fn block(bytes: &[u8], offset: u32, size: u32) -> Option<&[u8]> {
    let offset = offset as usize;
    bytes.get(offset..offset.checked_add(size as usize)?)
}

fn check_strings(strings: &[u8]) -> Result<(), TreeError> {
    let terminated = strings.last().is_none_or(|last| *last == 0);
    if terminated && strings.is_ascii() { Ok(()) } else { Err(TreeError::Block("strings")) }
}

/// One pass over the tokens; checks condition 3 of the module.
fn check_structure(block: &[u8], strings_len: usize) -> Result<(), TreeError> {
    let damaged = |at: usize| TreeError::Structure(at);
    let (mut at, mut depth) = (0, 0);
    let mut properties_allowed = false;
    loop {
        let here = at;
        let token = be32(block, at).ok_or(damaged(here))?;
        at += 4;
        match token {
            NOP => {}
            BEGIN_NODE if depth < MAX_DEPTH => {
                let name_len = check_node_name(&block[at..], depth == 0).ok_or(damaged(here))?;
                at = (at + name_len + 1).next_multiple_of(4);
                depth += 1;
                properties_allowed = true;
            }
            BEGIN_NODE => return Err(TreeError::TooDeep),
            PROP if depth > 0 && properties_allowed => {
                let len = be32(block, at).ok_or(damaged(here))? as usize;
                let name = be32(block, at + 4).ok_or(damaged(here))? as usize;
                if name >= strings_len || block.len() - (at + 8) < len {
                    return Err(damaged(here));
                }
                at = (at + 8 + len).next_multiple_of(4);
            }
            END_NODE if depth > 0 => {
                depth -= 1;
                properties_allowed = false;
                if depth == 0 {
                    return check_end(block, at).ok_or(damaged(here));
                }
            }
            _ => return Err(damaged(here)),
        }
    }
}

/// After the root node nothing but FDT_NOP may come, and FDT_END as the last word.
fn check_end(block: &[u8], mut at: usize) -> Option<()> {
    while be32(block, at)? == NOP {
        at += 4;
    }
    (be32(block, at)? == END && at + 4 == block.len()).then_some(())
}

/// The length of the NUL-terminated name that `bytes` starts with: printable, without '/', empty for the root alone.
fn check_node_name(bytes: &[u8], is_root: bool) -> Option<usize> {
    let len = bytes.iter().position(|byte| *byte == 0)?;
    let printable = bytes[..len].iter().all(|byte| byte.is_ascii_graphic() && *byte != b'/');
    (printable && is_root == (len == 0)).then_some(len)
}

/// The big-endian word at `at`, if `bytes` reach that far.
pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

/// The big-endian double word at `at`, if `bytes` reach that far.
pub(super) fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|word| u64::from_be_bytes(*word))
}
