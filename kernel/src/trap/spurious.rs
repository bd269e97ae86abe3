//! Faults on kernel addresses that are mapped by now.
//!
//! A CPU without FEAT_ETS2 may begin the table walk for an access before accesses that come earlier in the program.
//! When another CPU makes an entry valid and hands the address over, the walk may thus have seen the old entry, and
//! the access faults although the barrier of whoever mapped it ([`publish_tables`]) is long complete (Arm ARM D8.2.7;
//! faulting entries are never cached, so the second walk finds the new one). Invalidations are nobody's to wait for
//! here: an area's addresses are used again only after one.
//!
//! QEMU walks when it accesses, so that there no such fault ever comes; on a Cortex-A72 it may.
//!
//! The kernel's stacks are mapped by one CPU and first used by another too. A fault there would fault again on its way
//! to the handler: [`context::switch`] keeps the walk from being early.
//!
//! [`publish_tables`]: quire_mm::Machine::publish_tables
//! [`context::switch`]: crate::arch::context::switch

use quire_mm::addr::USER_END;

use super::syndrome::{Class, Syndrome};
use crate::arch::translate::Translation;

/// Whether an exception of the kernel's is such a fault: the access is to be made again. The CPU itself is asked; what
/// it finds now, other than nothing, the second try will meet too.
pub fn is_spurious(syndrome: Syndrome, far: usize) -> bool {
    syndrome.class() == Class::DataAbortSame
        && syndrome.is_translation()
        && far >= USER_END
        && !Translation::of(far, false).is_translation_fault()
}
