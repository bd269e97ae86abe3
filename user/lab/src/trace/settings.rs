//! Settings: the parameters of a trace.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::units;

/// The unit of a setting's values.
#[derive(Clone, Copy)]
enum Unit {
    Size,
    Time,
    Number,
}

/// The description of a setting: unit, inclusive range and maximum number of values.
struct Form {
    name: &'static str,
    unit: Unit,
    least: u64,
    most: u64,
    values: usize,
    meaning: &'static str,
}

macro_rules! settings {
    ($($setting:ident $name:literal $unit:ident $least:literal..$most:literal, $values:literal $meaning:literal;)*) => {
        /// A setting. `lab settings` shows them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Setting {
            $(#[doc = $meaning] $setting,)*
        }

        impl Setting {
            /// All of them.
            pub const ALL: &'static [Setting] = &[$(Setting::$setting),*];

            fn form(self) -> Form {
                match self {
                    $(Setting::$setting => Form {
                        name: $name, unit: Unit::$unit, least: $least, most: $most, values: $values, meaning: $meaning,
                    },)*
                }
            }
        }
    };
}

settings! {
    Memory "memory" Size 1..0x100_0000_0000, 1 "the size of memory";
    Partitions "partitions" Size 1..0x1_0000_0000, 64 "the sizes of the partitions; the initial holes for fits and segments";
    Page "page" Size 1..0x100_0000, 1 "the size of a page (4K)";
    Least "least" Size 1..0x100_0000, 1 "the smallest block of the buddy system (1)";
    Quick "quick" Size 1..0x1_0000_0000, 8 "the sizes of quick fit's lists (the most frequent ones)";
    Frames "frames" Number 1..256, 1 "the number of frames for page replacement (3)";
    Ram "ram" Number 16..20_000, 1 "the frames of memory for patterns (512)";
    Tenths "tenths" Number 1..100, 1 "the size of a pattern's set, in tenths of memory (15; 4 for scan)";
    Store "store" Number 0..99, 1 "what a page takes in a compressed store in memory, in percent; 0 for a disk (0)";
    Window "window" Number 1..10_000, 1 "the window of the working set, in references (4)";
    Moments "moments" Number 1..10_000, 16 "the references after which the working set is listed";
    Tick "tick" Number 1..10_000, 1 "the references between two ticks, which clear reference bits (4)";
    Tlb "tlb" Number 1..1024, 8 "the sizes of the TLBs to compare, in entries (4 8 16)";
    Levels "levels" Number 1..36, 6 "the bits of each level's index, then those of the offset (9 9 9 9 12)";
    Entry "entry" Size 1..64, 1 "the size of a page table entry (8)";
    Lookup "lookup" Time 0..1_000_000, 1 "the time of a TLB lookup (1ns)";
    Cycle "cycle" Time 1..1_000_000, 1 "the time of an access to memory (100ns)";
    Ratios "ratios" Number 0..100, 8 "TLB hit ratios in percent, to compute access times without references";
    Service "service" Time 1..100_000_000_000, 1 "the time to serve a page fault";
    Every "every" Number 1..1_000_000_000, 1 "the number of accesses per page fault";
    Banks "banks" Number 1..64, 1 "DRAM: the number of banks (4)";
    Row "row" Size 1..0x100_0000, 1 "DRAM: the size of a row (1K)";
    Line "line" Size 1..0x10000, 1 "DRAM: the bytes of one access (64)";
    Cas "cas" Time 1..1_000_000, 1 "DRAM: column access, tCAS (14ns)";
    Rcd "rcd" Time 1..1_000_000, 1 "DRAM: opening a row, tRCD (14ns)";
    Rp "rp" Time 1..1_000_000, 1 "DRAM: closing a row, tRP (14ns)";
    Rate "rate" Size 1..0x100_0000_0000, 1 "the transfer rate of the disk, per second (40M)";
    Latency "latency" Time 0..1_000_000_000, 1 "the latency of the disk (8ms)";
}

impl Setting {
    /// Its name in a trace.
    pub fn name(self) -> &'static str {
        self.form().name
    }

    /// Its meaning, and its default.
    pub fn meaning(self) -> &'static str {
        self.form().meaning
    }

    /// The setting of this name.
    pub fn named(name: &str) -> Option<Setting> {
        Setting::ALL.iter().copied().find(|setting| setting.name() == name)
    }
}

/// The settings of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<Setting, Vec<u64>>);

impl Settings {
    /// Parses the values of a setting and sets it.
    pub fn set<'a>(&mut self, setting: Setting, words: impl Iterator<Item = &'a str>) -> Result<(), String> {
        let Form { name, unit, least, most, values, .. } = setting.form();
        let mut read = Vec::new();
        for word in words {
            let value = match unit {
                Unit::Size => units::size(word),
                Unit::Time => units::time(word),
                Unit::Number => units::number(word),
            }?;
            if !(least..=most).contains(&value) {
                return Err(format!("{name} must be between {least} and {most}, not {word}"));
            }
            read.push(value);
        }
        if read.is_empty() || read.len() > values {
            let many = if values == 1 { "one value".into() } else { format!("one to {values} values") };
            return Err(format!("{name} needs {many}"));
        }
        self.0.insert(setting, read);
        Ok(())
    }

    /// The values of a setting, if it is set.
    pub fn list(&self, setting: Setting) -> Option<&[u64]> {
        self.0.get(&setting).map(Vec::as_slice)
    }

    /// The value of a setting, if it is set.
    pub fn get(&self, setting: Setting) -> Option<u64> {
        self.list(setting)?.first().copied()
    }

    /// The value of a setting, or a default.
    pub fn or(&self, setting: Setting, default: u64) -> u64 {
        self.get(setting).unwrap_or(default)
    }

    /// The size of a page.
    pub fn page(&self) -> u64 {
        self.or(Setting::Page, 4096)
    }

    /// The size of memory: `memory`, or the sum of `partitions`.
    pub fn memory(&self) -> Option<u64> {
        self.get(Setting::Memory).or_else(|| Some(self.list(Setting::Partitions)?.iter().sum()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        let mut settings = Settings::default();
        let mut set = |name: &str, words: &str| {
            settings.set(Setting::named(name).unwrap(), words.split_whitespace()).map_err(|error| error.to_string())
        };
        assert_eq!(set("partitions", "100K 500K"), Ok(()));
        assert_eq!(set("service", "8ms"), Ok(()));
        for (name, words) in
            [("frames", "0"), ("frames", "257"), ("frames", ""), ("frames", "3 4"), ("cycle", "3"), ("page", "x")]
        {
            assert!(set(name, words).is_err(), "{name} {words}");
        }
        assert_eq!(settings.memory(), Some(600 << 10));
        assert_eq!(settings.get(Setting::Service), Some(8_000_000));
    }

    #[test]
    fn names_are_unique() {
        for setting in Setting::ALL {
            assert_eq!(Setting::named(setting.name()), Some(*setting));
        }
    }
}
