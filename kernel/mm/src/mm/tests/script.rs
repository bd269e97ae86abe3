//! Random programs as data, which the oracle runs, shrinks and prints.

mod blocks;
mod scenes;

use std::vec::Vec;

use quire_abi::flags::{Map, Mremap, Msync, madv};

use super::model::Window;
use super::non_present::How;
use crate::mm::Access;

/// The window spans three last-level tables; some operations go to far islands, so that tables come and go.
pub(super) const WINDOW: Window = Window { min: 0x3_ff00, base: 0x4_0500, top: 1 << 28 };
pub(super) const BRK: usize = 0x3_ff80;
pub(super) const CPUS: usize = 4;
pub(super) const PROCESSES: usize = 5;
/// Four pages around a table's edge, where everybody meets.
const HOT: usize = 0x4_0000 - 2;
/// The process that came last, however many of at most [`PROCESSES`] there are.
const LATEST: usize = 59;
/// Pages of a last-level table.
const TABLE: usize = 512;

/// One step. Numbers are taken modulo what there is, so that any part of a script is a script.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Map {
        process: usize,
        at: usize,
        len: usize,
        prot: u32,
        flags: Map,
        file: Option<(usize, usize)>,
    },
    Unmap {
        process: usize,
        at: usize,
        len: usize,
    },
    Protect {
        process: usize,
        at: usize,
        len: usize,
        prot: u32,
    },
    Brk {
        process: usize,
        to: usize,
    },
    Remap {
        process: usize,
        at: usize,
        old: usize,
        new: usize,
        flags: Mremap,
        to: usize,
    },
    Advise {
        process: usize,
        at: usize,
        len: usize,
        advice: i32,
    },
    Lock {
        process: usize,
        at: usize,
        len: usize,
        on_fault: bool,
    },
    Unlock {
        process: usize,
        at: usize,
        len: usize,
    },
    LockAll {
        process: usize,
        current: bool,
        future: bool,
    },
    Sync {
        process: usize,
        at: usize,
        len: usize,
        flags: Msync,
    },
    InCore {
        process: usize,
        at: usize,
        len: usize,
    },
    /// The kernel reaches a page on somebody else's behalf.
    Poke {
        process: usize,
        at: usize,
        write: bool,
    },
    /// No call: what reclaim and migration do behind the programs' backs.
    Away {
        process: usize,
        at: usize,
        count: usize,
        how: How,
    },
    /// No call either: pages move to other frames.
    Migrate {
        process: usize,
        at: usize,
        count: usize,
    },
    /// No call either: what write-back does. Pages are clean from now on.
    Clean {
        process: usize,
        at: usize,
        count: usize,
    },
    /// All that is being moved has been.
    Settle,
    Fork {
        process: usize,
    },
    Exit {
        process: usize,
    },
    Touch {
        process: usize,
        cpu: usize,
        at: usize,
        count: usize,
        access: Access,
    },
}

impl Op {
    /// The process that does it.
    pub fn process(&self) -> Option<usize> {
        match *self {
            Op::Map { process, .. }
            | Op::Unmap { process, .. }
            | Op::Protect { process, .. }
            | Op::Brk { process, .. }
            | Op::Remap { process, .. }
            | Op::Advise { process, .. }
            | Op::Lock { process, .. }
            | Op::Unlock { process, .. }
            | Op::LockAll { process, .. }
            | Op::InCore { process, .. }
            | Op::Sync { process, .. }
            | Op::Poke { process, .. }
            | Op::Away { process, .. }
            | Op::Migrate { process, .. }
            | Op::Clean { process, .. }
            | Op::Fork { process }
            | Op::Exit { process }
            | Op::Touch { process, .. } => Some(process),
            Op::Settle => None,
        }
    }
}

/// Makes programs.
pub(super) struct Random {
    state: u64,
    /// Who did the last step, and where: often the next one is there too.
    last: (usize, usize),
    /// What follows, last first: steps that show what the one before them may have left in a TLB.
    next: Vec<Op>,
    /// Most scenes are those with blocks of 2 MiB.
    has_blocks: bool,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            last: (0, 0x4_0000),
            next: Vec::new(),
            has_blocks: seed.is_multiple_of(4),
        }
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as usize % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn page(&mut self) -> usize {
        match self.below(12) {
            0 | 1 => (1 + self.below(8)) << 18 | self.below(2),
            2 | 3 => WINDOW.min + self.below(WINDOW.base - WINDOW.min),
            4 | 5 => HOT + self.below(4),
            // A small hot part around a table's edge makes operations meet.
            _ => 0x4_0000 - 40 + self.below(80),
        }
    }

    fn len(&mut self) -> usize {
        match self.below(8) {
            0 => 1 + self.below(700),
            1..4 => 1,
            _ => 1 + self.below(24),
        }
    }

    pub fn op(&mut self) -> Op {
        if let Some(op) = self.next.pop() {
            return op;
        }
        let op = self.draw();
        self.follow(&op);
        op
    }

    /// What another CPU sees of the page, or what the same one still has of a table.
    fn follow(&mut self, op: &Op) {
        match *op {
            Op::Touch { process, cpu, at, .. } if self.below(3) == 0 => {
                let process = if self.below(4) == 0 { self.below(PROCESSES) } else { process };
                let access = self.pick(&[Access::Read, Access::Write, Access::Write]);
                let cpu = cpu + 1 + self.below(CPUS - 1);
                self.next.push(Op::Touch { process, cpu, at, count: 1, access });
            }
            Op::Fork { process } => {
                // Copied on a write, while another CPU still has the page as it was.
                let (at, cpu) = (self.last.1, self.below(CPUS));
                let touch = |cpu, access| Op::Touch { process, cpu, at, count: 2, access };
                self.next.extend([touch(cpu, Access::Read), touch(cpu + 1, Access::Write), touch(cpu, Access::Read)]);
                let access = self.pick(&[Access::Read, Access::Write]);
                let cpu = self.below(CPUS);
                self.next.push(Op::Touch { process: LATEST, cpu, at: HOT, count: 4, access });
                if self.below(2) == 0 {
                    // A page that hardware may make dirty is no longer one of its own after the next fork.
                    let write = Op::Touch { process, cpu, at: HOT, count: 4, access: Access::Write };
                    let read = Op::Touch { process: LATEST, cpu, at: HOT, count: 4, access: Access::Read };
                    let free = Op::Advise { process, at: HOT, len: 4, advice: madv::FREE };
                    self.next.extend([read, write.clone(), Op::Fork { process }, free, write]);
                }
            }
            // What a CPU writes while an entry goes must be known of the page, which stays with its object.
            Op::Clean { process, at, .. } if self.below(2) == 0 => {
                let (len, cpu) = (16, self.below(CPUS));
                let flags = Map::SHARED | Map::FIXED;
                let map = Op::Map { process, at, len, prot: 3, flags, file: None };
                let write = Op::Touch { process, cpu, at, count: len, access: Access::Write };
                let clean = Op::Clean { process, at, count: len };
                let drop = Op::Advise { process, at, len, advice: madv::DONTNEED };
                self.next.extend([drop, clean, write, map]);
            }
            // Many spaces use up the ASIDs.
            Op::Exit { process } if self.below(2) == 0 => {
                for _ in 0..3 {
                    let cpu = self.below(CPUS);
                    let touch = Op::Touch { process: LATEST, cpu, at: HOT, count: 4, access: Access::Read };
                    self.next.extend([Op::Exit { process: LATEST }, touch, Op::Fork { process }]);
                }
            }
            Op::Remap { process, at, old, to, .. } if old >= TABLE && self.below(2) == 0 => {
                // The table is there, and one CPU knows the way to it.
                let cpu = self.below(CPUS);
                let touch = |at, access| Op::Touch { process, cpu, at, count: 1, access };
                let flags = Map::PRIVATE | Map::FIXED;
                let map = Op::Map { process, at, len: TABLE, prot: 3, flags, file: None };
                let moving = Mremap::MAYMOVE | Mremap::FIXED;
                let remap = Op::Remap { process, at, old: TABLE, new: TABLE, flags: moving, to };
                let (write, read) = (touch(at, Access::Write), touch(at, Access::Read));
                // (A block has no table.)
                let pages = Op::Advise { process, at, len: TABLE, advice: madv::NOHUGEPAGE };
                self.next.extend([touch(to, Access::Read), read, remap, write, pages, map]);
            }
            Op::Unmap { process, at, .. } if self.below(3) == 0 => {
                let cpu = self.below(CPUS);
                self.next.push(Op::Touch { process, cpu, at, count: 1, access: Access::Read });
            }
            _ => {}
        }
    }

    fn draw(&mut self) -> Op {
        let again = self.below(2) == 0;
        let (process, at) = if again { self.last } else { (self.below(PROCESSES), self.page()) };
        self.last = (process, at);
        let len = self.len();
        let prot = self.pick(&[0, 1, 3, 3, 3, 3, 5, 7]);
        match self.below(107) {
            103.. => Op::Migrate { process, at, count: 1 + self.below(16) },
            97.. => {
                // The last is the next.
                let mut scene = if self.has_blocks && self.below(4) != 0 {
                    self.block_scene(process)
                } else {
                    self.scene(process, at)
                };
                scene.reverse();
                self.next.extend(scene);
                self.next.pop().unwrap_or(Op::Settle)
            }
            0..14 => {
                let more = [
                    Map::empty(),
                    Map::FIXED,
                    Map::FIXED,
                    Map::FIXED_NOREPLACE,
                    Map::POPULATE,
                    Map::GROWSDOWN | Map::FIXED,
                    Map::LOCKED,
                ];
                let kind = self.pick(&[Map::PRIVATE, Map::PRIVATE, Map::SHARED]);
                let flags = self.pick(&more) | kind | self.pick(&[Map::empty(), Map::empty(), Map::NORESERVE]);
                let file = (self.below(4) == 0).then(|| (self.below(3), self.below(4)));
                let at = if flags.intersects(Map::FIXED | Map::FIXED_NOREPLACE) || self.below(2) == 0 { at } else { 0 };
                Op::Map { process, at, len, prot, flags, file }
            }
            14..22 => Op::Unmap { process, at, len },
            22..31 => Op::Protect { process, at, len, prot },
            31..34 => Op::Brk { process, to: BRK - 2 + self.below(60) },
            34..41 => {
                let flags = self.pick(&[
                    Mremap::empty(),
                    Mremap::MAYMOVE,
                    Mremap::MAYMOVE,
                    Mremap::MAYMOVE | Mremap::FIXED,
                    Mremap::MAYMOVE | Mremap::FIXED,
                    Mremap::MAYMOVE | Mremap::DONTUNMAP,
                    Mremap::MAYMOVE | Mremap::FIXED | Mremap::DONTUNMAP,
                ]);
                if self.below(6) == 0 {
                    // Whole tables.
                    let (at, to) = ((1 + self.below(8)) << 18, (1 + self.below(8)) << 18);
                    let old = TABLE + self.below(2) * 40;
                    return Op::Remap { process, at, old, new: old, flags, to };
                }
                let old = if self.below(12) == 0 { 0 } else { 1 + self.below(20) };
                let new = if self.below(3) == 0 { old } else { 1 + self.below(30) };
                Op::Remap { process, at, old, new, flags, to: self.page() }
            }
            41..50 => {
                let hint = self.pick(&[
                    madv::COLD,
                    madv::PAGEOUT,
                    madv::WILLNEED,
                    madv::NORMAL,
                    madv::RANDOM,
                    madv::SEQUENTIAL,
                    madv::HUGEPAGE,
                    madv::NOHUGEPAGE,
                ]);
                let advice = self.pick(&[
                    hint,
                    madv::COLD,
                    madv::DONTNEED,
                    madv::DONTNEED,
                    madv::DONTNEED_LOCKED,
                    madv::FREE,
                    madv::DONTFORK,
                    madv::DOFORK,
                    madv::WIPEONFORK,
                    madv::WIPEONFORK,
                    madv::KEEPONFORK,
                    madv::POPULATE_READ,
                    madv::POPULATE_WRITE,
                    madv::REMOVE,
                    madv::REMOVE,
                ]);
                Op::Advise { process, at, len, advice }
            }
            50..53 => Op::Fork { process },
            53..56 => Op::Exit { process },
            56 => Op::Lock { process, at, len, on_fault: self.below(3) == 0 },
            57 => Op::Unlock { process, at, len },
            58 if self.below(3) == 0 => {
                Op::LockAll { process, current: self.below(2) == 0, future: self.below(4) == 0 }
            }
            58 | 59 if len.is_multiple_of(2) => Op::InCore { process, at, len },
            58 | 59 => {
                let both = Msync::SYNC | Msync::INVALIDATE;
                let flags = [Msync::ASYNC, Msync::SYNC, both, Msync::ASYNC | Msync::SYNC][at % 4];
                Op::Sync { process, at, len, flags }
            }
            60..66 => {
                let how = self.pick(&[How::Swap, How::Swap, How::Look, How::Move, How::Move, How::Mark]);
                Op::Away { process, at, count: 1 + self.below(16), how }
            }
            66 => Op::Clean { process, at, count: 1 + self.below(40) },
            67 => Op::Settle,
            68..73 => Op::Poke { process, at, write: self.below(2) == 0 },
            _ => {
                let access = self.pick(&[Access::Read, Access::Write, Access::Write, Access::Exec]);
                let count = if self.below(4) == 0 { 1 + self.below(40) } else { 1 };
                Op::Touch { process, cpu: self.below(CPUS), at, count, access }
            }
        }
    }
}
