//! A program's image: an ELF file mapped into a new address space, as Linux's binfmt_elf maps it.
//!
//! The crate `elf` parses the headers. The loader checks what Linux checks and nothing else: the magic number, the
//! type, the machine, the program headers and the properties. Section headers, class, encoding and versions are ignored.
//!
//! Segments are mapped in the file's order, each over existing mappings, so they may share pages, overlap and extend
//! past the end of the file, where an access raises SIGBUS. A segment that is longer in memory than in the file has
//! zeros from there to the end of a page at least.
//!
//! A program that names an interpreter (PT_INTERP: the dynamic linker) is mapped with it, and the interpreter runs first. It finds
//! the program by the auxiliary vector.
//!
//! All of this is done before execve's point of no return. Where Linux detects an error later and kills the process
//! with SIGSEGV, here the caller gets the errno and continues.

use alloc::vec::Vec;

use elf::abi::{
    EI_ABIVERSION, EI_NIDENT, EI_OSABI, ELFMAGIC, EM_AARCH64, ET_DYN, ET_EXEC, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD,
};
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader};
use elf::segment::{ProgramHeader, SegmentTable};
use quire_abi::Errno;
use quire_abi::flags::{Map, Prot};
use quire_mm::UserAddr;
use quire_mm::addr::{PAGE_SIZE, USER_END};
use quire_mm::fallible::KArc;
use quire_mm::mm::{MapRequest, MmLayout};

use super::point::resched_point;
use super::program::Program;
use super::property;
use super::segments::{Loader, page_floor};
use super::wait::Sleep;
use crate::task::space::Space;
use crate::vm::{Cpu, Mm, random};

/// The stack ends below the page with the code that returns from signal handlers, and a gap.
const STACK_TOP: usize = USER_END - (16 << 20);

/// mmap begins at least so far below the stack, so that the stack has room (as Linux's MIN_GAP).
const MIN_GAP: usize = 128 << 20;

/// What stays free between the end of the stack and a segment above it.
const STACK_GAP: usize = 1 << 20;

/// Where position-independent programs go: two thirds up, as Linux's ELF_ET_DYN_BASE.
const DYN_BASE: usize = (USER_END / 3 * 2) & !(PAGE_SIZE - 1);

/// Bytes of a file header and of a program header.
const FILE_HEADER: usize = 64;
pub const PROGRAM_HEADER: usize = 56;

/// Linux's PATH_MAX, its NUL included.
const PATH_MAX: usize = 4096;

/// The properties of a loaded program.
pub struct Image {
    /// The first instruction that runs: the interpreter's, if there is one.
    pub start: usize,
    /// The program's first instruction.
    pub entry: usize,
    /// Where the interpreter lies (what is added to its addresses); 0 without one.
    pub base: usize,
    /// The address of the program headers, if a segment contains them; else the load bias.
    pub phdr: usize,
    /// How many.
    pub phnum: usize,
    /// The beginning of its executable segments in the file, and their end.
    pub code: [usize; 2],
    /// The beginning of its last segment, and the end of them all in the file.
    pub data: [usize; 2],
    /// Where its stack ends.
    pub stack_top: usize,
    /// The protection of its stack.
    pub stack_prot: Prot,
}

/// Makes an address space with a program, except its stack.
pub fn load(program: &Program, stack_limit: u64) -> Result<(KArc<Space>, Image), Errno> {
    let (header, table) = headers(program)?;
    let segments = segments(&table);
    let interpreter = interpreter(program, &segments)?;
    if interpreter.is_none() {
        property::check(program, segments.iter())?;
    }
    let bias = if header.e_type == ET_DYN { load_bias(&segments, DYN_BASE + aslr(1 << 18))? } else { 0 };
    let layout = layout(&segments, bias, stack_limit);
    // (The headers are read several times over.)
    resched_point(Sleep::Killable)?;
    let space = Space::new(Mm::new(Cpu, &layout)?, None)?;

    let loader = Loader { mm: &space.mm, object: program.object()?, bias };
    let mut end = 0;
    let mut phdr = bias;
    for (number, segment) in loads(&segments).enumerate() {
        resched_point(Sleep::Killable)?;
        end = end.max(loader.map(&segment, if number == 0 { Map::FIXED_NOREPLACE } else { Map::FIXED })?);
        let place = header.e_phoff.wrapping_sub(segment.p_offset);
        if header.e_phoff >= segment.p_offset && place < segment.p_filesz {
            phdr = bias.wrapping_add((segment.p_vaddr + place) as usize);
        }
    }
    resched_point(Sleep::Killable)?;
    let [code, data] = bounds(&segments).map(|part| part.map(|at| bias.wrapping_add(at)));
    let brk = bias.wrapping_add(end).next_multiple_of(PAGE_SIZE) + aslr(1 << 13);
    space.mm.set_brk_start(UserAddr::new(brk));
    let entry = entry_of(&header, bias)?;
    let (start, base) = match interpreter {
        Some(interpreter) => load_interpreter(&space.mm, &interpreter)?,
        None => (entry, 0),
    };
    let (stack_top, stack_prot) = (layout.stack_top.get(), stack_prot(&segments));
    Ok((space, Image { start, entry, base, phdr, phnum: segments.len(), code, data, stack_top, stack_prot }))
}

/// A random multiple of the page size, below `pages` pages.
fn aslr(pages: usize) -> usize {
    random::offset(pages) * PAGE_SIZE
}

/// Where the stack and mmap's areas go.
fn layout(segments: &Segments<'_>, bias: usize, stack_limit: u64) -> MmLayout {
    let stack_top = stack_top_for(segments, bias, STACK_TOP - aslr(1 << 10));
    let stack_limit = stack_limit.min((USER_END / 6 * 5) as u64) as usize;
    let gap = (stack_limit & !(PAGE_SIZE - 1)).clamp(MIN_GAP, USER_END / 6 * 5);
    MmLayout {
        mmap_base: UserAddr::new(stack_top.saturating_sub(gap + aslr(1 << 18))),
        stack_top: UserAddr::new(stack_top),
        task_size: UserAddr::new(USER_END),
        ..MmLayout::default()
    }
}

/// Maps an interpreter where mmap puts it or, if it is not position-independent, where it says, over whatever is there; returns its first instruction, and what is added to its addresses. EIO for a file
/// without room for a header, ELIBBAD for one that is not a program for this machine.
fn load_interpreter(mm: &Mm, program: &Program) -> Result<(usize, usize), Errno> {
    if program.len() < FILE_HEADER as u64 {
        return Err(Errno::EIO);
    }
    let (header, table) = headers(program).map_err(|_| Errno::ELIBBAD)?;
    let segments = segments(&table);
    property::check(program, segments.iter())?;
    let bias = if header.e_type == ET_DYN {
        let (from, to) = extent(&segments).ok_or(Errno::EINVAL)?;
        // The whole range is free there, and stays so: nobody else uses this space yet.
        let request = MapRequest::anonymous(to - from, Prot::empty());
        let place = mm.map(&MapRequest { flags: Map::PRIVATE | Map::ANONYMOUS | Map::NORESERVE, ..request })?;
        mm.unmap(place.get(), to - from)?;
        place.get().wrapping_sub(from)
    } else {
        0
    };
    let loader = Loader { mm, object: program.object()?, bias };
    for segment in loads(&segments) {
        resched_point(Sleep::Killable)?;
        loader.map(&segment, Map::FIXED)?;
    }
    Ok((entry_of(&header, bias)?, bias))
}

/// The first page and the end of what a file's segments cover; `None` if that is nothing, or makes no sense.
fn extent(segments: &Segments<'_>) -> Option<(usize, usize)> {
    let first = loads(segments).next()?;
    let end = loads(segments).map(|s| (s.p_vaddr as usize).saturating_add(s.p_memsz as usize)).max()?;
    let (from, to) = (page_floor(first.p_vaddr as usize), end.checked_next_multiple_of(PAGE_SIZE)?);
    (from < to && to <= USER_END).then_some((from, to))
}

/// The address of a program's first instruction. EINVAL for one in the kernel's half.
fn entry_of(header: &FileHeader<LittleEndian>, bias: usize) -> Result<usize, Errno> {
    let entry = bias.wrapping_add(header.e_entry as usize);
    if entry < USER_END { Ok(entry) } else { Err(Errno::EINVAL) }
}

type Segments<'a> = SegmentTable<'a, LittleEndian>;

fn segments(table: &[u8]) -> Segments<'_> {
    SegmentTable::new(LittleEndian, Class::ELF64, table)
}

/// The file header and the bytes of the program headers. ENOEXEC if the file is not a program for this machine.
fn headers(program: &Program) -> Result<(FileHeader<LittleEndian>, Vec<u8>), Errno> {
    let bad = Errno::ENOEXEC;
    // A short file is padded with zeros, as in the buffer that Linux reads the header into.
    let mut head = [0; FILE_HEADER];
    program.read(0, &mut head)?;
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
    let table = program.part(header.e_phoff, size)?.ok_or(bad)?;
    Ok((header, table))
}

/// The interpreter that a program names. ENOEXEC if the name is malformed, otherwise the error of finding the file.
fn interpreter(program: &Program, segments: &Segments<'_>) -> Result<Option<Program>, Errno> {
    let Some(segment) = segments.iter().find(|s| s.p_type == PT_INTERP) else { return Ok(None) };
    let len = segment.p_filesz as usize;
    if !(2..=PATH_MAX).contains(&len) {
        return Err(Errno::ENOEXEC);
    }
    let name = program.part(segment.p_offset, len)?.ok_or(Errno::EIO)?;
    if name[len - 1] != 0 {
        return Err(Errno::ENOEXEC);
    }
    let path = name.split(|&b| b == 0).next().unwrap_or(&name);
    Program::find(path).map(Some)
}

fn loads<'a>(segments: &'a Segments<'_>) -> impl Iterator<Item = ProgramHeader> + 'a {
    segments.iter().filter(|s| s.p_type == PT_LOAD)
}

/// What of a program is code and what is data, as Linux says in /proc/PID/stat.
fn bounds(segments: &Segments<'_>) -> [[usize; 2]; 2] {
    let ends = |segment: &ProgramHeader| {
        let start = segment.p_vaddr as usize;
        (start, start.wrapping_add(segment.p_filesz as usize))
    };
    let code = || loads(segments).filter(|segment| segment.p_flags & PF_X != 0).map(|segment| ends(&segment));
    let all = || loads(segments).map(|segment| ends(&segment));
    let highest = |ends: Option<usize>| ends.unwrap_or(0);
    [
        [code().map(|(start, _)| start).min().unwrap_or(0), highest(code().map(|(_, end)| end).max())],
        [highest(all().map(|(start, _)| start).max()), highest(all().map(|(_, end)| end).max())],
    ]
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

/// Where the stack ends: at `highest`, or below segments that leave it no room there, if there is room.
fn stack_top_for(segments: &Segments<'_>, bias: usize, highest: usize) -> usize {
    let ends = |segment: ProgramHeader| {
        let start = bias.wrapping_add(segment.p_vaddr as usize);
        let end = start.checked_add(segment.p_memsz as usize).filter(|end| *end <= USER_END)?;
        Some((start, end))
    };
    let mut top = highest;
    // (Each round passes a segment.)
    while let Some((start, _)) =
        loads(segments).filter_map(ends).find(|&(start, end)| start < top + STACK_GAP && end > top - MIN_GAP)
    {
        top = page_floor(start).saturating_sub(STACK_GAP);
        if top < MIN_GAP {
            return highest;
        }
    }
    top
}

/// The stack's protection: executable if the program requests it.
fn stack_prot(segments: &Segments<'_>) -> Prot {
    let wants = segments.iter().find(|s| s.p_type == PT_GNU_STACK).is_some_and(|s| s.p_flags & PF_X != 0);
    Prot::READ | Prot::WRITE | if wants { Prot::EXEC } else { Prot::empty() }
}
