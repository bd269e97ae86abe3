//! Checks of the attributes of kernel mappings: the requested attribute is in the table, the MMU reports the same (AT),
//! and an access that it forbids faults.

use quire_mm::Machine;
use quire_mm::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use quire_mm::kernel_table::KernelAttrs;
use quire_mm::page_alloc::Gfp;
use quire_mm::pte::{MAIR, bits};
use quire_mm::vmalloc::VmError;

use super::{Check, Outcome, expect, got, some};
use crate::arch::probe;
use crate::arch::syndrome::Syndrome;
use crate::arch::translate::Translation;
use crate::board::BOARD;
use crate::trap::spurious::is_spurious;
use crate::vm::vmalloc::VMALLOC;
use crate::vm::{Cpu, PAGES, kernel_map};

pub const CHECKS: &[Check] = &[
    ("vmap: each attribute arrives in the table and in the MMU", of_memory),
    ("vmap: what it forbids faults", forbidden),
    ("vmap: an alias of any cacheability shows the same bytes", same_bytes),
    ("ioremap: registers are device memory", of_registers),
    ("faults: an access to a kernel address that has been mapped meanwhile is repeated", early_faults),
];

/// Bytes of MAIR_EL1.
const NON_CACHEABLE: u8 = 0x44;
const WRITE_THROUGH: u8 = 0xbb;
const WRITE_BACK: u8 = 0xff;
const DEVICE_STRICT: u8 = 0x00;
const DEVICE: u8 = 0x04;

/// Values of SH\[1:0\].
const OUTER: u8 = 2;
const INNER: u8 = 3;

/// The mapping at `va` leads to `pa`, with this memory type, writable or not, never executable.
fn is_mapped(va: VirtAddr, pa: PhysAddr, memory: u8, writable: bool) -> Outcome {
    let pte = some(kernel_map::entry(va), "an entry")?;
    expect(pte.addr() == pa.page_floor(), "the entry leads to the frame")?;
    let in_table = MAIR.to_le_bytes()[pte.0 as usize >> bits::ATTR_SHIFT & 7];
    expect(in_table == memory, "the entry's memory type")?;
    expect((pte.0 & bits::READ_ONLY == 0) == writable, "the entry's right to write")?;
    let always = bits::PXN | bits::UXN | bits::ACCESSED | bits::INNER_SHARE;
    expect(pte.0 & always == always, "the entry allows no execution")?;
    expect(pte.0 & (bits::USER | bits::NOT_GLOBAL) == 0, "the entry is the kernel's")?;

    let read = Translation::of(va.get(), false);
    expect(read.page() == Some(pa.page_floor()), "the MMU leads to the frame")?;
    // How a CPU implements write-through memory is its own choice.
    let attributes = read.attributes();
    let downgraded = memory == WRITE_THROUGH && attributes == NON_CACHEABLE;
    expect(attributes == memory || downgraded, "the MMU's memory type")?;
    let cached = matches!(attributes, WRITE_BACK | WRITE_THROUGH);
    expect(read.shareability() == if cached { INNER } else { OUTER }, "the MMU's shareability")?;
    let write = Translation::of(va.get(), true);
    expect(if writable { write.page() == read.page() } else { write.is_permission_fault() }, "the MMU's right to write")
}

/// Runs `f` with a page mapped with `attrs`, and returns the page's first word, read through the direct map afterwards.
/// It starts as [`OLD`].
fn with_page(attrs: KernelAttrs, f: impl FnOnce(VirtAddr, PhysAddr) -> Outcome) -> Outcome<u64> {
    let page = got(PAGES.alloc_zeroed_page(Gfp::KERNEL), "a page")?;
    let word = Cpu.direct_map(page.addr()).cast::<u64>();
    // SAFETY: the page is the check's.
    unsafe { word.write_volatile(OLD) };
    let start = some(VMALLOC.vmap(&[page.pfn()], attrs).ok(), "a mapping")?;
    let outcome = f(start, page.addr());
    // SAFETY: nobody uses it any more.
    let ended = unsafe { VMALLOC.vunmap(start) };
    VMALLOC.purge();
    outcome?;
    expect(ended.is_ok(), "a mapping ends")?;
    expect(Translation::of(start.get(), false).is_translation_fault(), "and is gone for the MMU too")?;
    // SAFETY: as above; the direct map's is the only mapping again.
    Ok(unsafe { word.read_volatile() })
}

const OLD: u64 = 0x1111;
const NEW: u64 = 0x2222;

/// The kinds of memory.
const MEMORY: [(KernelAttrs, u8); 3] = [
    (KernelAttrs::DATA, WRITE_BACK),
    (KernelAttrs::NON_CACHEABLE, NON_CACHEABLE),
    (KernelAttrs::WRITE_THROUGH, WRITE_THROUGH),
];

fn of_memory() -> Outcome {
    for (attrs, memory) in MEMORY {
        with_page(attrs, |va, pa| is_mapped(va, pa, memory, true))?;
        with_page(attrs.read_only(), |va, pa| is_mapped(va, pa, memory, false))?;
    }
    let page = got(PAGES.alloc_page(Gfp::KERNEL), "a page")?;
    let as_registers = VMALLOC.vmap(&[page.pfn()], KernelAttrs::DEVICE);
    expect(as_registers == Err(VmError::Invalid), "memory is not mapped as a device")
}

fn forbidden() -> Outcome {
    for (attrs, _) in MEMORY {
        let kept = with_page(attrs.read_only(), |va, _| {
            // SAFETY: the page is the check's; this check shows that it cannot be written here.
            expect(!unsafe { probe::store(va.get(), NEW) }, "a store to what is read-only faults")?;
            // SAFETY: no instruction there is executed, as this check shows.
            expect(!unsafe { probe::call(va.get()) }, "a call of data faults")
        })?;
        expect(kept == OLD, "and nothing has changed")?;
    }
    let area = some(VMALLOC.vmalloc(PAGE_SIZE, Gfp::KERNEL).ok(), "an area")?;
    // SAFETY: behind the area is its guard page, where nothing is mapped.
    let stored = unsafe { probe::store(area.get() + PAGE_SIZE, NEW) };
    // SAFETY: the area is not in use.
    expect(unsafe { VMALLOC.vfree(area) }.is_ok(), "an area ends")?;
    VMALLOC.purge();
    expect(!stored, "a store to a guard page faults")
}

fn same_bytes() -> Outcome {
    for (attrs, _) in MEMORY {
        let after = with_page(attrs, |va, _| {
            // SAFETY: the mapping shows the page, which is the check's.
            let seen = unsafe { core::ptr::with_exposed_provenance::<u64>(va.get()).read_volatile() };
            expect(seen == OLD, "what the direct map wrote")?;
            // SAFETY: as above.
            expect(unsafe { probe::store(va.get(), NEW) }, "a store to what is writable")
        })?;
        expect(after == NEW, "what the mapping wrote")?;
    }
    Ok(())
}

/// The registers of the board's ports, which the kernel has mapped already. Nothing is accessed.
fn of_registers() -> Outcome {
    for uart in &BOARD.get().uarts {
        let base = PhysAddr::new(uart.registers.base as usize);
        for (attrs, memory) in [(KernelAttrs::DEVICE, DEVICE), (KernelAttrs::DEVICE_STRICT, DEVICE_STRICT)] {
            let va = some(VMALLOC.ioremap(base, uart.registers.size as usize, attrs).ok(), "a mapping")?;
            let right = is_mapped(va, base, memory, true);
            // SAFETY: nobody uses it.
            expect(unsafe { VMALLOC.iounmap(va) }.is_ok(), "a mapping ends")?;
            right?;
        }
    }
    VMALLOC.purge();
    Ok(())
}

fn early_faults() -> Outcome {
    /// ESR_EL1 of a data abort from EL1 at level 3.
    const TRANSLATION: Syndrome = Syndrome(0x25 << 26 | 0x07);
    const PERMISSION: Syndrome = Syndrome(0x25 << 26 | 0x0f);
    let start = some(VMALLOC.vmalloc(PAGE_SIZE, Gfp::KERNEL).ok(), "an area")?;
    let guard = start.get() + PAGE_SIZE;
    let right = is_spurious(TRANSLATION, start.get())
        && !is_spurious(PERMISSION, start.get())
        && !is_spurious(TRANSLATION, guard)
        && !is_spurious(TRANSLATION, 0);
    // SAFETY: the area is not in use.
    expect(unsafe { VMALLOC.vfree(start) }.is_ok(), "an area ends")?;
    VMALLOC.purge();
    expect(right, "only a translation fault where there is an entry")
}
