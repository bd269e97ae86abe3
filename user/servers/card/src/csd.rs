//! The register in which a card describes itself (CSD).

/// A CSD in the controller's format: without the checksum, the lowest word first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Csd(pub [u32; 4]);

/// Bytes of a sector.
const SECTOR: u64 = 512;

impl Csd {
    /// The bits from `low` on, with the specification's numbers.
    fn bits(self, low: u32, count: u32) -> u64 {
        // (The lowest eight, the checksum, are missing.)
        let all = self.0.iter().rev().fold(0u128, |all, word| all << 32 | u128::from(*word));
        (all >> (low - 8)) as u64 & ((1 << count) - 1)
    }

    /// The number of the card's sectors; `None` if the structure is unknown.
    pub fn sectors(self) -> Option<u64> {
        match self.bits(126, 2) {
            0 => {
                let (len, size, factor) = (self.bits(80, 4), self.bits(62, 12), self.bits(47, 3));
                Some(((size + 1) << (factor + 2) << len) / SECTOR)
            }
            1 => Some((self.bits(48, 22) + 1) << 10),
            _ => None,
        }
    }

    /// Whether it supports switching functions (class 10): it may support high speed.
    pub fn can_switch(self) -> bool {
        self.bits(84, 12) & 1 << 10 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CSD with these values at these bits.
    fn csd(fields: &[(u32, u64)]) -> Csd {
        let all = fields.iter().fold(0u128, |all, (low, value)| all | u128::from(*value) << (low - 8));
        Csd([0, 32, 64, 96].map(|low| (all >> low) as u32))
    }

    #[test]
    fn sizes_of_both_structures() {
        // 1 GiB: 2⁹ bytes in a block, (4095 + 1) × 2⁹ blocks, as in QEMU: 4096 × 512 × 512.
        assert_eq!(csd(&[(80, 9), (62, 4095), (47, 7)]).sectors(), Some(4096 << 9));
        assert_eq!(csd(&[(126, 1), (48, 15_159)]).sectors(), Some(15_160 << 10));
        assert_eq!(csd(&[(126, 3)]).sectors(), None);
        assert!(csd(&[(84, 0x5b5)]).can_switch() && !csd(&[(84, 0x1b5)]).can_switch());
    }
}
