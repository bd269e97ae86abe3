//! The limits of a shell's programs, which have a control group together: a text that people can read, and what it comes to on a machine.
//!
//! On each line the name of a file of the group, and a limit: a number (bytes end in K, M or G), or a part of what the machine has in percent, and
//! then perhaps one for so many bytes of memory, if that is less. `#` begins a comment.

use alloc::vec::Vec;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// `pids.max`: processes and threads.
    Tasks,
    /// `memory.max`, in bytes.
    Memory,
    /// `memory.high`, in bytes.
    MemoryHigh,
}

/// What the machine has.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Numbers of processes and threads.
    pub numbers: u64,
    /// Bytes of memory.
    pub memory: u64,
}

/// The limits that a text asks for; the first line that makes no sense is an error.
pub fn parse(text: &[u8], machine: Machine) -> Result<Vec<(What, u64)>, Vec<u8>> {
    let mut limits = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let plain = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut words = plain.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        if let Some(name) = words.next() {
            let limit = limit(name, words.next(), words.next(), machine).filter(|_| words.next().is_none());
            limits.push(limit.ok_or_else(|| plain.trim_ascii().to_vec())?);
        }
    }
    Ok(limits)
}

fn limit(name: &[u8], first: Option<&[u8]>, second: Option<&[u8]>, machine: Machine) -> Option<(What, u64)> {
    let (what, whole) = match name {
        b"pids.max" => (What::Tasks, machine.numbers),
        b"memory.max" => (What::Memory, machine.memory),
        b"memory.high" => (What::MemoryHigh, machine.memory),
        _ => return None,
    };
    let Some(percent) = first?.strip_suffix(b"%") else {
        return bytes(first?).filter(|_| second.is_none()).map(|limit| (what, limit));
    };
    let percent = bytes(percent).filter(|percent| *percent <= 100)?;
    let part = (u128::from(whole) * u128::from(percent) / 100) as u64;
    let one_for = match second {
        Some(text) => machine.memory / bytes(text).filter(|bytes| *bytes != 0)?,
        None => u64::MAX,
    };
    Some((what, part.min(one_for)))
}

/// A number, perhaps of KiB, MiB or GiB.
fn bytes(text: &[u8]) -> Option<u64> {
    let (digits, shift) = match text {
        [digits @ .., b'K'] => (digits, 10),
        [digits @ .., b'M'] => (digits, 20),
        [digits @ .., b'G'] => (digits, 30),
        digits => (digits, 0),
    };
    let is_number = digits.iter().all(u8::is_ascii_digit);
    let number: u64 = core::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()?;
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { numbers: 32_768, memory: 128 << 20 };

    #[test]
    fn parts_of_what_there_is_and_numbers() {
        let text = b"# What there is\n\npids.max 94%  96K  # one for 96 KiB\nmemory.max 50%\nmemory.high\t3M\n";
        let limits = [(What::Tasks, 1365), (What::Memory, 64 << 20), (What::MemoryHigh, 3 << 20)];
        assert_eq!(parse(text, MACHINE).unwrap(), limits);
        let large = Machine { memory: 8 << 30, ..MACHINE };
        assert_eq!(parse(b"pids.max 94% 96K", large).unwrap(), [(What::Tasks, 30_801)]);
        assert_eq!(parse(b"pids.max 100", MACHINE).unwrap(), [(What::Tasks, 100)]);
        assert_eq!(
            parse(b"memory.max 100%", Machine { memory: u64::MAX, ..MACHINE }).unwrap(),
            [(What::Memory, u64::MAX)]
        );
        assert_eq!(parse(b"", MACHINE).unwrap(), []);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for line in [
            "pids.max",
            "pids.max x",
            "pids.max 101%",
            "pids.max 94% 0",
            "pids.max 94% 96K 1",
            "pids.max 5 96K",
            "cpu.max 5",
            "memory.max +5",
            "memory.max 99999999999G",
            "memory.max %",
        ] {
            let text = format!("memory.max 50%\n  {line} # why\n");
            assert_eq!(parse(text.as_bytes(), MACHINE), Err(line.as_bytes().to_vec()), "{line}");
        }
    }
}
