//! Scenes with whole last-level tables' worth of memory, which come to be mapped by blocks of 2 MiB: what happens to one that is whole, shared, in
//! parts, on other CPUs, and away.

use std::vec::Vec;

use quire_abi::flags::{Map, Mremap, madv};

use super::{CPUS, HOT, LATEST, Op, Random, TABLE};
use crate::mm::Access;
use crate::mm::tests::non_present::How;

impl Random {
    /// The steps of such a scene, in their order.
    pub(super) fn block_scene(&mut self, process: usize) -> Vec<Op> {
        let island = (1 + self.below(8)) << 18;
        let at = self.pick(&[HOT + 2, HOT + 2, HOT + 2 - TABLE, island]);
        let len = TABLE * (1 + self.below(2));
        let cpu = self.below(CPUS);
        let inside = at + self.below(TABLE - 4);
        let touch = |process, cpu, at, access| Op::Touch { process, cpu, at, count: 3, access };
        let map = Op::Map { process, at, len, prot: 3, flags: Map::PRIVATE | Map::FIXED, file: None };
        let write = touch(process, cpu, inside, Access::Write);
        let again = touch(process, cpu + 1, inside + 1, Access::Read);
        let later = touch(process, cpu + 1, inside + 1, Access::Write);
        let (child, child_writes) =
            (touch(LATEST, cpu, inside, Access::Read), touch(LATEST, cpu, inside, Access::Write));
        let protect = |at, len, prot| Op::Protect { process, at, len, prot };
        let advise = |at, len, advice| Op::Advise { process, at, len, advice };
        let unmap = |at, len| Op::Unmap { process, at, len };
        let away = |how| Op::Away { process, at: inside, count: 3, how };
        let migrate = Op::Migrate { process, at: inside, count: 2 };
        let fork = Op::Fork { process };
        let moving = Mremap::MAYMOVE | Mremap::FIXED;
        let to = ((1 + self.below(8)) << 18) + self.below(2);
        let begin = [Op::Exit { process: LATEST }, unmap(at, len), map, write.clone(), again.clone()];
        let collapse = away(How::Collapse);
        let steps = match self.below(30) {
            24 => [advise(inside, 2, madv::DONTNEED), collapse, again, later].to_vec(),
            25 => [protect(inside, 2, 1), again, protect(inside, 2, 3), collapse, later, fork, child_writes].to_vec(),
            26 => [fork, child_writes, later, collapse, again, Op::Exit { process: LATEST }, write].to_vec(),
            27 => [away(How::Swap), collapse.clone(), again, unmap(inside, 2), collapse].to_vec(),
            28 => [advise(inside, 2, madv::FREE), collapse, again, advise(at, TABLE, madv::DONTNEED), later].to_vec(),
            29 => [fork, away(How::Swap), child, collapse, later, child_writes].to_vec(),
            0 => [unmap(at, TABLE), again].to_vec(),
            1 => [unmap(inside, 2), again, later].to_vec(),
            2 => [protect(at, TABLE, 1), later, protect(at, TABLE, 3), write].to_vec(),
            3 => [protect(inside, 2, 1), later, write].to_vec(),
            4 => [protect(at, TABLE, 0), again, protect(at, TABLE, 7), touch(process, cpu, inside, Access::Exec)]
                .to_vec(),
            5 => [advise(at, TABLE, madv::DONTNEED), again, later].to_vec(),
            6 => [advise(inside, 2, madv::DONTNEED), again, write].to_vec(),
            7 => {
                [advise(inside, 2, madv::FREE), again, later, away(How::Swap), again_of(process, cpu, inside)].to_vec()
            }
            8 | 9 => [fork, later, child, child_writes, again_of(process, cpu, inside)].to_vec(),
            10 => [fork, child_writes, later, again_of(LATEST, cpu, inside)].to_vec(),
            11 => [fork, protect(at, TABLE, 1), protect(at, TABLE, 3), later, child].to_vec(),
            12 => [fork.clone(), Op::Exit { process: LATEST }, write, again].to_vec(),
            13 => [fork.clone(), child_writes, fork, again, later, child].to_vec(),
            14 => [away(How::Look), again, away(How::Swap), later].to_vec(),
            15 => [fork, away(How::Move), child, Op::Settle, later, child_writes].to_vec(),
            16 => [migrate, again, later].to_vec(),
            17 => [fork, migrate, child_writes, again].to_vec(),
            18 => {
                let remap = Op::Remap { process, at, old: TABLE, new: TABLE, flags: moving, to };
                [remap, again, touch(process, cpu, to + (inside - at), Access::Read)].to_vec()
            }
            19 => {
                // A part is given back, and comes again as a part of a block or of a table.
                let map = Op::Map { process, at, len: TABLE, prot: 3, flags: Map::PRIVATE | Map::FIXED, file: None };
                [unmap(at, TABLE), map, write.clone(), advise(at, TABLE, madv::DONTNEED), write].to_vec()
            }
            // A CPU has the block as it may not be written.
            21 | 22 => [protect(at, TABLE, 1), again, protect(at, TABLE, 3), later].to_vec(),
            20 => [fork, advise(at, TABLE, madv::DONTNEED), later, child].to_vec(),
            _ => [advise(at, len, madv::NOHUGEPAGE), later, Op::Poke { process, at: inside, write: true }, again]
                .to_vec(),
        };
        begin.into_iter().chain(steps).collect()
    }
}

/// The first CPU looks again, with what its TLB has.
fn again_of(process: usize, cpu: usize, at: usize) -> Op {
    Op::Touch { process, cpu, at, count: 3, access: Access::Read }
}
