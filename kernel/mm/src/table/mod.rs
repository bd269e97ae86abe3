//! A process's translation tables (TTBR0).
