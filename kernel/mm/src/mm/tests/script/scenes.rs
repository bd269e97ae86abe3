//! Short scenes, each of steps that show one thing and seldom come together by chance: what is copied at a fork, dropped by
//! an advice, taken away by mprotect, or left in a TLB.

use std::vec::Vec;

use quire_abi::flags::{Map, madv};

use super::{CPUS, LATEST, Op, Random};
use crate::mm::Access;
use crate::mm::tests::non_present::How;

/// Pages of a scene, at most.
const PAGES: usize = 6;

impl Random {
    /// The steps of a scene at some place, in their order.
    pub(super) fn scene(&mut self, process: usize, at: usize) -> Vec<Op> {
        let count = 2 + self.below(PAGES - 1);
        let cpu = self.below(CPUS);
        let map = |kind| Op::Map { process, at, len: count, prot: 3, flags: kind | Map::FIXED, file: None };
        let touch = |process, access| Op::Touch { process, cpu, at, count, access };
        let (read, write) = (touch(process, Access::Read), touch(process, Access::Write));
        let advise = |advice| Op::Advise { process, at, len: count, advice };
        let away = |how| Op::Away { process, at, count, how };
        let protect = |prot| Op::Protect { process, at, len: count, prot };
        let (private, shared) = (map(Map::PRIVATE), map(Map::SHARED));
        let child = touch(LATEST, Access::Read);
        let fork = Op::Fork { process };
        let steps = match self.below(8) {
            0 => [private, write, advise(madv::DONTNEED), read].to_vec(),
            1 => [private, advise(madv::WIPEONFORK), write, fork].to_vec(),
            2 => [private, advise(madv::DONTFORK), write, fork].to_vec(),
            3 => [private, write, away(How::Swap), fork, child].to_vec(),
            4 => [private, write, away(How::Move), fork, Op::Settle, child].to_vec(),
            5 => [private, write, advise(madv::COLD), read].to_vec(),
            6 => [shared, read, protect(1), write].to_vec(),
            _ => [private, away(How::Mark), write].to_vec(),
        };
        // There may be as many processes as there can be: then nobody forks.
        let makes_room = self.below(3) == 0 && steps.iter().any(|op| matches!(op, Op::Fork { .. }));
        let room = makes_room.then_some(Op::Exit { process: LATEST });
        room.into_iter().chain(steps).collect()
    }
}
