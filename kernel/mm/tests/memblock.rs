//! Memblock against a model that records each page separately.

use proptest::prelude::*;
use quire_mm::PhysAddr;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::memblock::{CAPACITY, MemBlock, MemBlockError, RegionKind};

/// Pages in the model's world.
const PAGES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    node: usize,
    no_map: bool,
}

#[derive(Clone)]
struct Model {
    memory: [Option<Memory>; PAGES],
    reserved: [Option<RegionKind>; PAGES],
}

impl Model {
    fn is_free(&self, page: usize) -> bool {
        self.memory[page].is_some_and(|memory| !memory.no_map) && self.reserved[page].is_none()
    }

    /// The highest aligned place for `len` free pages of one piece of memory.
    fn place(&self, len: usize, align: usize, within: (usize, usize), node: Option<usize>) -> Option<usize> {
        let same_piece = |at: usize| self.memory[at..at + len].windows(2).all(|pair| pair[0] == pair[1]);
        let on_node = |page: usize| node.is_none_or(|node| self.memory[page].is_some_and(|m| m.node == node));
        let fits = |at: usize| (at..at + len).all(|page| self.is_free(page) && on_node(page)) && same_piece(at);
        // A range that is shorter than the block has no place for it.
        let last = within.1.checked_sub(len)?;
        (within.0..=last).rev().filter(|at| at % align == 0).find(|&at| fits(at))
    }
}

#[derive(Clone, Debug)]
enum Op {
    Add(usize, usize, usize),
    Remove(usize, usize),
    NoMap(usize, usize),
    Reserve(usize, usize, RegionKind),
    Free(usize, usize),
    Alloc { len: usize, align: usize, within: (usize, usize), node: Option<usize> },
}

fn range() -> impl Strategy<Value = (usize, usize)> {
    (0..PAGES, 1..=16_usize).prop_map(|(start, len)| (start, (start + len).min(PAGES)))
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![
        Just(RegionKind::Reserved),
        Just(RegionKind::Boot),
        Just(RegionKind::Cma),
        Just(RegionKind::Initrd),
        Just(RegionKind::DeviceTree),
    ];
    prop_oneof![
        3 => (range(), 0..2_usize).prop_map(|((a, b), node)| Op::Add(a, b, node)),
        1 => range().prop_map(|(a, b)| Op::Remove(a, b)),
        1 => range().prop_map(|(a, b)| Op::NoMap(a, b)),
        2 => (range(), kind).prop_map(|((a, b), kind)| Op::Reserve(a, b, kind)),
        1 => range().prop_map(|(a, b)| Op::Free(a, b)),
        3 => (1..8_usize, 0..4_u32, (0..PAGES, 0..=PAGES), proptest::option::of(0..2_usize))
            .prop_map(|(len, align, within, node)| Op::Alloc { len, align: 1 << align, within, node }),
    ]
}

fn bytes(start: usize, end: usize) -> std::ops::Range<PhysAddr> {
    PhysAddr::new(start * PAGE_SIZE)..PhysAddr::new(end * PAGE_SIZE)
}

/// Whether the kernel lives in what is reserved so.
fn lives_on(kind: RegionKind) -> bool {
    matches!(kind, RegionKind::Kernel | RegionKind::Initrd | RegionKind::DeviceTree)
}

fn apply(op: &Op, real: &mut MemBlock, model: &mut Model) {
    match *op {
        Op::Add(a, b, node) => {
            real.add(bytes(a, b), node).unwrap();
            for page in &mut model.memory[a..b] {
                page.get_or_insert(Memory { node, no_map: false });
            }
        }
        Op::Remove(a, b) => {
            real.remove(bytes(a, b)).unwrap();
            model.memory[a..b].fill(None);
        }
        Op::NoMap(a, b) => {
            real.mark_no_map(bytes(a, b)).unwrap();
            for page in (a..b).filter(|&page| !model.reserved[page].is_some_and(lives_on)) {
                model.memory[page].iter_mut().for_each(|memory| memory.no_map = true);
            }
        }
        Op::Reserve(a, b, kind) => {
            real.reserve(bytes(a, b), kind, "").unwrap();
            for page in &mut model.reserved[a..b] {
                page.get_or_insert(kind);
            }
        }
        Op::Free(a, b) => {
            real.free(bytes(a, b)).unwrap();
            model.reserved[a..b].fill(None);
        }
        Op::Alloc { len, align, within, node } => {
            let wanted = model.place(len, align, within, node);
            let got =
                real.alloc(len * PAGE_SIZE, align * PAGE_SIZE, bytes(within.0, within.1), node, RegionKind::Kernel);
            assert_eq!(got.ok().map(|at| at.pfn().0), wanted, "{op:?}");
            if let Some(at) = wanted {
                model.reserved[at..at + len].fill(Some(RegionKind::Kernel));
            }
        }
    }
}

fn compare(real: &MemBlock, model: &Model) {
    let mut memory = [None; PAGES];
    let mut last = None;
    for region in real.memory() {
        let (start, end) = (region.range.start.pfn().0, region.range.end.pfn().0);
        let about = Memory { node: region.node, no_map: region.no_map };
        assert!(last.is_none_or(|(before, other)| before < start || before == start && other != about));
        memory[start..end].fill(Some(about));
        last = Some((end, about));
    }
    assert_eq!(memory, model.memory);

    let mut reserved = [None; PAGES];
    let mut last = None;
    for (range, kind) in real.reserved() {
        let (start, end) = (range.start.pfn().0, range.end.pfn().0);
        assert!(last.is_none_or(|(before, other)| before < start || before == start && other != kind));
        reserved[start..end].fill(Some(kind));
        last = Some((end, kind));
    }
    assert_eq!(reserved, model.reserved);

    let mut free = [false; PAGES];
    for range in real.free_ranges() {
        free[range.start.pfn().0..range.end.pfn().0].fill(true);
    }
    assert_eq!(free, std::array::from_fn(|page| model.is_free(page)));
    let starts: Vec<u64> = real.regions().map(|region| region.start).collect();
    assert!(starts.is_sorted());
    assert_eq!(starts.len(), real.memory().count() + real.reserved().count());
}

proptest! {
    #[test]
    fn agrees_with_a_model_of_pages(ops in proptest::collection::vec(op(), 1..60)) {
        let mut real = MemBlock::new();
        let mut model = Model { memory: [None; PAGES], reserved: [None; PAGES] };
        for op in &ops {
            apply(op, &mut real, &mut model);
            compare(&real, &model);
        }
    }
}

#[test]
fn a_full_list_says_so_and_stays_as_it_was() {
    let mut memory = MemBlock::new();
    for i in 0..CAPACITY {
        memory.add(bytes(2 * i, 2 * i + 1), 0).unwrap();
    }
    assert_eq!(memory.add(bytes(600, 601), 0), Err(MemBlockError::Full));
    assert_eq!(memory.add(bytes(0, 800), 1), Err(MemBlockError::Full));
    assert_eq!(memory.memory().count(), CAPACITY);
    memory.add(bytes(1, 2), 0).unwrap_err();
    assert_eq!(memory.memory().count(), CAPACITY);
    memory.remove(bytes(0, 10)).unwrap();
    memory.add(bytes(600, 601), 0).unwrap();
}

#[test]
fn requests_without_sense_are_errors() {
    let mut memory = MemBlock::new();
    memory.add(bytes(0, 10), 0).unwrap();
    let bad = Err(MemBlockError::BadRequest);
    assert_eq!(memory.add(bytes(5, 5), 0), bad);
    assert_eq!(memory.reserve(bytes(6, 5), RegionKind::Boot, ""), bad);
    assert_eq!(memory.find(0, 1, bytes(0, 10), None), Err(MemBlockError::BadRequest));
    assert_eq!(memory.find(1, 3, bytes(0, 10), None), Err(MemBlockError::BadRequest));
    assert_eq!(memory.find(usize::MAX, 1, bytes(0, 10), None), Err(MemBlockError::NoSpace));
}

#[test]
fn regions_keep_the_tree_s_names() {
    let mut memory = MemBlock::new();
    memory.add(bytes(0, 100), 3).unwrap();
    memory.reserve(bytes(10, 20), RegionKind::Cma, "linux,cma").unwrap();
    memory.reserve(bytes(20, 30), RegionKind::Cma, "a name that is longer than the record").unwrap();
    let regions: Vec<_> = memory.regions().collect();
    assert_eq!(regions.len(), 3);
    assert_eq!((regions[0].kind, regions[0].node), (quire_abi::info::region::MEMORY, 3));
    assert!(regions[1].name.starts_with(b"linux,cma\0"));
    assert_eq!(&regions[2].name, b"a name that is longer th");
}

#[test]
fn what_the_kernel_lives_in_stays_mapped() {
    let mut memory = MemBlock::new();
    memory.add(bytes(0, 100), 0).unwrap();
    memory.reserve(bytes(20, 30), RegionKind::Kernel, "kernel").unwrap();
    memory.reserve(bytes(40, 41), RegionKind::Initrd, "boot archive").unwrap();
    assert_eq!(memory.in_use(bytes(0, 20)), None);
    assert_eq!(memory.in_use(bytes(10, 25)), Some((bytes(20, 25), RegionKind::Kernel)));
    memory.mark_no_map(bytes(10, 60)).unwrap();
    let hidden: Vec<_> = memory.memory().filter(|region| region.no_map).map(|region| region.range).collect();
    assert_eq!(hidden, [bytes(10, 20), bytes(30, 40), bytes(41, 60)]);
    memory.mark_no_map(bytes(22, 24)).unwrap();
    assert_eq!(memory.memory().filter(|region| region.no_map).count(), 3);
}

/// What a tree may have at most: banks, and as many reservations, each of which cuts a bank in three.
#[test]
fn there_is_room_for_all_that_a_tree_may_have() {
    let page = |n: usize| PhysAddr::new(n * 4096)..PhysAddr::new((n + 1) * 4096);
    let mut memory = MemBlock::new();
    for bank in 0..64 {
        memory.add(page(1024 * bank).start..page(1024 * bank + 1000).start, bank % 2).unwrap();
    }
    for hole in 0..72 {
        memory.mark_no_map(page(2 * hole + 1)).unwrap();
        memory.reserve(page(2048 + 2 * hole), RegionKind::Reserved, "").unwrap();
    }
    assert_eq!(memory.memory().filter(|region| region.no_map).count(), 72);
    assert_eq!(memory.memory().count(), 64 + 2 * 72);
}
