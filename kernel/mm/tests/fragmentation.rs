//! Long mixed use of memory, and the large blocks that remain. `--nocapture` prints the unusable-free-space index.

use quire_mm::page_alloc::{Gfp, PageBlock};
use quire_mm::sim::Sim;

type Block = PageBlock<&'static Sim>;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

const STEPS: usize = 60_000;
const MIB: usize = 128;

/// Blocks of one mobility, up to a share of memory.
struct Population {
    gfp: Gfp,
    most_pages: usize,
    pages: usize,
    held: Vec<Block>,
}

impl Population {
    fn new(gfp: Gfp, percent: usize) -> Self {
        Self { gfp, most_pages: MIB * 256 * percent / 100, pages: 0, held: Vec::new() }
    }

    fn grow(&mut self, sim: &'static Sim, order: u32) {
        if let Ok(block) = sim.pages().alloc_pages(order, self.gfp | Gfp::NORETRY | Gfp::NOWARN) {
            self.pages += 1 << order;
            self.held.push(block);
        }
        // A burst ends: half of it goes, at random places.
        if self.pages > self.most_pages {
            let mut random = Random(self.held.len() as u64 | 1);
            while self.pages > self.most_pages / 2 {
                self.pages -= 1 << self.held.swap_remove(random.below(self.held.len())).order();
            }
        }
    }
}

fn report(sim: &'static Sim, when: &str) {
    let zone = sim.pages().zones().next().unwrap();
    print!("{when:28} free {:5} MiB, unusable:", zone.free() >> 8);
    for order in 1..=10 {
        print!(" {:.3}", f64::from(zone.unusable_free_index(order)) / 1000.0);
    }
    println!();
}

#[test]
fn what_cannot_move_is_kept_together() {
    let sim = Sim::with_mib(MIB);
    let mut random = Random(0xfeed_beef);
    let mut unmovable = Population::new(Gfp::KERNEL, 10);
    let mut reclaimable = Population::new(Gfp::KERNEL | Gfp::RECLAIMABLE, 10);
    let mut movable = Population::new(Gfp::HIGHUSER_MOVABLE, 70);
    println!("unusable free space by order, 1 to 10");
    report(sim, "at boot");
    for step in 0..STEPS {
        match random.below(10) {
            0 => unmovable.grow(sim, random.below(4) as u32),
            1 => reclaimable.grow(sim, random.below(2) as u32),
            _ => movable.grow(sim, 0),
        }
        if step % (STEPS / 4) == STEPS / 8 {
            report(sim, "in use");
        }
    }
    sim.pages().drain_all();
    report(sim, "at the end");
    drop(movable.held);
    sim.pages().drain_all();
    report(sim, "without the movable pages");
    // At most 20 % of memory holds pages that cannot move. Strewn at random they would leave hardly one page block
    // whole; kept together, most.
    let zone = sim.pages().zones().next().unwrap();
    let unusable = zone.unusable_free_index(9);
    assert!(unusable < 250, "{unusable} thousandths of the free memory are in no whole page block");
    assert_eq!(sim.pages().validate(), Ok(()));
}
