//! What the heap looks like in numbers and in a picture: `mallinfo2`, `malloc_stats`, `malloc_info`, and a map of an
//! arena for the shell.

use core::fmt::{self, Write};
use core::sync::atomic::Ordering::Relaxed;

use crate::bins::MAX_SMALL;
use crate::walk::{Kind, Totals};
use crate::{Malloc, System};

/// What C's `mallinfo2` answers, in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Mallinfo {
    /// Bytes that the arenas got from the system.
    pub arena: usize,
    /// Free chunks in bins, the top chunks among them.
    pub ordblks: usize,
    /// Chunks in caches and fast bins.
    pub smblks: usize,
    /// Mappings.
    pub hblks: usize,
    /// Bytes in mappings.
    pub hblkhd: usize,
    /// Unused, as in glibc.
    pub usmblks: usize,
    /// Bytes in caches and fast bins.
    pub fsmblks: usize,
    /// Bytes that programs hold in arenas.
    pub uordblks: usize,
    /// Bytes free in arenas.
    pub fordblks: usize,
    /// Bytes of the first arena's top chunk.
    pub keepcost: usize,
}

impl<S: System> Malloc<S> {
    fn totals(&self) -> impl Iterator<Item = Totals> {
        self.arena_list().map(|arena| {
            let sums = self.at_rest(arena, |state| state.totals(self.secret()));
            sums.unwrap_or_default()
        })
    }

    /// Counts the heap. (glibc's counts a thread cache's chunks as used; here they are with the fast bins'.)
    pub fn info(&self) -> Mallinfo {
        let mut info = Mallinfo { hblks: self.mappings.count.load(Relaxed), ..Mallinfo::default() };
        info.hblkhd = self.mappings.bytes.load(Relaxed);
        for (i, t) in self.totals().enumerate() {
            info.arena += t.system.0;
            info.ordblks += t.free.0 + usize::from(t.top > 0);
            info.smblks += t.cached.0;
            info.fsmblks += t.cached.1;
            info.uordblks += t.used.1;
            info.fordblks += t.free.1 + t.cached.1 + t.top;
            if i == 0 {
                info.keepcost = t.top;
            }
        }
        info
    }

    /// Writes what C's `malloc_stats` prints.
    pub fn write_stats(&self, out: &mut dyn Write) -> fmt::Result {
        let (mut system, mut used) = (0, 0);
        for (i, t) in self.totals().enumerate() {
            let free = t.free.1 + t.cached.1 + t.top;
            writeln!(out, "Arena {i}:")?;
            writeln!(out, "system bytes     = {:>10}", t.system.0)?;
            writeln!(out, "in use bytes     = {:>10}", t.used.1)?;
            writeln!(out, "free bytes       = {free:>10}")?;
            system += t.system.0;
            used += t.used.1;
        }
        let mapped = self.mappings.bytes.load(Relaxed);
        writeln!(out, "Total (incl. mmap):")?;
        writeln!(out, "system bytes     = {:>10}", system + mapped)?;
        writeln!(out, "in use bytes     = {:>10}", used + mapped)?;
        writeln!(out, "max mmap regions = {:>10}", self.mappings.max_count.load(Relaxed))?;
        writeln!(out, "max mmap bytes   = {:>10}", self.mappings.max_bytes.load(Relaxed))
    }

    /// Writes what C's `malloc_info` prints: the heaps as XML, by arena and by chunk size.
    pub fn write_xml(&self, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "<malloc version=\"1\">")?;
        let mut sum = Totals::default();
        for (i, arena) in self.arena_list().enumerate() {
            let mut sizes = Sizes::default();
            let sums = self.at_rest(arena, |state| {
                // A damaged region ends the list early; the sums then say so by not adding up.
                let _ = state.walk(self.secret(), &mut |seen| sizes.add(seen.size, seen.kind));
                state.totals(self.secret())
            });
            let t = sums.unwrap_or_default();
            writeln!(out, "<heap nr=\"{i}\">\n<sizes>")?;
            sizes.write(out)?;
            writeln!(out, "</sizes>")?;
            write_sums(out, t)?;
            writeln!(out, "</heap>")?;
            sum = sum.plus(t);
        }
        write_sums(out, sum)?;
        let (count, bytes) = (self.mappings.count.load(Relaxed), self.mappings.bytes.load(Relaxed));
        writeln!(out, "<total type=\"mmap\" count=\"{count}\" size=\"{bytes}\"/>\n</malloc>")
    }

    /// Draws an arena on one screen: one character for each of up to 1,024 equal parts of its newest region, `#` for
    /// used, `c` for cached, `.` for free, `_` for the top chunk, `+` for a mixture.
    pub fn write_picture(&self, arena: usize, out: &mut dyn Write) -> fmt::Result {
        const PARTS: usize = 1024;
        const COLUMNS: usize = 64;
        let Some(arena) = self.arena_list().nth(arena) else { return writeln!(out, "no such arena") };
        let mut picture = [b' '; PARTS];
        let drawn = self.at_rest(arena, |state| {
            let Some((first, end)) = state.newest_region() else { return (0, 0) };
            let part = (end - first).div_ceil(PARTS).next_multiple_of(16).max(16);
            let _ = state.walk(self.secret(), &mut |seen| {
                // The chunk's header lies in front of its block; a region's first one does not show.
                if (first..end).contains(&seen.at) {
                    let last = (seen.at + seen.size.max(1) - 1 - first) / part;
                    for cell in &mut picture[(seen.at - first) / part..=last.min(PARTS - 1)] {
                        let sign = sign_of(seen.kind);
                        *cell = if *cell == b' ' || *cell == sign { sign } else { b'+' };
                    }
                }
            });
            (first, part)
        });
        let (first, part) = drawn.unwrap_or_default();
        writeln!(out, "{part} bytes a sign from {first:#x}: # used, c cached, . free, _ top, + mixed")?;
        for line in picture.chunks(COLUMNS) {
            let line = line.trim_ascii_end();
            if !line.is_empty() {
                line.iter().try_for_each(|c| out.write_char(char::from(*c)))?;
                out.write_char('\n')?;
            }
        }
        Ok(())
    }
}

fn sign_of(kind: Kind) -> u8 {
    match kind {
        Kind::Used => b'#',
        Kind::Cached => b'c',
        Kind::Free => b'.',
        Kind::Top => b'_',
        Kind::Fence => b'#',
    }
}

fn write_sums(out: &mut dyn Write, t: Totals) -> fmt::Result {
    writeln!(out, "<total type=\"fast\" count=\"{}\" size=\"{}\"/>", t.cached.0, t.cached.1)?;
    writeln!(out, "<total type=\"rest\" count=\"{}\" size=\"{}\"/>", t.free.0 + 1, t.free.1 + t.top)?;
    writeln!(out, "<system type=\"current\" size=\"{}\"/>", t.system.0)?;
    writeln!(out, "<system type=\"max\" size=\"{}\"/>", t.system.1)
}

/// Free and cached chunks by size: one row for each small size, one for each power of two above.
struct Sizes {
    rows: [(usize, usize); MAX_SMALL / 16 + 1 + 64],
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes { rows: [(0, 0); MAX_SMALL / 16 + 1 + 64] }
    }
}

impl Sizes {
    fn add(&mut self, size: usize, kind: Kind) {
        if matches!(kind, Kind::Free | Kind::Cached) {
            let row = if size <= MAX_SMALL { size / 16 } else { MAX_SMALL / 16 + 1 + size.ilog2() as usize };
            self.rows[row].0 += 1;
            self.rows[row].1 += size;
        }
    }

    fn write(&self, out: &mut dyn Write) -> fmt::Result {
        for (row, (count, total)) in self.rows.iter().enumerate().filter(|(_, r)| r.0 > 0) {
            let (from, to) = match row.checked_sub(MAX_SMALL / 16 + 1) {
                None => (row * 16, row * 16),
                Some(k) => ((1 << k).max(MAX_SMALL + 16), (1usize << k) * 2 - 16),
            };
            writeln!(out, "<size from=\"{from}\" to=\"{to}\" total=\"{total}\" count=\"{count}\"/>")?;
        }
        Ok(())
    }
}
