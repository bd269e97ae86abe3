//! Typing at the shell.

use crate::harness::Machine;
use crate::terminal::{PROMPT, Terminal};

const CTRL_A: &str = "\x01";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const UP: &str = "\x1b[A";
const LEFT: &str = "\x1b[D";
const TAB: &str = "\t";

fn check(machine: &Machine) {
    let mut terminal = Terminal::boot(machine);
    assert!(!terminal.is_cooked(), "keys go to the machine one by one");

    assert_eq!(terminal.run("echo one; echo two | cat && echo three"), "one\ntwo\nthree");
    assert_eq!(terminal.run("false || echo \"$? is  the status\""), "1 is  the status");

    // History: the line before the last one, changed in its middle.
    terminal.run("echo history");
    terminal.run("echo later");
    terminal.press(&format!("{UP}{UP}"));
    terminal.expect("echo history");
    terminal.press(&format!("{}pre\r", LEFT.repeat("history".len())));
    terminal.expect("\nprehistory\n");
    terminal.expect(PROMPT);

    // Completion of a program's name and of a path.
    terminal.press(&format!("buddyi{TAB}"));
    terminal.expect("buddyinfo");
    terminal.press(CTRL_C);
    terminal.expect(PROMPT);
    terminal.press(&format!("ls /boot/kern{TAB}"));
    terminal.expect("/boot/kernel.sym");
    terminal.press("\r");
    terminal.expect("kernel.sym\n");
    terminal.expect(PROMPT);

    // Ctrl-C ends the program in the foreground and not the shell.
    terminal.start("sleep 1000");
    terminal.press(CTRL_C);
    terminal.expect("[130]");
    terminal.expect(PROMPT);
    assert_eq!(terminal.run("echo alive"), "alive");

    // Ctrl-D ends a program's input; at the prompt it ends the shell, and init starts another.
    terminal.start("cat");
    terminal.press("typed\r");
    terminal.expect("typed\n");
    terminal.expect("typed\n");
    terminal.press(CTRL_D);
    terminal.expect(PROMPT);
    terminal.press(CTRL_D);
    terminal.expect("the shell ended");
    terminal.expect(PROMPT);
    assert_eq!(terminal.run("echo again"), "again");

    terminal.press(&format!("{CTRL_A}x"));
    assert_eq!(terminal.status(), 0);
    assert!(terminal.is_cooked(), "the terminal is as it was");
}

#[test]
fn on_virt() {
    check(&Machine::virt());
}

#[test]
fn on_rpi4() {
    check(&Machine::rpi4());
}

/// The shell asks the terminal for its size, and programs get the answer. A terminal that does not answer is no
/// problem.
#[test]
fn the_width_is_the_terminal_s() {
    let longest = |text: &str| text.lines().map(str::len).max().unwrap_or(0);
    let mut terminal = Terminal::boot(&Machine::virt());
    let narrow = longest(&terminal.run("ls /tests"));
    assert!((60..80).contains(&narrow), "{narrow} columns of 80");
    terminal.press("\x1b[50;132R");
    let wide = longest(&terminal.run("ls /tests"));
    assert!((112..132).contains(&wide), "{wide} columns of 132");
}

#[test]
fn poweroff_leaves() {
    let mut terminal = Terminal::boot(&Machine::virt());
    terminal.press("poweroff\r");
    assert_eq!(terminal.status(), 0);
    assert!(terminal.is_cooked(), "the terminal is as it was");
}
