//! Rows about changing existing areas: mprotect and mremap.

use quire_rt::abi::flags::{Map, Mremap, Prot};
use quire_rt::abi::nr;

use crate::measure::{KIB, MIB, Outcome, PAGE, Pages, RW, Sheet, area, call, map, time, unmap, write_pages};
use crate::{Row, row};

pub const ROWS: &[Row] = &[
    row("mprotect.4K", |sheet| protect_pairs(sheet, PAGE, PAGE, 4000)),
    row("mprotect.1M", |sheet| protect_pairs(sheet, MIB, MIB, 500)),
    row("mprotect.split", |sheet| protect_pairs(sheet, MIB, PAGE, 4000)),
    row("mprotect.touch.4K", |sheet| protect_and_write(sheet, PAGE, 4000)),
    row("mprotect.touch.1M", |sheet| protect_and_write(sheet, MIB, 200)),
    row("mremap.grow.1M", grow),
    row("mremap.move.4K", |sheet| moves(sheet, PAGE, 1000)),
    row("mremap.move.1M", |sheet| moves(sheet, MIB, 1000)),
    row("mremap.move.2M", |sheet| moves(sheet, 2 * MIB, 100)),
    row("mremap.realloc.4M", doubling),
];

#[inline(always)]
fn protect(at: usize, len: usize, prot: Prot) -> Outcome {
    call(nr::MPROTECT, [at, len, prot.bits() as usize]).map(drop)
}

#[inline(always)]
fn remap(at: usize, old: usize, new: usize, flags: Mremap, to: usize) -> Outcome<usize> {
    call(nr::MREMAP, [at, old, new, flags.bits() as usize, to])
}

/// Makes the middle of a touched area read-only and writable again; by call.
fn protect_pairs(sheet: &Sheet, len: usize, part: usize, pairs: usize) -> Outcome {
    let start = area(len, Pages::Base)?;
    write_pages(start, len);
    let at = if part < len { start + len / 2 } else { start };
    let pair = || protect(at, part, Prot::READ).and_then(|()| protect(at, part, RW));
    pair()?;
    let ticks = time(|| (0..pairs).try_for_each(|_| pair()))?;
    sheet.write("", 2 * pairs, ticks);
    unmap(start, len)
}

/// As [`protect_pairs`], with every page written to after each pair.
fn protect_and_write(sheet: &Sheet, len: usize, times: usize) -> Outcome {
    let at = area(len, Pages::Base)?;
    write_pages(at, len);
    let ticks = time(|| {
        (0..times).try_for_each(|_| {
            protect(at, len, Prot::READ)?;
            protect(at, len, RW)?;
            write_pages(at, len);
            Ok(())
        })
    })?;
    sheet.write("", times, ticks);
    unmap(at, len)
}

/// Grows an area in place and shrinks it; its first 64 KiB are touched.
fn grow(sheet: &Sheet) -> Outcome {
    const SMALL: usize = 64 * KIB;
    const PAIRS: usize = 2000;
    let at = map(MIB, RW, Map::empty())?;
    unmap(at + SMALL, MIB - SMALL)?;
    write_pages(at, SMALL);
    let none = Mremap::empty();
    let pair = || remap(at, SMALL, MIB, none, 0).and_then(|_| remap(at, MIB, SMALL, none, 0)).map(drop);
    pair()?;
    let ticks = time(|| (0..PAIRS).try_for_each(|_| pair()))?;
    sheet.write("", 2 * PAIRS, ticks);
    unmap(at, SMALL)
}

/// Moves a touched area to and fro between two places at 2 MiB boundaries.
fn moves(sheet: &Sheet, len: usize, times: usize) -> Outcome {
    const ALIGN: usize = 2 * MIB;
    let room = 4 * len + 4 * MIB;
    let free = map(room, RW, Map::empty())?;
    unmap(free, room)?;
    let from = free.next_multiple_of(ALIGN);
    let to = (from + len).next_multiple_of(ALIGN);
    let flags = Map::PRIVATE | Map::ANONYMOUS | Map::FIXED;
    call(nr::MMAP, [from, len, RW.bits() as usize, flags.bits() as usize, usize::MAX, 0])?;
    let _ = call(nr::MADVISE, [from, len, quire_rt::abi::flags::madv::NOHUGEPAGE as usize]);
    write_pages(from, len);
    let mut places = [from, to];
    let ticks = time(|| {
        (0..times).try_for_each(|_| {
            remap(places[0], len, len, Mremap::MAYMOVE | Mremap::FIXED, places[1])?;
            places.swap(0, 1);
            Ok(())
        })
    })?;
    sheet.write("", times, ticks);
    unmap(places[0], len)
}

/// An area that grows from a page to 4 MiB by doubling, as a large `realloc` does; the new half is written to.
fn doubling(sheet: &Sheet) -> Outcome {
    const TIMES: usize = 20;
    const END: usize = 4 * MIB;
    let ticks = time(|| {
        (0..TIMES).try_for_each(|_| {
            let mut len = PAGE;
            let mut at = map(len, RW, Map::empty())?;
            write_pages(at, len);
            while len < END {
                at = remap(at, len, 2 * len, Mremap::MAYMOVE, 0)?;
                write_pages(at + len, len);
                len *= 2;
            }
            unmap(at, len)
        })
    })?;
    sheet.write("", TIMES * END / PAGE, ticks);
    Ok(())
}
