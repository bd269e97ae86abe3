//! Sizes, times and averages: their notation in traces and in reports.
//!
//! All values are exact: bytes, nanoseconds, and fractions of two whole numbers. Rounding happens only when a report is
//! printed.

use alloc::format;
use alloc::string::String;
use core::fmt;

/// The largest size, address or time in a trace. Sums over a whole trace fit in 64 bits.
pub const LARGEST: u64 = 1 << 40;

const SIZES: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];
const TIMES: [(&str, u64); 4] = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];

/// A plain number, decimal or hexadecimal.
pub fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        // The standard library also accepts a sign.
        Some(digits) if digits.starts_with('+') => None,
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.starts_with('+') => None,
        None => text.parse().ok(),
    };
    match parsed {
        Some(number) if number <= LARGEST => Ok(number),
        Some(_) => Err(format!("'{text}' exceeds the maximum of {LARGEST}")),
        None => Err(format!("'{text}' is not a number such as 12 or 0x1f")),
    }
}

/// A size in bytes: a number with an optional suffix K, M, G or T.
pub fn size(text: &str) -> Result<u64, String> {
    let unit = SIZES.iter().find_map(|&(letter, shift)| Some((text.strip_suffix(letter)?, shift)));
    let Some((digits, shift)) = unit else {
        return number(text);
    };
    let bytes = number(digits)?.checked_mul(1 << shift).filter(|&bytes| bytes <= LARGEST);
    bytes.ok_or_else(|| format!("'{text}' exceeds the maximum of 1T"))
}

/// A time in nanoseconds: a number with the suffix ns, us, ms or s.
pub fn time(text: &str) -> Result<u64, String> {
    let (digits, unit) = TIMES
        .iter()
        .find_map(|&(unit, ns)| Some((text.strip_suffix(unit).filter(|d| d.parse::<u64>().is_ok())?, ns)))
        .ok_or_else(|| format!("'{text}' is not a time such as 100ns, 3us, 8ms or 1s"))?;
    let ns = number(digits)?.checked_mul(unit).filter(|&ns| ns <= LARGEST);
    ns.ok_or_else(|| format!("'{text}' exceeds the maximum of {LARGEST} ns"))
}

/// Displays a size in the largest unit that divides it: `1536K`, `2M`, `100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZES.iter().find(|(_, shift)| self.0 > 0 && self.0.is_multiple_of(1 << shift));
        match unit {
            Some(&(letter, shift)) => f.pad(&format!("{}{letter}", self.0 >> shift)),
            None => f.pad(&format!("{}", self.0)),
        }
    }
}

/// A fraction, displayed with up to two decimals. A denominator of 0 gives 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    /// The numerator.
    pub over: u128,
    /// The denominator.
    pub under: u128,
}

impl Ratio {
    /// `over` divided by `under`.
    pub fn new(over: u64, under: u64) -> Ratio {
        Ratio { over: over.into(), under: under.into() }
    }

    /// The fraction in percent.
    pub fn percent(self) -> Ratio {
        Ratio { over: self.over.saturating_mul(100), ..self }
    }

    /// Hundredths, rounded to the nearest.
    pub fn hundredths(self) -> u128 {
        self.over.saturating_mul(100).saturating_add(self.under / 2).checked_div(self.under).unwrap_or(0)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = self.hundredths();
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        f.pad(&match (rest, rest % 10) {
            (0, _) => format!("{whole}"),
            (_, 0) => format!("{whole}.{}", rest / 10),
            _ => format!("{whole}.{rest:02}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in [("0", 0), ("100", 100), ("212K", 212 << 10), ("0x40", 64), ("1T", 1 << 40)] {
            assert_eq!(size(text), Ok(bytes));
        }
        for wrong in ["", "K", "-1", "+1", "0x+1", "1.5K", "2T", "99999999999999999999", "1KB", "18446744073709551615G"]
        {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Size(1536 << 10).to_string(), "1536K");
        assert_eq!(format!("{:>5}|{:>4}", Size(2 << 20), Size(0)), "   2M|   0");
    }

    #[test]
    fn times_have_a_unit() {
        for (text, ns) in [("100ns", 100), ("8ms", 8_000_000), ("3us", 3_000), ("1s", 1_000_000_000)] {
            assert_eq!(time(text), Ok(ns));
        }
        for wrong in ["100", "ms", "1h", "-1ms", "99999999s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fractions_round_once() {
        let shown = |over, under| Ratio::new(over, under).to_string();
        assert_eq!(
            [shown(81998, 10), shown(1, 3), shown(2, 3), shown(7, 1), shown(1, 20)].join(" "),
            "8199.8 0.33 0.67 7 0.05"
        );
        assert_eq!(shown(0, 0), "0");
        assert_eq!(Ratio::new(1, 8).percent().to_string(), "12.5");
    }
}
