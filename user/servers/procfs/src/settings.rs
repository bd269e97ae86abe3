//! Texts of /proc/sys, and the effects of writes. Settings that only root may change can only be written by root,
//! whoever has opened the file.

use core::fmt::{self, Write};

use quire_abi::Errno;
use quire_abi::flags::setting;
use quire_abi::process::limit;

use crate::change::number;
use crate::facts::{Facts, kib, text};
use crate::out::Out;

/// kernel/hostname.
pub fn hostname(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", text(&facts.uname().nodename))
}

/// Sets the name to the text's first line.
pub fn set_hostname(facts: &dyn Facts, text: &[u8]) -> Result<(), Errno> {
    facts.set_uname(first_line(text), false)
}

/// kernel/domainname.
pub fn domainname(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", text(&facts.uname().domainname))
}

/// Changes it.
pub fn set_domainname(facts: &dyn Facts, text: &[u8]) -> Result<(), Errno> {
    facts.set_uname(first_line(text), true)
}

fn first_line(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| matches!(byte, b'\n' | 0)).unwrap_or(text.len());
    &text[..end]
}

/// kernel/ostype.
pub fn ostype(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", text(&facts.uname().sysname))
}

/// kernel/osrelease.
pub fn osrelease(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", text(&facts.uname().release))
}

/// kernel/version.
pub fn version(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", text(&facts.uname().version))
}

/// kernel/pid_max.
pub fn pid_max(_: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", limit::NUMBERS)
}

/// kernel/threads-max: each thread has a number, and 0 is never used.
pub fn threads_max(_: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", limit::NUMBERS - 1)
}

/// kernel/ngroups_max.
pub fn ngroups_max(_: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", limit::GROUPS)
}

/// kernel/random/uuid: a new one for each read (RFC 9562, version 4).
pub fn uuid(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    let mut bytes = facts.random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    for (at, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&at) {
            out.write_char('-')?;
        }
        write!(out, "{byte:02x}")?;
    }
    out.write_char('\n')
}

/// fs/nr_open.
pub fn nr_open(_: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", limit::DESCRIPTORS)
}

/// fs/pipe-max-size.
pub fn pipe_max_size(_: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", limit::PIPE)
}

/// vm/max_map_count.
pub fn max_map_count(_: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", limit::AREAS)
}

/// vm/mmap_min_addr.
pub fn mmap_min_addr(_: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", limit::LOWEST)
}

/// vm/min_free_kbytes.
pub fn min_free_kbytes(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", kib(facts.zones().iter().map(|zone| zone.min).sum()))
}

/// vm/compact_memory: 1 compacts all memory.
pub fn compact_memory(facts: &dyn Facts, text: &[u8]) -> Result<(), Errno> {
    match number(text) {
        Some(1) => facts.compact(),
        _ => Err(Errno::EINVAL),
    }
}

/// vm/overcommit_memory.
pub fn overcommit_memory(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", facts.setting(setting::OVERCOMMIT_MEMORY))
}

/// Changes it.
pub fn set_overcommit_memory(facts: &dyn Facts, text: &[u8]) -> Result<(), Errno> {
    set(facts, setting::OVERCOMMIT_MEMORY, text)
}

/// vm/overcommit_ratio.
pub fn overcommit_ratio(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", facts.setting(setting::OVERCOMMIT_RATIO))
}

/// Changes it.
pub fn set_overcommit_ratio(facts: &dyn Facts, text: &[u8]) -> Result<(), Errno> {
    set(facts, setting::OVERCOMMIT_RATIO, text)
}

/// transparent_hugepage/enabled.
pub fn huge_pages(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    let now = facts.setting(setting::HUGE_PAGES) as usize;
    for (value, name) in setting::HUGE_PAGES_NAMES.iter().enumerate().rev() {
        let end = if value == 0 { "\n" } else { " " };
        if value == now { write!(out, "[{name}]{end}")? } else { write!(out, "{name}{end}")? }
    }
    Ok(())
}

/// Changes it.
pub fn set_huge_pages(facts: &dyn Facts, text: &[u8]) -> Result<(), Errno> {
    let text = text.trim_ascii();
    let value = setting::HUGE_PAGES_NAMES.iter().position(|name| name.as_bytes() == text).ok_or(Errno::EINVAL)?;
    facts.set_setting(setting::HUGE_PAGES, value as u64)
}

/// transparent_hugepage/hpage_pmd_size.
pub fn huge_page_size(_: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", 2 << 20)
}

/// vm/overcommit_kbytes.
pub fn overcommit_kbytes(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", facts.setting(setting::OVERCOMMIT_KBYTES))
}

/// Changes it.
pub fn set_overcommit_kbytes(facts: &dyn Facts, text: &[u8]) -> Result<(), Errno> {
    set(facts, setting::OVERCOMMIT_KBYTES, text)
}

fn set(facts: &dyn Facts, which: usize, text: &[u8]) -> Result<(), Errno> {
    let value = number(text).and_then(|value| u64::try_from(value).ok()).ok_or(Errno::EINVAL)?;
    facts.set_setting(which, value)
}
