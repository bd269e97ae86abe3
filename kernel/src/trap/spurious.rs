//! Spurious faults: on kernel addresses that have been mapped meanwhile.
//!
//! A CPU without FEAT_ETS2 may begin the table walk for an access before accesses that come earlier in program order.
//! When another CPU makes an entry valid and passes the address on, the walk may thus have read the old entry, and the
//! access faults although the mapping CPU's barrier ([`publish_tables`]) has long completed (Arm ARM D8.2.7; faulting
//! entries are never cached, so the second walk finds the new one). Stale TLB entries are no concern here: an area's
//! addresses are reused only after an invalidation.
//!
//! QEMU walks at the time of the access, so this fault never occurs there; on a Cortex-A72 it may.
//!
//! A kernel stack may also be mapped by one CPU and first used by another. A fault on it would fault again on the way
//! to the handler, so [`context::switch`] prevents the early walk.
//!
//! [`publish_tables`]: quire_mm::Machine::publish_tables
//! [`context::switch`]: crate::arch::context::switch

use quire_mm::addr::USER_END;

use crate::arch::syndrome::{Class, Syndrome};
use crate::arch::translate::Translation;

/// Whether a kernel exception is such a fault, so that the access is to be repeated. The CPU itself translates the
/// address again: if it now finds an entry, the second attempt will find it too.
pub fn is_spurious(syndrome: Syndrome, far: usize) -> bool {
    syndrome.class() == Class::DataAbortSame
        && syndrome.is_translation()
        && far >= USER_END
        && !Translation::of(far, false).is_translation_fault()
}
