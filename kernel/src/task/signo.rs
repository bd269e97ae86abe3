//! Sets of signals, a bit for each number.

use quire_abi::flags::sig;

/// The bit of a signal in a set.
pub const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// Signals that cannot be blocked, caught or ignored.
pub const UNBLOCKABLE: u64 = bit(sig::KILL) | bit(sig::STOP);

/// Signals that stop a process by default.
pub const STOPS: u64 = bit(sig::STOP) | bit(sig::TSTP) | bit(sig::TTIN) | bit(sig::TTOU);
