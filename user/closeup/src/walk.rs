//! The translation of an address as text: the parts of the address, each entry of the walk, and what the last one stands for.

use alloc::format;
use alloc::string::String;

use quire_abi::statistics::vma;
use quire_abi::translation::{FrameInfo, SlotInfo, TranslationInfo, frame_flag, note, outcome, touch, whereabouts};

use crate::entry::{Entry, Kind, SOFTWARE};
use crate::text;

/// log2 of the bytes that an entry covers, by level.
const LEVEL_SHIFT: [u32; 4] = [39, 30, 21, 12];

/// Bits of an index.
const INDEX_BITS: u32 = 9;

/// Columns before the text of a line.
const MARGIN: usize = 10;

/// What only the program knows.
pub struct Names<'a> {
    /// Whose address it is: "process 7 (sh)".
    pub owner: &'a str,
    /// The path of the control group that the page is charged to.
    pub group: &'a str,
}

/// All lines.
pub fn show(info: &TranslationInfo, names: &Names<'_>) -> String {
    let mut page = Page(String::new());
    page.0 += &format!("{:#018x} of {}\n\n", info.address, names.owner);
    address(&mut page, info);
    page.0 += "\n";
    if info.levels != 0 {
        root(&mut page, info);
        (0..info.levels as usize).for_each(|level| step(&mut page, info, level));
    }
    ending(&mut page, info);
    tlb(&mut page, info);
    area(&mut page, info);
    if info.frame.exists != 0 {
        frame(&mut page, &info.frame, names);
    } else if info.outcome == outcome::MAPPED {
        page.line("frame", "none: it is no memory, but a device's registers");
    }
    page.0
}

/// Text in two columns.
struct Page(String);

impl Page {
    fn line(&mut self, label: &str, text: &str) {
        self.0 += &format!("{label:MARGIN$}{text}\n");
    }

    fn more(&mut self, text: &str) {
        self.line("", text);
    }
}

fn is_kernel(info: &TranslationInfo) -> bool {
    info.notes & note::KERNEL != 0
}

/// The address in bits: which register, an index for each level, an offset.
fn address(page: &mut Page, info: &TranslationInfo) {
    let mut piece = |high: u32, low: u32, what: &str| {
        let width = (high - low + 1) as usize;
        let value = info.address >> low & (u64::MAX >> (63 - (high - low)));
        page.0 += &format!("bits {high:2} to {low:2}  {value:0width$b}{:pad$}  {what}\n", "", pad = 30 - width);
    };
    let half = match () {
        () if is_kernel(info) => "all ones: TTBR1, the kernel's tables",
        () if info.outcome == outcome::OUTSIDE => "neither all zeros nor all ones: no table translates it",
        () => "all zeros: TTBR0, the process's tables",
    };
    piece(63, 48, half);
    if info.outcome == outcome::OUTSIDE {
        return;
    }
    let last = last_level(info);
    for (level, shift) in LEVEL_SHIFT.iter().enumerate().take(last + 1) {
        let is_read = level < info.levels as usize;
        let note = if is_read { "" } else { ", not reached" };
        piece(shift + INDEX_BITS - 1, *shift, &format!("level {level}: index {}{note}", index(info.address, level)));
    }
    piece(LEVEL_SHIFT[last] - 1, 0, &format!("offset {:#x}", offset(info.address, last)));
}

/// The level of the entry that maps the address, or could: 3, but for a block.
fn last_level(info: &TranslationInfo) -> usize {
    let last = (info.levels as usize).saturating_sub(1);
    let is_block = info.levels != 0 && Entry { word: info.entries[last], level: last }.kind() == Kind::Block;
    if is_block { last } else { 3 }
}

fn index(address: u64, level: usize) -> u64 {
    address >> LEVEL_SHIFT[level] & ((1 << INDEX_BITS) - 1)
}

fn offset(address: u64, level: usize) -> u64 {
    address & ((1 << LEVEL_SHIFT[level]) - 1)
}

fn root(page: &mut Page, info: &TranslationInfo) {
    let register = if is_kernel(info) { "TTBR1" } else { "TTBR0" };
    let asid = match (is_kernel(info), info.asid) {
        (true, _) => "; its entries are the same in all processes".into(),
        (_, 0) => "; no ASID yet".into(),
        (_, asid) => format!(", ASID {asid}"),
    };
    page.line(register, &format!("the table at {:#x}{asid}", info.root));
}

/// An entry: where it is, what it says, and of the last one each field.
fn step(page: &mut Page, info: &TranslationInfo, level: usize) {
    let entry = Entry { word: info.entries[level], level };
    let (table, index) = (info.tables[level], index(info.address, level));
    let what = match entry.kind() {
        Kind::Invalid if entry.word == 0 => "nothing".into(),
        Kind::Invalid => format!("not valid: {}", entry.absent()),
        Kind::Reserved => Kind::Reserved.name().into(),
        kind => format!("{} at {:#x}", kind.name(), entry.address()),
    };
    let label = format!("level {level}");
    page.line(&label, &format!("{table:#x} + 8 * {index} = {:#x}: {:#018x}  {what}", table + 8 * index, entry.word));
    for field in entry.fields(info.mair) {
        let value = format!("{:>#4x}", field.value);
        page.more(&format!("  {:<10} {:>5} {value}  {}", field.name, field.bits, field.meaning));
        if field.name == "software" {
            let said = |name: &str| field.meaning.split(", ").any(|word| word.split(' ').next() == Some(name));
            SOFTWARE.iter().filter(|(name, _)| said(name)).for_each(|(name, meaning)| {
                page.more(&format!("  {:23}{name}: {meaning}", ""));
            });
        }
    }
}

/// What the last entry stands for.
fn ending(page: &mut Page, info: &TranslationInfo) {
    match info.outcome {
        outcome::MAPPED => {
            let (last, address) = (last_level(info), info.address);
            let base = info.physical - offset(address, last);
            page.line("physical", &format!("{base:#x} + {:#x} = {:#x}", offset(address, last), info.physical));
            if info.notes & note::ZERO_PAGE != 0 {
                page.more("the zero page, which all reads of memory that was never written share; a write copies it");
            }
        }
        outcome::UNTOUCHED => untouched(page, info),
        outcome::SWAPPED => {
            page.line("swap", &slot(&info.slot));
            page.more("an access reads it into a new frame (a major fault)");
        }
        outcome::MOVING => moving(page, info),
        outcome::BELOW_STACK => page
            .line("nothing", "below a stack: an access extends the stack down to here, and gets a new page of zeros"),
        outcome::OUTSIDE => page.line("nothing", "an access is a SIGSEGV (SEGV_MAPERR)"),
        outcome::ENDED => page.line("nothing", "the process has no memory: it has ended, or is the kernel's"),
        _ if is_kernel(info) => page.line("nothing", "an access stops the kernel"),
        _ => page.line("nothing", "no area is here: an access is a SIGSEGV (SEGV_MAPERR)"),
    }
}

fn moving(page: &mut Page, info: &TranslationInfo) {
    page.line(
        "moving",
        &format!("from the frame at {:#x}; an access waits until the page is in its new frame", info.physical),
    );
    let was = [(note::WAS_YOUNG, "accessed"), (note::WAS_DIRTY, "dirty"), (note::WAS_WRITABLE, "writable")];
    for (bit, word) in was {
        if info.notes & bit != 0 {
            page.more(&format!("it was {word}, and will be again"));
        }
    }
}

fn slot(slot: &SlotInfo) -> String {
    let contents = match slot.bytes {
        0 => "one word again and again, kept in the slot itself".into(),
        4096 => format!("4096 bytes as they are, in the frame {:#x}", slot.block),
        bytes => format!("compressed to {bytes} bytes, in the block of the frame {:#x}", slot.block),
    };
    format!("slot {:#x} of swap, which is in memory: {contents}; kept by {}", slot.number, times(slot.users, "user"))
}

/// A page of an area without an entry.
fn untouched(page: &mut Page, info: &TranslationInfo) {
    page.line("nothing", "yet: this page has not been accessed here");
    if info.notes & note::MARKER != 0 {
        page.more("the entry is a marker, which a fault replaces");
    }
    let what = |touch: u32| match touch {
        touch::REFUSED => "a SIGSEGV (SEGV_ACCERR): the area does not allow it",
        touch::BEYOND_OBJECT => "a SIGBUS (BUS_ADRERR): the file ends before this page",
        touch::ZERO_PAGE => "maps the zero page, read-only",
        touch::NEW_PAGE => "gets a new page of zeros",
        touch::OBJECT_PAGE => "maps the object's own page",
        touch::COPY => "gets a new page, a copy of the object's",
        _ => "?",
    };
    page.more(&format!("the first load:  {}", what(info.first_read)));
    page.more(&format!("the first store: {}", what(info.first_write)));
    let place = match info.whereabouts {
        whereabouts::IN_PLACE => "is in memory, in the boot archive: mapped where it is",
        whereabouts::IN_MEMORY => "is in memory",
        whereabouts::IN_SWAP => "is in swap",
        whereabouts::MOVING => "is on its way to swap, or to a frame",
        whereabouts::WITH_PAGER => "is with the server that has the file, which is asked for it",
        whereabouts::IN_ARCHIVE => "is in the boot archive, at no page boundary: it is copied",
        whereabouts::NOWHERE => "is not there yet: it will be zeros",
        _ => return,
    };
    page.more(&format!("page {} of the object {place}", info.index));
    if info.whereabouts == whereabouts::IN_SWAP {
        page.more(&slot(&info.slot));
    }
}

/// Whether a TLB may hold the last entry.
fn tlb(page: &mut Page, info: &TranslationInfo) {
    let Some(last) = (info.levels as usize).checked_sub(1) else { return };
    let entry = Entry { word: info.entries[last], level: last };
    match entry.kind() {
        Kind::Block | Kind::Page if !entry.may_be_cached() => {
            return page.line("TLB", "no TLB holds the entry: its access flag is clear");
        }
        Kind::Block | Kind::Page => {}
        _ => return page.line("TLB", "no TLB holds it: what is not valid is not kept"),
    }
    if !entry.is_not_global() {
        return page.line("TLB", "any TLB may hold the entry, whatever the ASID");
    }
    let [generation, current] = info.generations;
    if info.asid == 0 {
        page.line("TLB", "no TLB holds the entry: the process has not run yet, so it has no ASID");
    } else if info.notes & note::CURRENT != 0 {
        let ran = cpus(info.running)
            .map_or("all CPUs have run with others since".into(), |cpus| format!("{cpus} ran with it last"));
        page.line(
            "TLB",
            &format!("a TLB may hold the entry: ASID {} is of the current generation, {current}; {ran}", info.asid),
        );
    } else {
        page.line(
            "TLB",
            &format!(
                "ASID {} is of generation {generation}, and now is {current}: the process gets another one",
                info.asid
            ),
        );
        let left = cpus(info.owing).map_or("all CPUs have flushed their TLBs since".into(), |cpus| {
            format!("only TLBs that were not flushed since may hold the entry: {cpus}")
        });
        page.more(&left);
    }
}

/// "CPU 1" or "CPUs 0, 3".
fn cpus(mask: u32) -> Option<String> {
    let mut list = String::new();
    for cpu in (0..32).filter(|cpu| mask >> cpu & 1 != 0) {
        list += &format!("{}{cpu}", if list.is_empty() { "" } else { ", " });
    }
    let many = if mask.count_ones() == 1 { "" } else { "s" };
    (mask != 0).then(|| format!("CPU{many} {list}"))
}

fn area(page: &mut Page, info: &TranslationInfo) {
    let name = text(&info.name);
    if is_kernel(info) {
        return page.line("part", if name.is_empty() { "none that is used" } else { name });
    }
    if info.notes & note::AREA == 0 {
        return;
    }
    let has = |flag: u32| info.area_flags & flag != 0;
    let rights: String = [(vma::READ, 'r'), (vma::WRITE, 'w'), (vma::EXEC, 'x')]
        .map(|(flag, letter)| if has(flag) { letter } else { '-' })
        .iter()
        .collect();
    let what = match () {
        () if !name.is_empty() => format!("page {} of {name}", info.index),
        () if has(vma::STACK) => "a stack".into(),
        () if has(vma::SHARED) => format!("page {} of shared memory", info.index),
        () if has(vma::OBJECT) => format!("page {} of an object", info.index),
        () => "anonymous memory".into(),
    };
    let shared = if has(vma::SHARED) { "shared" } else { "private" };
    let locked = if has(vma::LOCKED) { ", locked" } else { "" };
    page.line("area", &format!("{:#x} to {:#x}, {rights}, {shared}{locked}: {what}", info.area[0], info.area[1]));
}

/// What the frame's record says.
fn frame(page: &mut Page, frame: &FrameInfo, names: &Names<'_>) {
    let (zone, state, kind) = (text(&frame.zone), text(&frame.state), text(&frame.migrate_type));
    page.line("frame", &format!("{:#x}: node {}, zone {zone}, in a page block of type {kind}", frame.pfn, frame.node));
    let what = match state {
        "Absent" => "in no block of the page allocator: reserved at boot, the kernel's image, or the boot archive",
        "Free" => "free, in the buddy allocator",
        "Cached" => "free, on a per-CPU list",
        "Slab" => "memory of a slab cache",
        "Kernel" => "the kernel's",
        "Table" => "a translation table",
        "Anon" => "anonymous memory",
        "Object" => "a page of a memory object",
        other => other,
    };
    let block = match frame.order {
        0 => String::new(),
        order => format!(", in the block of order {order} at {:#x}", frame.head),
    };
    page.more(&format!("{what}{block}"));
    if !matches!(state, "Anon" | "Object") {
        return;
    }
    let pins = if frame.pins == 0 { String::new() } else { format!(", {} of them pins", frame.pins) };
    let mapped = times(frame.mappings, "mapping");
    page.more(&format!("{}{pins}; {mapped} at most", times(frame.references, "reference")));
    let mut flags = String::new();
    for (flag, name) in frame_flag::NAMES {
        if frame.flags & flag != 0 {
            flags += &format!("{}{name}", if flags.is_empty() { "" } else { ", " });
        }
    }
    page.more(&format!("flags: {}", if flags.is_empty() { "none" } else { &flags }));
    page.more(&format!("page {:#x} of its owner; charged to the control group {}", frame.index, names.group));
}

/// "1 user", "2 users".
fn times(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
