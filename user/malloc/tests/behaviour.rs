//! What callers may rely on, one property per test, and the messages for misuse.
#![allow(clippy::undocumented_unsafe_blocks)] // The tests keep to the contracts that they test.

mod support;

use quire_malloc::{Malloc, PAGE, Parameter};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use support::Fake;

fn new() -> Malloc<Fake> {
    Malloc::new(Fake::new())
}

/// The message that `f` ends the process with.
fn dies(f: impl FnOnce()) -> String {
    let error = catch_unwind(AssertUnwindSafe(f)).expect_err("should have died");
    error.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn empty_blocks_have_addresses_of_their_own() {
    let m = new();
    let (a, b) = (m.malloc(0), m.malloc(0));
    assert!(!a.is_null() && !b.is_null() && a != b);
    unsafe {
        m.free(a);
        m.free(b);
        m.free(std::ptr::null_mut());
    }
}

#[test]
fn impossible_sizes_are_refused() {
    let m = new();
    for size in [usize::MAX, usize::MAX - 7, usize::MAX - 23, usize::MAX - 4096, isize::MAX as usize, 1 << 48] {
        assert!(m.malloc(size).is_null(), "{size:#x}");
        assert!(m.calloc(1, size).is_null(), "{size:#x}");
        assert!(m.memalign(64, size).is_null(), "{size:#x}");
        let at = m.malloc(10);
        assert!(unsafe { m.realloc(at, size) }.is_null(), "{size:#x}");
        unsafe { m.free(at) };
    }
    assert!(m.calloc(usize::MAX / 2, 3).is_null());
    assert!(m.memalign(1 << 62, 1).is_null());
    m.validate().unwrap();
}

#[test]
fn a_double_free_is_seen_wherever_the_chunk_is() {
    for (size, others) in [(32, 0), (32, 200), (1000, 50), (1500, 0), (5000, 0), (100_000, 0), (5000, 20)] {
        let m = new();
        let blocks: Vec<_> = (0..=others).map(|_| m.malloc(size)).collect();
        let victim = blocks[others / 2];
        blocks.iter().for_each(|at| unsafe { m.free(*at) });
        let message = dies(|| unsafe { m.free(victim) });
        assert!(message.starts_with("free(): "), "{size} {message}");
    }
}

#[test]
fn a_double_free_in_a_cache_is_called_one() {
    let m = new();
    let at = m.malloc(100);
    unsafe { m.free(at) };
    assert_eq!(dies(|| unsafe { m.free(at) }), "free(): double free detected");
    assert_eq!(dies(|| assert!(unsafe { m.realloc(at, 200) }.is_null())), "realloc(): freed block");
}

#[test]
fn pointers_that_were_never_handed_out_are_refused() {
    let m = new();
    let at = m.malloc(400);
    unsafe { at.write_bytes(0x31, 400) };
    for step in [1, 8, 16, 32, 160] {
        assert_eq!(dies(|| unsafe { m.free(at.add(step)) }), "free(): invalid pointer");
    }
    let mut on_stack = [0x41u64; 8];
    let inside = on_stack.as_mut_ptr().cast::<u8>().wrapping_add(16);
    let inside = inside.wrapping_add(inside.align_offset(16));
    assert!(dies(|| unsafe { m.free(inside) }).starts_with("free(): "));
    unsafe { m.free(at) };
}

#[test]
fn a_header_written_over_is_seen() {
    let m = new();
    let (a, b) = (m.malloc(24), m.malloc(24));
    assert_eq!(b as usize - a as usize, 32, "two fresh blocks lie side by side");
    unsafe {
        a.write_bytes(0xff, 32);
        assert!(dies(|| m.free(b)).starts_with("free(): invalid"));
    }
}

#[test]
fn links_of_free_chunks_written_over_are_seen() {
    let m = new();
    let blocks: Vec<_> = (0..6).map(|_| m.malloc(3000)).collect();
    unsafe {
        // Two free chunks that do not touch, beyond what the thread's cache takes of one size.
        for i in [1, 3, 5] {
            m.free(blocks[i]);
        }
        let victim = blocks[3];
        victim.write_bytes(0x41, 16);
        let message = dies(|| {
            m.free(blocks[2]);
            m.free(blocks[4]);
            m.trim(0);
        });
        assert!(message.contains("corrupted heap"), "{message}");
    }
}

#[test]
fn links_copied_from_another_free_chunk_are_seen() {
    // Sizes whose chunks, freed, lie in a small bin, on the unsorted list, and in a large bin.
    for (size, sorted) in [(500, false), (3000, false), (3000, true)] {
        let m = new();
        let blocks: Vec<_> = (0..200).map(|_| m.malloc(size)).collect();
        // Every other one, so that they do not merge; and all that a thread's cache keeps of them.
        blocks.iter().step_by(2).for_each(|at| unsafe { m.free(*at) });
        m.trim(usize::MAX / 2);
        if sorted {
            m.malloc(100_000);
        }
        let message = dies(|| unsafe {
            blocks[40].copy_from_nonoverlapping(blocks[60], 16);
            m.free(blocks[41]);
            m.trim(0);
        });
        assert!(message.contains("corrupted heap"), "{size} {message}");
    }
}

#[test]
fn no_address_of_a_block_lies_in_a_freed_one() {
    for size in [40, 500, 3000, 40_000] {
        let m = new();
        let blocks: Vec<_> = (0..100).map(|_| m.malloc(size)).collect();
        let freed: Vec<_> = blocks.iter().step_by(2).collect();
        freed.iter().for_each(|at| unsafe { m.free(**at) });
        for round in 0..2 {
            let words = freed.iter().flat_map(|at| unsafe { *at.cast::<[usize; 2]>() });
            let (low, high) = (blocks[0] as usize, blocks[99] as usize + size);
            assert_eq!(words.filter(|word| (low..high).contains(word)).count(), 0, "{size}, round {round}");
            // Out of the cache, onto the lists.
            m.trim(usize::MAX / 2);
        }
    }
}

#[test]
fn a_neighbour_that_is_free_is_grown_into() {
    let m = new();
    let (a, b, c) = (m.malloc(2000), m.malloc(50_000), m.malloc(2000));
    unsafe {
        a.write_bytes(7, 2000);
        m.free(b);
        m.trim(usize::MAX / 2);
        assert_eq!(m.realloc(a, 30_000), a);
        assert!(std::slice::from_raw_parts(a, 2000).iter().all(|b| *b == 7));
        assert_eq!(m.realloc(a, 100), a, "shrinks in place");
        m.free(a);
        m.free(c);
    }
    m.validate().unwrap();
}

#[test]
fn the_last_block_grows_by_the_break() {
    let m = new();
    let a = m.malloc(60_000);
    let b = unsafe { m.realloc(a, 3 << 20) };
    assert_eq!(a, b);
    assert_eq!(m.system().mapped(), 0);
    unsafe { m.free(b) };
}

#[test]
fn large_blocks_are_mappings_and_one_is_kept() {
    let m = new();
    m.set_option(Parameter::MmapMax, 10);
    let a = m.malloc(1 << 20);
    assert!(m.system().mapped() >= 1 << 20);
    assert_eq!(m.info().hblks, 1);
    unsafe { m.free(a) };
    assert_eq!(m.system().mapped(), 0, "with a fixed parameter nothing is kept");

    let m = new();
    let a = m.malloc(1 << 20);
    unsafe { m.free(a) };
    assert_eq!((m.malloc(1 << 20), m.info().hblks), (a, 1), "the spare mapping serves the next request");
    unsafe { m.free(a) };
    assert!(m.trim(0));
    assert_eq!(m.system().mapped(), 0);
}

#[test]
fn a_mapping_is_remapped() {
    let m = new();
    m.set_option(Parameter::MmapThreshold, 64 << 10);
    let a = m.malloc(200_000);
    unsafe {
        a.write_bytes(9, 200_000);
        let b = m.realloc(a, 5_000_000);
        assert!(std::slice::from_raw_parts(b, 200_000).iter().all(|b| *b == 9));
        assert!(m.usable_size(b) >= 5_000_000);
        let c = m.realloc(b, 100);
        assert!(std::slice::from_raw_parts(c, 100).iter().all(|b| *b == 9));
        m.free(c);
    }
    assert_eq!(m.system().mapped(), 0);
}

#[test]
fn memory_goes_back_when_the_heap_empties() {
    let m = new();
    let blocks: Vec<_> = (0..20_000).map(|i| m.malloc(100 + i % 900)).collect();
    let most = m.system().break_bytes();
    blocks.into_iter().for_each(|at| unsafe { m.free(at) });
    // Without being asked: by lowering the break, or by dropping pages below a chunk that a cache still holds.
    let kept = m.system().break_bytes().saturating_sub(m.system().dropped.load(Relaxed));
    assert!(kept < most / 4, "{kept} of {most} kept");
    m.trim(0);
    assert!(m.system().break_bytes() < 64 << 10);
}

#[test]
fn a_break_that_others_move_is_coped_with() {
    let m = new();
    m.system().foreign.store(12_344, Relaxed);
    let blocks: Vec<_> = (0..300).map(|_| m.malloc(10_000)).collect();
    m.validate().unwrap();
    blocks.into_iter().for_each(|at| unsafe { m.free(at) });
    m.validate().unwrap();
}

#[test]
fn perturb_fills_and_fills_again() {
    let m = new();
    m.set_option(Parameter::Perturb, 0x5a);
    let at = m.malloc(40);
    let bytes = || unsafe { std::slice::from_raw_parts(at, 40) };
    assert!(bytes().iter().all(|b| *b == !0x5a));
    unsafe { m.free(at) };
    // The first two words carry the bins' links.
    assert!(bytes()[16..].iter().filter(|b| **b == 0x5a).count() >= 8);
    let zeroed = m.calloc(10, 4);
    assert!(unsafe { std::slice::from_raw_parts(zeroed, 40) }.iter().all(|b| *b == 0));
}

#[test]
fn the_guarded_mode_ends_blocks_at_a_page_and_keeps_freed_ones() {
    let m = new();
    assert!(m.guard());
    for size in [1, 16, 100, 4096, 10_000] {
        let at = m.malloc(size);
        unsafe {
            at.write_bytes(1, size);
            assert_eq!(m.usable_size(at), size);
            assert!(PAGE - (at as usize + size) % PAGE < 16 || (at as usize + size).is_multiple_of(PAGE));
            let again = m.realloc(at, size + 5000);
            assert!(std::slice::from_raw_parts(again, size).iter().all(|b| *b == 1));
            m.free(again);
            assert!(dies(|| m.free(again)).contains("double free"));
        }
    }
    let aligned = m.memalign(1 << 15, 100);
    assert_eq!(aligned as usize % (1 << 15), 0);
    unsafe { m.free(aligned) };
    let used = new();
    used.malloc(1);
    assert!(!used.guard(), "too late");
}

#[test]
fn info_adds_up() {
    let m = new();
    let blocks: Vec<_> = (0..100).map(|i| m.malloc(i * 50)).collect();
    blocks.iter().step_by(2).for_each(|at| unsafe { m.free(*at) });
    let info = m.info();
    assert!(info.uordblks >= (0..100).skip(1).step_by(2).map(|i| i * 50).sum());
    assert!(info.uordblks + info.fordblks <= info.arena && info.arena - info.uordblks - info.fordblks < 256);
    let (mut xml, mut stats, mut picture) = (String::new(), String::new(), String::new());
    m.write_xml(&mut xml).unwrap();
    m.write_stats(&mut stats).unwrap();
    m.write_picture(0, &mut picture).unwrap();
    assert!(xml.starts_with("<malloc version=\"1\">") && xml.trim_end().ends_with("</malloc>"));
    for tag in ["malloc", "heap", "sizes"] {
        let opened = xml.matches(&format!("<{tag} ")).count() + xml.matches(&format!("<{tag}>")).count();
        assert_eq!(opened, xml.matches(&format!("</{tag}>")).count(), "{tag}\n{xml}");
    }
    assert!(stats.contains(&format!("in use bytes     = {:>10}", info.uordblks)), "{stats}");
    assert!(picture.lines().count() <= 17 && picture.contains('#') && picture.contains('_'), "{picture}");
}
