//! The area tree against a plain map.

use std::boxed::Box;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{AreaTree, STACK_GUARD, VmFlags, Vma};
use crate::addr::{PAGE_SIZE, UserAddr};
use crate::sim::Sim;

type Tree = AreaTree<&'static Sim>;

#[derive(Clone, Debug)]
enum Op {
    Insert { page: usize, pages: usize, stack: bool },
    Remove { nth: usize },
    Shrink { nth: usize, head: bool },
    Gap { pages: usize, low: usize, high: usize },
    Map { pages: usize, map: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let page = 0..3000_usize;
    prop_oneof![
        4 => (page.clone(), 1..30_usize, prop::bool::weighted(0.1)).prop_map(|(page, pages, stack)| Op::Insert { page, pages, stack }),
        2 => any::<usize>().prop_map(|nth| Op::Remove { nth }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(nth, head)| Op::Shrink { nth, head }),
        3 => (1..600_usize, page.clone(), page).prop_map(|(pages, a, b)| Op::Gap { pages, low: a.min(b), high: a.max(b) }),
        // As mmap searches: one bound, mostly small sizes, and what was found is often mapped.
        6 => (1..20_usize, any::<bool>()).prop_map(|(pages, map)| Op::Map { pages, map }),
    ]
}

fn addr(page: usize) -> UserAddr {
    UserAddr::new(page * PAGE_SIZE)
}

/// Start to end and whether it is a stack, in pages.
type Model = BTreeMap<usize, (usize, bool)>;

/// Whether `pages` from `at` are free and far enough from a stack next above.
fn free(model: &Model, at: usize, pages: usize) -> bool {
    let next = model.range(at..).next();
    let guarded = |(start, (_, stack)): (&usize, &(usize, bool))| {
        let guard = if *stack { STACK_GUARD / PAGE_SIZE } else { 0 };
        start.saturating_sub(guard)
    };
    let before = model.range(..at).next_back().map_or(0, |(_, (end, _))| *end);
    before <= at && at + pages <= next.map_or(usize::MAX, guarded)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_tree_is_a_map_that_knows_its_gaps(ops in prop::collection::vec(op(), 1..200)) {
        let mut tree = Tree::new();
        let mut model = Model::new();
        for op in ops {
            match op {
                Op::Insert { page, pages, stack } => {
                    let meets = model.iter().any(|(start, (end, _))| *start < page + pages && page < *end);
                    prop_assert_eq!(tree.is_free(addr(page), addr(page + pages)), !meets);
                    if !meets {
                        let flags = if stack { VmFlags::GROWSDOWN } else { VmFlags::READ };
                        tree.cursor(addr(page)).insert_before(Box::new(Vma::new(addr(page), addr(page + pages), flags, None)));
                        model.insert(page, (page + pages, stack));
                    }
                }
                Op::Remove { nth } => {
                    if let Some((page, _)) = model.iter().nth(nth % model.len().max(1)).map(|(a, b)| (*a, *b)) {
                        let vma = tree.cursor(addr(page)).remove();
                        prop_assert_eq!(vma.map(|vma| vma.start), Some(addr(page)));
                        model.remove(&page);
                    }
                }
                Op::Shrink { nth, head } => {
                    let found = model.iter().nth(nth % model.len().max(1)).map(|(a, b)| (*a, *b));
                    if let Some((page, (end, stack))) = found && end - page > 1 {
                        if head {
                            tree.cursor(addr(page)).set_start(addr(page + 1));
                            model.remove(&page);
                            model.insert(page + 1, (end, stack));
                        } else {
                            tree.cursor(addr(page)).set_end(addr(end - 1));
                            model.insert(page, (end - 1, stack));
                        }
                    }
                }
                Op::Map { pages, map } => {
                    let place = (16..2901 - pages).rfind(|at| free(&model, *at, pages));
                    prop_assert_eq!(tree.highest_gap(pages * PAGE_SIZE, 16 * PAGE_SIZE, 2900 * PAGE_SIZE), place.map(addr));
                    if let Some(page) = place && map {
                        let vma = Vma::new(addr(page), addr(page + pages), VmFlags::READ, None);
                        tree.cursor(addr(page)).insert_before(Box::new(vma));
                        model.insert(page, (page + pages, false));
                    }
                }
                Op::Gap { pages, low, high } => {
                    let places = || (low..(high + 1).saturating_sub(pages)).filter(|at| free(&model, *at, pages));
                    let found = tree.highest_gap(pages * PAGE_SIZE, low * PAGE_SIZE, high * PAGE_SIZE);
                    prop_assert_eq!(found, places().next_back().map(addr));
                    let found = tree.lowest_gap(pages * PAGE_SIZE, low * PAGE_SIZE, high * PAGE_SIZE);
                    prop_assert_eq!(found, places().next().map(addr));
                }
            }
            tree.validate();
        }
        for page in (0..3000).step_by(7) {
            let expected = model.iter().find(|(_, (end, _))| *end > page).map(|(start, _)| addr(*start));
            prop_assert_eq!(tree.find_from(addr(page)).map(|vma| vma.start), expected);
        }
    }
}

#[test]
fn an_area_within_a_stack_s_distance_makes_room_below_it() {
    let mut tree = Tree::new();
    let stack = Vma::new(addr(2000), addr(2010), VmFlags::GROWSDOWN, None);
    tree.cursor(addr(2000)).insert_before(Box::new(stack));
    let gap = |tree: &Tree| tree.highest_gap(PAGE_SIZE, 0, 2010 * PAGE_SIZE);
    let distance = STACK_GUARD / PAGE_SIZE;
    assert_eq!(gap(&tree), Some(addr(2000 - distance - 1)));
    let near = Vma::new(addr(1990), addr(1991), VmFlags::READ, None);
    tree.cursor(addr(1990)).insert_before(Box::new(near));
    assert_eq!(gap(&tree), Some(addr(1989)));
}

/// Areas that were moved, which overlap in every way, are found by the numbers that they claim, as by a search of all
/// areas.
#[test]
fn moved_areas_are_found_by_what_they_claim() {
    let mut tree = AreaTree::<&'static Sim>::new();
    let mut seed = 7_u64;
    let mut random = move |n: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % n
    };
    let mut claims: Vec<(usize, usize, usize)> = Vec::new();
    for n in 0..300 {
        let start = UserAddr::new((1000 + n * 100) * PAGE_SIZE);
        let pages = 1 + random(if n % 3 == 0 { 90 } else { 4 });
        let mut vma = Box::new(Vma::new(start, start + pages * PAGE_SIZE, VmFlags::READ, None));
        vma.pgoff = random(400);
        claims.push((vma.pgoff, vma.pgoff + pages - 1, start.get()));
        tree.cursor(start).insert_before(vma);
        if n % 5 == 4 {
            let gone = claims.swap_remove(random(claims.len()));
            tree.cursor(UserAddr::new(gone.2)).remove();
        }
        tree.away().validate();
        for page in (0..500).step_by(7) {
            let mut expected: Vec<_> = claims.iter().filter(|c| c.0 <= page && page <= c.1).map(|c| c.2).collect();
            let mut found = Vec::new();
            let mut after = None;
            while let Some(next) = tree.away().find(page, after) {
                assert!(after.is_none_or(|after| after < next.key), "in order");
                after = Some(next.key);
                // SAFETY: the area is one of the tree's.
                found.push(unsafe { next.area.as_ref() }.start.get());
            }
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "who claims {page}");
            let to = page + random(20);
            let meets = claims.iter().any(|c| c.0 <= to && page <= c.1);
            assert_eq!(tree.away().meets(page, to), meets, "{page} to {to}");
        }
    }
}

/// Many calls add or remove an area: it is an object of kmalloc-192, with no room for more links.
#[test]
fn an_area_fits_its_size_class() {
    let size = size_of::<Vma<&'static Sim>>();
    assert!((161..=192).contains(&size), "{size} bytes");
}
