//! What the interactive shell's programs may have together leaves room for the shell.

use std::thread;
use std::time::Duration;

use crate::harness::Machine;
use crate::terminal::Terminal;

const KILL: &str = "echo 1 > /sys/fs/cgroup/shell/cgroup.kill";

/// A fork bomb in the background, and then what a person does about it, with what the shell has built in.
fn survives(machine: &Machine, bomb: &str) {
    let mut terminal = Terminal::boot(machine);
    let limit = terminal.run("cat /sys/fs/cgroup/shell/pids.max");
    let limit: usize = limit.trim().parse().expect("a limit");
    assert!((100..32_000).contains(&limit), "{limit} tasks");
    terminal.run(&format!("{bomb} &"));
    // (It takes all CPUs; each of these lines asks a server, too.)
    for _ in 0..10 {
        thread::sleep(Duration::from_secs(1));
        assert_eq!(terminal.run("echo alive > /tmp/alive; echo $?"), "0");
    }
    assert!(terminal.run(KILL).lines().all(|line| line.ends_with(" Killed")));
    // (The program that asks is there, too.)
    let is_killed = (0..50).any(|_| terminal.run("cat /sys/fs/cgroup/shell/pids.current").trim() == "1");
    assert!(is_killed, "to the last");
    let peak: usize = terminal.run("cat /sys/fs/cgroup/shell/pids.peak").trim().parse().expect("a number");
    assert!(peak >= 300, "the bomb was one: {peak}");
    assert_eq!(terminal.run("echo again | cat"), "again");
    terminal.press("poweroff\r");
    assert_eq!(terminal.status(), 0);
}

#[test]
fn a_fork_bomb_of_root() {
    survives(&Machine::new(&["--smp", "2", "--mem", "256M"]), "tasks bomb");
}

#[test]
fn a_fork_bomb_of_a_user_on_a_small_machine() {
    survives(&Machine::new(&["--smp", "1", "--mem", "128M"]), "tasks bomb 1000");
}
