//! Progress messages, so that a user can see that a command still works.
//!
//! A [`Progress`] is one step of a command. On a terminal it is one live line with counts and time. Elsewhere, and on a
//! terminal that cannot redraw a line (`TERM` is `dumb` or not set), it prints a plain line at its start and then whenever nothing else was printed for [`SILENCE`]. All lines printed during a
//! step go through it, so that they appear above the live line and not in it.
//!
//! [`watch`] runs a program as a step. Cargo and other programs that redraw a line with carriage returns report their
//! state in such lines; [`Output`] parses them.

use std::io::{self, IsTerminal, PipeReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long a step may be silent without a live line.
pub const SILENCE: Duration = Duration::from_secs(2);

/// How far a step is.
#[derive(Default)]
struct State {
    done: u64,
    /// 0 while it is unknown.
    total: u64,
    /// What is being worked on.
    detail: String,
    ended: bool,
}

/// State shared with the thread that prints lines during silences.
struct Shared {
    what: String,
    begun: Instant,
    state: Mutex<State>,
    /// Signalled when something was printed, and at the end.
    said: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints the step's state whenever nothing was printed for a while, until it ends.
    fn end_silences(&self) {
        let mut state = self.state();
        while !state.ended {
            let waited = self.said.wait_timeout(state, SILENCE);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if timeout.timed_out() && !state.ended {
                eprintln!("xtask: {}", plain(&self.what, &state, self.begun.elapsed()));
            }
        }
    }
}

/// One line on a step, for a log: "compiling the kernel: 12 of 40, quire-mm, 0:14".
fn plain(what: &str, state: &State, time: Duration) -> String {
    let mut line = format!("{what}: ");
    if state.total > 0 {
        line += &format!("{} of {}, ", state.done, state.total);
    }
    if !state.detail.is_empty() {
        line += &format!("{}, ", state.detail);
    }
    let seconds = time.as_secs();
    line + &format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// A step of a command, from its creation to its end.
pub struct Progress {
    /// The live line, on a terminal.
    bar: Option<ProgressBar>,
    shared: Arc<Shared>,
    /// Elsewhere.
    speaker: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins the step that `what` names.
    pub fn new(what: &str) -> Progress {
        let shared = Arc::new(Shared {
            what: what.to_owned(),
            begun: Instant::now(),
            state: Mutex::default(),
            said: Condvar::new(),
        });
        if has_live_lines() {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(100));
            let progress = Progress { bar: Some(bar), shared, speaker: None };
            progress.show();
            return progress;
        }
        eprintln!("xtask: {what}");
        let speaker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.end_silences())
        };
        Progress { bar: None, shared, speaker: Some(speaker) }
    }

    /// Sets how far the step is (0 of 0 if unknown), and the item being worked on.
    pub fn at(&self, done: u64, total: u64, detail: &str) {
        let mut state = self.shared.state();
        (state.done, state.total) = (done, total);
        detail.clone_into(&mut state.detail);
        drop(state);
        self.show();
    }

    /// Sets the item being worked on; the counts stay.
    pub fn detail(&self, detail: &str) {
        detail.clone_into(&mut self.shared.state().detail);
        self.show();
    }

    /// Prints a line to standard error.
    pub fn note(&self, line: &str) {
        self.above(|| eprintln!("{line}"));
    }

    /// Prints a line to standard output.
    pub fn print(&self, line: &str) {
        self.above(|| println!("{line}"));
    }

    /// Prints without damaging the live line; this also ends a silence.
    fn above(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
        self.shared.said.notify_all();
    }

    /// Brings the live line up to date.
    fn show(&self) {
        let Some(bar) = &self.bar else { return };
        let state = self.shared.state();
        let counts = match state.total {
            0 => "",
            total => {
                bar.set_length(total);
                bar.set_position(state.done);
                " [{bar:24}] {pos}/{len}"
            }
        };
        bar.set_style(style(&format!("{{spinner}} {{prefix}}{counts} {{elapsed}}  {{wide_msg}}")));
        bar.set_prefix(self.shared.what.clone());
        bar.set_message(state.detail.clone());
    }
}

/// Whether standard error is a terminal on which lines can be redrawn and coloured.
fn has_live_lines() -> bool {
    io::stderr().is_terminal() && !ProgressDrawTarget::stderr().is_hidden()
}

/// A template of the live line. An invalid one would be a mistake in this file; then indicatif's default is used.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()).progress_chars("=> ")
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.said.notify_all();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some(speaker) = self.speaker.take() {
            // It only waits and prints.
            let _ = speaker.join();
        }
    }
}

/// Runs a program as a step. Its standard error and, unless something else reads it, its standard output go to `each`, line by
/// line and in the order in which they were written; lines that it redraws become the step's detail.
///
/// A caller that reads the program's standard output itself sets up the pipe before, and reads it in `meanwhile`.
pub fn watch<T>(
    what: &str,
    command: &mut Command,
    with_output: bool,
    mut each: impl FnMut(&Progress, &str) + Send,
    meanwhile: impl FnOnce(&mut std::process::Child) -> Result<T>,
) -> Result<(ExitStatus, T)> {
    let progress = Progress::new(what);
    let (reader, writer) = io::pipe()?;
    if with_output {
        command.stdout(writer.try_clone()?);
    }
    command.stdin(Stdio::null()).stderr(writer);
    speak_to_pipes(command);
    let mut child = command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?;
    // Closes this side's writing ends, or the reader would never see the end.
    command.stderr(Stdio::null());
    if with_output {
        command.stdout(Stdio::null());
    }
    let result = thread::scope(|scope| {
        scope.spawn(|| read(reader, &progress, &mut each));
        meanwhile(&mut child)
    });
    Ok((child.wait()?, result?))
}

/// Makes cargo draw its progress into a pipe, in colour if it ends up on a terminal. Other programs ignore these
/// variables.
fn speak_to_pipes(command: &mut Command) {
    let colour = if has_live_lines() { "always" } else { "never" };
    command.env("CARGO_TERM_PROGRESS_WHEN", "always").env("CARGO_TERM_PROGRESS_WIDTH", "120");
    command.env("CARGO_TERM_COLOR", colour);
}

fn read(mut from: PipeReader, progress: &Progress, each: &mut impl FnMut(&Progress, &str)) {
    let mut output = Output::default();
    let mut buffer = [0; 8192];
    // A pipe that cannot be read any more has ended.
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        output.take(&buffer[..count], |piece| piece.tell(progress, each));
    }
    output.end(|piece| piece.tell(progress, each));
}

/// A part of a program's output.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// A line that stays.
    Line(&'a str),
    /// A line that is about to be redrawn.
    Redrawn(&'a str),
}

impl Piece<'_> {
    fn tell(self, progress: &Progress, each: &mut impl FnMut(&Progress, &str)) {
        match self {
            Piece::Line(line) => each(progress, line),
            Piece::Redrawn(line) => match counts(line) {
                Some((done, total, names)) => progress.at(done, total, names),
                None => progress.detail(line.trim()),
            },
        }
    }
}

/// "    Building [====>   ] 12/40: quire-mm, libc" in its parts.
fn counts(line: &str) -> Option<(u64, u64, &str)> {
    let (_, rest) = line.trim().strip_prefix("Building [")?.split_once("] ")?;
    let (counts, names) = rest.split_once(':').unwrap_or((rest, ""));
    let (done, total) = counts.trim().split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?, names.trim()))
}

/// Assembles lines from the arbitrary pieces that a pipe delivers.
#[derive(Default)]
struct Output {
    pending: Vec<u8>,
}

impl Output {
    fn take(&mut self, bytes: &[u8], mut each: impl FnMut(Piece<'_>)) {
        for &byte in bytes {
            match byte {
                b'\n' | b'\r' => self.flush(byte == b'\r', &mut each),
                _ => self.pending.push(byte),
            }
        }
    }

    fn end(&mut self, mut each: impl FnMut(Piece<'_>)) {
        if !self.pending.is_empty() {
            self.flush(false, &mut each);
        }
    }

    fn flush(&mut self, redrawn: bool, each: &mut impl FnMut(Piece<'_>)) {
        let text = String::from_utf8_lossy(&self.pending);
        // Cargo clears what it had drawn before it prints a line.
        let text = text.strip_prefix("\x1b[K").unwrap_or(&text);
        match redrawn {
            true if text.is_empty() => {}
            true => each(Piece::Redrawn(&without_colour(text))),
            false => each(Piece::Line(text)),
        }
        self.pending.clear();
    }
}

/// A line without its colour sequences.
pub fn without_colour(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, sequence)) = rest.split_once("\x1b[") {
        plain += before;
        rest = sequence.find(|c: char| c.is_ascii_alphabetic()).map_or("", |end| &sequence[end + 1..]);
    }
    plain + rest
}

/// What cargo waits for while another one builds, if the line says that it does.
pub fn wait_of_cargo(line: &str) -> Option<String> {
    without_colour(line).trim().strip_prefix("Blocking ").map(|wait| format!("{wait} (another cargo has it)"))
}

/// Whether a line of cargo's only reports the start or end of one of its steps, which the live line shows already.
pub fn is_cargo_step(line: &str) -> bool {
    const STEPS: [&str; 11] = [
        "Checking",
        "Compiling",
        "Dirty",
        "Documenting",
        "Downloaded",
        "Downloading",
        "Finished",
        "Fresh",
        "Generated",
        "Locking",
        "Updating",
    ];
    let line = without_colour(line);
    line.starts_with(' ') && STEPS.contains(&line.split_whitespace().next().unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(parts: &[&str]) -> Vec<String> {
        let (mut output, mut pieces) = (Output::default(), Vec::new());
        let mut each = |piece: Piece<'_>| pieces.push(format!("{piece:?}"));
        parts.iter().for_each(|part| output.take(part.as_bytes(), &mut each));
        output.end(&mut each);
        pieces
    }

    #[test]
    fn redrawn_lines_are_told_from_those_that_stay() {
        let drawn = "\x1b[1m\x1b[96m    Building\x1b[0m [=> ] 1/4: itoa, mem";
        let found = pieces(&[drawn, "chr   \r\x1b[K\x1b[1mwarning\x1b[0m: unused\nlast"]);
        let expected = [
            "Redrawn(\"    Building [=> ] 1/4: itoa, memchr   \")",
            "Line(\"\\u{1b}[1mwarning\\u{1b}[0m: unused\")",
            "Line(\"last\")",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn cargo_s_counts_are_read() {
        assert_eq!(counts("    Building [=> ] 1/4: itoa, memchr   "), Some((1, 4, "itoa, memchr")));
        assert_eq!(counts("    Building [===] 57/57: quire-mm(test)"), Some((57, 57, "quire-mm(test)")));
        assert_eq!(counts("Downloading 2 crates"), None);
        assert_eq!(counts("    Building [=> ] many"), None);
    }

    #[test]
    fn steps_of_cargo_are_not_lines() {
        assert!(is_cargo_step("\x1b[1m\x1b[92m   Compiling\x1b[0m ryu v1.0"));
        assert!(is_cargo_step("    Finished `dev` profile"));
        assert_eq!(wait_of_cargo("   Compiling ryu v1.0"), None);
        let wait = wait_of_cargo("\x1b[1m\x1b[96m    Blocking\x1b[0m waiting for file lock on build directory");
        assert_eq!(wait.as_deref(), Some("waiting for file lock on build directory (another cargo has it)"));
        assert!(!is_cargo_step("Compiling is what a test says it does"));
        assert!(!is_cargo_step(""));
    }

    #[test]
    fn a_plain_line_has_what_is_known() {
        let known = State { done: 12, total: 40, detail: "quire-mm".into(), ended: false };
        let time = Duration::from_secs(14);
        assert_eq!(plain("compiling", &known, time), "compiling: 12 of 40, quire-mm, 0:14");
        assert_eq!(plain("waiting", &State::default(), Duration::from_secs(185)), "waiting: 3:05");
    }

    /// A silent step reports that it works, and its program's lines arrive in order.
    #[test]
    fn a_program_s_lines_come_in_the_order_written() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three; exit 3"]);
        let mut lines = Vec::new();
        let (status, ()) =
            watch("a test", &mut command, true, |_, line| lines.push(line.to_owned()), |_| Ok(())).unwrap();
        assert_eq!((status.code(), lines.join(" ")), (Some(3), "one two three".to_owned()));
    }
}
