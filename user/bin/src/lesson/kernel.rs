//! Slabs and the TLB: lessons 4 and 11.

use alloc::format;
use alloc::vec::Vec;

use quire_rt::abi::flags::Open;
use quire_rt::abi::statistics::SlabCacheInfo;
use quire_rt::{fs, info, io};

use super::faults::failed;
use super::{Area, Verdict};

/// Lesson 4: slabs of eight objects and more have room for colours, and use them.
pub fn coloured_slabs() -> Verdict {
    const NAME: &str = "slab_coloured";
    const PIPES: usize = 400;
    const LINE: u64 = 64;
    if !is_slab() {
        return Err("only slab=slab has colours: start with --append slab=slab".into());
    }
    let Some(before) = info::counter(NAME) else { return Err(format!("vmstat has no {NAME}")) };
    let slabs = || info::records::<SlabCacheInfo>().map(|cache| cache.slabs).sum::<u64>();
    let slabs_before = slabs();
    let pipes: Vec<_> = (0..PIPES).map_while(|_| io::pipe(Open::CLOEXEC.bits()).ok()).collect();
    let new = slabs() - slabs_before;
    let coloured = info::counter(NAME).unwrap_or(0) - before;
    let is_full = |cache: &SlabCacheInfo| {
        let (slabs, objects) = (cache.slabs, cache.total);
        slabs != 0 && objects >= 7 * slabs && (cache.pages << 12) - objects * u64::from(cache.stride) < LINE * slabs
    };
    let full = info::records::<SlabCacheInfo>().find(is_full);
    pipes.into_iter().flat_map(|(read, write)| [read, write]).for_each(|end| _ = io::close(end));
    if let Some(cache) = full {
        let (name, stride) = (info::text(&cache.name), cache.stride);
        return Err(format!("slabs of {name} have no room for a second colour: objects of {stride} bytes fill them"));
    }
    let seen = format!("{NAME} counts {coloured} of {new} new slabs");
    if new >= 8 && coloured >= new / 4 && coloured < new { Ok(seen) } else { Err(seen) }
}

/// Whether the back end with colours was chosen.
fn is_slab() -> bool {
    let line = fs::File::open(c"/proc/cmdline", Open::empty()).and_then(|file| file.read_to_end()).unwrap_or_default();
    line.split(u8::is_ascii_whitespace).any(|word| word == b"slab=slab")
}

/// Lesson 11: up to 32 pages are invalidated one by one.
pub fn invalidations() -> Verdict {
    let unmap = |pages: usize| {
        let area = Area::new(pages).map_err(failed)?;
        area.fill();
        let counts = || info::counters(["tlb_flush_page", "tlb_flush_asid"]);
        let before = counts();
        area.give_back(0, pages).map_err(failed)?;
        let after = counts();
        Ok::<_, alloc::string::String>([after[0] - before[0], after[1] - before[1]])
    };
    let few = unmap(32)?;
    let many = unmap(33)?;
    let seen = format!(
        "32 pages that went took {} invalidations of a page and {} of an ASID; 33 pages took {} and {}",
        few[0], few[1], many[0], many[1]
    );
    let is_right = few[0] >= 32 && few[1] == 0 && many[0] < 32 && many[1] >= 1;
    if is_right { Ok(seen) } else { Err(seen) }
}
