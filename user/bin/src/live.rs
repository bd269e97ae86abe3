//! Pictures in the terminal, drawn again and again.

use quire_rt::{eprintln, io, print, time, tty};

use crate::keyboard::Keyboard;
use crate::{Options, USAGE};

/// Lines assumed for a terminal of unknown size.
const ROWS: usize = 24;

/// Calls `show` every so many seconds (`-d`, 1 without it), until `q` is typed or the program is interrupted (Ctrl-C): the
/// exit status. With `-o`, and without a terminal, there is one picture. `show` is told how many lines there are.
pub fn run(name: &str, options: &Options, mut show: impl FnMut(usize)) -> i32 {
    let seconds = options.value('d').map_or(Some(1u64), crate::number);
    let Some(seconds) = seconds.filter(|seconds| (1..=3600).contains(seconds)) else {
        eprintln!("{name}: -d wants a number of seconds, 1 to 3600");
        return USAGE;
    };
    let has_terminal = tty::get(0).is_ok() && tty::get(1).is_ok();
    let once = options.has('o') || !has_terminal;
    let keyboard = if once { None } else { Keyboard::open() };
    loop {
        if !once {
            // Home, and everything below it cleared.
            print!("\x1b[H\x1b[J");
        }
        // (The cursor has a line too.)
        show(if once { usize::MAX } else { tty::size(1).map_or(ROWS, |(_, rows)| rows).saturating_sub(1) });
        io::flush();
        if once || stopped(keyboard.as_ref(), seconds) {
            return 0;
        }
    }
}

/// Waits for so long, and returns whether `q` is typed meanwhile.
fn stopped(keyboard: Option<&Keyboard>, seconds: u64) -> bool {
    let end = time::monotonic() + seconds * 1_000_000_000;
    let left = || end.saturating_sub(time::monotonic());
    let Some(keyboard) = keyboard else {
        time::sleep(left());
        return false;
    };
    while left() > 0 {
        match keyboard.key(left().div_ceil(1_000_000)) {
            Ok(Some(b'q')) => return true,
            Ok(_) => {}
            // There is no keyboard any more.
            Err(_) => time::sleep(left()),
        }
    }
    false
}
