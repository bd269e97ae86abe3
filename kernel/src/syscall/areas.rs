//! The record behind pmap: an area of a process and its pages in memory.

use quire_abi::statistics::{AreaInfo, vma};
use quire_mm::UserAddr;
use quire_mm::mm::{AreaView, Usage};
use quire_mm::vma::VmFlags;

use crate::archive::Node;
use crate::vm::{Cpu, Mm};

/// The first area that ends above `from`, with counts from there up to the limit of one query.
pub fn area(mm: &Mm, from: UserAddr) -> Option<AreaInfo> {
    let heap = mm.heap();
    mm.usage_from(from, |area, usage, to| record(&area, &usage, to, heap))
}

fn record(area: &AreaView<'_, Cpu>, usage: &Usage, to: UserAddr, heap: (UserAddr, UserAddr)) -> AreaInfo {
    let is_heap = area.object.is_none() && area.start < heap.1 && heap.0 < area.end;
    AreaInfo {
        start: area.start.get() as u64,
        end: area.end.get() as u64,
        to: to.get() as u64,
        index: area.object.map_or(0, |(_, index)| index as u64),
        resident: usage.resident as u64,
        referenced: usage.referenced as u64,
        anon: usage.anon as u64,
        private_clean: usage.private_clean as u64,
        private_dirty: usage.private_dirty as u64,
        shared_clean: usage.shared_clean as u64,
        shared_dirty: usage.shared_dirty as u64,
        swapped: usage.swapped as u64,
        lazy_free: usage.lazy_free as u64,
        huge: usage.huge as u64,
        flags: flags(area) | if is_heap { vma::HEAP } else { 0 },
        pad: 0,
        name: name(area),
    }
}

/// The flags of an area: [`vma`], without HEAP.
pub fn flags(area: &AreaView<'_, Cpu>) -> u32 {
    let flags = [
        (area.flags.contains(VmFlags::READ), vma::READ),
        (area.flags.contains(VmFlags::WRITE), vma::WRITE),
        (area.flags.contains(VmFlags::EXEC), vma::EXEC),
        (area.flags.contains(VmFlags::SHARED), vma::SHARED),
        (area.flags.contains(VmFlags::GROWSDOWN), vma::STACK),
        (area.flags.contains(VmFlags::LOCKED), vma::LOCKED),
        (area.object.is_some(), vma::OBJECT),
    ];
    flags.iter().filter(|(has, _)| *has).map(|(_, flag)| flag).sum()
}

/// The path of the file that it maps. A path that does not fit is left out.
pub fn name(area: &AreaView<'_, Cpu>) -> [u8; 64] {
    let mut name = [0; 64];
    if let Some(file) = area.object.and_then(|(object, _)| Node::of_object(object)) {
        let len = file.path(&mut name).unwrap_or(0);
        name[len..].fill(0);
    }
    name
}
