//! Boots a machine: to the shell in this terminal, or to run commands and return their output and status.
//!
//! With `--exec` (or `--selftest`) each serial port of the machine is one end of a socket pair. The first one's bytes
//! go to standard output unchanged, the second one's (kernel messages) to standard error. A guest's exit status comes
//! out of QEMU by semihosting. The boot archive is an unnamed file that QEMU inherits, so several runs may go on at
//! once and leave nothing behind.

use std::collections::VecDeque;
use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use command_fds::{CommandFdExt, FdMapping};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::added;
use crate::build::{self, Added, Built};
use crate::cargo::Workspace;
use crate::deb;
use crate::options::{Board, RunOptions};
use crate::qemu::{self, Commands, Control};
use crate::setup;

/// The exit status of a machine that was stopped because its time was up, as with timeout(1).
const TIMED_OUT: u8 = 124;

/// The exit status of a machine that a signal from outside ended.
const SIGNALLED: u8 = 1;

/// What is said of a machine that ended and wrote nothing.
const MUTE: &str = "the kernel wrote nothing: it found no console. Options that change the hardware (--dtb, --cpu, \
    --qemu, --append console=) may be why; without them it writes to this terminal";

/// What is said where another port may be the console than the first.
const PORT: &str = "--append console=: this terminal shows the machine's first serial port only";
const PORTS: &str =
    "--append console=: standard output shows the machine's first serial port, standard error its second";

/// Bytes of the console that a time-out shows.
const TAIL_BYTES: usize = 4096;

/// What QEMU inherits beside its control socket: the boot archive and, with `--exec`, two serial ports.
const ARCHIVE_FD: i32 = 3;
const SERIAL_FD: [i32; 2] = [4, 5];
/// What it inherits for a view ([`qemu::Control`] has 6).
const VIEW_FD: i32 = 7;

/// Where a machine's view gets its pictures.
pub trait Viewer {
    /// The machine is about to start, with the other end of this port.
    fn attach(self: Box<Self>, port: UnixStream, commands: Commands) -> Result<()>;
}

/// The service that sends them. The devices that no other one drives are left to it.
const VIEW_SERVICE: &str = "view    /servers/view    wait  device:virtio,mmio";

/// `cargo xtask run`: the exit status is the guest's.
pub fn run(options: &RunOptions) -> Result<u8> {
    boot(options, None)
}

/// Boots the machine that the options describe, with somebody who views it.
pub fn boot(options: &RunOptions, viewer: Option<Box<dyn Viewer>>) -> Result<u8> {
    // Report wrong options before a build.
    let mut machine = options.machine.clone();
    machine.view = viewer.is_some().then_some(VIEW_FD);
    let mut qemu = qemu::machine(options.build.board, &machine)?;
    added::check(&options.add, options.exec.is_some())?;
    deb::check(&options.deb)?;
    if let Some(tree) = &options.root {
        ensure!(tree.is_dir(), "--root {}: not a directory", tree.display());
    }
    if let Some(port) = options.gdb {
        TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("--gdb={port}: this port is not free"))?;
    }
    setup::qemu()?;
    if let Some(cpu) = &options.machine.cpu {
        qemu::check_cpu(cpu)?;
    }
    let built = match options.no_build {
        true => Built::at(&Workspace::find()?, &options.build),
        false => build::build(&options.build)?,
    };
    let mut archive = File::from(memfd_create("quire-boot-archive", MemfdFlags::CLOEXEC)?);
    let packages = match options.deb.as_slice() {
        [] => None,
        names => Some(deb::tree(&Workspace::find()?, names)?),
    };
    let service = viewer.is_some().then_some(VIEW_SERVICE);
    let (tree, commands) = (options.root.as_deref(), options.exec.as_deref());
    let added = Added { service, packages, tree, files: &options.add, exec: commands };
    let contents = built.archive(&added)?;
    qemu::room_for_archive(options.build.board, &options.machine, contents.len() as u64)?;
    archive.write_all(&contents)?;
    let mut inherited = vec![FdMapping { parent_fd: archive.into(), child_fd: ARCHIVE_FD }];

    qemu.arg("-kernel").arg(&built.image).args(["-initrd", &format!("/proc/self/fd/{ARCHIVE_FD}")]);
    qemu.args(["-append", &kernel_arguments(options)]);
    match (&options.machine.dtb, options.build.board) {
        (Some(tree), _) => drop(qemu.arg("-dtb").arg(tree)),
        (None, Board::Rpi4) => drop(qemu.arg("-dtb").arg(setup::device_tree()?)),
        (None, Board::Virt) => {}
    }
    if let Some(port) = options.gdb {
        qemu.args(["-S", "-gdb", &format!("tcp:127.0.0.1:{port}")]);
        let elf = built.elf.strip_prefix(env::current_dir()?).unwrap_or(&built.elf).display();
        eprintln!("xtask: the machine waits for a debugger, in another terminal:");
        eprintln!("xtask:   {} {elf} -ex 'target remote :{port}'", setup::DEBUGGER);
    }
    qemu.args(&options.qemu);
    if options.append.iter().flat_map(|more| more.split_whitespace()).any(|argument| argument.starts_with("console=")) {
        eprintln!("xtask: {}", if runs_alone(options) { PORTS } else { PORT });
    }
    let limit = options.timeout.map(|seconds| Duration::from_secs(seconds.into()));
    let control = Control::add(&mut qemu, &mut inherited)?;
    if let Some(viewer) = viewer {
        let (ours, theirs) = UnixStream::pair()?;
        inherited.push(FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: VIEW_FD });
        viewer.attach(ours, control.commands()?)?;
    }
    match runs_alone(options) {
        true => exec(qemu, inherited, control, limit),
        false => interact(qemu, inherited, control, limit),
    }
}

/// Whether the run is not interactive: the machine does its work and powers off.
fn runs_alone(options: &RunOptions) -> bool {
    options.exec.is_some() || options.build.selftest
}

fn kernel_arguments(options: &RunOptions) -> String {
    let mut arguments = String::from("console=serial0");
    if runs_alone(options) {
        arguments += " log=serial1 semihosting";
    }
    if let Some(more) = &options.append {
        arguments.push(' ');
        arguments += more;
    }
    arguments
}

/// Runs the machine with its serial port and QEMU's monitor in this terminal.
fn interact(mut qemu: Command, inherited: Vec<FdMapping>, control: Control, limit: Option<Duration>) -> Result<u8> {
    eprintln!("xtask: booting; Ctrl-A X leaves");
    let terminal = tcgetattr(io::stdin()).ok();
    qemu.args(["-serial", "mon:stdio"]);
    let mut child = spawn(qemu, inherited)?;
    let ended = wait(&mut child, limit);
    if let Some(settings) = &terminal {
        tcsetattr(io::stdin(), OptionalActions::Now, settings).context("restoring the terminal")?;
    }
    Ok(ended?.map_or_else(time_is_up, |status| status_of(status, control)))
}

/// Runs the machine with its serial ports on standard output and standard error, and without standard input.
fn exec(mut qemu: Command, mut inherited: Vec<FdMapping>, control: Control, limit: Option<Duration>) -> Result<u8> {
    qemu.args(["-semihosting-config", "enable=on,target=native", "-monitor", "none"]);
    // QEMU itself must not write between the programs' output.
    qemu.stdin(Stdio::null()).stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
    let tail = Arc::new(Mutex::new(Tail::default()));
    let mut copiers = Vec::new();
    for (number, fd) in SERIAL_FD.into_iter().enumerate() {
        let (ours, theirs) = UnixStream::pair()?;
        inherited.push(FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: fd });
        qemu.args(["-chardev", &format!("socket,id=serial{number},fd={fd}"), "-serial"]);
        qemu.arg(format!("chardev:serial{number}"));
        let out: Box<dyn Write + Send> = if number == 0 { Box::new(io::stdout()) } else { Box::new(io::stderr()) };
        copiers.push(copy(ours, out, Arc::clone(&tail)));
    }
    let mut child = spawn(qemu, inherited)?;
    let ended = wait(&mut child, limit)?;
    for copier in copiers {
        // QEMU has ended, so its sockets have too.
        let _ = copier.join();
    }
    let tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
    let status = ended.map_or_else(time_is_up, |status| status_of(status, control));
    match (status, tail.bytes.is_empty()) {
        (TIMED_OUT, false) => eprintln!("xtask: the console's last lines:\n{tail}"),
        (_, true) => {
            eprintln!("xtask: {MUTE}");
            // What a program said is not known, whatever it returned.
            return Ok(status.max(1));
        }
        _ => {}
    }
    Ok(status)
}

/// Starts QEMU; it ends when xtask does, however that happens.
fn spawn(mut qemu: Command, inherited: Vec<FdMapping>) -> Result<Child> {
    qemu.fd_mappings(inherited)?;
    // SAFETY: between fork and exec only async-signal-safe work is allowed; this is one prctl call, which
    // allocates nothing and takes no lock.
    unsafe { qemu.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?)) };
    qemu.spawn().with_context(|| format!("starting {}", qemu::QEMU))
    // Dropping the command closes this side's copies of the descriptors, so that the sockets end with QEMU.
}

/// Waits until the machine, which has just started, is off; `None`: its time was up first, and it was killed.
fn wait(child: &mut Child, limit: Option<Duration>) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn time_is_up() -> u8 {
    eprintln!("xtask: the time is up, the machine was stopped");
    TIMED_OUT
}

fn status_of(status: ExitStatus, control: Control) -> u8 {
    if let Some(signal) = status.signal() {
        eprintln!("xtask: QEMU was ended by signal {signal}");
    } else if control.was_signalled() {
        eprintln!("xtask: a signal from outside ended QEMU while the machine was on");
        return SIGNALLED;
    }
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Copies one serial port until QEMU closes it.
fn copy(mut port: UnixStream, mut out: Box<dyn Write + Send>, tail: Arc<Mutex<Tail>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = port.read(&mut buffer) {
            tail.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..count]);
            // Even if nobody reads this output any more, the guest must not hang on a full socket.
            let _ = out.write_all(&buffer[..count]).and_then(|()| out.flush());
        }
    })
}

/// The machine's last output, over both ports.
#[derive(Default)]
struct Tail {
    bytes: VecDeque<u8>,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let surplus = self.bytes.len().saturating_sub(TAIL_BYTES);
        self.bytes.drain(..surplus);
    }
}

impl std::fmt::Display for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes: Vec<u8> = self.bytes.iter().copied().filter(|&b| b != b'\r').collect();
        f.write_str(&String::from_utf8_lossy(&bytes))
    }
}
