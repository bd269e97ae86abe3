//! What is made of the kernel's ELF file: the raw image that boots, and the symbols for its backtraces.

use anyhow::{Context, Result, bail, ensure};
use object::elf::PT_LOAD;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{LittleEndian, Object, ObjectSymbol, SymbolKind};

/// The first word of the symbol file, "QSYM" in memory.
const SYMBOLS_MAGIC: u32 = 0x4d59_5351;

/// An image larger than this is a linker script gone wrong, not a kernel.
const IMAGE_LIMIT: u64 = 64 << 20;

/// Copies the loadable segments to their physical places, counted from the lowest one's.
///
/// Memory that a segment has beyond its file size (.bss) is not in the image; the kernel clears it itself.
pub fn raw_image(elf: &[u8]) -> Result<Vec<u8>> {
    let file: ElfFile64<LittleEndian> = ElfFile64::parse(elf).context("reading the kernel's ELF file")?;
    let endian = file.endian();
    let mut segments = Vec::new();
    for header in file.elf_program_headers() {
        if header.p_type(endian) == PT_LOAD && header.p_filesz(endian) > 0 {
            let Ok(data) = header.data(endian, elf) else { bail!("a segment lies outside the kernel's file") };
            segments.push((header.p_paddr(endian), data));
        }
    }
    let Some(base) = segments.iter().map(|&(at, _)| at).min() else { bail!("the kernel has nothing to load") };
    let mut image = Vec::new();
    for (at, data) in segments {
        let start = at - base;
        ensure!(start + (data.len() as u64) < IMAGE_LIMIT, "the kernel's segments are further apart than 64 MiB");
        let (start, end) = (start as usize, start as usize + data.len());
        if image.len() < end {
            image.resize(end, 0);
        }
        image[start..end].copy_from_slice(data);
    }
    Ok(image)
}

/// The table that the kernel's backtraces are read with: the functions, sorted by address.
///
/// All numbers are little-endian u32: the magic, the number of functions, then for each function its offset
/// from the symbol `__image_start` and the offset of its NUL-terminated name from the start of the file.
pub fn symbol_file(elf: &[u8]) -> Result<Vec<u8>> {
    let file: ElfFile64<LittleEndian> = ElfFile64::parse(elf).context("reading the kernel's ELF file")?;
    let start = file.symbol_by_name("__image_start").context("the kernel has no symbol __image_start")?.address();
    let mut functions = Vec::new();
    for symbol in file.symbols().filter(|s| s.kind() == SymbolKind::Text && s.is_definition()) {
        let Some(offset) = symbol.address().checked_sub(start).and_then(|o| u32::try_from(o).ok()) else { continue };
        functions.push((offset, format!("{:#}", rustc_demangle::demangle(symbol.name()?))));
    }
    functions.sort();
    // Functions with the same code share an address; one name is enough.
    functions.dedup_by_key(|&mut (offset, _)| offset);

    let mut table = Vec::new();
    let mut names = Vec::new();
    table.extend_from_slice(&SYMBOLS_MAGIC.to_le_bytes());
    table.extend_from_slice(&u32::try_from(functions.len())?.to_le_bytes());
    let names_at = table.len() + functions.len() * 8;
    for (offset, name) in functions {
        table.extend_from_slice(&offset.to_le_bytes());
        table.extend_from_slice(&u32::try_from(names_at + names.len())?.to_le_bytes());
        names.extend_from_slice(name.as_bytes());
        names.push(0);
    }
    table.append(&mut names);
    Ok(table)
}
