//! The kernel's own translation tables (TTBR1).
