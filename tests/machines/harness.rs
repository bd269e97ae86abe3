//! Boots a machine for a list of commands, and keeps the outcome.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Longer than any boot with its commands takes on a busy machine; a test that takes longer hangs.
const SECONDS: u32 = 420;

/// The exit status of a run whose time was up.
pub const TIMED_OUT: i32 = 124;
/// The exit status of a kernel that panicked.
pub const PANICKED: i32 = 101;

/// The options of one `cargo xtask run`.
#[derive(Clone)]
pub struct Machine {
    options: Vec<String>,
    seconds: u32,
    /// What xtask is told to do: `run`, and what it says besides.
    command: &'static [&'static str],
    /// The xtask that boots it, if not that of these sources.
    xtask: Option<PathBuf>,
}

impl Machine {
    /// A machine with these options.
    pub fn new(options: &[&str]) -> Machine {
        let options = options.iter().map(|&o| o.to_owned()).collect();
        Machine { options, seconds: SECONDS, command: &["run"], xtask: None }
    }

    /// The default machine.
    pub fn virt() -> Machine {
        Machine::new(&[])
    }

    /// The Raspberry Pi 4.
    pub fn rpi4() -> Machine {
        Machine::new(&["--board", "rpi4"])
    }

    /// Puts a host file into the boot archive.
    pub fn add(mut self, host: &Path, guest: &str) -> Machine {
        self.options.extend(["--add".to_owned(), format!("{}:{guest}", host.display())]);
        self
    }

    /// Puts a directory's files over the boot archive.
    pub fn root(mut self, dir: &Path) -> Machine {
        self.options.extend(["--root".to_owned(), dir.display().to_string()]);
        self
    }

    /// Puts a Debian package into it.
    pub fn deb(mut self, name: &str) -> Machine {
        self.options.extend(["--deb".to_owned(), name.to_owned()]);
        self
    }

    /// Shows the kernel another device tree.
    pub fn tree(mut self, tree: &Path) -> Machine {
        self.options.extend(["--dtb".to_owned(), tree.display().to_string()]);
        self
    }

    /// Shows its memory as a page, at any port.
    pub fn viewed(mut self) -> Machine {
        self.command = &["view", "--port", "0"];
        self
    }

    /// Boots what another xtask has built.
    pub fn by(mut self, xtask: &Path) -> Machine {
        self.xtask = Some(xtask.into());
        self
    }

    /// Stops the machine after this time.
    pub fn seconds(mut self, seconds: u32) -> Machine {
        self.seconds = seconds;
        self
    }

    /// Boots, lets the shell run the commands, and returns when the machine is off.
    pub fn exec(&self, commands: &str) -> Outcome {
        self.run(&["--exec", commands])
    }

    /// Boots the kernel that checks its own memory manager, and returns when the machine is off.
    pub fn selftest(&self) -> Outcome {
        self.run(&["--selftest"])
    }

    fn run(&self, options: &[&str]) -> Outcome {
        let done = self.command().args(options).output().expect("xtask starts");
        Outcome {
            run: format!("{} {options:?}", self.options.join(" ")),
            status: done.status.code().expect("xtask ends by itself"),
            output: text(&done.stdout),
            log: text(&done.stderr),
        }
    }

    /// The command that boots this machine, for tests that handle its terminal themselves.
    pub fn command(&self) -> Command {
        let own = || env::var_os("QUIRE_XTASK").expect("these tests are run by `cargo xtask test`");
        let xtask = self.xtask.as_ref().map_or_else(own, |xtask| xtask.into());
        let mut command = Command::new(xtask);
        command.args(self.command).args(["--no-build", "--timeout", &self.seconds.to_string()]).args(&self.options);
        command.stdin(Stdio::null());
        command
    }
}

/// What a machine did.
pub struct Outcome {
    run: String,
    /// The exit status of xtask, which is the guest's.
    pub status: i32,
    /// What the programs printed.
    pub output: String,
    /// What the kernel and xtask said.
    pub log: String,
}

impl Outcome {
    /// The programs' output, of a run that must have succeeded.
    #[track_caller]
    pub fn succeeded(&self) -> &str {
        self.ended_with(0)
    }

    /// The programs' output, of a run that must have ended with this status.
    #[track_caller]
    pub fn ended_with(&self, status: i32) -> &str {
        assert_eq!(self.status, status, "exit status\n{self}");
        &self.output
    }

    /// Output and log together, for a machine that may have one port.
    pub fn all(&self) -> String {
        format!("{}{}", self.output, self.log)
    }

    /// Fails unless the output has this line.
    #[track_caller]
    pub fn has_line(&self, line: &str) {
        assert!(self.output.lines().any(|l| l == line), "no line '{line}'\n{self}");
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {}: status {}\n--- output\n{}\n--- log\n{}", self.run, self.status, self.output, self.log)
    }
}

/// A console's bytes as text, its line ends as a program writes them.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "\n")
}

/// Compiles a C program of tests/programs for AArch64 Linux: static, and nothing but raw system calls.
pub fn compile(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(name);
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(source.file_stem().expect("a source has a name"));
    // Several tests may compile the same program at once: only a complete file gets the name.
    let part = program.with_extension(format!("{:?}", std::thread::current().id()));
    let mut compiler = Command::new("aarch64-linux-gnu-gcc");
    compiler.args(["-O1", "-static", "-nostdlib", "-ffreestanding", "-Wall", "-Werror", "-o"]);
    let status = compiler.arg(&part).arg(&source).status().expect("the cross compiler starts");
    assert!(status.success(), "{} does not compile", source.display());
    fs::rename(&part, &program).expect("the program gets its name");
    program
}

/// The device tree of QEMU's virt with 4 CPUs, a GICv2 and two serial ports, plus the contents of the file `name` in
/// tests/trees. QEMU itself writes memory and command line.
pub fn tree(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Several tests may make the same tree at once.
    let file = |what: &str| directory.join(format!("{name}.{:?}.{what}", std::thread::current().id()));
    let (base, overlay, whole) = (file("base"), file("overlay"), file("dtb"));
    let run = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).stdout(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "{program} {arguments:?}");
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("trees").join(name);
    let [base, overlay, whole, source] = [&base, &overlay, &whole, &source].map(|p| p.to_str().expect("a plain path"));
    let board = format!("virt,gic-version=2,dumpdtb={base}");
    let ports = ["-serial", "null", "-serial", "null"];
    let machine = ["-M", &board, "-cpu", "cortex-a72", "-smp", "4", "-display", "none", "-nic", "none"];
    run("qemu-system-aarch64", &[&machine[..], &ports].concat());
    run("dtc", &["-q", "-I", "dts", "-O", "dtb", "-o", overlay, source]);
    run("fdtoverlay", &["-i", base, "-o", whole, overlay]);
    PathBuf::from(whole)
}

/// Debian's busybox for AArch64, static.
pub fn busybox() -> PathBuf {
    env::var_os("QUIRE_BUSYBOX").expect("these tests are run by `cargo xtask test`").into()
}
