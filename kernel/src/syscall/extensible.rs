//! Records that grow from one version of Linux to the next: programs pass the size of the version that they know.

use quire_abi::Errno;
use quire_mm::UserAddr;
use quire_mm::addr::PAGE_SIZE;

use crate::arch::uaccess;

/// A record of N words, of which the program passes `size` bytes; the rest is 0. E2BIG if the program sets fields that
/// the kernel does not know, EFAULT.
pub fn read<const N: usize>(at: UserAddr, size: usize) -> Result<[u64; N], Errno> {
    if size > PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    let mut words = [0u64; N];
    let whole = (size / 8).min(N);
    uaccess::get_all(at, &mut words[..whole])?;
    for i in (whole * 8..size).step_by(8) {
        let mut bytes = [0u8; 8];
        uaccess::get_all(at + i, &mut bytes[..(size - i).min(8)])?;
        match words.get_mut(i / 8) {
            Some(word) => *word = u64::from_ne_bytes(bytes),
            None if bytes == [0; 8] => {}
            None => return Err(Errno::E2BIG),
        }
    }
    Ok(words)
}
