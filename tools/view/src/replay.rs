//! A recording: the stream as it came, behind a line that says what it is.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quire_closeup::stream::{Begin, Head, Reader, VERSION, kind, records};

use crate::hub::{Description, Hub, Source};

/// What a recording begins with: the line, and the version.
pub const MAGIC: &[u8; 16] = b"Quire's view: 1\n";
const _: () = assert!(VERSION == 1);

/// The longest pause between two pictures, whatever the machine's clock says.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A picture: its frames, and when it began.
struct Shot {
    frames: Vec<(Head, Vec<u8>)>,
    at: u64,
}

#[derive(Default)]
struct State {
    is_paused: bool,
    /// The next picture.
    next: usize,
    /// Pictures that are shown although it stands.
    steps: usize,
    /// A place was chosen: what was known is forgotten.
    is_sought: bool,
}

/// See the module.
pub struct Replay {
    title: String,
    shots: Vec<Shot>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Replay {
    /// Reads a recording, and begins to show it.
    pub fn start(hub: &Arc<Hub>, path: &Path) -> Result<Arc<Replay>> {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        let shots = parse(&bytes).with_context(|| path.display().to_string())?;
        let title = format!("recording {}", path.display());
        let replay = Arc::new(Replay { title, shots, state: Mutex::default(), changed: Condvar::new() });
        let (hub, shown) = (Arc::clone(hub), Arc::clone(&replay));
        thread::spawn(move || shown.show(&hub));
        Ok(replay)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, hub: &Hub) -> ! {
        loop {
            let mut state = self.lock();
            // At its end it stands.
            while (state.is_paused || state.next == self.shots.len() || hub.clients() == 0) && state.steps == 0 {
                let waited = self.changed.wait_timeout(state, Duration::from_millis(100));
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            state.steps = state.steps.saturating_sub(1);
            let Some(shot) = self.shots.get(state.next) else { continue };
            state.next += 1;
            let following = self.shots.get(state.next).map_or(shot.at, |next| next.at);
            let is_sought = std::mem::take(&mut state.is_sought);
            let sought = state.next;
            drop(state);
            if is_sought {
                hub.clear();
                // What comes in turns is there again after some pictures before.
                for before in &self.shots[sought.saturating_sub(TOUR)..sought - 1] {
                    before.frames.iter().filter(|(head, _)| head.kind != kind::END).for_each(|(head, payload)| {
                        hub.frame(*head, payload);
                    });
                }
            }
            shot.frames.iter().for_each(|(head, payload)| _ = hub.frame(*head, payload));
            let pause = Duration::from_nanos(following.saturating_sub(shot.at)).min(PAUSE_MAX);
            let state = self.lock();
            if state.steps == 0 && !state.is_sought {
                let until = |state: &mut State| state.steps == 0 && !state.is_sought;
                drop(self.changed.wait_timeout_while(state, pause, until));
            }
        }
    }
}

/// Pictures in which everything that comes in turns has come once, on most machines.
const TOUR: usize = 64;

fn parse(bytes: &[u8]) -> Result<Vec<Shot>> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else { bail!("no recording, or one of another version") };
    let mut shots: Vec<Shot> = Vec::new();
    Reader::default().push(rest, |head, payload| {
        if head.kind == kind::BEGIN {
            let begin: Begin = records(payload).next().unwrap_or_default();
            shots.push(Shot { frames: Vec::new(), at: begin.at });
        }
        if let Some(shot) = shots.last_mut() {
            shot.frames.push((head, payload.to_vec()));
        }
    });
    // The machine may have been switched off in the middle of the last one.
    shots.retain(|shot| shot.frames.iter().any(|(head, _)| head.kind == kind::END));
    ensure!(!shots.is_empty(), "there is no picture in it");
    Ok(shots)
}

impl Source for Replay {
    fn send(&self, _: &[u8]) {}

    fn pause(&self, on: bool) {
        let mut state = self.lock();
        state.is_paused = on;
        // From its end it begins again.
        if !on && state.next == self.shots.len() {
            (state.next, state.is_sought) = (0, true);
        }
        self.changed.notify_all();
    }

    fn step(&self) {
        let mut state = self.lock();
        state.is_paused = true;
        state.steps += 1;
        self.changed.notify_all();
    }

    fn seek(&self, thousandths: u32) {
        let mut state = self.lock();
        let last = self.shots.len() - 1;
        state.next = (last * thousandths.min(1000) as usize).div_ceil(1000);
        (state.is_sought, state.steps) = (true, 1);
        self.changed.notify_all();
    }

    fn describe(&self) -> Description {
        let state = self.lock();
        let position = (state.next * 1000).div_ceil(self.shots.len()) as u32;
        Description { title: self.title.clone(), is_replay: true, is_paused: state.is_paused, position }
    }
}

#[cfg(test)]
mod tests {
    use quire_abi::layout::bytes_of;
    use quire_closeup::stream::frame;

    use super::*;

    fn recording(pictures: u64) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for number in 1..=pictures {
            let begin = Begin { at: number, ..Begin::default() };
            bytes.extend(frame(kind::BEGIN, number, bytes_of(&begin)));
            bytes.extend(frame(kind::END, number, &[]));
        }
        bytes
    }

    #[test]
    fn whole_pictures_count() {
        let bytes = recording(3);
        assert_eq!(parse(&bytes).unwrap().len(), 3);
        assert_eq!(parse(&bytes[..bytes.len() - 1]).unwrap().len(), 2);
        for wrong in [&b""[..], b"something else", &MAGIC[..], &recording(1)[..20]] {
            assert!(parse(wrong).is_err());
        }
    }
}
