use super::*;

use alloc::vec::Vec;

/// MAIR_EL1 as the kernel sets it.
const MAIR: u64 = 0x04_0c_bb_44_ff_00;

const NAMES: Names<'static> = Names { owner: "process 7 (sh)", group: "/" };

fn field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    field[..text.len()].copy_from_slice(text.as_bytes());
    field
}

/// A page of a program that it has written, reached by four entries: the indices are 0, 1, 2, 3.
fn mapped() -> TranslationInfo {
    let page = 0x4123_4000 | 3 | 1 << 2 | 1 << 6 | 3 << 8 | 3 << 10 | 3 << 53 | 5 << 55;
    let frame = FrameInfo {
        pfn: 0x41234,
        head: 0x41234,
        exists: 1,
        references: 2,
        pins: 1,
        mappings: 1,
        flags: frame_flag::SWAP_BACKED | frame_flag::DIRTY,
        index: 0x40403,
        zone: field("DMA"),
        state: field("Anon"),
        migrate_type: field("Movable"),
        ..FrameInfo::default()
    };
    TranslationInfo {
        address: 0x4040_3123,
        mair: MAIR,
        root: 0x5000_0000,
        entries: [0x5000_1003, 0x5000_2003, 0x5000_3003, page],
        tables: [0x5000_0000, 0x5000_1000, 0x5000_2000, 0x5000_3000],
        physical: 0x4123_4123,
        generations: [1, 1],
        area: [0x4040_0000, 0x4041_0000],
        levels: 4,
        asid: 3,
        running: 0b101,
        notes: note::CURRENT | note::AREA,
        area_flags: vma::READ | vma::WRITE,
        outcome: outcome::MAPPED,
        frame,
        ..TranslationInfo::default()
    }
}

/// The same without the last entry.
fn absent(outcome: u32) -> TranslationInfo {
    let mut info = mapped();
    info.entries[3] = 0;
    TranslationInfo { outcome, physical: 0, frame: FrameInfo::default(), ..info }
}

fn has(info: &TranslationInfo, line: &str) {
    let text = show(info, &NAMES);
    assert!(text.lines().any(|other| other.trim() == line), "no line {line:?} in\n{text}");
}

#[test]
fn every_step_of_a_mapped_page() {
    let wanted = "\
0x0000000040403123 of process 7 (sh)

bits 63 to 48  0000000000000000                all zeros: TTBR0, the process's tables
bits 47 to 39  000000000                       level 0: index 0
bits 38 to 30  000000001                       level 1: index 1
bits 29 to 21  000000010                       level 2: index 2
bits 20 to 12  000000011                       level 3: index 3
bits 11 to  0  000100100011                    offset 0x123

TTBR0     the table at 0x50000000, ASID 3
level 0   0x50000000 + 8 * 0 = 0x50000000: 0x0000000050001003  table at 0x50001000
level 1   0x50001000 + 8 * 1 = 0x50001008: 0x0000000050002003  table at 0x50002000
level 2   0x50002000 + 8 * 2 = 0x50002010: 0x0000000050003003  table at 0x50003000
level 3   0x50003000 + 8 * 3 = 0x50003018: 0x02e0000041234f47  page at 0x41234000
            AttrIndx     4:2  0x1  Normal memory, write-back (MAIR byte 0xff)
            AP           7:6  0x1  EL1 and EL0 read and write
            SH           9:8  0x3  inner shareable
            AF            10  0x1  accessed since it was made old
            nG            11  0x1  for this ASID only
            DBM           51  0x0  a write that AP does not allow faults
            Contiguous    52  0x0  on its own
            PXN           53  0x1  EL1 may not execute
            UXN           54  0x1  EL0 may not execute
            software   62:55  0x5  DIRTY, ANON
                                   DIRTY: the page was written, whatever AP says
                                   ANON: an anonymous page: its record leads to those who may map it
physical  0x41234000 + 0x123 = 0x41234123
TLB       a TLB may hold the entry: ASID 3 is of the current generation, 1; CPUs 0, 2 ran with it last
area      0x40400000 to 0x40410000, rw-, private: anonymous memory
frame     0x41234: node 0, zone DMA, in a page block of type Movable
          anonymous memory
          2 references, 1 of them pins; 1 mapping at most
          flags: dirty, swap-backed
          page 0x40403 of its owner; charged to the control group /
";
    let got = show(&mapped(), &NAMES);
    let differ: Vec<_> = got.lines().zip(wanted.lines()).filter(|(got, wanted)| got != wanted).collect();
    assert_eq!(differ, []);
    assert_eq!(got, wanted);
}

#[test]
fn a_block_ends_the_walk_early() {
    let mut info = TranslationInfo { address: 0xffff_0000_4040_3123, notes: note::KERNEL, levels: 2, ..mapped() };
    info.entries[1] = 0x4000_0000 | 1 | 1 << 2 | 3 << 8 | 1 << 10 | 3 << 53;
    info.physical = 0x4040_3123;
    info.name = field("direct map");
    has(&info, "bits 63 to 48  1111111111111111                all ones: TTBR1, the kernel's tables");
    has(&info, "bits 29 to  0  000000010000000011000100100011  offset 0x403123");
    has(&info, "physical  0x40000000 + 0x403123 = 0x40403123");
    has(&info, "TLB       any TLB may hold the entry, whatever the ASID");
    has(&info, "part      direct map");
}

#[test]
fn an_entry_that_is_not_there_is_explained() {
    let info = absent(outcome::UNMAPPED);
    has(&info, "level 3   0x50003000 + 8 * 3 = 0x50003018: 0x0000000000000000  nothing");
    has(&info, "nothing   no area is here: an access is a SIGSEGV (SEGV_MAPERR)");
    has(&info, "TLB       no TLB holds it: what is not valid is not kept");
    let stack = "nothing   below a stack: an access extends the stack down to here, and gets a new page of zeros";
    has(&absent(outcome::BELOW_STACK), stack);
    let short = TranslationInfo { levels: 1, ..absent(outcome::UNMAPPED) };
    has(&short, "bits 38 to 30  000000001                       level 1: index 1, not reached");
    let none = TranslationInfo { levels: 0, ..absent(outcome::OUTSIDE) };
    has(&none, "nothing   an access is a SIGSEGV (SEGV_MAPERR)");
}

#[test]
fn a_first_touch_is_foretold() {
    let (first_read, first_write) = (touch::ZERO_PAGE, touch::NEW_PAGE);
    let anon = TranslationInfo { first_read, first_write, ..absent(outcome::UNTOUCHED) };
    has(&anon, "the first load:  maps the zero page, read-only");
    has(&anon, "the first store: gets a new page of zeros");
    let (first_read, first_write) = (touch::OBJECT_PAGE, touch::REFUSED);
    let slot = SlotInfo { number: 0x10, users: 1, bytes: 0, block: 0 };
    let object = TranslationInfo { first_read, first_write, whereabouts: whereabouts::IN_SWAP, slot, index: 5, ..anon };
    has(&object, "the first store: a SIGSEGV (SEGV_ACCERR): the area does not allow it");
    has(&object, "page 5 of the object is in swap");
    has(
        &object,
        "slot 0x10 of swap, which is in memory: one word again and again, kept in the slot itself; kept by 1 user",
    );
}

#[test]
fn pages_that_are_elsewhere() {
    let slot = SlotInfo { number: 0x10, users: 2, bytes: 700, block: 0x42000 };
    let swapped = TranslationInfo { slot, ..absent(outcome::SWAPPED) };
    let contents = "compressed to 700 bytes, in the block of the frame 0x42000";
    has(&swapped, &format!("swap      slot 0x10 of swap, which is in memory: {contents}; kept by 2 users"));
    let mut entry = swapped;
    entry.entries[3] = 0x102;
    has(
        &entry,
        "level 3   0x50003000 + 8 * 3 = 0x50003018: 0x0000000000000102  not valid: swap (bits 3:1), the slot in bits 47:4",
    );
    let moving = TranslationInfo { physical: 0x4300_0000, notes: note::WAS_DIRTY, ..absent(outcome::MOVING) };
    has(&moving, "moving    from the frame at 0x43000000; an access waits until the page is in its new frame");
    has(&moving, "it was dirty, and will be again");
}

#[test]
fn a_tlb_holds_no_old_entry() {
    let mut info = mapped();
    info.entries[3] &= !(1 << 10);
    has(&info, "TLB       no TLB holds the entry: its access flag is clear");
    let older = TranslationInfo { generations: [1, 2], notes: note::AREA, owing: 2, ..mapped() };
    has(&older, "TLB       ASID 3 is of generation 1, and now is 2: the process gets another one");
    has(&older, "only TLBs that were not flushed since may hold the entry: CPU 1");
    let new = TranslationInfo { asid: 0, ..mapped() };
    has(&new, "TLB       no TLB holds the entry: the process has not run yet, so it has no ASID");
}
