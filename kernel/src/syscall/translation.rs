//! The record behind `walk`: the translation of an address of a process, or of the kernel.

use quire_abi::Errno;
use quire_abi::flags::Control;
use quire_abi::translation::{
    FrameInfo, SlotInfo, TranslationInfo, frame_flag, note, outcome, software, touch, whereabouts,
};
use quire_mm::addr::USER_END;
use quire_mm::asid::AsidView;
use quire_mm::mm::{FirstTouch, Outcome, Translation};
use quire_mm::object::Whereabouts;
use quire_mm::page::{PageFlags, PageState};
use quire_mm::page_alloc::FrameView;
use quire_mm::pte::{MAIR, NonPresent, Path, Pte, Swapped, bits};
use quire_mm::swap::{Slot, SlotView};
use quire_mm::table::entry;
use quire_mm::{PhysAddr, UserAddr, VirtAddr};

use super::Args;
use super::areas;
use super::inspect::inspected;
use super::quire::holds;
use super::statistics::name;
use crate::arch::uaccess::untagged;
use crate::layout;
use crate::task::percpu;
use crate::task::thread::current;
use crate::vm::{Cpu, GROUPS, Mm, PAGES, SPACES, kernel_map};

const _: () = {
    assert!(software::DIRTY == bits::DIRTY && software::SPECIAL == bits::SPECIAL && software::ANON == entry::ANON);
    assert!(software::AHEAD == bits::AHEAD);
    let swapped = Swapped { slot: Slot(0), shadow: 0 };
    assert!(software::SWAP == Pte::non_present(NonPresent::Swap(swapped)).0);
    assert!(software::MIGRATION == Pte::non_present(NonPresent::Migration(PhysAddr::new(0))).0);
    assert!(software::MARKER == Pte::non_present(NonPresent::Marker(0)).0);
};

/// The parts of the kernel's half, with their first addresses ([`layout`]).
const PARTS: [(usize, &str); 8] = [
    (layout::KIMAGE, "kernel image"),
    (layout::VMEMMAP, "vmemmap, the page records"),
    (layout::STACKS_END, ""),
    (layout::STACKS_START, "kernel stacks"),
    (layout::KMAP_START + (1 << 20), ""),
    (layout::KMAP_START, "kmap"),
    (layout::VMALLOC_START, "vmalloc"),
    (layout::PAGE_OFFSET, "direct map"),
];

/// The translation of the address x1 in the process x4, or in the caller's if x4 is 0; ESRCH if there is no such
/// process. EPERM for a process that the caller may not inspect, and for the kernel's half, unless x5 is a handle of
/// machine control with AUDIT.
pub fn translation(a: Args) -> Result<TranslationInfo, Errno> {
    let is_auditor = holds(a.uint(5), Control::AUDIT);
    let va = untagged(a.word(1));
    if va >= layout::PAGE_OFFSET {
        return if is_auditor { Ok(of_kernel(va)) } else { Err(Errno::EPERM) };
    }
    let empty = TranslationInfo { address: va as u64, mair: MAIR, ..TranslationInfo::default() };
    if a.uint(4) == 0 {
        return current().mm().map_or(Ok(TranslationInfo { outcome: outcome::ENDED, ..empty }), |mm| of_space(mm, va));
    }
    inspected(a.uint(4), is_auditor)?
        .map_or(Ok(TranslationInfo { outcome: outcome::ENDED, ..empty }), |mm| of_space(&mm, va))
}

/// An address of the kernel's half. The kernel's tables have no ASID: their entries are global.
fn of_kernel(va: usize) -> TranslationInfo {
    let path = kernel_map::path(VirtAddr::new(va));
    let mut info =
        TranslationInfo { address: va as u64, mair: MAIR, notes: note::KERNEL, ..TranslationInfo::default() };
    info.name = name(PARTS.iter().find(|(start, _)| va >= *start).map_or("", |(_, part)| part));
    set_path(&mut info, &path);
    if let Some(to) = path.output(va) {
        set_mapped(&mut info, to, PAGES.frame_view(to.pfn()));
    }
    info
}

fn of_space(mm: &Mm, va: usize) -> Result<TranslationInfo, Errno> {
    let mut info = TranslationInfo { address: va as u64, mair: MAIR, ..TranslationInfo::default() };
    if va >= USER_END {
        info.outcome = outcome::OUTSIDE;
        return Ok(info);
    }
    mm.translate(UserAddr::new(va), |found| {
        set_path(&mut info, &found.path);
        set_asid(&mut info, &found.asid);
        set_area(&mut info, &found);
        set_outcome(&mut info, &found.outcome);
    })?;
    // The group of a page may be gone by now; the key still identifies it.
    let group = info.frame.control_group as u16;
    info.frame.control_group = GROUPS.get(GROUPS.effective(group)).map_or(0, |group| group.key().0);
    Ok(info)
}

fn set_path(info: &mut TranslationInfo, path: &Path) {
    for (level, step) in path.steps().iter().enumerate() {
        info.entries[level] = step.entry.0;
        info.tables[level] = step.table.get() as u64;
    }
    info.levels = path.steps().len() as u32;
    info.root = info.tables[0];
}

fn set_asid(info: &mut TranslationInfo, asid: &AsidView) {
    let online = percpu::online().fold(0, |all, cpu| all | 1 << cpu.id());
    info.asid = asid.number.unwrap_or(0).into();
    info.generations = [asid.generation, asid.current];
    info.running = asid.cpus & online;
    info.owing = asid.owing & online;
    if asid.is_current() {
        info.notes |= note::CURRENT;
    }
}

fn set_area(info: &mut TranslationInfo, found: &Translation<'_, Cpu>) {
    let Some(area) = &found.area else { return };
    info.notes |= note::AREA;
    info.area = [area.start.get() as u64, area.end.get() as u64];
    info.area_flags = areas::flags(area);
    info.name = areas::name(area);
    info.index = found.index as u64;
}

fn set_outcome(info: &mut TranslationInfo, found: &Outcome) {
    match *found {
        Outcome::Mapped(to, frame) => set_mapped(info, to, frame),
        Outcome::Swapped(slot) => {
            info.outcome = outcome::SWAPPED;
            info.slot = slot_info(&slot);
        }
        Outcome::Moving(old, moved) => {
            info.outcome = outcome::MOVING;
            info.physical = old.get() as u64;
            let notes = [
                (moved.is_young, note::WAS_YOUNG),
                (moved.is_dirty, note::WAS_DIRTY),
                (moved.is_writable, note::WAS_WRITABLE),
            ];
            info.notes |= notes.iter().filter(|(is, _)| *is).map(|(_, note)| note).sum::<u32>();
        }
        Outcome::Untouched { read, write, object, marker } => {
            info.outcome = outcome::UNTOUCHED;
            (info.first_read, info.first_write) = (touch_number(read), touch_number(write));
            info.notes |= if marker.is_some() { note::MARKER } else { 0 };
            if let Some(at) = object {
                set_whereabouts(info, at);
            }
        }
        Outcome::BelowStack => info.outcome = outcome::BELOW_STACK,
        Outcome::Unmapped => info.outcome = outcome::UNMAPPED,
    }
}

fn set_mapped(info: &mut TranslationInfo, to: PhysAddr, frame: Option<FrameView>) {
    info.outcome = outcome::MAPPED;
    info.physical = to.get() as u64;
    info.frame = frame.as_ref().map(frame_info).unwrap_or_default();
    if to.page_floor() == SPACES.zero_page() {
        info.notes |= note::ZERO_PAGE;
    }
}

fn touch_number(of: FirstTouch) -> u32 {
    match of {
        FirstTouch::Refused => touch::REFUSED,
        FirstTouch::BeyondObject => touch::BEYOND_OBJECT,
        FirstTouch::ZeroPage => touch::ZERO_PAGE,
        FirstTouch::NewPage => touch::NEW_PAGE,
        FirstTouch::ObjectPage => touch::OBJECT_PAGE,
        FirstTouch::Copy => touch::COPY,
    }
}

/// Records where an object's page is. Nothing holds the page any more: the information about its frame may be of a
/// later use.
fn set_whereabouts(info: &mut TranslationInfo, at: Whereabouts) {
    info.whereabouts = match at {
        Whereabouts::InPlace(_) => whereabouts::IN_PLACE,
        Whereabouts::InMemory(_) => whereabouts::IN_MEMORY,
        Whereabouts::InSwap(_) => whereabouts::IN_SWAP,
        Whereabouts::Moving => whereabouts::MOVING,
        Whereabouts::WithPager => whereabouts::WITH_PAGER,
        Whereabouts::InArchive => whereabouts::IN_ARCHIVE,
        Whereabouts::Nowhere => whereabouts::NOWHERE,
        Whereabouts::BeyondEnd => whereabouts::BEYOND_END,
    };
    let pfn = match at {
        Whereabouts::InPlace(addr) => addr.pfn(),
        Whereabouts::InMemory(pfn) => pfn,
        Whereabouts::InSwap(slot) => {
            info.slot = slot_info(&slot);
            return;
        }
        _ => return,
    };
    info.frame = PAGES.frame_view(pfn).as_ref().map(frame_info).unwrap_or_default();
}

fn slot_info(slot: &SlotView) -> SlotInfo {
    SlotInfo {
        number: slot.slot.0,
        block: slot.block.map_or(0, |block| block.0 as u64),
        users: slot.users,
        bytes: slot.len as u32,
    }
}

/// The flags of a frame in records ([`frame_flag`]).
pub(super) fn frame_flags(flags: PageFlags) -> u32 {
    let all = [
        (PageFlags::LOCKED, frame_flag::LOCKED),
        (PageFlags::DIRTY, frame_flag::DIRTY),
        (PageFlags::WRITEBACK, frame_flag::WRITEBACK),
        (PageFlags::REFERENCED, frame_flag::REFERENCED),
        (PageFlags::SWAP_BACKED, frame_flag::SWAP_BACKED),
        (PageFlags::PAGED, frame_flag::PAGED),
        (PageFlags::RETURNED, frame_flag::RETURNED),
        (PageFlags::ISOLATED, frame_flag::ISOLATED),
    ];
    all.iter().filter(|(of, _)| flags.contains(*of)).map(|(_, flag)| flag).sum()
}

/// The record of a frame; for its control group, only the number so far.
fn frame_info(frame: &FrameView) -> FrameInfo {
    FrameInfo {
        pfn: frame.pfn.0 as u64,
        head: frame.head.0 as u64,
        control_group: frame.group.into(),
        index: frame.index,
        exists: 1,
        node: frame.node as u32,
        order: frame.order,
        references: frame.refs,
        pins: frame.pins,
        mappings: frame.mappings(),
        flags: frame_flags(frame.flags),
        pad: 0,
        zone: name(frame.zone.name()),
        state: name(state_name(frame.state)),
        migrate_type: name(frame.migrate_type.name()),
    }
}

fn state_name(state: PageState) -> &'static str {
    match state {
        PageState::Absent => "Absent",
        PageState::Free => "Free",
        PageState::Cached => "Cached",
        PageState::Slab => "Slab",
        PageState::Kernel => "Kernel",
        PageState::Table => "Table",
        PageState::Whole => "Whole",
        PageState::Anon => "Anon",
        PageState::Object => "Object",
    }
}
