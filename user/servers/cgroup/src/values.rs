//! The formats of numbers: pages as bytes, and `max` for no limit.

use alloc::string::String;
use core::fmt::Write;

use quire_abi::Errno;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Writes pages as bytes.
pub fn write_bytes(out: &mut String, pages: u64) {
    if pages == u64::MAX {
        out.push_str("max\n");
    } else {
        // (A string has room; if not, the server ends.)
        let _ = writeln!(out, "{}", pages.saturating_mul(PAGE));
    }
}

/// Writes a number of things.
pub fn write_count(out: &mut String, number: u64) {
    if number == u64::MAX {
        out.push_str("max\n");
    } else {
        let _ = writeln!(out, "{number}");
    }
}

/// The text without surrounding spaces and newlines. EINVAL if it is not text.
pub fn plain(text: &[u8]) -> Result<&str, Errno> {
    core::str::from_utf8(text).map(str::trim).map_err(|_| Errno::EINVAL)
}

/// The number of pages for a number of bytes, which may end in K, M, G or T, rounded down. EINVAL.
pub fn pages(text: &str) -> Result<u64, Errno> {
    let shift = match text.bytes().last() {
        Some(b'K' | b'k') => 10,
        Some(b'M' | b'm') => 20,
        Some(b'G' | b'g') => 30,
        Some(b'T' | b't') => 40,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Errno::EINVAL);
    }
    let number: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    Ok(number.checked_mul(1 << shift).map_or(u64::MAX, |bytes| bytes / PAGE))
}

/// The same for a limit, which may be `max`.
pub fn limit(text: &[u8]) -> Result<u64, Errno> {
    match plain(text)? {
        "max" => Ok(u64::MAX),
        text => pages(text),
    }
}

/// A limit for a count: a number that is not negative, or `max`. EINVAL.
pub fn count(text: &[u8]) -> Result<u64, Errno> {
    match plain(text)? {
        "max" => Ok(u64::MAX),
        text => text.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok()).ok_or(Errno::EINVAL),
    }
}

/// 0 or 1. EINVAL.
pub fn switch(text: &[u8]) -> Result<u64, Errno> {
    match plain(text)? {
        "0" => Ok(0),
        "1" => Ok(1),
        _ => Err(Errno::EINVAL),
    }
}
