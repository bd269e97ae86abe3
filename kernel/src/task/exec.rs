//! exec: a new program in an old process. Static ELF files of the boot archive, the way Linux starts them.

use core::sync::atomic::Ordering;

use alloc::vec::Vec;
use elf::ElfBytes;
use elf::abi::{EM_AARCH64, ET_DYN, ET_EXEC, PF_R, PF_W, PF_X, PT_INTERP, PT_LOAD, PT_PHDR};
use elf::endian::LittleEndian;
use elf::segment::ProgramHeader;
use quire_abi::flags::{Map, Prot};
use quire_abi::layout::{at, rlimit};
use quire_abi::{Errno, layout::Rlimit};
use quire_mm::UserAddr;
use quire_mm::addr::{PAGE_SIZE, USER_END};
use quire_mm::fallible::{KArc, TryVec, try_zeroed};
use quire_mm::mm::{FaultError, Limit, MapRequest, MmLayout};

use super::process::{Process, TABLE, first_limits};
use super::signal;
use super::thread::current;
use super::wait::Sleep;
use crate::arch::trap::{NO_SYSCALL, PSTATE_USER, TrapFrame};
use crate::arch::{cpu, regs, uaccess};
use crate::boot::archive::Node;
use crate::vm::space::Space;
use crate::vm::{Cpu, Mm, Object, random};

/// Most bytes of arguments and environment: Linux's limit is a quarter of the stack limit, 2 MiB by default; this
/// keeps what a process can make the kernel hold at once small.
const MAX_STRINGS: usize = 128 << 10;

/// The page with the code that returns from signal handlers, for programs that bring none.
pub const SIGRETURN_PAGE: usize = USER_END - PAGE_SIZE;

/// The stack ends below the page of [`SIGRETURN_PAGE`] and a gap.
const STACK_TOP: usize = USER_END - (16 << 20);

/// mmap begins at least so far below the stack, so that the stack has room (as Linux's MIN_GAP).
const MIN_GAP: usize = 128 << 20;

/// Where position-independent programs go: two thirds up, as Linux's ELF_ET_DYN_BASE.
const DYN_BASE: usize = (USER_END / 3 * 2) & !(PAGE_SIZE - 1);

/// Strings that a program is started with, NUL-terminated one after the other.
#[derive(Default)]
pub struct Strings {
    bytes: Vec<u8>,
    count: usize,
}

impl Strings {
    /// Adds one. E2BIG past the limit.
    pub fn push(&mut self, text: &[u8]) -> Result<(), Errno> {
        if self.bytes.len() + text.len() + 1 > MAX_STRINGS {
            return Err(Errno::E2BIG);
        }
        self.bytes.try_reserve(text.len() + 1).map_err(|_| Errno::ENOMEM)?;
        for &b in text.iter().chain(b"\0") {
            self.bytes.try_push(b).map_err(Errno::from)?;
        }
        self.count += 1;
        Ok(())
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
            // A string longer than the buffer comes in pieces.
            let mut from = UserAddr::new(pointer);
            loop {
                match uaccess::get_string(&mut buffer, from) {
                    Ok(text) => {
                        strings.push(text)?;
                        break;
                    }
                    Err(Errno::ENAMETOOLONG) => {
                        strings.append_piece(&buffer)?;
                        from = from.checked_add(buffer.len()).ok_or(Errno::EFAULT)?;
                    }
                    Err(e) => return Err(e),
                }
            }
            slot = slot.checked_add(8).ok_or(Errno::EFAULT)?;
        }
        Ok(strings)
    }

    fn append_piece(&mut self, piece: &[u8]) -> Result<(), Errno> {
        self.push(piece)?;
        // Not a string of its own: the NUL and the count go again.
        self.bytes.pop();
        self.count -= 1;
        Ok(())
    }
}

/// What the loader learned of a program.
struct Image {
    entry: usize,
    phdr: usize,
    phnum: usize,
    stack_top: usize,
}

/// Replaces the calling process's program. On success `frame` is the new program's first.
pub fn exec(
    node: &'static Node,
    path: &[u8],
    args: &Strings,
    env: &Strings,
    frame: &mut TrapFrame,
) -> Result<(), Errno> {
    let process = current().process();
    check_executable(node)?;
    // (The lock's guard must not live as long as the call.)
    let limits = *process.limits.lock();
    let (space, image) = load(node, &limits)?;
    let sp = fill_stack(&space.mm, &image, path, args, env)?;
    let actions = process.actions.lock().clone().copy_for_exec()?;
    let descriptors = process.descriptors()?.copy()?;
    end_other_threads(process)?;

    // Nothing fails from here on.
    take_process_number(process);
    descriptors.close_for_exec();
    let old_descriptors = process.descriptors.lock().replace(descriptors);
    let old_actions = core::mem::replace(&mut *process.actions.lock(), actions);
    process.set_name(path);
    switch_space(process, space);
    drop(old_descriptors);
    drop(old_actions);
    let thread = current();
    thread.drop_fp();
    regs::set_tls(0);
    thread.clear_child_tid.store(0, Ordering::Relaxed);
    {
        let mut signals = thread.signals.lock();
        signals.alt_stack = (0, 0);
        signals.restore = None;
    }
    *frame = TrapFrame {
        pc: image.entry as u64,
        sp: sp as u64,
        pstate: PSTATE_USER,
        syscall: NO_SYSCALL,
        ..TrapFrame::default()
    };
    Ok(())
}

/// The first program: as [`exec`], for a process that is being made. Answers its space and first frame.
pub fn first(node: &'static Node, path: &[u8]) -> Result<(KArc<Space>, TrapFrame), Errno> {
    check_executable(node)?;
    let (space, image) = load(node, &first_limits())?;
    let mut args = Strings::default();
    args.push(path)?;
    let mut env = Strings::default();
    env.push(b"PATH=/bin:/tests")?;
    env.push(b"HOME=/")?;
    env.push(b"TERM=vt100")?;
    let sp = fill_stack(&space.mm, &image, path, &args, &env)?;
    let frame = TrapFrame {
        pc: image.entry as u64,
        sp: sp as u64,
        pstate: PSTATE_USER,
        syscall: NO_SYSCALL,
        ..Default::default()
    };
    Ok((space, frame))
}

fn check_executable(node: &Node) -> Result<(), Errno> {
    let is_file = node.mode & quire_abi::layout::mode::FMT == quire_abi::layout::mode::REG;
    if !is_file || node.mode & 0o111 == 0 { Err(Errno::EACCES) } else { Ok(()) }
}

fn load(node: &'static Node, limits: &[Rlimit; rlimit::COUNT]) -> Result<(KArc<Space>, Image), Errno> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(node.data).map_err(|_| Errno::ENOEXEC)?;
    let header = file.ehdr;
    let is_dyn = header.e_type == ET_DYN;
    if header.e_machine != EM_AARCH64 || !(is_dyn || header.e_type == ET_EXEC) {
        return Err(Errno::ENOEXEC);
    }
    let segments = file.segments().ok_or(Errno::ENOEXEC)?;
    if segments.iter().any(|s| s.p_type == PT_INTERP) {
        // A dynamic program needs its loader as a file beside it; there is no such file system yet.
        return Err(Errno::ENOEXEC);
    }
    let aslr = |pages: usize| random::offset(pages) * PAGE_SIZE;
    let stack_top = STACK_TOP - aslr(1 << 10);
    let stack_limit = limits[rlimit::STACK].cur.min((USER_END / 6 * 5) as u64) as usize;
    let gap = (stack_limit & !(PAGE_SIZE - 1)).clamp(MIN_GAP, USER_END / 6 * 5);
    let layout = MmLayout {
        mmap_base: UserAddr::new(stack_top - gap - aslr(1 << 18)),
        stack_top: UserAddr::new(stack_top),
        task_size: UserAddr::new(USER_END),
        ..MmLayout::default()
    };
    let mm = Mm::new(Cpu, &layout)?;
    let space = Space::new(mm)?;
    set_limits(&space.mm, limits);
    let bias = if is_dyn { DYN_BASE + aslr(1 << 18) } else { 0 };
    let object = node.object()?;
    let mut end = 0;
    let mut phdr = 0;
    for segment in segments.iter() {
        match segment.p_type {
            PT_LOAD => {
                end = end.max(load_segment(&space.mm, &object, &segment, bias, node.data)?);
                let table = header.e_phoff;
                if (segment.p_offset..segment.p_offset + segment.p_filesz).contains(&table) {
                    phdr = bias + (segment.p_vaddr + table - segment.p_offset) as usize;
                }
            }
            PT_PHDR if phdr == 0 => phdr = bias + segment.p_vaddr as usize,
            _ => {}
        }
    }
    if end == 0 {
        return Err(Errno::ENOEXEC);
    }
    let brk = end.next_multiple_of(PAGE_SIZE) + aslr(1 << 13);
    space.mm.set_brk_start(UserAddr::new(brk));
    let entry = bias.checked_add(header.e_entry as usize).ok_or(Errno::ENOEXEC)?;
    Ok((space, Image { entry, phdr, phnum: segments.len(), stack_top }))
}

/// Gives an address space the limits of its process.
pub fn set_limits(mm: &Mm, limits: &[Rlimit; rlimit::COUNT]) {
    for (which, limit) in [
        (Limit::AddressSpace, rlimit::AS),
        (Limit::Data, rlimit::DATA),
        (Limit::Stack, rlimit::STACK),
        (Limit::MemLock, rlimit::MEMLOCK),
    ] {
        mm.set_limit(which, limits[limit].cur);
    }
}

/// Maps one segment; answers where it ends.
fn load_segment(
    mm: &Mm,
    object: &KArc<Object>,
    segment: &ProgramHeader,
    bias: usize,
    data: &[u8],
) -> Result<usize, Errno> {
    let bad = Errno::ENOEXEC;
    let start = usize::try_from(segment.p_vaddr).ok().and_then(|v| v.checked_add(bias)).ok_or(bad)?;
    let (file, memory) = (segment.p_filesz as usize, segment.p_memsz as usize);
    let offset = segment.p_offset as usize;
    let in_file = offset.checked_add(file).is_some_and(|end| end <= data.len());
    if !in_file || memory < file || start % PAGE_SIZE != offset % PAGE_SIZE {
        return Err(bad);
    }
    let end = start.checked_add(memory).filter(|e| *e <= STACK_TOP).ok_or(bad)?;
    let prot = prot_of(segment.p_flags);
    let first = start & !(PAGE_SIZE - 1);
    let file_end = (start + file).next_multiple_of(PAGE_SIZE);
    if file > 0 {
        mm.map(&MapRequest {
            addr: first,
            len: file_end - first,
            prot,
            flags: Map::PRIVATE | Map::FIXED_NOREPLACE,
            object: Some((object.clone(), (offset & !(PAGE_SIZE - 1)) / PAGE_SIZE)),
            max_prot: Prot::all(),
        })
        .map_err(overlap_is_bad)?;
    }
    let zero_start = if file > 0 { file_end } else { first };
    if end > zero_start {
        mm.map(&MapRequest {
            addr: zero_start,
            flags: Map::PRIVATE | Map::FIXED_NOREPLACE | Map::ANONYMOUS,
            ..MapRequest::anonymous(end - zero_start, prot)
        })
        .map_err(overlap_is_bad)?;
    }
    // The file's last page may hold what is not of this segment, where the program expects zeros.
    if memory > file && file > 0 && prot.contains(Prot::WRITE) {
        let tail = start + file;
        let zeros = (file_end - tail).min(end - tail);
        if zeros > 0 {
            let page = mm.pin(tail, true).map_err(|_| Errno::ENOMEM)?;
            // SAFETY: the page is pinned and this process's own copy; `zeros` ends within it.
            unsafe { core::ptr::write_bytes(page.as_ptr(), 0, zeros) };
        }
    }
    Ok(end)
}

fn overlap_is_bad(e: Errno) -> Errno {
    if e == Errno::EEXIST { Errno::ENOEXEC } else { e }
}

fn prot_of(flags: u32) -> Prot {
    let mut prot = Prot::empty();
    prot.set(Prot::READ, flags & PF_R != 0);
    prot.set(Prot::WRITE, flags & PF_W != 0);
    prot.set(Prot::EXEC, flags & PF_X != 0);
    prot
}

/// The stack as the ABI has it (System V, AArch64): strings at the top, below them the auxiliary vector, the
/// environment, the arguments and their count, where SP points. Written through pinned pages.
fn fill_stack(mm: &KArc<Mm>, image: &Image, path: &[u8], args: &Strings, env: &Strings) -> Result<usize, Errno> {
    let top = image.stack_top;
    let strings = args.bytes.len() + env.bytes.len() + path.len() + 1 + 16 + 8;
    let vectors = 8 * (1 + args.count + 1 + env.count + 1) + 16 * 20;
    let size = (strings + vectors + 64).next_multiple_of(PAGE_SIZE).max(2 * PAGE_SIZE);
    let base = top - size;
    mm.map(&MapRequest {
        addr: base,
        flags: Map::PRIVATE | Map::ANONYMOUS | Map::FIXED_NOREPLACE | Map::GROWSDOWN,
        ..MapRequest::anonymous(size, Prot::READ | Prot::WRITE)
    })?;
    mm.map(&MapRequest {
        addr: SIGRETURN_PAGE,
        len: PAGE_SIZE,
        prot: Prot::READ | Prot::EXEC,
        flags: Map::PRIVATE | Map::FIXED_NOREPLACE,
        object: Some((random::sigreturn_object()?, 0)),
        max_prot: Prot::READ | Prot::EXEC,
    })?;
    let mut at = top;
    let mut put = |bytes: &[u8]| -> Result<usize, Errno> {
        at -= bytes.len();
        write(mm, at, bytes)?;
        Ok(at)
    };
    let name = {
        put(b"\0")?;
        put(path)?
    };
    let env_at = put(&env.bytes)?;
    let args_at = put(&args.bytes)?;
    let platform = put(b"aarch64\0")?;
    let seed = put(&random::bytes())?;
    let auxv = [
        (at::PHDR, image.phdr as u64),
        (at::PHENT, 56),
        (at::PHNUM, image.phnum as u64),
        (at::PAGESZ, PAGE_SIZE as u64),
        (at::BASE, 0),
        (at::FLAGS, 0),
        (at::ENTRY, image.entry as u64),
        (at::UID, 0),
        (at::EUID, 0),
        (at::GID, 0),
        (at::EGID, 0),
        (at::HWCAP, regs::hwcap()),
        (at::CLKTCK, 100),
        (at::SECURE, 0),
        (at::PLATFORM, platform as u64),
        (at::RANDOM, seed as u64),
        (at::EXECFN, name as u64),
        (at::NULL, 0),
    ];
    let words = 1 + args.count + 1 + env.count + 1 + auxv.len() * 2;
    let sp = (seed - words * 8) & !15;
    let mut slot = sp;
    let mut word = |value: u64| -> Result<(), Errno> {
        write(mm, slot, &value.to_le_bytes())?;
        slot += 8;
        Ok(())
    };
    word(args.count as u64)?;
    for (strings, start) in [(args, args_at), (env, env_at)] {
        let mut from = 0;
        for text in strings.bytes.split_inclusive(|&b| b == 0) {
            word((start + from) as u64)?;
            from += text.len();
        }
        word(0)?;
    }
    for (key, value) in auxv {
        word(key)?;
        word(value)?;
    }
    Ok(sp)
}

/// Writes to a space that need not be the current one, page by page.
fn write(mm: &Mm, at: usize, bytes: &[u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < bytes.len() {
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

/// Ends the process's other threads and waits until they are gone.
fn end_other_threads(process: &Process) -> Result<(), Errno> {
    let me = current();
    process.stop_wait.wait_until(Sleep::Killable, None, || {
        let table = TABLE.lock();
        if table.family(process).thread_count == 1 {
            return Some(());
        }
        signal::doom_others(&table, process, me);
        None
    })
}

/// Whichever thread called exec, it is the process's first and only one afterwards, and known by its number.
fn take_process_number(process: &Process) {
    let thread = current();
    let former = {
        let mut table = TABLE.lock();
        let own = thread.tid();
        thread.take_number_of(process);
        if own == process.pid { None } else { table.remove(own) }
    };
    drop(former);
}

/// Runs in the new space from here on.
fn switch_space(process: &Process, space: KArc<Space>) {
    let thread = current();
    let mm = KArc::clone(&space.mm);
    let old = process.space.lock().replace(space);
    let old_mm = {
        let irq = cpu::irq_save();
        let old_mm = thread.set_mm(Some(mm.clone()));
        super::sched::activate(cpu::this(), &mm);
        cpu::irq_restore(irq);
        old_mm
    };
    drop(old_mm);
    drop(old);
    process.mm_released.store(true, Ordering::Release);
    process.stop_wait.wake_all();
}
