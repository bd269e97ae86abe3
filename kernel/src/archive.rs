//! The boot archive: a cpio archive (newc) that the boot loader put into memory, as a tree of read-only files.
//!
//! The index is built once, in the boot heap, and never changes. Children of a directory are a run of the table,
//! sorted by name, so that a step of a path is a binary search. File contents stay where the loader put them.

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::Range;

use quire_abi::Errno;
use quire_abi::layout::mode;
use quire_mm::addr::{PAGE_SIZE, PhysRange};
use quire_mm::fallible::{KArc, TryVec};
use quire_mm::{Machine, PhysAddr};
use spin::Once;

use crate::vm::{Cpu, Object};

/// A file, directory or symbolic link.
pub struct Node {
    /// The last component of its path.
    pub name: &'static [u8],
    /// Type and permission bits.
    pub mode: u32,
    /// Contents, or a link's target.
    pub data: &'static [u8],
    /// Its number: the index in the table, the root's is 0.
    pub ino: u32,
    /// The directory that it is in; the root is in itself.
    pub parent: u32,
    /// The children's indices, for a directory.
    children: Range<u32>,
    /// Seconds since 1970.
    pub mtime: u32,
    /// The object that mappings of it use.
    object: Once<KArc<Object>>,
}

static TREE: Once<Vec<Node>> = Once::new();

/// Why an archive cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No header where one should be, at this offset.
    Header(usize),
    /// A length that leads outside the archive.
    Truncated(usize),
    /// No room for the index.
    NoMemory,
}

const HEADER: usize = 110;

struct Entry {
    path: &'static [u8],
    mode: u32,
    mtime: u32,
    data: &'static [u8],
}

/// The entries of an archive. Several archives may follow one another, with padding between them.
fn entries(archive: &'static [u8]) -> impl Iterator<Item = Result<Entry, Error>> {
    let mut at = 0;
    let mut failed = false;
    core::iter::from_fn(move || {
        if failed {
            return None;
        }
        // Between archives there may be zeros.
        while at < archive.len() && archive[at] == 0 {
            at += 4;
        }
        if at >= archive.len() {
            return None;
        }
        let entry = read_entry(archive, at);
        match entry {
            Ok((entry, next)) => {
                at = next;
                Some(Ok(entry))
            }
            Err(e) => {
                failed = true;
                Some(Err(e))
            }
        }
    })
}

fn read_entry(archive: &'static [u8], at: usize) -> Result<(Entry, usize), Error> {
    let header = archive.get(at..at + HEADER).ok_or(Error::Truncated(at))?;
    if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
        return Err(Error::Header(at));
    }
    let field = |i: usize| -> Result<usize, Error> {
        let text = header.get(6 + i * 8..14 + i * 8).and_then(|t| core::str::from_utf8(t).ok());
        text.and_then(|t| usize::from_str_radix(t, 16).ok()).ok_or(Error::Header(at))
    };
    let (mode, mtime, size, name_size) = (field(1)?, field(5)?, field(6)?, field(11)?);
    let name = archive.get(at + HEADER..at + HEADER + name_size).ok_or(Error::Truncated(at))?;
    let path = name.split(|&b| b == 0).next().unwrap_or(name);
    let start = (at + HEADER + name_size).next_multiple_of(4);
    let data = start.checked_add(size).and_then(|end| archive.get(start..end)).ok_or(Error::Truncated(at))?;
    Ok((Entry { path, mode: mode as u32, mtime: mtime as u32, data }, (start + size).next_multiple_of(4)))
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".")
}

/// Indexes the archive at `range`. A damaged one is used as far as it can be read; returns the number of nodes and the
/// error.
pub fn init(range: Option<PhysRange>) -> (usize, Option<Error>) {
    let mut problem = None;
    let nodes = match build(range, &mut problem) {
        Ok(nodes) => nodes,
        Err(e) => {
            problem = Some(e);
            Vec::new()
        }
    };
    let count = nodes.len();
    TREE.call_once(|| nodes);
    (count, problem)
}

fn bytes(range: Option<PhysRange>) -> &'static [u8] {
    match range {
        // SAFETY: the boot loader's archive is memory that is reserved for good, in the direct map.
        Some(r) => unsafe { core::slice::from_raw_parts(Cpu.direct_map(r.start), r.end - r.start) },
        None => &[],
    }
}

/// A node under construction: numbers are positions of insertion until all are sorted.
struct Draft {
    parent: usize,
    name: &'static [u8],
    mode: u32,
    mtime: u32,
    data: &'static [u8],
}

fn build(range: Option<PhysRange>, problem: &mut Option<Error>) -> Result<Vec<Node>, Error> {
    let no_memory = |_| Error::NoMemory;
    let archive = bytes(range);
    let mut drafts: Vec<Draft> = Vec::new();
    drafts.try_push(Draft { parent: 0, name: b"", mode: mode::DIR | 0o755, mtime: 0, data: &[] }).map_err(no_memory)?;
    for entry in entries(archive) {
        let entry = match entry {
            Ok(e) => e,
            Err(e) => {
                *problem = Some(e);
                break;
            }
        };
        if entry.path == b"TRAILER!!!" {
            continue;
        }
        insert(&mut drafts, &entry).map_err(no_memory)?;
    }
    finish(drafts)
}

/// Adds an entry, and directories above it that the archive does not list. A later entry of a name replaces an
/// earlier one. O(nodes) a step: boot archives have some dozens.
fn insert(drafts: &mut Vec<Draft>, entry: &Entry) -> Result<(), quire_mm::fallible::AllocError> {
    let mut parent = 0;
    let mut steps = components(entry.path).peekable();
    while let Some(name) = steps.next() {
        let is_last = steps.peek().is_none();
        let found = drafts.iter().skip(1).position(|d| d.parent == parent && d.name == name).map(|i| i + 1);
        let index = match found {
            Some(i) => i,
            None => {
                drafts.try_push(Draft { parent, name, mode: mode::DIR | 0o755, mtime: entry.mtime, data: &[] })?;
                drafts.len() - 1
            }
        };
        if is_last {
            let draft = &mut drafts[index];
            (draft.mode, draft.mtime, draft.data) = (entry.mode, entry.mtime, entry.data);
        }
        parent = index;
    }
    Ok(())
}

/// Sorts by (parent, name), level by level, so that children follow each other.
fn finish(drafts: Vec<Draft>) -> Result<Vec<Node>, Error> {
    let no_memory = |_| Error::NoMemory;
    let mut nodes: Vec<Node> = TryVec::try_with_capacity(drafts.len()).map_err(no_memory)?;
    // For each node in its final place, its number as a draft.
    let mut order: Vec<usize> = TryVec::try_with_capacity(drafts.len()).map_err(no_memory)?;
    order.try_push(0).map_err(no_memory)?;
    nodes.try_push(node(&drafts[0], 0, 0)).map_err(no_memory)?;
    let mut at = 0;
    while at < nodes.len() {
        let first = nodes.len();
        let draft = order[at];
        for (i, _) in drafts.iter().enumerate().skip(1).filter(|(_, d)| d.parent == draft) {
            order.try_push(i).map_err(no_memory)?;
        }
        order[first..].sort_unstable_by(|&a, &b| drafts[a].name.cmp(drafts[b].name));
        for (place, &i) in order.iter().enumerate().skip(first) {
            nodes.try_push(node(&drafts[i], place as u32, at as u32)).map_err(no_memory)?;
        }
        nodes[at].children = first as u32..nodes.len() as u32;
        at += 1;
    }
    Ok(nodes)
}

fn node(draft: &Draft, ino: u32, parent: u32) -> Node {
    Node {
        name: draft.name,
        mode: draft.mode,
        data: draft.data,
        ino,
        parent,
        children: 0..0,
        mtime: draft.mtime,
        object: Once::new(),
    }
}

fn tree() -> &'static [Node] {
    TREE.get().map_or(&[], |t| t.as_slice())
}

/// A node by number.
pub fn by_number(ino: u32) -> Option<&'static Node> {
    tree().get(ino as usize)
}

impl Node {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & mode::FMT == mode::DIR
    }

    /// Whether it is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.mode & mode::FMT == mode::LNK
    }

    /// A directory's entries, sorted by name.
    pub fn entries(&self) -> &'static [Node] {
        tree().get(self.children.start as usize..self.children.end as usize).unwrap_or(&[])
    }

    /// The entry of this name.
    pub fn child(&self, name: &[u8]) -> Option<&'static Node> {
        let children = self.entries();
        children
            .binary_search_by(|n| if n.name < name { Ordering::Less } else { n.name.cmp(name) })
            .ok()
            .map(|i| &children[i])
    }

    /// Writes the absolute path and a NUL; returns the length including the NUL. ERANGE if it does not fit.
    pub fn path(&self, to: &mut [u8]) -> Result<usize, Errno> {
        let mut len = 0;
        let mut at = self.ino;
        // Backwards from the end, then moved to the front.
        let end = to.len();
        let mut put = |bytes: &[u8]| -> Result<(), Errno> {
            len += bytes.len();
            let start = end.checked_sub(len).ok_or(Errno::ERANGE)?;
            to[start..start + bytes.len()].copy_from_slice(bytes);
            Ok(())
        };
        put(b"\0")?;
        if at == 0 {
            put(b"/")?;
        }
        while at != 0 {
            let node = by_number(at).ok_or(Errno::ENOENT)?;
            put(node.name)?;
            put(b"/")?;
            at = node.parent;
        }
        to.copy_within(end - len.., 0);
        Ok(len)
    }

    /// The file whose memory object this is. O(files of the archive).
    pub fn of_object(object: &KArc<Object>) -> Option<&'static Node> {
        tree().iter().find(|node| node.object.get().is_some_and(|own| KArc::ptr_eq(own, object)))
    }

    /// The memory object of a regular file; ENODEV for anything else.
    pub fn object(&self) -> Result<KArc<Object>, Errno> {
        self.object.get().cloned().ok_or(Errno::ENODEV)
    }

    fn make_object(&self) -> Result<(), Errno> {
        let start = Cpu.direct_map_to_phys(self.data.as_ptr());
        let made = Object::boot_file(Cpu, start, self.data.len(), self.is_padded())?;
        self.object.call_once(|| made);
        Ok(())
    }

    /// Whether the rest of the last page is zeros, so that the page can be mapped without a copy.
    fn is_padded(&self) -> bool {
        let end = self.data.as_ptr().addr() + self.data.len();
        let rest = end.next_multiple_of(PAGE_SIZE) - end;
        if !self.data.as_ptr().addr().is_multiple_of(PAGE_SIZE) {
            return false;
        }
        // SAFETY: the archive's pages are reserved whole, so the rest of the last one is readable.
        let tail = unsafe { core::slice::from_raw_parts(self.data.as_ptr().add(self.data.len()), rest) };
        tail.iter().all(|&b| b == 0)
    }
}

/// Makes the memory object of each regular file. It costs no pages while files begin at page boundaries and are padded
/// with zeros, as in the archives that our tools make.
pub fn make_objects() -> Result<(), Errno> {
    tree().iter().filter(|n| n.mode & mode::FMT == mode::REG).try_for_each(Node::make_object)
}

/// How many entries an archive has, as far as it can be read.
pub fn count(range: Option<PhysRange>) -> usize {
    entries(bytes(range)).take_while(Result::is_ok).count()
}

/// The archive's pages, for statistics and the memory map.
pub fn pages(range: &PhysRange) -> usize {
    (range.end - range.start.page_floor()).div_ceil(PAGE_SIZE)
}

/// Where the archive is, according to the tree.
pub fn range(board: &quire_platform::tree::Board) -> Option<PhysRange> {
    let region = board.chosen.initrd.as_ref()?.region;
    Some(PhysAddr::new(region.base as usize)..PhysAddr::new(region.end() as usize))
}
