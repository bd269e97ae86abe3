//! Short scenes, each of steps that exercise one behaviour and seldom occur together by chance: copying at a fork,
//! dropping by an advice, revocation by mprotect, stale entries in a TLB.

use std::vec::Vec;

use quire_abi::flags::{Map, madv};

use super::{CPUS, LATEST, Op, Random};
use crate::mm::Access;
use crate::mm::tests::non_present::How;
use crate::table::flush::FLUSH_BY_PAGE;

/// Pages of a scene, at most: few enough to be invalidated one by one.
const PAGES: usize = 6;
/// Pages of a wide one, at least: enough for an invalidation of the whole space.
const WIDE: usize = FLUSH_BY_PAGE + 1;

impl Random {
    /// The steps of a scene at some place, in their order.
    pub(super) fn scene(&mut self, process: usize, at: usize) -> Vec<Op> {
        let count = if self.below(4) == 0 { WIDE + self.below(4) } else { 2 + self.below(PAGES - 1) };
        let cpu = self.below(CPUS);
        let map_as = |prot, kind, file| Op::Map { process, at, len: count, prot, flags: kind | Map::FIXED, file };
        let map = |kind| map_as(3, kind, None);
        let touch = |process, access| Op::Touch { process, cpu, at, count, access };
        let (read, write) = (touch(process, Access::Read), touch(process, Access::Write));
        let advise = |advice| Op::Advise { process, at, len: count, advice };
        let away = |how| Op::Away { process, at, count, how };
        let protect = |prot| Op::Protect { process, at, len: count, prot };
        let (private, shared) = (map(Map::PRIVATE), map(Map::SHARED));
        let child = touch(LATEST, Access::Read);
        let fork = Op::Fork { process };
        // Instructions come to a page that is new, and to a copy.
        let exec = touch(process, Access::Exec);
        let code = |file| map_as(7, Map::PRIVATE, file);
        let migrate = Op::Migrate { process, at, count };
        let child_writes = touch(LATEST, Access::Write);
        let steps = match self.below(32) {
            0 => [private, write, advise(madv::DONTNEED), read].to_vec(),
            1 => [private, advise(madv::WIPEONFORK), write, fork].to_vec(),
            2 => [private, advise(madv::DONTFORK), write, fork].to_vec(),
            3 => [private, write, away(How::Swap), fork, child].to_vec(),
            4 => [private, write, away(How::Move), fork, Op::Settle, child].to_vec(),
            5 => [private, write, advise(madv::COLD), read].to_vec(),
            19 => [private, write, away(How::Look), read].to_vec(),
            // Some of these pages stay, and are old.
            20 | 21 => [shared, write, away(How::Swap), read].to_vec(),
            22 => [map_as(7, Map::SHARED, None), write, away(How::Swap), exec].to_vec(),
            6 => [shared, read, protect(1), write].to_vec(),
            // Pages are given up: they go, or are written before that; by all CPUs, also where others have them.
            24 => [private, write, advise(madv::FREE), away(How::Swap), read].to_vec(),
            25 => [private, write.clone(), read.clone(), advise(madv::FREE), write, away(How::Swap), read].to_vec(),
            26 => [private, write, fork, advise(madv::FREE), away(How::Swap), child, read].to_vec(),
            27 => [private, write, advise(madv::FREE), fork, child_writes, away(How::Swap), child, read].to_vec(),
            28 => [private, write, away(How::Swap), advise(madv::FREE), read].to_vec(),
            29 => {
                let other = Op::Touch { process, cpu: cpu + 1, at, count, access: Access::Write };
                [private, other.clone(), advise(madv::FREE), other, away(How::Swap), read].to_vec()
            }
            30 => [private, write.clone(), advise(madv::FREE), migrate, write, away(How::Swap), read].to_vec(),
            31 => [private, write, away(How::Swap), advise(madv::WILLNEED), read].to_vec(),
            7 => [code(None), write.clone(), fork, write, exec].to_vec(),
            8 => [private, write, protect(0), read].to_vec(),
            9 => [code(Some((self.below(3), 0))), write, exec].to_vec(),
            10 => [private, away(How::Mark), write].to_vec(),
            // A page that moves, in all spaces, also while CPUs know its old place; and what happens to its entries meanwhile.
            11 => [private, write.clone(), migrate, write, read].to_vec(),
            12 => [private, write, fork, migrate, child_writes, read].to_vec(),
            13 => [private, write, away(How::Move), protect(1), Op::Settle, read].to_vec(),
            14 => [private, write.clone(), away(How::Move), fork, Op::Settle, child_writes, write, child].to_vec(),
            18 => [code(None), write, away(How::Swap), exec].to_vec(),
            15 => [code(None), write, exec.clone(), migrate, exec].to_vec(),
            16 => [shared, write.clone(), fork, migrate, child, write].to_vec(),
            // What is known of a page of an object stays known, when nothing maps it so at the moment.
            17 => [shared, write, advise(madv::DONTNEED), read, migrate].to_vec(),
            _ => {
                let drop = advise(madv::DONTNEED);
                [code(Some((1, 0))), exec.clone(), protect(1), migrate, drop, protect(5), exec].to_vec()
            }
        };
        // There may be as many processes as there can be: then nobody forks.
        let makes_room = self.below(3) == 0 && steps.iter().any(|op| matches!(op, Op::Fork { .. }));
        let room = makes_room.then_some(Op::Exit { process: LATEST });
        room.into_iter().chain(steps).collect()
    }
}
