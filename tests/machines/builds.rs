//! Several builds in one checkout.

use std::env;
use std::process::{Command, Stdio};

use crate::harness::Machine;

fn build() -> Command {
    let mut command = Command::new(env::var_os("QUIRE_XTASK").expect("these tests are run by `cargo xtask test`"));
    command.arg("build");
    command
}

/// Builds that find nothing to compile all lay out the boot archive at once, while others boot from it.
#[test]
fn builds_and_runs_at_once_do_not_disturb_each_other() {
    let start = || {
        let mut command = build();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("xtask starts")
    };
    for _ in 0..3 {
        let builds = [start(), start(), start()];
        Machine::virt().exec("true").succeeded();
        for build in builds {
            let done = build.wait_with_output().expect("xtask ends");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
    }
}
