//! The allocator against the plainest model there is: a list of blocks, each with the byte it is filled with.
#![allow(clippy::undocumented_unsafe_blocks)] // The tests keep to the contracts that they test.

mod support;

use proptest::prelude::*;
use quire_malloc::{Malloc, Parameter};
use std::sync::atomic::Ordering::Relaxed;
use support::Fake;

#[derive(Clone, Debug)]
enum Op {
    Malloc(usize),
    Calloc(usize),
    Memalign(u32, usize),
    Free(usize),
    Realloc(usize, usize),
    Trim(usize),
    Foreign(usize),
    ThreadExit,
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..200usize, 4 => 0..1100usize, 3 => 1000..20_000usize, 1 => 20_000..400_000usize]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => size().prop_map(Op::Malloc),
        1 => size().prop_map(Op::Calloc),
        2 => (0..14u32, size()).prop_map(|(a, n)| Op::Memalign(a, n)),
        8 => any::<usize>().prop_map(Op::Free),
        3 => (any::<usize>(), size()).prop_map(|(i, n)| Op::Realloc(i, n)),
        1 => (0..100_000usize).prop_map(Op::Trim),
        1 => (0..3usize).prop_map(|n| Op::Foreign(n * 40)),
        1 => Just(Op::ThreadExit),
    ]
}

struct Block {
    at: *mut u8,
    size: usize,
    fill: u8,
}

#[derive(Default)]
struct Model {
    blocks: Vec<Block>,
    next: u8,
}

impl Model {
    fn add(&mut self, m: &Malloc<Fake>, at: *mut u8, size: usize, align: usize) {
        assert!(!at.is_null());
        assert_eq!(at as usize % align, 0);
        assert!(unsafe { m.usable_size(at) } >= size);
        for other in &self.blocks {
            let (a, b) = (at as usize, other.at as usize);
            assert!(a + size.max(1) <= b || b + other.size.max(1) <= a, "blocks overlap");
        }
        self.next = self.next.wrapping_add(1);
        unsafe { at.write_bytes(self.next, size) };
        self.blocks.push(Block { at, size, fill: self.next });
    }

    fn check(&self, block: &Block, upto: usize) {
        let bytes = unsafe { std::slice::from_raw_parts(block.at, block.size.min(upto)) };
        assert!(bytes.iter().all(|b| *b == block.fill), "contents changed");
    }

    fn run(&mut self, m: &Malloc<Fake>, op: &Op) {
        match *op {
            Op::Malloc(n) => self.add(m, m.malloc(n), n, 16),
            Op::Calloc(n) => {
                let at = m.calloc(1, n);
                assert!(unsafe { std::slice::from_raw_parts(at, n) }.iter().all(|b| *b == 0));
                self.add(m, at, n, 16);
            }
            Op::Memalign(a, n) => self.add(m, m.memalign(1 << a, n), n, 1 << a),
            Op::Free(i) if !self.blocks.is_empty() => {
                let block = self.blocks.swap_remove(i % self.blocks.len());
                self.check(&block, usize::MAX);
                unsafe { m.free(block.at) };
            }
            Op::Realloc(i, n) if !self.blocks.is_empty() => {
                let block = self.blocks.swap_remove(i % self.blocks.len());
                let at = unsafe { m.realloc(block.at, n) };
                if n == 0 {
                    assert!(at.is_null());
                    return;
                }
                let moved = Block { at, size: block.size.min(n), fill: block.fill };
                self.check(&moved, n);
                self.add(m, at, n, 16);
            }
            Op::Trim(pad) => {
                m.trim(pad);
            }
            Op::Foreign(bytes) => m.system().foreign.store(bytes, Relaxed),
            Op::ThreadExit => m.thread_exit(),
            _ => {}
        }
    }

    fn finish(self, m: &Malloc<Fake>) {
        for block in &self.blocks {
            self.check(block, usize::MAX);
            unsafe { m.free(block.at) };
        }
        m.trim(0);
        m.thread_exit();
        m.trim(0);
        let totals = m.validate().unwrap();
        assert_eq!(totals.used, (0, 0));
        assert_eq!(totals.cached.1, totals.fast);
        assert_eq!(m.system().mapped(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_list_of_blocks(ops in prop::collection::vec(op(), 1..400)) {
        let m = Malloc::new(Fake::new());
        let mut model = Model::default();
        for (i, op) in ops.iter().enumerate() {
            model.run(&m, op);
            if i % 16 == 0 {
                m.validate().unwrap();
            }
        }
        m.validate().unwrap();
        model.finish(&m);
    }

    #[test]
    fn the_same_without_mappings_and_without_pad(ops in prop::collection::vec(op(), 1..300)) {
        let m = Malloc::new(Fake::new());
        m.set_option(Parameter::MmapMax, 0);
        m.set_option(Parameter::TopPad, 0);
        m.set_option(Parameter::TrimThreshold, 0);
        let mut model = Model::default();
        for op in &ops {
            model.run(&m, op);
        }
        m.validate().unwrap();
        model.finish(&m);
    }
}
