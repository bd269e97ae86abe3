//! Functions that exercises ask readers to change.

pub mod scatter;
pub mod sum;
pub mod working_set;
