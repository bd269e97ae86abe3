//! Per-CPU lists of hot pages.
