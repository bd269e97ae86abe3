//! Frames on their way to the console.

use quire_closeup::stream::{HEAD, Head, PAYLOAD_MAX};
use quire_rt::Errno;
use quire_rt::abi::layout::{Pod, bytes_of};
use quire_servers::virtio::Console;

/// See the module. Data is sent when the buffer is full, and by [`Output::flush`].
pub struct Output {
    pub console: Console,
}

impl Output {
    pub fn new(console: Console) -> Self {
        Self { console }
    }

    /// Sends what waits.
    pub fn flush(&mut self) -> Result<(), Errno> {
        self.console.flush()
    }

    /// A frame.
    pub fn frame(&mut self, kind: u16, about: u64, payload: &[u8]) -> Result<(), Errno> {
        debug_assert!(payload.len() <= PAYLOAD_MAX);
        let head = Head { kind, len: payload.len(), about }.to_bytes();
        if !self.console.put([&head, payload]) {
            self.flush()?;
            self.console.put([&head, payload]);
        }
        Ok(())
    }

    /// Writes records of one kind of `QUIRE_INFO`, in as many frames as necessary. Each frame after the first one
    /// contains the records that follow those of the previous frame.
    pub fn records<T: Pod>(&mut self, kind: usize, about: u64, records: impl Iterator<Item = T>) -> Result<(), Errno> {
        let mut bytes = alloc::vec::Vec::new();
        for record in records {
            if bytes.len() + size_of::<T>() > PAYLOAD_MAX - HEAD {
                self.frame(kind as u16, about, &bytes)?;
                bytes.clear();
            }
            bytes.try_reserve(size_of::<T>()).map_err(|_| Errno::ENOMEM)?;
            bytes.extend_from_slice(bytes_of(&record));
        }
        if bytes.is_empty() { Ok(()) } else { self.frame(kind as u16, about, &bytes) }
    }
}
