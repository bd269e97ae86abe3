//! A program's image: an ELF file mapped into a new address space, as Linux's binfmt_elf maps it.
//!
//! The crate `elf` parses the headers. The loader checks what Linux checks and nothing else: the magic number, the
//! type, the machine and the program headers. Section headers, class, encoding and versions are ignored.
//!
//! Segments are mapped in the file's order, each over existing mappings, so they may share pages, overlap and extend
//! past the end of the file, where an access raises SIGBUS. A segment that is longer in memory than in the file has
//! zeros from there to the end of a page at least.
//!
//! All of this is done before execve's point of no return. Where Linux detects an error later and kills the process
//! with SIGSEGV, here the caller gets the errno and continues.

use elf::abi::{
    EI_ABIVERSION, EI_NIDENT, EI_OSABI, ELFMAGIC, EM_AARCH64, ET_DYN, ET_EXEC, PF_R, PF_W, PF_X, PT_GNU_STACK,
    PT_INTERP, PT_LOAD,
};
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader};
use elf::segment::{ProgramHeader, SegmentTable};
use quire_abi::Errno;
use quire_abi::flags::{Map, Prot};
use quire_mm::UserAddr;
use quire_mm::addr::{PAGE_SIZE, USER_END};
use quire_mm::fallible::KArc;
use quire_mm::mm::{FaultError, MapRequest, MmLayout};

use crate::archive::{self, Node};
use crate::task::space::Space;
use crate::vm::{Cpu, Mm, Object, random};

/// The stack ends below the page with the code that returns from signal handlers, and a gap.
const STACK_TOP: usize = USER_END - (16 << 20);

/// mmap begins at least so far below the stack, so that the stack has room (as Linux's MIN_GAP).
const MIN_GAP: usize = 128 << 20;

/// Where position-independent programs go: two thirds up, as Linux's ELF_ET_DYN_BASE.
const DYN_BASE: usize = (USER_END / 3 * 2) & !(PAGE_SIZE - 1);

/// Bytes of a file header and of a program header.
const FILE_HEADER: usize = 64;
pub const PROGRAM_HEADER: usize = 56;

/// Linux's PATH_MAX, its NUL included.
const PATH_MAX: usize = 4096;

/// The properties of a loaded program.
pub struct Image {
    /// Its first instruction.
    pub entry: usize,
    /// The address of the program headers, if a segment contains them; else the load bias.
    pub phdr: usize,
    /// How many.
    pub phnum: usize,
    /// Where its stack ends.
    pub stack_top: usize,
    /// The protection of its stack.
    pub stack_prot: Prot,
}

/// Whether a file may be started at all: EACCES.
pub fn check_executable(node: &Node) -> Result<(), Errno> {
    let is_file = node.mode & quire_abi::layout::mode::FMT == quire_abi::layout::mode::REG;
    if !is_file || node.mode & 0o111 == 0 { Err(Errno::EACCES) } else { Ok(()) }
}

/// Makes an address space with a program, except its stack.
pub fn load(node: &'static Node, stack_limit: u64) -> Result<(KArc<Space>, Image), Errno> {
    let (header, segments) = headers(node.data)?;
    let aslr = |pages: usize| random::offset(pages) * PAGE_SIZE;
    let stack_top = STACK_TOP - aslr(1 << 10);
    let stack_limit = stack_limit.min((USER_END / 6 * 5) as u64) as usize;
    let gap = (stack_limit & !(PAGE_SIZE - 1)).clamp(MIN_GAP, USER_END / 6 * 5);
    let layout = MmLayout {
        mmap_base: UserAddr::new(stack_top - gap - aslr(1 << 18)),
        stack_top: UserAddr::new(stack_top),
        task_size: UserAddr::new(USER_END),
        ..MmLayout::default()
    };
    let space = Space::new(Mm::new(Cpu, &layout)?)?;

    let is_dyn = header.e_type == ET_DYN;
    let bias = if is_dyn { load_bias(&segments, DYN_BASE + aslr(1 << 18))? } else { 0 };
    let loader = Loader { mm: &space.mm, object: node.object()?, bias };
    let mut end = 0;
    let mut phdr = bias;
    for (number, segment) in loads(&segments).enumerate() {
        end = end.max(loader.map(&segment, number == 0)?);
        let place = header.e_phoff.wrapping_sub(segment.p_offset);
        if header.e_phoff >= segment.p_offset && place < segment.p_filesz {
            phdr = bias.wrapping_add((segment.p_vaddr + place) as usize);
        }
    }
    let brk = bias.wrapping_add(end).next_multiple_of(PAGE_SIZE) + aslr(1 << 13);
    space.mm.set_brk_start(UserAddr::new(brk));
    let entry = bias.wrapping_add(header.e_entry as usize);
    if entry >= USER_END {
        return Err(Errno::EINVAL);
    }
    let stack_prot = stack_prot(&segments);
    Ok((space, Image { entry, phdr, phnum: segments.len(), stack_top, stack_prot }))
}

type Segments<'a> = SegmentTable<'a, LittleEndian>;

/// The file header and the program headers. ENOEXEC if the file is not a program for this machine.
fn headers(data: &[u8]) -> Result<(FileHeader<LittleEndian>, Segments<'_>), Errno> {
    let bad = Errno::ENOEXEC;
    // A short file is padded with zeros, as in the buffer that Linux reads the header into.
    let mut head = [0; FILE_HEADER];
    let there = data.len().min(FILE_HEADER);
    head[..there].copy_from_slice(&data[..there]);
    if head[..ELFMAGIC.len()] != ELFMAGIC {
        return Err(bad);
    }
    let ident = (LittleEndian, Class::ELF64, head[EI_OSABI], head[EI_ABIVERSION]);
    let header = FileHeader::parse_tail(ident, &head[EI_NIDENT..]).map_err(|_| bad)?;
    let is_program = matches!(header.e_type, ET_EXEC | ET_DYN) && header.e_machine == EM_AARCH64;
    let size = usize::from(header.e_phnum) * PROGRAM_HEADER;
    if !is_program || usize::from(header.e_phentsize) != PROGRAM_HEADER || size == 0 || size > PAGE_SIZE {
        return Err(bad);
    }
    let table = part(data, header.e_phoff, size).ok_or(bad)?;
    let segments = SegmentTable::new(LittleEndian, Class::ELF64, table);
    if let Some(segment) = segments.iter().find(|s| s.p_type == PT_INTERP) {
        return Err(interpreter(data, &segment));
    }
    Ok((header, segments))
}

/// `len` bytes of a file from `offset` on, if it has them.
fn part(data: &[u8], offset: u64, len: usize) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    data.get(start..start.checked_add(len)?)
}

/// The error for a program that names an interpreter: that of the name or the file, or else the one for interpreters,
/// which this kernel does not load.
fn interpreter(data: &[u8], segment: &ProgramHeader) -> Errno {
    let len = segment.p_filesz as usize;
    if !(2..=PATH_MAX).contains(&len) {
        return Errno::ENOEXEC;
    }
    let Some(name) = part(data, segment.p_offset, len) else { return Errno::EIO };
    if name[len - 1] != 0 {
        return Errno::ENOEXEC;
    }
    let path = name.split(|&b| b == 0).next().unwrap_or(name);
    match archive::lookup(0, path, true).and_then(check_executable) {
        Ok(()) => Errno::ENOEXEC,
        Err(error) => error,
    }
}

fn loads<'a>(segments: &'a Segments<'_>) -> impl Iterator<Item = ProgramHeader> + 'a {
    segments.iter().filter(|s| s.p_type == PT_LOAD)
}

/// The offset added to the addresses of a position-independent program, so that its first segment is at `base`, or
/// lower if the segments require an alignment. EINVAL for a program without size.
fn load_bias(segments: &Segments<'_>, base: usize) -> Result<usize, Errno> {
    // Alignments that are not powers of two are ignored, as on Linux.
    let alignments = loads(segments).map(|s| s.p_align as usize).filter(|align| align.is_power_of_two());
    let alignment = alignments.max().unwrap_or(0).max(PAGE_SIZE);
    let Some(first) = loads(segments).next() else { return Ok(base) };
    if loads(segments).all(|s| s.p_memsz == 0) {
        return Err(Errno::EINVAL);
    }
    Ok((base & !(alignment - 1)).wrapping_sub(page_floor(first.p_vaddr as usize)))
}

/// The stack's protection: executable if the program requests it.
fn stack_prot(segments: &Segments<'_>) -> Prot {
    let wants = segments.iter().find(|s| s.p_type == PT_GNU_STACK).is_some_and(|s| s.p_flags & PF_X != 0);
    Prot::READ | Prot::WRITE | if wants { Prot::EXEC } else { Prot::empty() }
}

fn page_floor(at: usize) -> usize {
    at & !(PAGE_SIZE - 1)
}

fn prot_of(flags: u32) -> Prot {
    let mut prot = Prot::empty();
    prot.set(Prot::READ, flags & PF_R != 0);
    prot.set(Prot::WRITE, flags & PF_W != 0);
    prot.set(Prot::EXEC, flags & PF_X != 0);
    prot
}

/// Maps the segments of one file.
struct Loader<'a> {
    mm: &'a Mm,
    object: KArc<Object>,
    bias: usize,
}

impl Loader<'_> {
    /// Maps a segment; returns its end, without the bias.
    fn map(&self, segment: &ProgramHeader, is_first: bool) -> Result<usize, Errno> {
        let (at, file, memory) = (segment.p_vaddr as usize, segment.p_filesz as usize, segment.p_memsz as usize);
        let end = at.checked_add(memory).filter(|end| at < USER_END && *end <= USER_END).ok_or(Errno::EINVAL)?;
        if file > memory {
            return Err(Errno::EINVAL);
        }
        let start = self.bias.wrapping_add(at);
        if start.checked_add(memory).is_none_or(|end| end > USER_END) {
            return Err(Errno::ENOMEM);
        }
        let prot = prot_of(segment.p_flags);
        let place = if is_first { Map::FIXED_NOREPLACE } else { Map::FIXED };
        let zeros = if file > 0 {
            self.map_file(segment, start, prot, place)?;
            start + file
        } else {
            page_floor(start)
        };
        if memory > file {
            if file > 0 && prot.contains(Prot::WRITE) {
                self.clear_rest_of_page(zeros)?;
            }
            let from = zeros.next_multiple_of(PAGE_SIZE);
            let to = (start + memory).next_multiple_of(PAGE_SIZE);
            if to > from {
                let flags = Map::PRIVATE | Map::ANONYMOUS | place;
                self.mm.map(&MapRequest { addr: from, flags, ..MapRequest::anonymous(to - from, prot) })?;
            }
        }
        Ok(end)
    }

    /// Maps the part of a segment that is in the file, whole pages of it.
    fn map_file(&self, segment: &ProgramHeader, start: usize, prot: Prot, place: Map) -> Result<(), Errno> {
        let offset = segment.p_offset as usize;
        if start % PAGE_SIZE != offset % PAGE_SIZE {
            return Err(Errno::EINVAL);
        }
        self.mm.map(&MapRequest {
            addr: page_floor(start),
            len: (start % PAGE_SIZE + segment.p_filesz as usize).next_multiple_of(PAGE_SIZE),
            prot,
            flags: Map::PRIVATE | place,
            object: Some((self.object.clone(), offset / PAGE_SIZE)),
            max_prot: Prot::all(),
        })?;
        Ok(())
    }

    /// If a segment's memory extends beyond its file part, the program expects zeros up to the end of the page,
    /// whatever the file contains there.
    fn clear_rest_of_page(&self, from: usize) -> Result<(), Errno> {
        let len = from.next_multiple_of(PAGE_SIZE) - from;
        if len == 0 {
            return Ok(());
        }
        let page = self.mm.pin(from, true).map_err(|error| match error {
            FaultError::OutOfMemory => Errno::ENOMEM,
            _ => Errno::EFAULT,
        })?;
        // SAFETY: the page is pinned and this process's own copy; `len` bytes from there end within it.
        unsafe { core::ptr::write_bytes(page.as_ptr(), 0, len) };
        Ok(())
    }
}
