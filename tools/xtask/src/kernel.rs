//! Derived from the kernel's ELF file: the raw image that boots, and the symbols for its backtraces.

use anyhow::{Context, Result, bail, ensure};
use object::elf::PT_LOAD;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{LittleEndian, Object, ObjectSymbol, SymbolKind};

/// The first word of the symbol file, "QSYM" in memory.
const SYMBOLS_MAGIC: u32 = 0x4d59_5351;

/// A larger image means a mistake in the linker script.
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

/// The symbol table for the kernel's backtraces: the functions, sorted by address.
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

#[cfg(test)]
mod tests {
    use super::*;
    use object::write::{Object as Writer, StandardSection, Symbol, SymbolSection};
    use object::{Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolScope};

    /// An ELF file of program headers alone: kind, physical address, bytes, size in memory.
    fn program(segments: &[(u32, u64, &[u8], u64)]) -> Vec<u8> {
        let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        elf.extend_from_slice(&2u16.to_le_bytes());
        elf.extend_from_slice(&183u16.to_le_bytes());
        elf.extend_from_slice(&1u32.to_le_bytes());
        elf.extend_from_slice(&[0u64, 64, 0].map(u64::to_le_bytes).concat());
        elf.extend_from_slice(&0u32.to_le_bytes());
        let count = segments.len() as u16;
        elf.extend_from_slice(&[64u16, 56, count, 64, 0, 0].map(u16::to_le_bytes).concat());
        let mut data_at = 64 + 56 * segments.len() as u64;
        for &(kind, at, data, memory) in segments {
            elf.extend_from_slice(&[kind, 5].map(u32::to_le_bytes).concat());
            let fields = [data_at, at | 0xffff_0000_0000_0000, at, data.len() as u64, memory, 4096];
            elf.extend_from_slice(&fields.map(u64::to_le_bytes).concat());
            data_at += data.len() as u64;
        }
        for (_, _, data, _) in segments {
            elf.extend_from_slice(data);
        }
        elf
    }

    #[test]
    fn an_image_has_each_segment_at_its_physical_place() {
        let text: &[u8] = b"text";
        let elf =
            program(&[(1, 0x81000, b"data", 4), (1, 0x80000, text, 4), (4, 0, b"note", 4), (1, 0x82000, b"", 99)]);
        let image = raw_image(&elf).unwrap();
        assert_eq!(image.len(), 0x1004);
        assert_eq!((&image[..4], &image[0x1000..]), (&b"text"[..], &b"data"[..]));
        assert!(image[4..0x1000].iter().all(|&b| b == 0));
    }

    #[test]
    fn an_image_that_cannot_be_is_an_error() {
        assert!(raw_image(b"no ELF file").is_err());
        assert!(raw_image(&program(&[])).is_err());
        assert!(raw_image(&program(&[(1, 0, b"low", 3), (1, 0xffff_8000_0000, b"high", 4)])).is_err());
    }

    #[test]
    fn symbols_are_the_functions_by_address() {
        let mut object = Writer::new(BinaryFormat::Elf, Architecture::Aarch64, Endianness::Little);
        let text = object.section_id(StandardSection::Text);
        object.append_section_data(text, &[0; 0x100], 4);
        let mut add = |name: &str, value, kind| {
            let (name, section) = (name.as_bytes().to_vec(), SymbolSection::Section(text));
            let (scope, flags) = (SymbolScope::Linkage, SymbolFlags::None);
            object.add_symbol(Symbol { name, value, size: 4, kind, scope, weak: false, section, flags });
        };
        add("_ZN12quire_kernel4boot5start17h0123456789abcdefE", 0x40, SymbolKind::Text);
        add("first", 0x10, SymbolKind::Text);
        add("before", 0x4, SymbolKind::Text);
        add("data", 0x20, SymbolKind::Data);
        add("__image_start", 0x8, SymbolKind::Label);

        let file = symbol_file(&object.write().unwrap()).unwrap();
        let word = |i: usize| u32::from_le_bytes(file[i * 4..i * 4 + 4].try_into().unwrap());
        let name = |i: usize| file[word(i) as usize..].split(|&b| b == 0).next().unwrap();
        assert_eq!(&file[..4], b"QSYM");
        assert_eq!((word(1), word(2), word(4)), (2, 0x8, 0x38));
        assert_eq!((name(3), name(5)), (&b"first"[..], &b"quire_kernel::boot::start"[..]));
    }
}
