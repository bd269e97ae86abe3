//! What is known of a machine: the newest of each record that has come.

use std::collections::BTreeMap;

use quire_abi::group::GroupInfo;
use quire_abi::info::{CpuInfo, ProcessInfo, SystemInfo, ZoneInfo, kind as record};
use quire_abi::layout::Pod;
use quire_abi::pressure::Pressure;
use quire_abi::statistics::{
    AreaInfo, BlockFrames, BlockUse, Counter, ListsInfo, PageBlocks, SlabCacheInfo, SwapInfo, frame_use,
};
use quire_closeup::stream::{Begin, Head, kind, records};

/// The page blocks of a zone.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    /// The number of the first one.
    pub first: u64,
    /// Free pages and migrate type of each, as [`PageBlocks`] has them.
    pub kinds: Vec<u16>,
    /// The use of the frames of each; all 0 where none has come yet.
    pub uses: Vec<[u16; frame_use::COUNT]>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Picture {
    pub number: u64,
    pub begin: Begin,
    pub system: SystemInfo,
    pub zones: Vec<ZoneInfo>,
    pub cpus: Vec<CpuInfo>,
    pub counters: Vec<Counter>,
    pub slabs: Vec<SlabCacheInfo>,
    pub swap: SwapInfo,
    pub processes: Vec<ProcessInfo>,
    pub groups: Vec<GroupInfo>,
    /// By the group's key, 0 for the machine.
    pub pressure: BTreeMap<u64, Pressure>,
    /// By node.
    pub lists: BTreeMap<u64, ListsInfo>,
    /// By zone.
    pub blocks: Vec<Blocks>,
    pub frames: Option<BlockFrames>,
    /// By process: all its areas, as of the last tour.
    pub areas: BTreeMap<u32, Vec<AreaInfo>>,
    /// Those of tours that are not over yet.
    touring: BTreeMap<u32, Vec<AreaInfo>>,
}

impl Picture {
    /// Takes a frame; returns whether a picture is complete with it.
    pub fn take(&mut self, head: Head, payload: &[u8]) -> bool {
        match head.kind {
            kind::BEGIN => {
                self.begin = first(payload).unwrap_or_default();
                self.number = head.about;
                self.groups.clear();
                self.pressure.clear();
                self.frames = None;
            }
            kind::END => {
                let processes = &self.processes;
                let lives = |pid: &u32| processes.iter().any(|process| process.pid == *pid);
                self.areas.retain(|pid, _| lives(pid));
                self.touring.retain(|pid, _| lives(pid));
                return true;
            }
            kind::AREAS_END => {
                let areas = self.touring.remove(&(head.about as u32)).unwrap_or_default();
                self.areas.insert(head.about as u32, areas);
            }
            other => self.record(other.into(), head.about, payload),
        }
        false
    }

    fn record(&mut self, kind: usize, about: u64, payload: &[u8]) {
        match kind {
            record::SYSTEM => self.system = first(payload).unwrap_or_default(),
            record::ZONE => self.zones = records(payload).collect(),
            record::CPU => self.cpus = records(payload).collect(),
            record::COUNTER => self.counters = records(payload).collect(),
            record::SLAB => self.slabs = records(payload).collect(),
            record::SWAP => self.swap = first(payload).unwrap_or_default(),
            record::PROCESS => {
                // (There may be so many that they take several frames, by their numbers.)
                let new: Vec<ProcessInfo> = records(payload).collect();
                let from = new.first().map_or(0, |process| process.pid);
                let keep = self.processes.iter().position(|process| process.pid >= from);
                self.processes.truncate(keep.unwrap_or(self.processes.len()));
                self.processes.extend(new);
            }
            record::GROUP => self.groups.extend(records::<GroupInfo>(payload)),
            record::PRESSURE => drop(first(payload).map(|pressure| self.pressure.insert(about, pressure))),
            record::LISTS => drop(first(payload).map(|lists| self.lists.insert(about, lists))),
            record::PAGE_BLOCKS => records(payload).for_each(|part| self.kinds(about as usize, &part)),
            record::BLOCK_USE => records(payload).for_each(|part| self.uses(about as usize, &part)),
            record::BLOCK_FRAMES => self.frames = first(payload),
            record::AREA => self.areas(about as u32, records(payload)),
            _ => {}
        }
    }

    fn kinds(&mut self, zone: usize, part: &PageBlocks) {
        let words = &part.blocks[..(part.count as usize).min(PageBlocks::ROOM)];
        if zone >= self.blocks.len() {
            self.blocks.resize_with(zone.saturating_add(1).min(ZONES), Blocks::default);
        }
        let Some(blocks) = self.blocks.get_mut(zone) else { return };
        if blocks.kinds.is_empty() {
            blocks.first = part.first;
        }
        let at = part.first.saturating_sub(blocks.first) as usize;
        if at <= blocks.kinds.len() {
            let end = (at + words.len()).max(blocks.kinds.len());
            blocks.kinds.resize(end, PageBlocks::NONE);
            blocks.uses.resize(end, [0; frame_use::COUNT]);
            blocks.kinds[at..at + words.len()].copy_from_slice(words);
        }
    }

    fn uses(&mut self, zone: usize, part: &BlockUse) {
        let Some(blocks) = self.blocks.get_mut(zone) else { return };
        let at = part.first.saturating_sub(blocks.first) as usize;
        let to = blocks.uses.iter_mut().skip(at).take(part.count as usize);
        to.zip(&part.counts).for_each(|(to, counts)| *to = *counts);
    }

    /// Parts of areas; those of a process come by address.
    fn areas(&mut self, pid: u32, parts: impl Iterator<Item = AreaInfo>) {
        let areas = self.touring.entry(pid).or_default();
        for part in parts {
            match areas.last_mut() {
                Some(last) if last.start == part.start && part.to > last.to => last.add(&part),
                // From the start again: the tour before was not ended.
                Some(last) if part.start <= last.start => *areas = vec![part],
                _ => areas.push(part),
            }
        }
    }

    /// The path of a control group, by its key.
    pub fn group_path(&self, key: u64) -> String {
        let (mut path, mut key) = (String::new(), key);
        // (At most as deep as there are groups.)
        for _ in 0..=self.groups.len() {
            if key == 0 {
                break;
            }
            let Some(group) = self.groups.iter().find(|group| group.key == key) else {
                return format!("{key:#x}, which is gone");
            };
            path = format!("/{}{path}", quire_closeup::text(&group.name));
            key = group.parent;
        }
        if path.is_empty() { "/".into() } else { path }
    }
}

/// The most zones that are believed.
const ZONES: usize = 64;

fn first<T: Pod>(payload: &[u8]) -> Option<T> {
    records(payload).next()
}

#[cfg(test)]
mod tests {
    use quire_abi::layout::bytes_of;

    use super::*;

    fn send<T: Pod>(picture: &mut Picture, kind: usize, about: u64, record: &T) {
        let payload = bytes_of(record);
        picture.take(Head { kind: kind as u16, len: payload.len(), about }, payload);
    }

    fn part(start: u64, end: u64, to: u64, resident: u64) -> AreaInfo {
        AreaInfo { start, end, to, resident, ..AreaInfo::default() }
    }

    #[test]
    fn parts_of_an_area_are_one_area() {
        let mut picture =
            Picture { processes: vec![ProcessInfo { pid: 7, ..Default::default() }], ..Picture::default() };
        for area in [part(0, 8, 8, 1), part(16, 64, 32, 4), part(16, 64, 64, 5), part(80, 96, 96, 0)] {
            send(&mut picture, record::AREA, 7, &area);
        }
        assert!(picture.areas.is_empty(), "the tour is not over");
        picture.take(Head { kind: kind::AREAS_END, len: 0, about: 7 }, &[]);
        let seen: Vec<_> = picture.areas[&7].iter().map(|area| (area.start, area.to, area.resident)).collect();
        assert_eq!(seen, [(0, 8, 1), (16, 64, 9), (80, 96, 0)]);
        picture.processes.clear();
        assert!(picture.take(Head { kind: kind::END, len: 0, about: 1 }, &[]));
        assert!(picture.areas.is_empty(), "the process is gone");
    }

    #[test]
    fn page_blocks_come_in_parts() {
        let mut picture = Picture::default();
        let mut words = PageBlocks { first: 512, count: 256, ..PageBlocks::default() };
        words.blocks = [7; 256];
        send(&mut picture, record::PAGE_BLOCKS, 1, &words);
        send(&mut picture, record::PAGE_BLOCKS, 1, &PageBlocks { first: 768, count: 3, ..words });
        let mut uses = BlockUse { first: 768, count: 2, ..BlockUse::default() };
        uses.counts[1][frame_use::ANON] = 9;
        send(&mut picture, record::BLOCK_USE, 1, &uses);
        let blocks = &picture.blocks[1];
        assert_eq!((blocks.first, blocks.kinds.len(), blocks.uses[257][frame_use::ANON]), (512, 259, 9));
        // What no kernel sends is no reason to fail.
        send(&mut picture, record::PAGE_BLOCKS, u64::MAX, &words);
        send(&mut picture, record::BLOCK_USE, 1, &BlockUse { first: u64::MAX, count: 99, ..uses });
    }
}
