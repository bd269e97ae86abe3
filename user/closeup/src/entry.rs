//! The bits of a translation table entry in words: VMSAv8-64, stage 1 of EL1 and EL0, 4 KiB granule (Arm Architecture Reference Manual,
//! DDI 0487, D8.3), and the bits that it leaves to software, as Quire uses them ([`software`]).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use quire_abi::translation::software;

/// Bits 47 to 12: the output address.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bit 0 is clear: the MMU ignores the rest.
    Invalid,
    /// Leads to a table of the next level.
    Table,
    /// Maps the whole range of the entry.
    Block,
    /// Maps a page.
    Page,
    /// Valid, but of a form that the level does not have.
    Reserved,
}

impl Kind {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Invalid => "not valid",
            Kind::Table => "table",
            Kind::Block => "block",
            Kind::Page => "page",
            Kind::Reserved => "reserved form",
        }
    }
}

/// A field of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The manual's name.
    pub name: &'static str,
    /// Its bits, as the manual writes them.
    pub bits: &'static str,
    /// Its value.
    pub value: u64,
    /// What that means.
    pub meaning: String,
}

/// An entry at a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The word.
    pub word: u64,
    /// The level of its table, 0 to 3.
    pub level: usize,
}

impl Entry {
    /// What it is. Bit 1 tells tables from blocks; level 3 has pages, where it is 1, and levels 1 and 2 have blocks.
    pub fn kind(self) -> Kind {
        match (self.word & 3, self.level) {
            (0 | 2, _) => Kind::Invalid,
            (3, 3) => Kind::Page,
            (3, _) => Kind::Table,
            (_, 1 | 2) => Kind::Block,
            _ => Kind::Reserved,
        }
    }

    /// The next table, or the first byte of the block or page.
    pub fn address(self) -> u64 {
        self.word & ADDRESS
    }

    /// Whether a TLB may hold it: it is valid, and its access flag is set (DDI 0487, D8.5.1).
    pub fn may_be_cached(self) -> bool {
        match self.kind() {
            Kind::Table => true,
            Kind::Block | Kind::Page => self.bit(10),
            Kind::Invalid | Kind::Reserved => false,
        }
    }

    /// Whether it is in the TLB under its space's ASID only.
    pub fn is_not_global(self) -> bool {
        self.bit(11)
    }

    fn bit(self, n: u32) -> bool {
        self.word >> n & 1 != 0
    }

    fn field(self, low: u32, width: u32) -> u64 {
        self.word >> low & ((1 << width) - 1)
    }

    /// What an entry that is not valid, and not empty, is for software: the MMU looks at bit 0 alone.
    pub fn absent(self) -> &'static str {
        match self.word & software::ABSENT {
            software::SWAP => "swap (bits 3:1), the slot in bits 47:4",
            software::MIGRATION => "migration (bits 3:1), the old frame in bits 47:12",
            software::MARKER => "marker (bits 3:1), a note in bits 63:4",
            _ => "of no kind that software knows",
        }
    }

    /// Its fields in words. `mair` is MAIR_EL1, which has a byte for each AttrIndx.
    pub fn fields(self, mair: u64) -> Vec<Field> {
        match self.kind() {
            Kind::Invalid | Kind::Reserved => Vec::new(),
            Kind::Table => self.table_fields(),
            Kind::Block | Kind::Page => self.leaf_fields(mair),
        }
    }

    /// Limits of all that is below a table; those that limit nothing are left out.
    fn table_fields(self) -> Vec<Field> {
        let flag = |n: u32, name, bits, meaning: &str| {
            self.bit(n).then(|| Field { name, bits, value: 1, meaning: meaning.to_string() })
        };
        let mut fields: Vec<Field> = [
            flag(59, "PXNTable", "59", "nothing below it is executable at EL1"),
            flag(60, "UXNTable", "60", "nothing below it is executable at EL0"),
            flag(61, "APTable[0]", "61", "nothing below it is accessible at EL0"),
            flag(62, "APTable[1]", "62", "nothing below it is writable"),
        ]
        .into_iter()
        .flatten()
        .collect();
        fields.extend(flag(63, "NSTable", "63", "ignored in Non-secure state"));
        fields
    }

    fn leaf_fields(self, mair: u64) -> Vec<Field> {
        let field = |name, bits, low, width, meaning: &dyn Fn(u64) -> String| {
            let value = self.field(low, width);
            Field { name, bits, value, meaning: meaning(value) }
        };
        let either =
            |yes: &'static str, no: &'static str| move |value: u64| String::from(if value != 0 { yes } else { no });
        let mut fields = alloc::vec![
            field("AttrIndx", "4:2", 2, 3, &|index| memory_type((mair >> (8 * index)) as u8)),
            field("AP", "7:6", 6, 2, &|ap| self.permissions(ap).to_string()),
            field("SH", "9:8", 8, 2, &|sh| {
                ["not shareable", "reserved", "outer shareable", "inner shareable"][sh as usize].to_string()
            }),
            field(
                "AF",
                "10",
                10,
                1,
                &either("accessed since it was made old", "old: the first access sets the flag, or faults",)
            ),
            field("nG", "11", 11, 1, &either("for this ASID only", "global: for every ASID")),
            field("DBM", "51", 51, 1, &|dbm| self.dirty_state(dbm).to_string()),
            field("Contiguous", "52", 52, 1, &either("one of 16 entries that a TLB may hold as one", "on its own",)),
            field("PXN", "53", 53, 1, &either("EL1 may not execute", "EL1 may execute")),
            field("UXN", "54", 54, 1, &either("EL0 may not execute", "EL0 may execute")),
        ];
        fields.extend(self.software_field());
        fields
    }

    /// AP, of which the manual counts bits 2 and 1 (DDI 0487, D8.4.1).
    fn permissions(self, ap: u64) -> &'static str {
        match (ap, self.bit(51)) {
            (0, _) => "EL1 reads and writes, EL0 has no access",
            (1, _) => "EL1 and EL0 read and write",
            (2, _) => "EL1 reads, EL0 has no access",
            (_, true) => "EL1 and EL0 read; writable, see DBM",
            (_, false) => "EL1 and EL0 read",
        }
    }

    fn dirty_state(self, dbm: u64) -> &'static str {
        match (dbm, self.bit(7)) {
            (0, _) => "a write that AP does not allow faults",
            (_, true) => "writable and clean: the first write makes it writable in AP, by hardware or by a fault",
            (_, false) => "writable and dirty",
        }
    }

    /// Bits 58 to 55, which the architecture leaves to software, and 62 to 59, which it ignores while TCR_EL1.HWU* are clear.
    fn software_field(self) -> Option<Field> {
        let mut words = Vec::new();
        let flags = [(software::DIRTY, "DIRTY"), (software::SPECIAL, "SPECIAL"), (software::ANON, "ANON")];
        words.extend(flags.iter().filter(|(bit, _)| self.word & bit != 0).map(|(_, name)| name.to_string()));
        let ahead = (self.word & software::AHEAD) >> software::AHEAD_SHIFT;
        if ahead != 0 {
            words.push(format!("AHEAD {ahead}"));
        }
        let value = self.field(55, 8);
        (value != 0).then(|| Field { name: "software", bits: "62:55", value, meaning: words.join(", ") })
    }
}

/// What a bit of software in [`Field::meaning`] says, for a legend.
pub const SOFTWARE: [(&str, &str); 4] = [
    ("DIRTY", "the page was written, whatever AP says"),
    ("SPECIAL", "the entry holds no reference to its frame"),
    ("ANON", "an anonymous page: its record leads to those who may map it"),
    ("AHEAD", "pages before this one that the same fault brought in"),
];

/// The memory type that a byte of MAIR_EL1 gives (DDI 0487, MAIR_EL1).
pub fn memory_type(byte: u8) -> String {
    let text = match byte {
        0x00 => "Device-nGnRnE".to_string(),
        0x04 => "Device-nGnRE".to_string(),
        0x08 => "Device-nGRE".to_string(),
        0x0c => "Device-GRE".to_string(),
        _ if byte & 0xf0 == 0 || byte & 0x0f == 0 => "a reserved type".to_string(),
        _ => match (cacheability(byte >> 4), cacheability(byte & 0xf)) {
            (outer, inner) if outer == inner => format!("Normal memory, {outer}"),
            (outer, inner) => format!("Normal memory, outer {outer}, inner {inner}"),
        },
    };
    format!("{text} (MAIR byte {byte:#04x})")
}

fn cacheability(half: u8) -> &'static str {
    match half {
        0b0100 => "not cached",
        0b0001..=0b0011 => "write-through, transient",
        0b0101..=0b0111 => "write-back, transient",
        0b1000..=0b1011 => "write-through",
        _ => "write-back",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MAIR_EL1 as the kernel sets it.
    const MAIR: u64 = 0x04_0c_bb_44_ff_00;

    fn meaning(word: u64, level: usize, name: &str) -> String {
        let fields = Entry { word, level }.fields(MAIR);
        fields.into_iter().find(|field| field.name == name).map(|field| field.meaning).unwrap_or_default()
    }

    #[test]
    fn the_two_low_bits_and_the_level_say_what_an_entry_is() {
        let kind = |word, level| Entry { word, level }.kind();
        for level in 0..4 {
            assert_eq!((kind(0, level), kind(0x1000_0002, level)), (Kind::Invalid, Kind::Invalid));
        }
        assert_eq!([0, 1, 2, 3].map(|level| kind(3, level)), [Kind::Table, Kind::Table, Kind::Table, Kind::Page]);
        assert_eq!(
            [0, 1, 2, 3].map(|level| kind(1, level)),
            [Kind::Reserved, Kind::Block, Kind::Block, Kind::Reserved]
        );
    }

    /// A page that a program has written, as the fault path makes it.
    #[test]
    fn a_written_anonymous_page() {
        let word =
            0x0000_0000_481f_b000 | 3 | 1 << 2 | 1 << 6 | 3 << 8 | 1 << 10 | 1 << 11 | 3 << 53 | 5 << 55 | 3 << 59;
        let entry = Entry { word, level: 3 };
        assert_eq!((entry.kind(), entry.address()), (Kind::Page, 0x481f_b000));
        assert!(entry.may_be_cached() && entry.is_not_global());
        let words = |name| meaning(word, 3, name);
        assert_eq!(words("AttrIndx"), "Normal memory, write-back (MAIR byte 0xff)");
        assert_eq!(words("AP"), "EL1 and EL0 read and write");
        assert_eq!(words("SH"), "inner shareable");
        assert_eq!(words("AF"), "accessed since it was made old");
        assert_eq!(words("nG"), "for this ASID only");
        assert_eq!((words("PXN"), words("UXN")), ("EL1 may not execute".into(), "EL0 may not execute".into()));
        assert_eq!(words("software"), "DIRTY, ANON, AHEAD 3");
        assert_eq!(words("Contiguous"), "on its own");
    }

    #[test]
    fn a_clean_page_that_may_be_written() {
        let word = 3 | 3 << 6 | 1 << 51;
        assert_eq!(meaning(word, 3, "AP"), "EL1 and EL0 read; writable, see DBM");
        assert!(meaning(word, 3, "DBM").starts_with("writable and clean"));
        assert_eq!(meaning(word & !(1 << 7), 3, "DBM"), "writable and dirty");
        assert_eq!(meaning(3 | 3 << 6, 3, "AP"), "EL1 and EL0 read");
        assert!(meaning(word, 3, "AF").starts_with("old"));
        assert!(!Entry { word, level: 3 }.may_be_cached());
        assert_eq!(meaning(word, 3, "software"), "");
    }

    #[test]
    fn a_block_of_the_kernel() {
        let word = 0x4000_0000 | 1 | 1 << 2 | 3 << 8 | 1 << 10 | 3 << 53 | 1 << 52;
        let entry = Entry { word, level: 1 };
        assert_eq!((entry.kind(), entry.address(), entry.is_not_global()), (Kind::Block, 0x4000_0000, false));
        assert_eq!(meaning(word, 1, "AP"), "EL1 reads and writes, EL0 has no access");
        assert_eq!(meaning(word, 1, "nG"), "global: for every ASID");
        assert!(meaning(word, 1, "Contiguous").starts_with("one of 16"));
    }

    #[test]
    fn a_table_says_what_it_forbids() {
        assert_eq!(Entry { word: 0x1003, level: 0 }.fields(MAIR), []);
        let word = 0x1003 | 1 << 59 | 1 << 60;
        let names: Vec<_> = Entry { word, level: 1 }.fields(MAIR).into_iter().map(|field| field.name).collect();
        assert_eq!(names, ["PXNTable", "UXNTable"]);
    }

    #[test]
    fn each_memory_type_has_its_name() {
        let types = MAIR.to_le_bytes().map(memory_type);
        let wanted = [
            "Device-nGnRnE (MAIR byte 0x00)",
            "Normal memory, write-back (MAIR byte 0xff)",
            "Normal memory, not cached (MAIR byte 0x44)",
            "Normal memory, write-through (MAIR byte 0xbb)",
            "Device-GRE (MAIR byte 0x0c)",
            "Device-nGnRE (MAIR byte 0x04)",
        ];
        assert_eq!(types[..6], wanted);
        assert_eq!(memory_type(0x4f), "Normal memory, outer not cached, inner write-back (MAIR byte 0x4f)");
        assert_eq!(memory_type(0x40), "a reserved type (MAIR byte 0x40)");
    }
}
