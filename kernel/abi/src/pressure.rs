//! Memory pressure: the share of time in which threads wait for memory, as `QUIRE_INFO` reports it for the machine and
//! for each control group.

use core::fmt;

use crate::layout::Pod;

/// The time during which a condition held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Share {
    /// The sum, in microseconds.
    pub total: u64,
    /// The averages over the last 10, 60 and 300 seconds, in hundredths of a percent.
    pub averages: [u32; 3],
    /// 0.
    pub pad: u32,
}

/// As in Linux's `/proc/pressure/memory`, whose format [`fmt::Display`] writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Pressure {
    /// At least one thread waits.
    pub some: Share,
    /// At least one thread waits, and no CPU runs another one.
    pub full: Share,
}

impl fmt::Display for Pressure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, share) in [("some", self.some), ("full", self.full)] {
            write!(out, "{name}")?;
            for (seconds, hundredths) in [10, 60, 300].into_iter().zip(share.averages) {
                write!(out, " avg{seconds}={}.{:02}", hundredths / 100, hundredths % 100)?;
            }
            writeln!(out, " total={}", share.total)?;
        }
        Ok(())
    }
}

/// What a program may write to a pressure file so that poll reports when a threshold is exceeded.
pub mod trigger {
    /// Shortest and longest window, in microseconds.
    pub const WINDOW: core::ops::RangeInclusive<u64> = 500_000..=10_000_000;
    /// Windows of callers other than root are multiples of this, as on Linux.
    pub const PERIOD: u64 = 2_000_000;

    /// Whether a threshold and a window, in microseconds, are valid.
    pub fn is_sound(threshold: u64, window: u64) -> bool {
        WINDOW.contains(&window) && (1..=window).contains(&threshold)
    }
}

// SAFETY: `repr(C)` records of integers; their sizes are those of their fields, so there is no padding.
unsafe impl Pod for Pressure {}
const _: () = assert!(size_of::<Pressure>() == 2 * (8 + 4 * 4));

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn it_is_written_as_linux_writes_it() {
        let share = |total, averages| Share { total, averages, pad: 0 };
        let pressure = Pressure { some: share(123_456, [10_000, 1234, 5]), full: share(7, [0, 0, 100]) };
        assert_eq!(
            pressure.to_string(),
            "some avg10=100.00 avg60=12.34 avg300=0.05 total=123456\nfull avg10=0.00 avg60=0.00 avg300=1.00 total=7\n"
        );
    }
}
