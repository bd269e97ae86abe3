//! Who called: return addresses on the stack, and the names of functions.

pub mod symbols;

use crate::layout::{KIMAGE, STACK_SIZE, STACKS_END, STACKS_START};

/// Return addresses, innermost first, by the frame records from `fp` on, as long as they ascend within one kernel
/// stack.
pub fn callers(fp: usize) -> impl Iterator<Item = usize> {
    let is_stack = |p: usize| p.is_multiple_of(8) && ((STACKS_START..STACKS_END).contains(&p) || p >= KIMAGE);
    let mut at = Some(fp);
    core::iter::from_fn(move || {
        let fp = at.filter(|&fp| is_stack(fp))?;
        // SAFETY: frame records lie on kernel stacks, which stay mapped; the address was just checked to be in
        // a kernel range, and a wrong one inside it ends in a panic (a second one stops the machine).
        let [next, pc] = unsafe { *core::ptr::with_exposed_provenance::<[usize; 2]>(fp) };
        at = (next > fp && next - fp <= STACK_SIZE).then_some(next);
        (pc != 0).then_some(pc)
    })
}
