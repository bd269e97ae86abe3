//! The registers that hold one or a few bits for every interrupt. They have the same layout in both versions'
//! distributor and in version 3's redistributors, where only the first 32 interrupts exist.

use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite, WriteOnly};
use tock_registers::{register_bitfields, register_structs};

use super::{GicError, Priority, SPECIAL};
use crate::tree::{Interrupt, Trigger};

register_bitfields![u32,
    pub CTLR [
        /// Version 2: the one group that we see. Version 3 without security: group 0.
        ENABLE OFFSET(0) NUMBITS(1) [],
        /// Version 3: group 1.
        ENABLE_GROUP1 OFFSET(1) NUMBITS(1) [],
        /// Version 3: interrupts are routed by affinity.
        ARE OFFSET(4) NUMBITS(1) [],
        /// Version 3: earlier writes are not in effect yet.
        RWP OFFSET(31) NUMBITS(1) []
    ],
    pub TYPER [
        /// Groups of 32 interrupts, less one.
        LINES OFFSET(0) NUMBITS(5) []
    ]
];

register_structs! {
    pub Lines {
        (0x000 => pub ctlr: ReadWrite<u32, CTLR::Register>),
        (0x004 => pub typer: ReadOnly<u32, TYPER::Register>),
        (0x008 => _reserved0),
        (0x080 => igroupr: [ReadWrite<u32>; 32]),
        (0x100 => isenabler: [ReadWrite<u32>; 32]),
        (0x180 => icenabler: [ReadWrite<u32>; 32]),
        (0x200 => _reserved1),
        (0x280 => icpendr: [ReadWrite<u32>; 32]),
        (0x300 => _reserved2),
        (0x380 => icactiver: [ReadWrite<u32>; 32]),
        // Bytes, and accessed as such: a word would touch the three neighbours.
        (0x400 => ipriorityr: [ReadWrite<u8>; SPECIAL.start as usize]),
        (0x7fc => _reserved3),
        (0x800 => pub itargetsr: [ReadWrite<u8>; SPECIAL.start as usize]),
        (0xbfc => _reserved4),
        (0xc00 => icfgr: [ReadWrite<u32>; 64]),
        (0xd00 => _reserved5),
        (0xf00 => pub sgir: WriteOnly<u32>),
        (0xf04 => _reserved6),
        (0x1000 => @END),
    }
}

impl Lines {
    /// How many interrupts a distributor has.
    pub fn count(&self) -> u32 {
        ((self.typer.read(TYPER::LINES) + 1) * 32).min(SPECIAL.start)
    }

    /// How many words a register of one bit per interrupt takes, including the first word, of the private interrupts.
    pub fn words(&self) -> usize {
        self.count().div_ceil(32) as usize
    }

    /// Brings the interrupts of `words` groups of 32, from `first` on, into a known state.
    pub fn reset(&self, first: usize, words: usize) {
        for word in first..(first + words).min(32) {
            self.icenabler[word].set(u32::MAX);
            self.icpendr[word].set(u32::MAX);
            self.icactiver[word].set(u32::MAX);
        }
        for priority in self.ipriorityr.iter().skip(first * 32).take(words * 32) {
            priority.set(Priority::Normal as u8);
        }
        // Two bits per interrupt, 0 for level. Word 0 belongs to the software-generated ones and is fixed.
        for trigger in self.icfgr.iter().skip((first * 2).max(1)).take(words * 2) {
            trigger.set(0);
        }
    }

    /// Puts the interrupts into group 1; without effect where a secure world owns the groups.
    pub fn set_group1(&self, first: usize, words: usize) {
        for group in self.igroupr.iter().skip(first).take(words) {
            group.set(u32::MAX);
        }
    }

    /// Here and below, the caller that selected these registers has checked that `intid` is below [`SPECIAL`].
    pub fn enable(&self, intid: u32) {
        self.isenabler[(intid / 32) as usize].set(1 << (intid % 32));
    }

    pub fn disable(&self, intid: u32) {
        self.icenabler[(intid / 32) as usize].set(1 << (intid % 32));
    }

    /// Sets trigger and priority of an interrupt. It must be disabled, since a change of trigger requires that.
    pub fn configure(&self, interrupt: Interrupt, priority: Priority) {
        let Interrupt { intid, trigger } = interrupt;
        self.ipriorityr[intid as usize].set(priority as u8);
        let edge = 2 << (intid % 16 * 2);
        let register = &self.icfgr[(intid / 16) as usize];
        match trigger {
            Trigger::Edge => register.set(register.get() | edge),
            Trigger::Level => register.set(register.get() & !edge),
        }
    }

    /// Version 3: waits until earlier writes to the distributor are in effect.
    pub fn wait(&self) -> Result<(), GicError> {
        super::wait_until(|| !self.ctlr.is_set(CTLR::RWP))
    }

    /// Version 3: switches affinity routing on, then the groups; both at once is not allowed.
    pub fn enable_by_affinity(&self) -> Result<(), GicError> {
        self.ctlr.write(CTLR::ARE::SET);
        self.wait()?;
        self.ctlr.modify(CTLR::ENABLE::SET + CTLR::ENABLE_GROUP1::SET);
        self.wait()
    }
}
