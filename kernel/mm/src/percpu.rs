//! Per-CPU variables.
