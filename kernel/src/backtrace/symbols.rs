//! Names of kernel functions, for backtraces: the file `/boot/kernel.sym` of the boot archive.
//!
//! Little-endian: magic "QSYM", count, then for each function its offset from the image's start and that of its
//! NUL-terminated name from the file's start, by ascending address.

use core::fmt;

use spin::Once;

static TABLE: Once<&'static [u8]> = Once::new();

const MAGIC: u32 = u32::from_le_bytes(*b"QSYM");
const HEADER: usize = 8;

/// Uses the file if it is valid; returns the number of names.
pub fn init(file: &'static [u8]) -> usize {
    let (Some(MAGIC), Some(count)) = (word(file, 0), word(file, 4)) else { return 0 };
    let count = count as usize;
    if file.len() < HEADER + count.saturating_mul(8) {
        return 0;
    }
    TABLE.call_once(|| file);
    count
}

fn word(file: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?))
}

/// Displays an address of kernel code, with its function's name if that is known.
pub struct Named(pub usize);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        unsafe extern "C" {
            static __image_start: u8;
        }
        write!(f, "{:#x}", self.0)?;
        let offset = self.0.wrapping_sub((&raw const __image_start).addr());
        match lookup(offset) {
            Some((name, into)) if offset < 1 << 30 => write!(f, " {name}+{into:#x}"),
            _ => Ok(()),
        }
    }
}

/// The function that contains `offset` (from the image's start), and the offset within it. O(log n).
fn lookup(offset: usize) -> Option<(&'static str, usize)> {
    let file = *TABLE.get()?;
    let count = word(file, 4)? as usize;
    let start = |i: usize| word(file, HEADER + i * 8).map_or(usize::MAX, |w| w as usize);
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = (low + high) / 2;
        if start(middle) <= offset { low = middle + 1 } else { high = middle }
    }
    let index = low.checked_sub(1)?;
    let name = word(file, HEADER + index * 8 + 4)? as usize;
    let text = file.get(name..)?;
    let text = text.split(|&b| b == 0).next()?;
    Some((core::str::from_utf8(text).ok()?, offset - start(index)))
}
