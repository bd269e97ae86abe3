//! view: writes the kernel's information about its memory to a virtio console, picture by picture, for
//! `cargo xtask view` (docs/view.md).
//!
//! The reader sends how many pictures it wants, and what it looks at; until then nothing is read and nothing is sent.
//! Without such a console the program ends.

#![no_std]
#![no_main]

extern crate alloc;

mod output;
mod picture;

use quire_closeup::stream::{self, Reader, kind};
use quire_rt::device::{self, Device};
use quire_rt::ipc::Patience;
use quire_rt::{Errno, eprintln, info, io, time};
use quire_servers::virtio::{Console, kind as kind_of};
use virtio_drivers::transport::DeviceType;

use output::Output;
use picture::Painter;

quire_rt::entry!(main);

/// The descriptor whose end init waits for.
const READY: i32 = 3;

/// Most pictures in 10 seconds.
const RATE_MAX: u64 = 600;

fn main() -> i32 {
    match run() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("view: {error}");
            1
        }
    }
}

fn run() -> Result<(), Errno> {
    let mut found = None;
    for device in device::granted() {
        let is_one = found.is_none() && kind_of(device) == Some(DeviceType::Console);
        if is_one { found = Some(device) } else { device.release()? }
    }
    let _ = io::close(READY);
    found.map_or(Ok(()), serve)
}

fn serve(device: Device) -> Result<(), Errno> {
    let mut output = Output::new(Console::new(device, stream::PAYLOAD_MAX + stream::HEAD)?);
    output.frame(kind::HELLO, stream::VERSION, &[])?;
    output.flush()?;
    let (mut reader, mut painter, mut rate, mut next) = (Reader::default(), Painter::default(), 0, 0);
    loop {
        let patience = if rate == 0 { Patience::Endless } else { Patience::Until(next) };
        match output.console.wait(patience) {
            Ok(()) | Err(Errno::ETIMEDOUT | Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        let mut asked = alloc::vec::Vec::new();
        output.console.take(|bytes| {
            reader.push(bytes, |head, payload| match head.kind {
                kind::RATE => {
                    rate = head.about.min(RATE_MAX);
                    next = time::monotonic();
                }
                kind::ZOOM => painter.zoom = usize::try_from(head.about).ok().filter(|block| *block != usize::MAX),
                kind::PROCESS => painter.look_at(head.about as u32),
                kind::WALK => asked.push((head.about, payload.to_vec())),
                _ => {}
            });
        })?;
        for (number, question) in asked {
            walk(&mut output, number, &question)?;
        }
        let now = time::monotonic();
        if rate != 0 && now >= next {
            match painter.paint(&mut output, rate, now) {
                // The next one may be complete.
                Ok(()) | Err(Errno::ENOMEM) => {}
                Err(error) => return Err(error),
            }
            // (A machine that cannot keep up sends fewer pictures.)
            next = (next + 10_000_000_000 / rate).max(now);
        }
        output.flush()?;
    }
}

fn walk(output: &mut Output, number: u64, question: &[u8]) -> Result<(), Errno> {
    let mut words = stream::records::<u64>(question);
    let (Some(pid), Some(address)) = (words.next(), words.next()) else { return Ok(()) };
    match info::translation(pid as u32, address as usize) {
        Ok(found) => output.records(quire_rt::abi::info::kind::TRANSLATION, number, core::iter::once(found)),
        Err(error) => output.frame(kind::ERROR, number, &(error.to_ret().unsigned_abs() as u64).to_le_bytes()),
    }
}
