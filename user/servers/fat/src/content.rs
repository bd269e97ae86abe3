//! The contents of files: reading, writing, truncating, syncing.

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::names::APPEND;
use quire_fs::request::{Answer, Request};

use crate::disk::Disk;
use crate::error::errno;
use crate::known::AHEAD;
use crate::tree::Tree;

/// The maximum length of a file, which has 32 bits.
const LONGEST: u64 = u32::MAX as u64;

impl<D: Disk> Tree<D> {
    /// Up to `room` bytes from a position on.
    pub(crate) fn read(&mut self, slot: u32, at: u64, room: usize) -> Result<Answer, Errno> {
        let inner = self.inner.get_mut();
        let left = inner.stat(slot)?.len().saturating_sub(at);
        let id = inner.nodes.get(slot).ok_or(Errno::ESTALE)?.id;
        let mut bytes = Vec::new();
        let len = room.min(usize::try_from(left).unwrap_or(usize::MAX));
        let number = inner.nodes.number(slot);
        let goes_on = inner.ahead.goes_on(number, at, at.saturating_add(len as u64));
        if let Some(ahead) = inner.ahead.find(number, at, len) {
            bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
            bytes.extend_from_slice(ahead);
            return Ok(Answer::text(bytes));
        }
        let all = if goes_on && len < AHEAD { AHEAD.min(left as usize) } else { len };
        bytes.try_reserve_exact(all).map_err(|_| Errno::ENOMEM)?;
        bytes.resize(all, 0);
        let read = match inner.volume.fat.read(id, at, &mut bytes).map_err(errno) {
            // (The bytes beyond those that were requested may be damaged.)
            Err(_) if all > len => inner.volume.fat.read(id, at, &mut bytes[..len]).map_err(errno)?,
            read => read?,
        };
        bytes.truncate(read);
        if read > len {
            let mut answer = Vec::new();
            answer.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
            answer.extend_from_slice(&bytes[..len]);
            inner.ahead.fill(at, bytes);
            return Ok(Answer::text(answer));
        }
        Ok(Answer::text(bytes))
    }

    /// Writes at a position, or at the end. If there is not enough space for everything, as much is written as there is
    /// space for.
    pub(crate) fn write(&mut self, slot: u32, request: &Request<'_>) -> Result<Answer, Errno> {
        let inner = self.inner.get_mut();
        let end = inner.stat(slot)?.len();
        let id = inner.nodes.get(slot).ok_or(Errno::ESTALE)?.id;
        let at = if request.mode & APPEND != 0 { end } else { request.argument };
        if at >= LONGEST {
            return Err(Errno::EFBIG);
        }
        inner.change()?;
        let mut is_swept = false;
        let least = inner.volume.fat.info().cluster_size() as usize;
        let mut bytes = request.text;
        let done = loop {
            match inner.volume.fat.write(id, at, bytes).map_err(errno) {
                Err(Errno::ENOSPC) if inner.aside.has_files() && !is_swept => {
                    inner.sweep(&*self.kernel);
                    is_swept = true;
                }
                // The gap before the data may already be too large.
                Err(Errno::ENOSPC) if bytes.len() > least && at <= end => bytes = &bytes[..bytes.len() / 2],
                done => break done?,
            }
        };
        Ok(Answer::done([done as u64, at, 0, 0, 0, 0]))
    }

    /// Sets a file's length; new bytes are zeros.
    pub(crate) fn cut(&mut self, slot: u32, len: u64) -> Result<(), Errno> {
        if len > LONGEST {
            return Err(Errno::EFBIG);
        }
        let inner = self.inner.get_mut();
        let node = inner.nodes.get(slot).ok_or(Errno::ESTALE)?;
        if node.is_dir {
            return Err(Errno::EISDIR);
        }
        let id = node.id;
        inner.change()?;
        inner.volume.fat.truncate(id, len).map_err(errno)
    }
}
