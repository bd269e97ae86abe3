//! Rows about touches alone, of 64 MiB that are mapped before, and about taking pages away.

use quire_rt::abi::flags::{Map, madv};
use quire_rt::abi::nr;
use quire_rt::sync::Mutex;

use crate::measure::{
    MIB, Outcome, PAGE, Pages, RW, Random, Sheet, area, call, read_pages, time, unmap, write_pages, write_word,
};
use crate::{Row, row};

pub const ROWS: &[Row] = &[
    row("fault.write", |sheet| touched(sheet, Pages::Base, nothing, write_all)),
    row("fault.write_huge", |sheet| touched(sheet, Pages::Default, nothing, write_all)),
    row("fault.write_random", |sheet| {
        Random::new().shuffle(&mut *ORDER.lock());
        touched(sheet, Pages::Base, nothing, |at| {
            let order = ORDER.lock();
            order.iter().for_each(|&page| write_word(at + page as usize * PAGE, page as usize));
            Ok(())
        })
    }),
    row("fault.read_zero", |sheet| touched(sheet, Pages::Base, nothing, read_all)),
    row("fault.write_after_read", |sheet| touched(sheet, Pages::Base, read_all, write_all)),
    row("fault.unmap", |sheet| touched(sheet, Pages::Base, write_all, |at| unmap(at, LEN))),
    row("fault.unmap_huge", |sheet| touched(sheet, Pages::Default, write_all, |at| unmap(at, LEN))),
    row("fault.none", |sheet| touched(sheet, Pages::Base, write_all, write_all)),
    row("fault.shared_anon", shared),
    row("madvise.drop.1M", |sheet| dropped(sheet, Part::Drop)),
    row("madvise.refault.1M", |sheet| dropped(sheet, Part::Refault)),
    row("madvise.drop_none.1M", |sheet| dropped(sheet, Part::DropNothing)),
];

const LEN: usize = 64 * MIB;
const ROUNDS: usize = 2;

static ORDER: Mutex<[u32; LEN / PAGE]> = Mutex::new([0; LEN / PAGE]);

fn nothing(_: usize) -> Outcome {
    Ok(())
}

fn write_all(at: usize) -> Outcome {
    write_pages(at, LEN);
    Ok(())
}

fn read_all(at: usize) -> Outcome {
    read_pages(at, LEN);
    Ok(())
}

/// Maps, prepares, and measures what is done then.
fn touched(sheet: &Sheet, pages: Pages, prepare: fn(usize) -> Outcome, work: impl Fn(usize) -> Outcome) -> Outcome {
    let mut ticks = 0;
    for _ in 0..ROUNDS {
        let at = area(LEN, pages)?;
        prepare(at)?;
        ticks += time(|| work(at))?;
        // If the measured work has unmapped the area already, this does nothing and is no error.
        unmap(at, LEN)?;
    }
    sheet.write("", ROUNDS * LEN / PAGE, ticks);
    Ok(())
}

fn shared(sheet: &Sheet) -> Outcome {
    let mut ticks = 0;
    for _ in 0..ROUNDS {
        let flags = Map::SHARED | Map::ANONYMOUS;
        let at = call(nr::MMAP, [0, LEN, RW.bits() as usize, flags.bits() as usize, usize::MAX, 0])?;
        ticks += time(|| write_all(at))?;
        unmap(at, LEN)?;
    }
    sheet.write("", ROUNDS * LEN / PAGE, ticks);
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Drop,
    Refault,
    DropNothing,
}

/// MADV_DONTNEED of 1 MiB, over and over.
fn dropped(sheet: &Sheet, part: Part) -> Outcome {
    const TIMES: usize = 200;
    let drop_all = |at| call(nr::MADVISE, [at, MIB, madv::DONTNEED as usize]).map(drop);
    let at = area(MIB, Pages::Base)?;
    write_pages(at, MIB);
    drop_all(at)?;
    let [mut touch_ticks, mut drop_ticks] = [0; 2];
    for _ in 0..TIMES {
        if part != Part::DropNothing {
            touch_ticks += time(|| {
                write_pages(at, MIB);
                Ok(())
            })?;
        }
        drop_ticks += time(|| drop_all(at))?;
    }
    match part {
        Part::Drop => sheet.write("", TIMES * MIB / PAGE, drop_ticks),
        Part::Refault => sheet.write("", TIMES * MIB / PAGE, touch_ticks),
        Part::DropNothing => sheet.write("", TIMES, drop_ticks),
    }
    unmap(at, MIB)
}
