//! A picture: a number of the kernel's records that makes a picture cost about the same on each machine.
//!
//! Counts are sent completely. Data whose size depends on memory is sent in turns: the use of frames a few page blocks
//! at a time, the areas of processes a few of their pages at a time.

use quire_closeup::stream::{Begin, kind as frame};
use quire_rt::Errno;
use quire_rt::abi::group::GroupInfo;
use quire_rt::abi::info::{CpuInfo, NodeInfo, ProcessInfo, SystemInfo, ZoneInfo, kind};
use quire_rt::abi::layout::bytes_of;
use quire_rt::abi::pressure::Pressure;
use quire_rt::abi::statistics::{BlockFrames, BlockUse, Counter, PageBlocks, SlabCacheInfo, SwapInfo};
use quire_rt::{info, process};

use crate::output::Output;

/// The approximate number of page blocks whose frames are examined for a picture: a tenth of those of a GiB. A record
/// has [`BlockUse::ROOM`] of them.
const BLOCKS: usize = 52;

/// The maximum number of records of areas in a picture, for one process, and the number of pages after which no more
/// are requested.
const AREAS: usize = 24;
const AREA_PAGES: u64 = 2048;

/// Where a tour of things that do not fit into one picture continues.
#[derive(Default)]
struct Place {
    /// The zone, or the process.
    of: u32,
    /// The page block, or the address.
    from: usize,
}

/// See the module.
#[derive(Default)]
pub struct Painter {
    number: u64,
    /// The page block whose frames are all sent.
    pub zoom: Option<usize>,
    blocks: Place,
    /// The position in the selected process; 0 for none.
    chosen: Place,
    others: Place,
}

impl Painter {
    /// Looks at another process.
    pub fn look_at(&mut self, pid: u32) {
        self.chosen = Place { of: pid, from: 0 };
    }

    /// Sends a picture.
    pub fn paint(&mut self, to: &mut Output, rate: u64, at: u64) -> Result<(), Errno> {
        self.number += 1;
        let begin = Begin { at, rate, pid: process::getpid() as u64 };
        to.frame(frame::BEGIN, self.number, bytes_of(&begin))?;
        to.records(kind::SYSTEM, 0, info::records::<SystemInfo>().take(1))?;
        to.records(kind::ZONE, 0, info::records::<ZoneInfo>())?;
        to.records(kind::CPU, 0, info::records::<CpuInfo>())?;
        to.records(kind::COUNTER, 0, info::records::<Counter>())?;
        to.records(kind::SLAB, 0, info::records::<SlabCacheInfo>())?;
        to.records(kind::SWAP, 0, info::records::<SwapInfo>().take(1))?;
        to.records(kind::PROCESS, 0, info::processes(1))?;
        to.records(kind::GROUP, 0, info::groups())?;
        to.records(kind::PRESSURE, 0, info::record::<Pressure>(0).into_iter())?;
        for group in info::groups() {
            let GroupInfo { key, .. } = group;
            to.records(kind::PRESSURE, key, info::record::<Pressure>(key as usize).into_iter())?;
        }
        for node in 0..info::records::<NodeInfo>().count() {
            to.records(kind::LISTS, node as u64, info::lists(0, node).into_iter())?;
        }
        self.kinds(to)?;
        self.uses(to)?;
        if let Some(block) = self.zoom {
            to.records(kind::BLOCK_FRAMES, block as u64, info::record::<BlockFrames>(block).into_iter())?;
        }
        self.areas(to)?;
        to.frame(frame::END, self.number, &[])
    }

    /// The page blocks of all zones.
    fn kinds(&mut self, to: &mut Output) -> Result<(), Errno> {
        for zone in 0.. {
            let mut from = 0;
            while let Ok(part) = info::page_blocks(zone, from) {
                let PageBlocks { first, count, .. } = part;
                to.records(kind::PAGE_BLOCKS, zone.into(), core::iter::once(part))?;
                from = first as usize + count as usize;
            }
            if from == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The use of frames in the next page blocks.
    fn uses(&mut self, to: &mut Output) -> Result<(), Errno> {
        let mut left = BLOCKS;
        let mut turns = 0;
        while left != 0 && turns < 2 {
            let Place { of: zone, from } = self.blocks;
            match info::block_use(zone, from) {
                Ok(part) => {
                    let BlockUse { first, count, .. } = part;
                    to.records(kind::BLOCK_USE, zone.into(), core::iter::once(part))?;
                    self.blocks.from = first as usize + count as usize;
                    left = left.saturating_sub(count as usize);
                }
                Err(_) if from != 0 => self.blocks = Place { of: zone + 1, from: 0 },
                // Behind the last zone: from the start again.
                Err(_) => (self.blocks, turns) = (Place::default(), turns + 1),
            }
        }
        Ok(())
    }

    /// Areas of the selected process, and of the others in turn.
    fn areas(&mut self, to: &mut Output) -> Result<(), Errno> {
        let is_its_turn = self.number.is_multiple_of(2);
        if self.chosen.of != 0 && is_its_turn {
            return areas_of(to, &mut self.chosen);
        }
        if self.others.from == 0 {
            let next = info::process_from(self.others.of + 1).or_else(|_| info::process_from(1));
            self.others.of = next.map_or(0, |process: ProcessInfo| process.pid);
        }
        if self.others.of == self.chosen.of {
            return Ok(());
        }
        areas_of(to, &mut self.others)
    }
}

/// Sends areas of a process from a position on; after the last ones it says so, and sets the position to the first one
/// again.
fn areas_of(to: &mut Output, place: &mut Place) -> Result<(), Errno> {
    let (pid, mut pages) = (place.of, 0);
    let mut is_complete = false;
    let mut parts = alloc::vec::Vec::new();
    while parts.len() < AREAS && pages < AREA_PAGES {
        let Ok(part) = info::area(pid, place.from) else {
            is_complete = true;
            break;
        };
        pages += part.resident;
        place.from = part.to as usize;
        parts.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        parts.push(part);
    }
    to.records(kind::AREA, pid.into(), parts.into_iter())?;
    if is_complete {
        place.from = 0;
        to.frame(frame::AREAS_END, pid.into(), &[])?;
    }
    Ok(())
}
