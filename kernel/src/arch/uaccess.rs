//! The only routines that access user memory: unprivileged loads and stores (LDTR, STTR), which have EL0's permissions,
//! with a table of fix-ups. (Long copies to user memory store with EL1's on a CPU without PAN: an entry that the kernel may write is one
//! that the program may write, see `table/entry.rs` of the memory manager. An entry that may be read is not.) A fault in one is first handled like any page fault; if that fails, the routine resumes at
//! its fix-up and returns how much is left. Copies may be asked to end at a page that is missing
//! ([`copy_to_user_now`]): then a fault is not handled at all.

use alloc::vec::Vec;
use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, Ordering};

use quire_abi::Errno;
use quire_abi::layout::Pod;
use quire_mm::UserAddr;
use quire_mm::addr::USER_END;

global_asm!(
    r#"
    // The next instruction is a user access; if its fault cannot be resolved, execution resumes at \fix.
    .macro  user fix, insn:vararg
    9999: \insn
    .pushsection __ex_table, "a"
    .balign 4
    .long   9999b - ., \fix - .
    .popsection
    .endm

    // The same, of a copy: with x7 its fault is not handled. The bit says so.
    .macro  copied fix, insn:vararg
    9999: \insn
    .pushsection __ex_table, "a"
    .balign 4
    .long   9999b - ., \fix - . + 1
    .popsection
    .endm

    .text
    // 32 bytes of the copies below, \at from the addresses. After a fault the smaller steps go on at \fix.
    .macro  part_to_user at, fix
    ldp     x3, x4, [x1, #\at]
    ldp     x5, x6, [x1, #\at + 16]
    copied  \fix, sttr x3, [x0, #\at]
    copied  \fix, sttr x4, [x0, #\at + 8]
    copied  \fix, sttr x5, [x0, #\at + 16]
    copied  \fix, sttr x6, [x0, #\at + 24]
    .endm

    // The same with the kernel's rights.
    .macro  part_to_writable at, fix
    ldp     x3, x4, [x1, #\at]
    ldp     x5, x6, [x1, #\at + 16]
    copied  \fix, stp x3, x4, [x0, #\at]
    copied  \fix, stp x5, x6, [x0, #\at + 16]
    .endm

    .macro  part_from_user at, fix
    copied  \fix, ldtr x3, [x1, #\at]
    copied  \fix, ldtr x4, [x1, #\at + 8]
    copied  \fix, ldtr x5, [x1, #\at + 16]
    copied  \fix, ldtr x6, [x1, #\at + 24]
    stp     x3, x4, [x0, #\at]
    stp     x5, x6, [x0, #\at + 16]
    .endm

    // Both: rounds of 256 bytes, of 32, of 8, then 4, then bytes. The addresses move once a round is complete, so after a fault the
    // smaller rounds go on where it began, and the bytes end at the first that cannot be copied. With x7 the copy ends
    // where the round began.

    // x0: to (user), x1: from (kernel), x2: bytes. Returns the bytes not copied.
    .global __copy_to_user
    .global __copy_to_user_now
__copy_to_user_now:
    mov     x7, #1
    b       1f
__copy_to_user:
    mov     x7, #0
1:  subs    x2, x2, #256
    b.lo    2f
    adrp    x8, uaccess_plain_stores
    ldrb    w8, [x8, :lo12:uaccess_plain_stores]
    cbnz    w8, 9f
1:  part_to_user 0, 12f
    part_to_user 32, 12f
    part_to_user 64, 12f
    part_to_user 96, 12f
    part_to_user 128, 12f
    part_to_user 160, 12f
    part_to_user 192, 12f
    part_to_user 224, 12f
    add     x0, x0, #256
    add     x1, x1, #256
    subs    x2, x2, #256
    b.hs    1b
2:  add     x2, x2, #256
3:  subs    x2, x2, #32
    b.lo    4f
    part_to_user 0, 14f
    add     x0, x0, #32
    add     x1, x1, #32
    b       3b
4:  add     x2, x2, #32
5:  subs    x2, x2, #8
    b.lo    6f
    ldr     x3, [x1]
    copied  16f, sttr x3, [x0]
    add     x0, x0, #8
    add     x1, x1, #8
    b       5b
6:  adds    x2, x2, #8
    b.eq    8f
    tbz     x2, #2, 7f
    ldr     w3, [x1]
    copied  7f, sttr w3, [x0]
    add     x0, x0, #4
    add     x1, x1, #4
    subs    x2, x2, #4
    b.eq    8f
7:  ldrb    w3, [x1], #1
    copied  8f, sttrb w3, [x0]
    add     x0, x0, #1
    subs    x2, x2, #1
    b.ne    7b
8:  mov     x0, x2
    ret
    // (Whatever is guessed about the range's check, no store is outside of the lower half.)
9:  and     x0, x0, #0xffffffffffff
1:  part_to_writable 0, 12f
    part_to_writable 32, 12f
    part_to_writable 64, 12f
    part_to_writable 96, 12f
    part_to_writable 128, 12f
    part_to_writable 160, 12f
    part_to_writable 192, 12f
    part_to_writable 224, 12f
    add     x0, x0, #256
    add     x1, x1, #256
    subs    x2, x2, #256
    b.hs    1b
    b       2b
12: cbz     x7, 2b
    add     x0, x2, #256
    ret
14: cbz     x7, 4b
    add     x0, x2, #32
    ret
16: cbz     x7, 6b
    add     x0, x2, #8
    ret

    // x0: to (kernel), x1: from (user), x2: bytes. Returns the bytes not copied.
    .global __copy_from_user
    .global __copy_from_user_now
__copy_from_user_now:
    mov     x7, #1
    b       1f
__copy_from_user:
    mov     x7, #0
1:  subs    x2, x2, #256
    b.lo    2f
1:  part_from_user 0, 12f
    part_from_user 32, 12f
    part_from_user 64, 12f
    part_from_user 96, 12f
    part_from_user 128, 12f
    part_from_user 160, 12f
    part_from_user 192, 12f
    part_from_user 224, 12f
    add     x0, x0, #256
    add     x1, x1, #256
    subs    x2, x2, #256
    b.hs    1b
2:  add     x2, x2, #256
3:  subs    x2, x2, #32
    b.lo    4f
    part_from_user 0, 14f
    add     x0, x0, #32
    add     x1, x1, #32
    b       3b
4:  add     x2, x2, #32
5:  subs    x2, x2, #8
    b.lo    6f
    copied  16f, ldtr x3, [x1]
    add     x1, x1, #8
    str     x3, [x0], #8
    b       5b
6:  adds    x2, x2, #8
    b.eq    8f
    tbz     x2, #2, 7f
    copied  7f, ldtr w3, [x1]
    add     x1, x1, #4
    str     w3, [x0], #4
    subs    x2, x2, #4
    b.eq    8f
7:  copied  8f, ldtrb w3, [x1]
    add     x1, x1, #1
    strb    w3, [x0], #1
    subs    x2, x2, #1
    b.ne    7b
8:  mov     x0, x2
    ret
12: cbz     x7, 2b
    add     x0, x2, #256
    ret
14: cbz     x7, 4b
    add     x0, x2, #32
    ret
16: cbz     x7, 6b
    add     x0, x2, #8
    ret

    // x0: to (kernel), x1: from (user), x2: room. Copies up to and including a NUL. Returns the bytes copied, including
    // the NUL; x2 if there was none; -1 on a fault.
    .global __copy_string_from_user
__copy_string_from_user:
    mov     x4, x0
    add     x5, x0, x2
1:  cmp     x4, x5
    b.eq    2f
    user    3f, ldtrb w3, [x1]
    add     x1, x1, #1
    strb    w3, [x4], #1
    cbnz    w3, 1b
2:  sub     x0, x4, x0
    ret
3:  mov     x0, #-1
    ret

    // x0: word (user, checked, aligned), w1: expected, w2: new. Returns the old value, or -1 on a fault. There are no
    // unprivileged exclusives, so these run with EL1's rights, with PAN cleared around them if the CPU has it; the
    // fault path still treats them as user accesses. x3: whether there is PAN.
    .global __user_cmpxchg
__user_cmpxchg:
    cbz     x3, 1f
    .inst   0xd500409f                  // msr pan, #0
1:  user    4f, ldaxr w4, [x0]
    cmp     w4, w1
    b.ne    2f
    user    4f, stlxr w5, w2, [x0]
    cbnz    w5, 1b
2:  clrex
    mov     w0, w4
    b       5f
4:  mov     x0, #-1
5:  cbz     x3, 6f
    .inst   0xd500419f                  // msr pan, #1
6:  ret
    "#
);

unsafe extern "C" {
    fn __copy_to_user(to: usize, from: *const u8, len: usize) -> usize;
    fn __copy_from_user(to: *mut u8, from: usize, len: usize) -> usize;
    fn __copy_to_user_now(to: usize, from: *const u8, len: usize) -> usize;
    fn __copy_from_user_now(to: *mut u8, from: usize, len: usize) -> usize;
    fn __copy_string_from_user(to: *mut u8, from: usize, room: usize) -> isize;
    fn __user_cmpxchg(word: usize, expected: u32, new: u32, pan: u64) -> i64;
    static __ex_table_start: [i32; 0];
    static __ex_table_end: [i32; 0];
}

/// Whether copies to user memory may store with the kernel's rights, which PAN forbids. Written at boot.
#[unsafe(export_name = "uaccess_plain_stores")]
static PLAIN_STORES: AtomicBool = AtomicBool::new(false);

/// Learns what this kind of CPU allows.
pub fn init() {
    PLAIN_STORES.store(!super::regs::has_pan(), Ordering::Relaxed);
}

/// A program's address without its tag, the byte that loads and stores ignore (TCR_EL1.TBI0). Addresses of the upper half
/// have none.
#[inline]
pub const fn untagged(addr: usize) -> usize {
    /// The bit that tells the halves apart.
    const HALF: usize = 1 << 55;
    if addr & HALF == 0 { addr & (HALF - 1) } else { addr }
}

/// Checks that a range lies in the lower half and has no tag, as on Linux; EFAULT if not. Within the lower half the tables
/// decide.
#[inline]
pub fn check(addr: UserAddr, len: usize) -> Result<(), Errno> {
    match addr.get().checked_add(len) {
        Some(end) if end <= USER_END => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Copies bytes to user memory. Returns how many were copied; EFAULT if none.
pub fn copy_to_user(to: UserAddr, from: &[u8]) -> Result<usize, Errno> {
    check(to, from.len())?;
    // SAFETY: `from` is readable, and the routine touches the checked user range only by STTR.
    let left = unsafe { __copy_to_user(to.get(), from.as_ptr(), from.len()) };
    done(from.len(), left)
}

/// Copies bytes from user memory. Returns how many were copied; EFAULT if none.
pub fn copy_from_user(to: &mut [u8], from: UserAddr) -> Result<usize, Errno> {
    check(from, to.len())?;
    // SAFETY: `to` is writable, and the routine touches the checked user range only by LDTR.
    let left = unsafe { __copy_from_user(to.as_mut_ptr(), from.get(), to.len()) };
    done(to.len(), left)
}

/// Copies bytes to user memory, up to the first page that is missing or may not be written, near to its last byte; returns how many. It
/// does not sleep.
///
/// # Safety
/// `from` is valid for reads of `len` bytes; others may change them. The range has been [checked](check).
#[inline]
pub unsafe fn copy_to_user_now(to: UserAddr, from: *const u8, len: usize) -> usize {
    debug_assert!(check(to, len).is_ok());
    // SAFETY: the caller's promise; the routine touches the user range only by STTR.
    len - unsafe { __copy_to_user_now(to.get(), from, len) }
}

/// Copies bytes from user memory, up to the first page that is missing or may not be read, near to its last byte; returns how many. It
/// does not sleep.
///
/// # Safety
/// `to` is valid for writes of `len` bytes; others may access them. The range has been [checked](check).
#[inline]
pub unsafe fn copy_from_user_now(to: *mut u8, from: UserAddr, len: usize) -> usize {
    debug_assert!(check(from, len).is_ok());
    // SAFETY: the caller's promise; the routine touches the user range only by LDTR.
    len - unsafe { __copy_from_user_now(to, from.get(), len) }
}

/// Accesses a byte, so that its page is there; for a write, without changing it. EFAULT.
pub fn touch(addr: UserAddr, write: bool) -> Result<(), Errno> {
    if !write {
        return get::<u8>(addr).map(drop);
    }
    let word = UserAddr::new(addr.get() & !3);
    loop {
        // It is written only if it is still the same.
        let value = get(word)?;
        if cmpxchg(word, value, value)? == value {
            return Ok(());
        }
    }
}

fn done(len: usize, left: usize) -> Result<usize, Errno> {
    if left == len && len > 0 { Err(Errno::EFAULT) } else { Ok(len - left) }
}

/// Stores a whole record, or returns EFAULT.
#[inline]
pub fn put<T: Pod>(to: UserAddr, value: &T) -> Result<(), Errno> {
    check(to, size_of::<T>())?;
    // SAFETY: a `Pod` has no padding, so all its bytes are initialised; the routine touches the checked user range only by
    // STTR.
    let left = unsafe { __copy_to_user(to.get(), core::ptr::from_ref(value).cast(), size_of::<T>()) };
    if left == 0 { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Loads a whole record, or returns EFAULT.
#[inline]
pub fn get<T: Pod>(from: UserAddr) -> Result<T, Errno> {
    check(from, size_of::<T>())?;
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the value's place is writable, and the routine touches the checked user range only by LDTR.
    let left = unsafe { __copy_from_user(value.as_mut_ptr().cast(), from.get(), size_of::<T>()) };
    if left != 0 {
        return Err(Errno::EFAULT);
    }
    // SAFETY: all its bytes were written, and every bit pattern is a valid `Pod`.
    Ok(unsafe { value.assume_init() })
}

/// Stores whole records one after the other, or returns EFAULT.
pub fn put_all<T: Pod>(to: UserAddr, values: &[T]) -> Result<(), Errno> {
    check(to, size_of_val(values))?;
    // SAFETY: as in `put`.
    let left = unsafe { __copy_to_user(to.get(), values.as_ptr().cast(), size_of_val(values)) };
    if left == 0 { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Loads whole records that lie one after the other, or returns EFAULT.
pub fn get_all<T: Pod>(from: UserAddr, values: &mut [T]) -> Result<(), Errno> {
    check(from, size_of_val(values))?;
    // SAFETY: as in `get`; whatever is loaded, or not, the values are valid.
    let left = unsafe { __copy_from_user(values.as_mut_ptr().cast(), from.get(), size_of_val(values)) };
    if left == 0 { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Copies a NUL-terminated string from user memory and returns it without the NUL; ENAMETOOLONG if `to` is too small.
pub fn get_string(to: &mut [u8], from: UserAddr) -> Result<&[u8], Errno> {
    // SAFETY: the slice may be written.
    let len = unsafe { copy_string(to.as_mut_ptr(), to.len(), from) }?;
    Ok(&to[..len])
}

/// The same to an empty vector, of whose room all may be used.
pub fn get_string_to(to: &mut Vec<u8>, from: UserAddr) -> Result<(), Errno> {
    let free = to.spare_capacity_mut();
    // SAFETY: the room may be written, and that number of its bytes was.
    unsafe {
        let len = copy_string(free.as_mut_ptr().cast(), free.len(), from)?;
        to.set_len(len);
    }
    Ok(())
}

/// Copies a string and its NUL; returns its length without that.
///
/// # Safety
/// `to` is valid for writes of `room` bytes. One byte more than the number returned is written.
unsafe fn copy_string(to: *mut u8, room: usize, from: UserAddr) -> Result<usize, Errno> {
    let most = room.min(USER_END.saturating_sub(from.get()));
    // SAFETY: the caller's promise; the user range ends at or below USER_END and is touched only by LDTRB.
    let n = unsafe { __copy_string_from_user(to, from.get(), most) };
    let n = usize::try_from(n).map_err(|_| Errno::EFAULT)?;
    // SAFETY: `n` bytes were written.
    match n.checked_sub(1).filter(|last| unsafe { to.add(*last).read() } == 0) {
        Some(len) => Ok(len),
        None if n < room => Err(Errno::EFAULT),
        None => Err(Errno::ENAMETOOLONG),
    }
}

/// Compares and exchanges a word of user memory, sequentially consistent; returns the old value.
pub fn cmpxchg(word: UserAddr, expected: u32, new: u32) -> Result<u32, Errno> {
    check(word, 4)?;
    if !word.is_aligned(4) {
        return Err(Errno::EINVAL);
    }
    let pan = u64::from(super::regs::has_pan());
    // SAFETY: the word is in the lower half and aligned; the accesses have fix-ups.
    match unsafe { __user_cmpxchg(word.get(), expected, new, pan) } {
        -1 => Err(Errno::EFAULT),
        was => Ok(was as u32),
    }
}

/// What happens after a fault of a user access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixup {
    /// Where execution resumes if the fault could not be resolved.
    pub at: usize,
    /// It is not to be resolved.
    pub is_now: bool,
}

/// The fix-up for a fault at `pc`, with these registers; `None` if that is not a user access.
pub fn fixup(pc: usize, x: &[u64; 31]) -> Option<Fixup> {
    // SAFETY: the linker script puts the table's entries between the two symbols.
    let table = unsafe {
        let start = (&raw const __ex_table_start).cast::<[i32; 2]>();
        let end = (&raw const __ex_table_end).cast::<[i32; 2]>();
        core::slice::from_raw_parts(start, end.offset_from_unsigned(start))
    };
    table.iter().find_map(|entry| {
        let insn = (&raw const entry[0]).addr().wrapping_add_signed(entry[0] as isize);
        // (Instructions are aligned, so that the lowest bit is free.)
        let at = (&raw const entry[1]).addr().wrapping_add_signed((entry[1] & !1) as isize);
        (insn == pc).then_some(Fixup { at, is_now: entry[1] & 1 != 0 && x[7] != 0 })
    })
}
