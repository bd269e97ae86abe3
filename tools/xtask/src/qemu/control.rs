//! The control socket (QMP), through which QEMU reports why a machine ended, and has its time stand.
//!
//! QEMU exits with status 0 also when a signal ends it, and the guest's own status 0 must not be mistaken for that.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread::{self, JoinHandle};

use anyhow::Result;
use command_fds::FdMapping;

/// The descriptor that QEMU inherits.
const CONTROL_FD: i32 = 6;

/// What a QEMU reports while it runs.
pub struct Control {
    events: JoinHandle<String>,
    commands: Commands,
}

/// Has a machine's time stand, or go on.
pub struct Commands(UnixStream);

impl Commands {
    /// A machine that is off does nothing any more.
    pub fn pause(&self, on: bool) {
        let command = if on { "stop" } else { "cont" };
        let _ = (&self.0).write_all(format!("{{\"execute\": \"{command}\"}}\n").as_bytes());
    }
}

impl Control {
    /// Adds a control socket to a QEMU that has not started.
    pub fn add(qemu: &mut Command, inherited: &mut Vec<FdMapping>) -> Result<Self> {
        let (mut ours, theirs) = UnixStream::pair()?;
        inherited.push(FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: CONTROL_FD });
        qemu.args(["-chardev", &format!("socket,id=control,fd={CONTROL_FD}")]);
        qemu.args(["-mon", "chardev=control,mode=control"]);
        // Without this command QEMU reports no events.
        ours.write_all(b"{\"execute\": \"qmp_capabilities\"}\n")?;
        let commands = Commands(ours.try_clone()?);
        let events = thread::spawn(move || {
            let mut events = Vec::new();
            // Whatever came before an error is all there is.
            let _ = ours.read_to_end(&mut events);
            String::from_utf8_lossy(&events).into_owned()
        });
        Ok(Self { events, commands })
    }

    /// Commands for the machine, for somebody else to give.
    pub fn commands(&self) -> Result<Commands> {
        Ok(Commands(self.commands.0.try_clone()?))
    }

    /// Whether a signal ended the QEMU, which has ended, while the machine was on.
    pub fn was_signalled(self) -> bool {
        self.events.join().is_ok_and(|events| reports_signal(&events))
    }
}

/// Whether a shutdown that a signal caused is among the events, of which each is a line.
fn reports_signal(events: &str) -> bool {
    events.lines().any(|event| {
        let dense: String = event.split_whitespace().collect();
        dense.contains("\"event\":\"SHUTDOWN\"") && dense.contains("\"reason\":\"host-signal\"")
    })
}

#[cfg(test)]
mod tests {
    use super::reports_signal;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"major": 9}}, "capabilities": ["oob"]}}
{"return": {}}
"#;

    fn shutdown(guest: bool, reason: &str) -> String {
        format!(
            "{GREETING}{{\"timestamp\": {{\"seconds\": 1}}, \"event\": \"SHUTDOWN\", \"data\": {{\"guest\": {guest}, \
             \"reason\": \"{reason}\"}}}}\r\n"
        )
    }

    #[test]
    fn only_a_signal_counts() {
        assert!(reports_signal(&shutdown(false, "host-signal")));
        assert!(!reports_signal(&shutdown(true, "guest-shutdown")));
        assert!(!reports_signal(&shutdown(false, "host-qmp-quit")));
        assert!(!reports_signal(GREETING));
        assert!(!reports_signal(""));
    }
}
