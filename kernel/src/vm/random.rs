//! Random bytes: ChaCha20, seeded with the boot loader's `rng-seed` from the tree and the counter.

use core::sync::atomic::{AtomicBool, Ordering};

use quire_abi::Errno;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use spin::Once;

use super::machine::{Cpu, Object, SpinLock};
use crate::arch::{smp, timer, trap};

static GENERATOR: SpinLock<Option<ChaCha20Rng>> = SpinLock::new(Cpu, Rank::Random, None);
static LAYOUT: AtomicBool = AtomicBool::new(true);

/// Seeds the generator; returns false if the boot loader gave no seed. `randomise`: whether address-space layouts are
/// randomised (kernel argument `norandmaps`).
pub fn init(seed: &[u8], randomise: bool) -> bool {
    let mut key = [0; 32];
    for (i, b) in seed.iter().enumerate() {
        key[i % 32] ^= b;
    }
    if seed.is_empty() {
        key[..8].copy_from_slice(&timer::ticks().to_le_bytes());
    }
    *GENERATOR.lock() = Some(ChaCha20Rng::from_seed(key));
    LAYOUT.store(randomise, Ordering::Relaxed);
    !seed.is_empty()
}

/// Fills `to`. In pieces, so that interrupts are not masked for long.
pub fn fill(to: &mut [u8]) {
    for piece in to.chunks_mut(256) {
        if let Some(generator) = GENERATOR.lock().as_mut() {
            generator.fill_bytes(piece);
        }
    }
}

/// Sixteen bytes: AT_RANDOM's.
pub fn bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    fill(&mut bytes);
    bytes
}

/// A number that nobody can foretell.
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// A number below `range`, a power of two; 0 with `norandmaps`.
pub fn offset(range: usize) -> usize {
    if LAYOUT.load(Ordering::Relaxed) { number() as usize & (range - 1) } else { 0 }
}

/// The object of the page that signal handlers return through.
pub fn sigreturn_object() -> Result<KArc<Object>, Errno> {
    static OBJECT: Once<KArc<Object>> = Once::new();
    if let Some(object) = OBJECT.get() {
        return Ok(object.clone());
    }
    let page = smp::image_to_phys(trap::sigreturn_page_address());
    Ok(OBJECT.try_call_once(|| Object::boot_file(Cpu, page, PAGE_SIZE, true))?.clone())
}
