//! A simulated machine for host tests.
