use super::*;
use crate::sim::{Sim, SimConfig};

const BATCH: usize = 8;
const LIST: List = List::ALL[0];

/// A list and as many pages as it could ever hold. The pages stay with the test; only their links are used.
fn lists() -> (PerCpuLists, Frames<&'static Sim>, Vec<Pfn>) {
    let sim = Sim::boot(&SimConfig::new().bank(1 << 30, 4 << 20, 0));
    let pages = (0..4 * BATCH).map(|_| sim.pages().alloc_raw(0, crate::page_alloc::Gfp::KERNEL).unwrap()).collect();
    let lists = PerCpuLists::new();
    lists.set_batch(BATCH);
    (lists, sim.pages().frames(), pages)
}

/// Frees a page as the page allocator does; what goes to the buddy. Counts when the fast path is not enough.
fn free(lists: &PerCpuLists, frames: Frames<&'static Sim>, pfn: Pfn, detours: &mut usize) -> Vec<Pfn> {
    let mut spilt = Vec::new();
    if lists.push(frames, LIST, pfn) {
        *detours += 1;
        let mut chain = lists.retire(frames, LIST);
        spilt.extend(std::iter::from_fn(|| chain.pop(frames)).map(|page| Pfn(page as usize)));
    }
    spilt
}

fn alloc(lists: &PerCpuLists, frames: Frames<&'static Sim>, detours: &mut usize) -> Option<Pfn> {
    lists.pop(frames, LIST).or_else(|| {
        *detours += 1;
        lists.refill(LIST, lists.take_spare(LIST));
        lists.pop(frames, LIST)
    })
}

#[test]
fn up_and_down_around_any_level_stays_on_the_fast_path() {
    for level in 1..=2 * BATCH {
        for swing in 1..=BATCH.min(level) {
            let (lists, frames, mut pages) = lists();
            pages.drain(..level).for_each(|pfn| assert!(free(&lists, frames, pfn, &mut 0).is_empty()));
            let mut detours = 0;
            for _ in 0..20 {
                let taken: Vec<_> = (0..swing).map(|_| alloc(&lists, frames, &mut detours).unwrap()).collect();
                for pfn in taken {
                    assert_eq!(free(&lists, frames, pfn, &mut detours), [], "the buddy is left alone");
                }
            }
            // Spare and stack at work change places twice a swing, if its middle is there; a swing by one is none.
            assert!(detours <= if swing == 1 { 2 } else { 2 * 20 }, "{detours} at level {level}, by {swing}");
        }
    }
}

#[test]
fn what_was_out_of_use_longest_goes_first() {
    let (lists, frames, pages) = lists();
    let mut spilt = Vec::new();
    for &pfn in &pages[..2 * BATCH] {
        spilt.extend(free(&lists, frames, pfn, &mut 0));
    }
    assert_eq!(spilt, []);
    for &pfn in &pages[2 * BATCH..3 * BATCH] {
        spilt.extend(free(&lists, frames, pfn, &mut 0));
    }
    spilt.sort();
    let mut oldest = pages[..BATCH].to_vec();
    oldest.sort();
    assert_eq!(spilt, oldest);
    assert_eq!(lists.held(), 2 * BATCH);
    assert_eq!(alloc(&lists, frames, &mut 0), Some(pages[3 * BATCH - 1]), "what was freed last is the hottest");
}
