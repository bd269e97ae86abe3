//! Names: files that programs make in /tmp, and what is left of them when their server dies.

use std::path::Path;

use crate::harness::{Machine, busybox};

#[test]
fn busybox_works_with_files_that_it_makes() {
    let commands = "cd /tmp; B=/busybox; $B mkdir -p a/b; echo one two > a/f; $B cp -r a z; $B sed -i s/two/2/ z/f; \
        $B mv z/f a/b/g; $B cat a/f a/b/g; $B find a z; $B ln -s a/f l; $B cat l; $B rm -r a z; $B ls; \
        $B dd if=/dev/zero of=big bs=64k count=16 2>/dev/null; $B wc -c big; $B rm big l; \
        $B cp /bin/echo e; ./e from /tmp; $B rm e; echo '#!/bin/echo' > s; $B chmod +x s; ./s; $B rm s; $B ls -A";
    let outcome = Machine::virt().add(&busybox(), "/busybox").exec(commands);
    let wanted = "one two\none 2\na\na/b\na/b/g\na/f\nz\nz/b\none two\nl\n1048576 big\nfrom /tmp\n./s\n";
    assert_eq!(outcome.succeeded(), wanted, "{outcome}");
}

#[test]
fn busybox_finds_what_it_looks_for_in_proc() {
    let commands = "B=/busybox; $B free | $B grep -c Swap; $B df /tmp | $B grep -c tmpfs; $B mount | $B sort; $B ps -o pid,comm | $B grep -c '^ *1 init'; \
        $B top -b -n1 | $B grep -c '[/]tmpfs'; $B pidof tmpfs | $B wc -w; $B cat /proc/self/comm; $B readlink /proc/mounts; \
        $B grep -c Node /proc/buddyinfo; $B cat /proc/1/none 2>/dev/null || echo none";
    let outcome = Machine::virt().add(&busybox(), "/busybox").exec(commands);
    // (Servers start beside each other.)
    let mounts = "cgroup2 on /cgroup type cgroup2 (rw)\nproc on /proc type proc (rw)\nrootfs on / type rootfs (ro)\n\
        sysfs on /sys type sysfs (rw)\ntmpfs on /dev/shm type tmpfs (rw)\ntmpfs on /run type tmpfs (rw)\n\
        tmpfs on /tmp type tmpfs (rw)\n";
    let wanted = format!("1\n1\n{mounts}1\n1\n1\nbusybox\nself/mounts\n1\nnone\n");
    assert_eq!(outcome.succeeded(), wanted, "{outcome}");
}

#[test]
fn a_server_that_is_killed_is_started_again() {
    let outcome = Machine::new(&["--smp", "4"]).exec("/tests/servers die");
    outcome.succeeded();
    let restarts = outcome.all().matches("init: tmpfs ended").count();
    assert_eq!(restarts, 3, "{outcome}");
}

/// The page's example is the program's text, and does what the page says.
#[test]
fn the_example_of_a_server_is_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("a file of the project");
    let (page, program) = (read("docs/servers.md"), read("user/servers/bin/src/bin/example.rs"));
    let shown = page.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    assert!(program.ends_with(shown) && shown.contains("fn answer"), "the page shows another program");
    let commands = "/servers/example & sleep 1; cat /mnt/greeting; cat /mnt/../mnt/greeting; cat /mnt/none";
    let outcome = Machine::virt().exec(commands);
    let _ = outcome.ended_with(1);
    let greetings = outcome.output.lines().filter(|line| line.starts_with("Good day, process ")).count();
    assert_eq!(greetings, 2, "{outcome}");
    assert!(outcome.all().contains("/mnt/none: no such file"), "{outcome}");
}
