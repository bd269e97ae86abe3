//! A machine that runs: its stream comes by a socket, and is recorded if that is wanted.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use quire_closeup::stream::{HEAD, Reader, VERSION, frame, kind};

use crate::hub::{Description, Hub, Source};
use crate::replay::MAGIC;

/// Stops the machine's time, or lets it go on.
pub type Stop = Box<dyn Fn(bool) + Send + Sync>;

/// See the module.
pub struct Live {
    to: Mutex<UnixStream>,
    stop: Stop,
    hub: Arc<Hub>,
    state: Mutex<Description>,
}

/// How long a machine may take for the next picture of a step.
const STEP: Duration = Duration::from_secs(5);

impl Live {
    /// Of a machine whose stream is `port`. A recording is begun in `record`, with pictures in 10 seconds.
    pub fn start(
        hub: &Arc<Hub>,
        port: UnixStream,
        title: String,
        record: Option<File>,
        rate: u64,
        stop: Stop,
    ) -> std::io::Result<Arc<Live>> {
        let from = port.try_clone()?;
        let state = Mutex::new(Description { title, ..Description::default() });
        let live = Arc::new(Live { to: Mutex::new(port), stop, hub: Arc::clone(hub), state });
        let (hub, reader) = (Arc::clone(hub), Arc::clone(&live));
        thread::spawn(move || reader.read(from, &hub, record, rate));
        Ok(live)
    }

    fn read(&self, mut from: UnixStream, hub: &Hub, record: Option<File>, rate: u64) {
        let mut record = record.map(BufWriter::new);
        if let Some(file) = &mut record {
            let _ = file.write_all(MAGIC);
        }
        let is_recorded = record.is_some();
        let (mut reader, mut buffer) = (Reader::default(), vec![0; 64 << 10]);
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            hub.push(&mut reader, &buffer[..len], |head, payload, is_complete| {
                if head.kind == kind::HELLO {
                    if head.about != VERSION {
                        eprintln!("view: the machine's stream is of version {}, not {VERSION}", head.about);
                    }
                    // What it was told before, it does not know.
                    if is_recorded || hub.clients() != 0 {
                        self.send(&frame(kind::RATE, rate, &[]));
                    }
                    return;
                }
                if let Some(file) = &mut record {
                    let bytes = frame(head.kind, head.about, payload);
                    debug_assert_eq!(bytes.len(), HEAD + payload.len());
                    let written = file.write_all(&bytes).and_then(|()| if is_complete { file.flush() } else { Ok(()) });
                    if let Err(error) = written {
                        eprintln!("view: recording: {error}");
                        record = None;
                    }
                }
            });
        }
        hub.set_over(true);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Description> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Live {
    fn send(&self, frame: &[u8]) {
        // A machine that is off hears nothing.
        let _ = self.to.lock().unwrap_or_else(PoisonError::into_inner).write_all(frame);
    }

    fn pause(&self, on: bool) {
        (self.stop)(on);
        self.state().is_paused = on;
    }

    fn step(&self) {
        let before = self.hub.shown();
        (self.stop)(false);
        let until = Instant::now() + STEP;
        while self.hub.shown() == before && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        (self.stop)(true);
        self.state().is_paused = true;
    }

    fn seek(&self, _: u32) {}

    fn describe(&self) -> Description {
        self.state().clone()
    }
}
