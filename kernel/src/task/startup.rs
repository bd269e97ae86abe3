//! A new program's initial stack (System V ABI, AArch64): strings at the top, below them the auxiliary vector, the
//! environment, the arguments and their count, which SP points to.
//!
//! The stack is written through pinned pages, since its space is not the current one yet.

use core::ops::ControlFlow;

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::flags::{Map, Prot, rseq};
use quire_abi::layout::{HandleInfo, at};
use quire_abi::process::MemoryLayout;
use quire_mm::UserAddr;
use quire_mm::addr::{PAGE_SIZE, USER_END};
use quire_mm::fallible::{KArc, TryVec, try_zeroed};
use quire_mm::mm::{FaultError, MapRequest};

use super::credentials::Credentials;
use super::image::{Image, PROGRAM_HEADER};
use super::pieces::Pieces;
use super::point::resched_point;
use super::wait::Sleep;
use crate::arch::{regs, uaccess};
use crate::ipc::handles::Handles;
use crate::vm::{Mm, random};

/// The most bytes of arguments and environment. Linux's limit is a quarter of the stack limit, 2 MiB by default; the
/// smaller limit bounds the kernel memory that one call can take.
const MAX_STRINGS: usize = 128 << 10;

/// The page with the default code for the return from signal handlers, unless the program's segments lie there.
const SIGRETURN_PAGE: usize = USER_END - PAGE_SIZE;

/// Bytes of stack that entering a signal handler takes: its frame, and what aligns it.
pub const SIGNAL_FRAME: usize = 4720;

/// Pages of stack that are present from the start.
const FIRST_PAGES: usize = 2;

/// The strings for a new program, NUL-terminated, one after the other.
#[derive(Default)]
pub struct Strings {
    bytes: Pieces,
    count: usize,
}

impl Strings {
    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds one. E2BIG past the limit.
    pub fn push(&mut self, text: &[u8]) -> Result<(), Errno> {
        self.append(text)?;
        self.append(b"\0")?;
        self.count += 1;
        Ok(())
    }

    /// Tells `see` where each string ends, its NUL included, until that has enough.
    fn each_end(&self, mut see: impl FnMut(usize) -> Result<ControlFlow<()>, Errno>) -> Result<(), Errno> {
        let mut before = 0;
        for piece in self.bytes.from(0) {
            resched_point(Sleep::Killable)?;
            for (at, _) in piece.iter().enumerate().filter(|(_, byte)| **byte == 0) {
                if see(before + at + 1)?.is_break() {
                    return Ok(());
                }
            }
            before += piece.len();
        }
        Ok(())
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), Errno> {
        if self.bytes.total() + piece.len() > MAX_STRINGS {
            return Err(Errno::E2BIG);
        }
        Ok(self.bytes.append(piece)?)
    }

    /// The arguments for a script's interpreter: `head` in place of the first one.
    pub fn for_interpreter(&self, head: &[&[u8]]) -> Result<Self, Errno> {
        let mut strings = Self::default();
        head.iter().try_for_each(|text| strings.push(text))?;
        let mut first = 0;
        self.each_end(|end| {
            first = end;
            Ok(ControlFlow::Break(()))
        })?;
        self.bytes.from(first).try_for_each(|piece| strings.append(piece))?;
        strings.count += self.count.saturating_sub(1);
        Ok(strings)
    }

    /// Reads the vector of string pointers at `addr`; a null `addr` is an empty one.
    pub fn from_user(addr: UserAddr) -> Result<Self, Errno> {
        let mut strings = Self::default();
        let mut buffer = try_zeroed(PAGE_SIZE)?;
        let mut slot = addr;
        while addr.get() != 0 {
            let pointer: usize = uaccess::get(slot)?;
            if pointer == 0 {
                break;
            }
            // A string longer than the buffer is copied in pieces.
            let mut from = UserAddr::new(pointer);
            loop {
                resched_point(Sleep::Killable)?;
                match uaccess::get_string(&mut buffer, from) {
                    Ok(text) => {
                        strings.push(text)?;
                        break;
                    }
                    Err(Errno::ENAMETOOLONG) => {
                        strings.append(&buffer)?;
                        from = from.checked_add(buffer.len()).ok_or(Errno::EFAULT)?;
                    }
                    Err(e) => return Err(e),
                }
            }
            slot = slot.checked_add(8).ok_or(Errno::EFAULT)?;
        }
        Ok(strings)
    }
}

/// The parameters of a new program.
pub struct Start<'a> {
    /// The stack's limit.
    pub limit: u64,
    /// The path it was found by.
    pub path: &'a [u8],
    /// Its arguments.
    pub args: &'a Strings,
    /// Its environment.
    pub env: &'a Strings,
    /// Who it is.
    pub credentials: &'a Credentials,
}

/// Makes a program's stack and its contents, and the page that handlers return through; returns where what is in memory then, SP
/// with it, and the address of that page. E2BIG if the contents exceed the stack's limit.
pub fn fill_stack(
    mm: &KArc<Mm>,
    image: &Image,
    start: &Start,
    handles: &Handles,
) -> Result<(MemoryLayout, usize), Errno> {
    let Start { limit, path, args, env, .. } = *start;
    let handles = records(handles)?;
    let seed = random::bytes();
    let mut layout = Layout { at: image.stack_top };
    // (A NUL after the path, and a word of zeros at the very top.)
    layout.put(1);
    let name = layout.put(path.len());
    let env_at = layout.put(env.bytes.total());
    let args_at = layout.put(args.bytes.total());
    let platform = layout.put(PLATFORM.len());
    let random = layout.put(seed.len());
    let handles_at = layout.put(size_of_val(&handles[..]));
    let auxv = auxv(image, start.credentials, Places { platform, random, name, handles: handles_at }, handles.len());
    let words = 1 + args.count + 1 + env.count + 1 + auxv.len() * 2;
    let sp = (layout.at - words * 8) & !15;

    let size = (image.stack_top - sp).next_multiple_of(PAGE_SIZE);
    if size as u64 > limit.max(PAGE_SIZE as u64) {
        return Err(Errno::E2BIG);
    }
    map_stack(mm, image, size.max(FIRST_PAGES * PAGE_SIZE))?;
    let sigreturn = map_sigreturn_page(mm)?;
    for (at, bytes) in [(name, path), (platform, PLATFORM), (random, &seed[..])] {
        write(mm, at, bytes)?;
    }
    write_pieces(mm, env_at, &env.bytes)?;
    write_pieces(mm, args_at, &args.bytes)?;
    for (i, handle) in handles.iter().enumerate() {
        let fields = [handle.number, handle.kind, handle.rights, handle.reserved].map(u32::to_le_bytes);
        write(mm, handles_at + i * size_of::<HandleInfo>(), fields.as_flattened())?;
    }
    write_pieces(mm, sp, &vectors(args, args_at, env, env_at, &auxv)?)?;
    let part = |at: usize, len: usize| [at as u64, (at + len) as u64];
    let auxv_len = auxv.len() * 16;
    let layout = MemoryLayout {
        code: image.code.map(|at| at as u64),
        data: image.data.map(|at| at as u64),
        stack: sp as u64,
        arguments: part(args_at, args.bytes.total()),
        environment: part(env_at, env.bytes.total()),
        auxiliary: part(sp + words * 8 - auxv_len, auxv_len),
    };
    Ok((layout, sigreturn))
}

/// AT_PLATFORM.
const PLATFORM: &[u8] = b"aarch64\0";

/// Gives out places from the top of the stack down.
struct Layout {
    at: usize,
}

impl Layout {
    fn put(&mut self, len: usize) -> usize {
        self.at -= len;
        self.at
    }
}

/// Addresses that the auxiliary vector contains.
struct Places {
    platform: usize,
    random: usize,
    name: usize,
    handles: usize,
}

fn auxv(image: &Image, who: &Credentials, places: Places, handles: usize) -> [(u64, u64); 23] {
    [
        (at::PHDR, image.phdr as u64),
        (at::PHENT, PROGRAM_HEADER as u64),
        (at::PHNUM, image.phnum as u64),
        (at::PAGESZ, PAGE_SIZE as u64),
        (at::BASE, image.base as u64),
        (at::FLAGS, 0),
        (at::ENTRY, image.entry as u64),
        (at::UID, u64::from(who.user.real)),
        (at::EUID, u64::from(who.user.effective)),
        (at::GID, u64::from(who.group.real)),
        (at::EGID, u64::from(who.group.effective)),
        (at::HWCAP, regs::hwcap()),
        (at::CLKTCK, 100),
        (at::SECURE, 0),
        (at::PLATFORM, places.platform as u64),
        (at::RANDOM, places.random as u64),
        (at::RSEQ_FEATURE_SIZE, u64::from(rseq::FEATURES)),
        (at::RSEQ_ALIGN, rseq::ALIGNMENT as u64),
        (at::EXECFN, places.name as u64),
        (at::MINSIGSTKSZ, SIGNAL_FRAME as u64),
        (at::HANDLES, places.handles as u64),
        (at::HANDLE_COUNT, handles as u64),
        (at::NULL, 0),
    ]
}

/// The records of the program's handles: what the process has granted.
fn records(handles: &Handles) -> Result<Vec<HandleInfo>, Errno> {
    let mut records = Vec::new();
    let mut next = HandleInfo::FIRST;
    while let Some((number, record)) = handles.next(next) {
        if let Some(record) = record {
            records.try_push(record)?;
        }
        next = number + 1;
        resched_point(Sleep::Killable)?;
    }
    Ok(records)
}

/// Words that are written between two points: 100 instructions each, and as many to find where a string ends.
const WORDS_TO_POINT: usize = 256;

/// The count of arguments, the pointers to them and to the environment, and the auxiliary vector.
fn vectors(args: &Strings, args_at: usize, env: &Strings, env_at: usize, auxv: &[(u64, u64)]) -> Result<Pieces, Errno> {
    let mut bytes = Pieces::default();
    let mut count = 0_usize;
    let mut word = |value: u64| -> Result<(), Errno> {
        count += 1;
        if count.is_multiple_of(WORDS_TO_POINT) {
            resched_point(Sleep::Killable)?;
        }
        Ok(bytes.append(&value.to_le_bytes())?)
    };
    word(args.count as u64)?;
    for (strings, start) in [(args, args_at), (env, env_at)] {
        let mut from = 0;
        strings.each_end(|end| {
            word((start + from) as u64)?;
            from = end;
            Ok(ControlFlow::Continue(()))
        })?;
        word(0)?;
    }
    for (key, value) in auxv {
        word(*key)?;
        word(*value)?;
    }
    Ok(bytes)
}

/// Maps the stack. ENOMEM if segments leave no room for it.
fn map_stack(mm: &Mm, image: &Image, size: usize) -> Result<(), Errno> {
    let addr = image.stack_top.checked_sub(size).ok_or(Errno::ENOMEM)?;
    let request = MapRequest {
        addr,
        flags: Map::PRIVATE | Map::ANONYMOUS | Map::FIXED_NOREPLACE | Map::GROWSDOWN,
        ..MapRequest::anonymous(size, image.stack_prot)
    };
    match mm.map(&request) {
        Err(Errno::EEXIST) => Err(Errno::ENOMEM),
        done => done.map(drop),
    }
}

/// Maps the page that handlers return through, and returns its address: where mmap puts it, as Linux's vDSO, if a segment has its
/// own place.
fn map_sigreturn_page(mm: &Mm) -> Result<usize, Errno> {
    let map = |addr, place| {
        mm.map(&MapRequest {
            addr,
            len: PAGE_SIZE,
            prot: Prot::READ | Prot::EXEC,
            flags: Map::PRIVATE | place,
            object: Some((random::sigreturn_object()?, 0)),
            max_prot: Prot::READ | Prot::EXEC,
        })
    };
    match map(SIGRETURN_PAGE, Map::FIXED_NOREPLACE) {
        Err(Errno::EEXIST) => map(0, Map::empty()),
        done => done,
    }
    .map(UserAddr::get)
}

/// As [`write()`].
fn write_pieces(mm: &Mm, at: usize, bytes: &Pieces) -> Result<(), Errno> {
    let mut done = 0;
    for piece in bytes.from(0) {
        write(mm, at + done, piece)?;
        done += piece.len();
    }
    Ok(())
}

/// Writes to an address space that need not be the current one, page by page.
fn write(mm: &Mm, at: usize, bytes: &[u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < bytes.len() {
        resched_point(Sleep::Killable)?;
        let here = at + done;
        let n = (PAGE_SIZE - here % PAGE_SIZE).min(bytes.len() - done);
        let page = mm.pin(here, true).map_err(|error| match error {
            FaultError::OutOfMemory => Errno::ENOMEM,
            _ => Errno::E2BIG,
        })?;
        // SAFETY: the page is pinned and the new program's alone; `n` bytes end within it.
        unsafe { core::ptr::copy_nonoverlapping(bytes[done..].as_ptr(), page.as_ptr(), n) };
        done += n;
    }
    Ok(())
}
