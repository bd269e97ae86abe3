//! Lesson 6: a function with two leaks.

use quire_rt::abi::PAGE_SIZE;
use quire_rt::abi::flags::Prot;
use quire_rt::{Errno, mem};

/// The sum of decimal numbers with single spaces between them. It works on a copy, with a page without rights behind that: a
/// loop that runs too far faults. EINVAL for what is no number.
pub fn sum(numbers: &[u8]) -> Result<u64, Errno> {
    let len = numbers.len().next_multiple_of(PAGE_SIZE);
    let start = mem::mmap_anonymous(len + PAGE_SIZE, Prot::READ | Prot::WRITE)?;
    // SAFETY: the last page of what was just mapped; nobody uses it.
    unsafe { mem::mprotect(start + len, PAGE_SIZE, Prot::empty()) }?;
    // SAFETY: as many bytes of what was just mapped, which is zeros; this is the only reference, and is gone when they are unmapped.
    let copy = unsafe { core::slice::from_raw_parts_mut(start as *mut u8, numbers.len()) };
    copy.copy_from_slice(numbers);
    let mut sum = 0;
    for word in copy.split(|byte| *byte == b' ') {
        let number: u64 = crate::number(word).ok_or(Errno::EINVAL)?;
        sum += number;
    }
    // SAFETY: the copy is not used any more.
    unsafe { mem::munmap(start, len) }?;
    Ok(sum)
}
