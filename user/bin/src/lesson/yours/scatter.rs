//! Lesson 8: taking memory apart.

use quire_rt::Errno;

use crate::lesson::Area;

/// Keeps a few pages of memory such that hardly any block of 2 MiB is free as a whole. It may use so many pages meanwhile, and keep
/// one of 256 of them.
pub fn scatter(may_use: usize) -> Result<Area, Errno> {
    let area = Area::new(may_use / 256)?;
    area.fill();
    Ok(area)
}
