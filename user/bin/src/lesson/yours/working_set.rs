//! Lesson 7: measuring a working set.

use quire_rt::Errno;

use crate::lesson::Area;

/// How many pages of an area some work uses.
pub fn working_set(area: &Area, work: impl FnOnce()) -> Result<u64, Errno> {
    work();
    Ok(area.counts().resident)
}
