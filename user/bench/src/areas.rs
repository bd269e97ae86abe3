//! Rows about making and ending areas: brk, mmap, many areas.

use quire_rt::abi::flags::{Map, Prot};
use quire_rt::abi::nr;
use quire_rt::sync::Mutex;

use crate::measure::{
    KIB, MIB, Outcome, PAGE, Pages, RW, Random, Sheet, area, call, map, read_pages, time, unmap, write_pages,
    write_word,
};
use crate::{Row, row};

pub const ROWS: &[Row] = &[
    row("brk.query", |sheet| sheet.each(20_000, "", || brk(0).map(drop))),
    row("brk.notouch.4K", |sheet| brk_cycle(sheet, PAGE, false)),
    row("brk.notouch.64K", |sheet| brk_cycle(sheet, 64 * KIB, false)),
    row("brk.notouch.1M", |sheet| brk_cycle(sheet, MIB, false)),
    row("brk.touch.4K", |sheet| brk_cycle(sheet, PAGE, true)),
    row("brk.touch.64K", |sheet| brk_cycle(sheet, 64 * KIB, true)),
    row("brk.touch.1M", |sheet| brk_cycle(sheet, MIB, true)),
    row("brk.step.notouch", |sheet| brk_steps(sheet, false)),
    row("brk.step.touch", |sheet| brk_steps(sheet, true)),
    row("mmap.notouch.4K", |sheet| mmap_cycle(sheet, PAGE, 5000, Touch::Nothing)),
    row("mmap.notouch.64K", |sheet| mmap_cycle(sheet, 64 * KIB, 5000, Touch::Nothing)),
    row("mmap.notouch.1M", |sheet| mmap_cycle(sheet, MIB, 5000, Touch::Nothing)),
    row("mmap.notouch.64M", |sheet| mmap_cycle(sheet, 64 * MIB, 5000, Touch::Nothing)),
    row("mmap.touch.4K", |sheet| mmap_cycle(sheet, PAGE, 5000, Touch::Write)),
    row("mmap.touch.64K", |sheet| mmap_cycle(sheet, 64 * KIB, 1000, Touch::Write)),
    row("mmap.touch.1M", |sheet| mmap_cycle(sheet, MIB, 100, Touch::Write)),
    row("mmap.touch.64M", |sheet| mmap_cycle(sheet, 64 * MIB, 4, Touch::WriteBasePages)),
    row("mmap.touch_huge.64M", |sheet| mmap_cycle(sheet, 64 * MIB, 4, Touch::Write)),
    row("mmap.read.1M", |sheet| mmap_cycle(sheet, MIB, 100, Touch::Read)),
    row("mmap.populate.64K", |sheet| mmap_cycle(sheet, 64 * KIB, 1000, Touch::Populate)),
    row("mmap.populate.1M", |sheet| mmap_cycle(sheet, MIB, 100, Touch::Populate)),
    row("churn.mmap", churn),
    row("vma.100", |sheet| many_areas(sheet, 100, 20)),
    row("vma.1000", |sheet| many_areas(sheet, 1000, 4)),
    row("vma.10000", |sheet| many_areas(sheet, MOST_AREAS, 1)),
];

#[inline(always)]
fn brk(end: usize) -> Outcome<usize> {
    call(nr::BRK, [end])
}

/// The heap's end, at a page boundary.
fn heap_end() -> Outcome<usize> {
    brk(brk(0)?.next_multiple_of(PAGE))
}

/// Grows the heap and shrinks it again.
fn brk_cycle(sheet: &Sheet, len: usize, touch: bool) -> Outcome {
    let end = heap_end()?;
    sheet.each(if touch && len >= MIB { 100 } else { 4000 }, "", || {
        brk(end + len)?;
        if touch {
            write_pages(end, len);
        }
        brk(end).map(drop)
    })
}

/// Grows the heap page by page.
fn brk_steps(sheet: &Sheet, touch: bool) -> Outcome {
    const STEPS: usize = 4096;
    let end = heap_end()?;
    let ticks = time(|| {
        (0..STEPS).try_for_each(|page| {
            brk(end + (page + 1) * PAGE)?;
            if touch {
                write_word(end + page * PAGE, page);
            }
            Ok(())
        })
    })?;
    brk(end)?;
    sheet.write("", STEPS, ticks);
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Touch {
    Nothing,
    Write,
    WriteBasePages,
    Read,
    Populate,
}

/// Maps, touches and unmaps; by page if anything is touched, else by cycle.
fn mmap_cycle(sheet: &Sheet, len: usize, cycles: usize, touch: Touch) -> Outcome {
    let cycle = || {
        let at = match touch {
            Touch::WriteBasePages => area(len, Pages::Base)?,
            Touch::Populate => map(len, RW, Map::POPULATE)?,
            _ => map(len, RW, Map::empty())?,
        };
        match touch {
            Touch::Nothing => {}
            Touch::Read => read_pages(at, len),
            _ => write_pages(at, len),
        }
        unmap(at, len)
    };
    let warm_up = if cycles > 8 { 8 } else { 1 };
    (0..warm_up).try_for_each(|_| cycle())?;
    let ticks = time(|| (0..cycles).try_for_each(|_| cycle()))?;
    let ops = if touch == Touch::Nothing { cycles } else { cycles * (len / PAGE) };
    sheet.write("", ops, ticks);
    Ok(())
}

/// A heap of large objects: each step puts a new mapping of 4 KiB to 256 KiB, all written to, in place of a random one.
fn churn(sheet: &Sheet) -> Outcome {
    const STEPS: usize = 4000;
    const WARM_UP: usize = 512;
    let mut random = Random::new();
    let mut slots = [(0, 0); 256];
    let mut pages = 0;
    let mut step = || {
        let slot = &mut slots[random.next() % 256];
        let len = PAGE << (random.next() % 7);
        if slot.1 != 0 {
            unmap(slot.0, slot.1)?;
        }
        *slot = (map(len, RW, Map::empty())?, len);
        write_pages(slot.0, len);
        pages += len / PAGE;
        Ok(())
    };
    (0..WARM_UP).try_for_each(|_| step())?;
    let ticks = time(|| (0..STEPS).try_for_each(|_| step()))?;
    // Subtracts the warm-up's pages, counted exactly because the sizes are random.
    let all = pages;
    let ops = all - warm_up_pages(WARM_UP);
    slots.iter().filter(|slot| slot.1 != 0).try_for_each(|&(at, len)| unmap(at, len))?;
    sheet.write("", ops, ticks);
    Ok(())
}

/// Pages that the first steps of [`churn`] map.
fn warm_up_pages(steps: usize) -> usize {
    let mut random = Random::new();
    (0..steps)
        .map(|_| {
            random.next();
            1 << (random.next() % 7)
        })
        .sum()
}

const MOST_AREAS: usize = 10_000;

struct Tables {
    at: [usize; MOST_AREAS],
    order: [u32; MOST_AREAS],
}

/// Not on the stack, and not on the heap, whose end other rows move.
static TABLES: Mutex<Tables> = Mutex::new(Tables { at: [0; MOST_AREAS], order: [0; MOST_AREAS] });

/// One-page areas of two protections in turn: made, touched in random order, unmapped in another.
fn many_areas(sheet: &Sheet, count: usize, rounds: usize) -> Outcome {
    let mut tables = TABLES.lock();
    let Tables { at, order } = &mut *tables;
    let (at, order) = (&mut at[..count], &mut order[..count]);
    let mut random = Random::new();
    let [mut create, mut fault, mut end] = [0; 3];
    for _ in 0..rounds {
        create += time(|| {
            at.iter_mut().enumerate().try_for_each(|(i, slot)| {
                *slot = map(PAGE, if i % 2 == 1 { Prot::READ } else { RW }, Map::empty())?;
                Ok(())
            })
        })?;
        random.shuffle(order);
        fault += time(|| {
            for &i in &*order {
                match i % 2 {
                    1 => read_pages(at[i as usize], PAGE),
                    _ => write_word(at[i as usize], i as usize),
                }
            }
            Ok(())
        })?;
        random.shuffle(order);
        end += time(|| order.iter().try_for_each(|&i| unmap(at[i as usize], PAGE)))?;
    }
    let names = match count {
        100 => ["vma.create.100", "vma.fault.100", "vma.unmap.100"],
        1000 => ["vma.create.1000", "vma.fault.1000", "vma.unmap.1000"],
        _ => ["vma.create.10000", "vma.fault.10000", "vma.unmap.10000"],
    };
    for (name, ticks) in names.into_iter().zip([create, fault, end]) {
        sheet.write_as(name, "", count * rounds, ticks);
    }
    Ok(())
}
