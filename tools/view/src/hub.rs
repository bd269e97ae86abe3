//! The newest picture, and who waits for it.
//!
//! Lock order: one lock, held for a moment. Nobody calls the [source](Source) with it.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quire_closeup::stream::{Head, Reader, kind};

use crate::json;
use crate::picture::Picture;

/// What the page can ask for.
pub trait Source: Send + Sync {
    /// Sends a frame to the machine. A recording has none, and ignores it.
    fn send(&self, frame: &[u8]);
    /// The time stands, or goes on.
    fn pause(&self, on: bool);
    /// One picture more, of one that stands.
    fn step(&self);
    /// To this part of the whole, in thousandths, of a recording.
    fn seek(&self, thousandths: u32);
    /// What it is: for the page.
    fn describe(&self) -> Description;
}

/// What a source is.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// A line: the options of the machine, or the name of the recording.
    pub title: String,
    /// It is a recording: nothing can be asked of the machine.
    pub is_replay: bool,
    /// Its time stands.
    pub is_paused: bool,
    /// How much of it was shown, in thousandths, of a recording.
    pub position: u32,
}

#[derive(Default)]
struct State {
    picture: Picture,
    /// The newest complete picture, and its number here.
    text: Arc<str>,
    shown: u64,
    /// The machine is off, or the recording at its end.
    is_over: bool,
    clients: usize,
    /// Answers to questions, by their number: the kind of the frame and its payload.
    answers: HashMap<u64, Option<(u16, Vec<u8>)>>,
    next_question: u64,
}

/// See the module.
#[derive(Default)]
pub struct Hub {
    state: Mutex<State>,
    changed: Condvar,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes of the stream, and tells `each` of every frame, and whether a picture was complete with it.
    pub fn push(&self, reader: &mut Reader, bytes: &[u8], mut each: impl FnMut(Head, &[u8], bool)) {
        reader.push(bytes, |head, payload| {
            let is_complete = self.frame(head, payload);
            each(head, payload, is_complete);
        });
    }

    /// Takes a frame; returns whether a picture was complete with it.
    pub fn frame(&self, head: Head, payload: &[u8]) -> bool {
        let mut state = self.lock();
        let is_answer = head.kind == kind::ERROR || usize::from(head.kind) == quire_abi::info::kind::TRANSLATION;
        if is_answer {
            if let Some(answer) = state.answers.get_mut(&head.about) {
                *answer = Some((head.kind, payload.to_vec()));
            }
            self.changed.notify_all();
            return false;
        }
        let is_complete = state.picture.take(head, payload);
        if is_complete {
            state.text = json::write(&state.picture).into();
            state.shown += 1;
            self.changed.notify_all();
        }
        is_complete
    }

    /// Starts from nothing: a recording goes back.
    pub fn clear(&self) {
        self.lock().picture = Picture::default();
    }

    /// There is nothing more to come, or there is again.
    pub fn set_over(&self, is_over: bool) {
        self.lock().is_over = is_over;
        self.changed.notify_all();
    }

    /// The next picture behind the one with this number; the same number if none came in that time, `None` if there
    /// will be none.
    pub fn next(&self, after: u64, patience: Duration) -> Option<(u64, Arc<str>)> {
        let waits = |state: &mut State| state.shown == after && !state.is_over;
        let (state, _) =
            self.changed.wait_timeout_while(self.lock(), patience, waits).unwrap_or_else(PoisonError::into_inner);
        if state.is_over && state.shown == after {
            return None;
        }
        Some((state.shown, Arc::clone(&state.text)))
    }

    /// How many pictures there were.
    pub fn shown(&self) -> u64 {
        self.lock().shown
    }

    /// One more reads, or one fewer; returns how many there are.
    pub fn count_client(&self, is_new: bool) -> usize {
        let mut state = self.lock();
        state.clients = if is_new { state.clients + 1 } else { state.clients.saturating_sub(1) };
        state.clients
    }

    /// How many read.
    pub fn clients(&self) -> usize {
        self.lock().clients
    }

    /// Looks at the picture.
    /// Looks at the picture.
    pub fn with<T>(&self, look: impl FnOnce(&Picture) -> T) -> T {
        look(&self.lock().picture)
    }

    /// A new question: `ask` sends it with its number. What came in that time: the kind of the frame and its payload.
    pub fn ask(&self, ask: impl FnOnce(u64), patience: Duration) -> Option<(u16, Vec<u8>)> {
        let number = {
            let mut state = self.lock();
            state.next_question += 1;
            let number = state.next_question;
            state.answers.insert(number, None);
            number
        };
        ask(number);
        let waits = |state: &mut State| state.answers.get(&number).is_some_and(Option::is_none) && !state.is_over;
        let (mut state, _) =
            self.changed.wait_timeout_while(self.lock(), patience, waits).unwrap_or_else(PoisonError::into_inner);
        state.answers.remove(&number).flatten()
    }
}
