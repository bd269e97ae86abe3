//! Pictures in the terminal, drawn again and again.

use quire_rt::{eprintln, io, print, tty};

use crate::{Options, USAGE};

/// Lines assumed for a terminal of unknown size.
const ROWS: usize = 24;

/// Calls `show` every so many seconds (`-d`, 1 without it), until the program is interrupted (Ctrl-C) or `q` and Enter are typed: the exit status. With `-o`, and
/// without a terminal, there is one picture. `show` is told how many lines there are.
pub fn run(name: &str, options: &Options, mut show: impl FnMut(usize)) -> i32 {
    let seconds = options.value('d').map_or(Some(1u64), crate::number);
    let Some(seconds) = seconds.filter(|seconds| (1..=3600).contains(seconds)) else {
        eprintln!("{name}: -d wants a number of seconds, 1 to 3600");
        return USAGE;
    };
    let has_terminal = tty::get(0).is_ok() && tty::get(1).is_ok();
    let once = options.has('o') || !has_terminal;
    loop {
        if !once {
            // Home, and everything below it cleared.
            print!("\x1b[H\x1b[J");
        }
        // (What is typed has a line too.)
        show(if once { usize::MAX } else { tty::size(1).map_or(ROWS, |(_, rows)| rows).saturating_sub(1) });
        io::flush();
        if once || stopped(seconds) {
            return 0;
        }
    }
}

/// Waits, and returns whether a line with a `q` came meanwhile. Without input it only waits.
fn stopped(seconds: u64) -> bool {
    if !matches!(io::wait_readable(0, seconds * 1000), Ok(true)) {
        return false;
    }
    let mut typed = [0; 64];
    match io::read(0, &mut typed) {
        Ok(n) if n > 0 => typed[..n].contains(&b'q'),
        _ => {
            quire_rt::time::sleep_ms(seconds * 1000);
            false
        }
    }
}
