//! The command line, for users and tests, declared with clap.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Builds, boots and tests Quire.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Install what is missing on this machine; a second run does nothing.
    Setup,
    /// Build the kernel, the user programs and the boot archive.
    Build(BuildOptions),
    /// Boot to the shell in this terminal; Ctrl-A X leaves.
    Run(RunOptions),
    /// Boot to the shell as `run` does, and show the machine's memory as a page on this host, live.
    View(ViewOptions),
    /// Count the instructions of the memory calls, beside Linux's: tables, and a picture.
    Bench(BenchOptions),
    /// Make an SD card's image that boots on the board.
    Image(ImageOptions),
    /// Write the Pi's image to an SD card: asks, shows progress, reads back and compares.
    Flash(FlashOptions),
    /// Build the allocator's two C libraries and print their paths, one a line.
    Malloc,
    /// Draw a page that compares the memory schemes of textbooks; with a scheme, print the text that `lab` prints on Quire.
    Lab(LabOptions),
    /// Build the book and the reference of every crate; prints where they begin.
    Docs,
    /// Check formatting, and run clippy and rustdoc for every target.
    Lint,
    /// Run the host's tests, then the machines'; ends with `N passed, N failed`.
    Test(TestOptions),
}

/// A machine that Quire runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Board {
    /// QEMU's generic AArch64 machine.
    Virt,
    /// The Raspberry Pi 4 Model B (QEMU's raspi4b).
    Rpi4,
}

/// A board that boots from a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CardBoard {
    /// The Raspberry Pi 4 Model B.
    Rpi4,
}

#[derive(Args, Clone)]
pub struct BuildOptions {
    /// The machine; the kernel is the same for both.
    #[arg(long, value_enum, default_value_t = Board::Virt)]
    pub board: Board,
    /// Build the kernel with its debug assertions, little optimized.
    #[arg(long)]
    pub debug: bool,
    /// Build the kernel that checks its own memory manager in place of starting init, and powers off.
    #[arg(long)]
    pub selftest: bool,
}

#[derive(Args, Clone)]
pub struct RunOptions {
    #[command(flatten)]
    pub build: BuildOptions,
    #[command(flatten)]
    pub machine: MachineOptions,
    /// Kernel arguments, appended to those that xtask gives.
    #[arg(long, value_name = "ARGUMENTS", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// Put a host file into the boot archive, executable bit kept (guest path: /BASENAME); repeatable.
    #[arg(long, value_name = "HOST[:GUEST]")]
    pub add: Vec<AddedFile>,
    /// Put a directory's files, links and modes over the boot archive.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Put a Debian arm64 package and what it depends on into the boot archive; repeatable. Versions are locked in target/quire/deb.
    #[arg(long, value_name = "NAME")]
    pub deb: Vec<String>,
    /// Let the shell run these commands and power off; standard output carries what they print.
    #[arg(long, value_name = "COMMANDS", allow_hyphen_values = true, conflicts_with = "selftest")]
    pub exec: Option<String>,
    /// Stop the machine this many seconds after its start, with exit status 124; building does not count.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub timeout: Option<u32>,
    /// Give QEMU one more argument, after xtask's own; repeatable.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub qemu: Vec<String>,
    /// Boot the last build, without checking the sources.
    #[arg(long)]
    pub no_build: bool,
    /// Wait for a debugger before the first instruction, on this port of this machine.
    #[arg(long, value_name = "PORT", num_args = 0..=1, require_equals = true, default_missing_value = "1234",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub gdb: Option<u16>,
}

#[derive(Args, Clone)]
pub struct ViewOptions {
    #[command(flatten)]
    pub run: RunOptions,
    /// The port of the page, on 127.0.0.1; 0: any that is free.
    #[arg(long, value_name = "N", default_value_t = 8017)]
    pub port: u16,
    /// Pictures a second.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=30))]
    pub rate: u64,
    /// Write what comes to this file too, from the start.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Show such a file, without a machine, until Ctrl-C.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["record", "exec", "selftest", "gdb"])]
    pub replay: Option<PathBuf>,
}

#[derive(Args, Clone)]
pub struct BenchOptions {
    /// Run the same program on Debian's Linux too (fetches its kernel; takes minutes).
    #[arg(long)]
    pub vs_linux: bool,
    /// Measure the last builds, without checking the sources.
    #[arg(long)]
    pub no_build: bool,
    /// Only rows whose names begin with one of these; without any, all rows and the kernel's own fast paths.
    #[arg(value_name = "ROW", value_parser = row)]
    pub rows: Vec<String>,
}

#[derive(Args, Clone)]
pub struct ImageOptions {
    /// The board that the card is for.
    #[arg(long, value_enum)]
    pub board: CardBoard,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Args, Clone)]
pub struct FlashOptions {
    /// The card, such as /dev/sdX or /dev/mmcblkN: all of it is overwritten.
    #[arg(value_name = "DEVICE")]
    pub device: PathBuf,
}

#[derive(Args, Clone)]
pub struct LabOptions {
    /// A trace to draw, built in or a file; repeatable [default: all built-in traces].
    #[arg(long, value_name = "TRACE", conflicts_with = "words")]
    pub trace: Vec<String>,
    /// The page to write [default: target/quire/lab.html].
    #[arg(short, long, value_name = "FILE", conflicts_with = "words")]
    pub output: Option<PathBuf>,
    /// Print instead of drawing: `fits --trace t1`; `list` shows schemes and traces.
    #[arg(value_name = "SCHEME", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

#[derive(Args, Clone)]
pub struct TestOptions {
    /// Leave out the machines that only widen the matrix, and the unoptimized build.
    #[arg(long)]
    pub quick: bool,
    /// Boot also the machines that run for many minutes each.
    #[arg(long, conflicts_with = "quick")]
    pub long: bool,
    /// Run only tests whose names contain this.
    #[arg(long, value_name = "S", value_parser = filter)]
    pub filter: Option<String>,
}

/// The hardware that QEMU emulates.
#[derive(Args, Clone, Default)]
pub struct MachineOptions {
    /// Number of CPUs, at most 16, or 8 without `--gic 3` [default: 4].
    #[arg(long, value_name = "N", value_parser = cpus)]
    pub smp: Option<u32>,
    /// Memory, such as 128M or 8G [default: 1G; the Pi has 2G].
    #[arg(long, value_name = "SIZE")]
    pub mem: Option<MemorySize>,
    /// Number of NUMA nodes; memory and CPUs are split evenly. Quire tells 8 nodes apart and counts further ones as the
    /// first [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub numa: Option<u32>,
    /// Version of the interrupt controller [default: 2].
    #[arg(long, value_name = "2|3", value_parser = clap::value_parser!(u8).range(2..=3))]
    pub gic: Option<u8>,
    /// QEMU's name of a CPU of 64 bits [default: cortex-a72; the Pi has that].
    #[arg(long, value_name = "NAME")]
    pub cpu: Option<String>,
    /// Enter the kernel at EL2 (the Pi always does).
    #[arg(long)]
    pub el2: bool,
    /// Run deterministically: one instruction is one nanosecond.
    #[arg(long)]
    pub icount: bool,
    /// A raw disk image: virtio-blk on virt, the SD card on the Pi.
    #[arg(long, value_name = "FILE")]
    pub disk: Option<PathBuf>,
    /// Show the kernel this device tree of the board, in which QEMU rewrites memory and /chosen, instead of QEMU's own.
    #[arg(long, value_name = "FILE")]
    pub dtb: Option<PathBuf>,
    /// The machine has a console for its view, whose other end is this descriptor of QEMU's.
    #[arg(skip)]
    pub view: Option<i32>,
}

/// `HOST[:GUEST]`: a host file and its path in the boot archive, which never starts with a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedFile {
    pub host: PathBuf,
    pub guest: String,
}

impl FromStr for AddedFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, guest) = match text.rsplit_once(':') {
            Some((host, guest)) => (PathBuf::from(host), guest.to_owned()),
            None => {
                let host = PathBuf::from(text);
                let name = host.file_name().ok_or_else(|| format!("{text} names no file"))?;
                let name = name.to_str().ok_or_else(|| format!("{text} is not UTF-8"))?.to_owned();
                (host, name)
            }
        };
        let guest = guest.trim_start_matches('/').to_owned();
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !guest.split('/').all(plain) {
            return Err(format!("'{guest}' is not a path of a file in the guest"));
        }
        Ok(AddedFile { host, guest })
    }
}

/// The CPUs that Quire uses.
const MOST_CPUS: u32 = 16;

fn cpus(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("not a number of CPUs from 1 to {MOST_CPUS}")),
        Ok(count @ 1..=MOST_CPUS) => Ok(count),
        Ok(_) => Err(format!("Quire uses {MOST_CPUS} CPUs at most: --smp {MOST_CPUS} --gic 3")),
    }
}

/// The beginning of a row's name. It becomes a word of a command.
fn row(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("the names of rows are like fault.read_zero".to_owned()),
    }
}

/// A part of a test's name. Cargo would take one that begins with a dash for an option.
fn filter(text: &str) -> Result<String, String> {
    match text.is_empty() || text.starts_with('-') {
        false => Ok(text.to_owned()),
        true => Err("not a part of a test's name".to_owned()),
    }
}

/// With less, the kernel and its boot archive do not fit; README says so, and a test boots with it. How much more a larger archive needs
/// is known when it is built ([`crate::qemu::room_for_archive`]).
const LEAST_MEMORY: MemorySize = MemorySize { mebibytes: 31 };

/// A size in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize {
    pub mebibytes: u64,
}

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match &text[number.len()..] {
            "K" | "k" | "KiB" => 10,
            "M" | "m" | "MiB" => 20,
            "G" | "g" | "GiB" => 30,
            "T" | "t" | "TiB" => 40,
            "" if !text.is_empty() => return Err("a size needs its unit, as in 128M or 8G".to_owned()),
            _ => return Err("not a size such as 128M or 8G".to_owned()),
        };
        let count: u64 = number.parse().map_err(|_| "not a whole number with a unit, such as 128M or 8G".to_owned())?;
        let bytes = count.checked_mul(1 << shift).ok_or("more than an address can tell")?;
        let size = MemorySize { mebibytes: bytes >> 20 };
        if size.mebibytes < LEAST_MEMORY.mebibytes {
            return Err(format!("too little: Quire needs {LEAST_MEMORY}"));
        }
        if !bytes.is_multiple_of(1 << 20) {
            return Err("QEMU's machines have whole MiB".to_owned());
        }
        Ok(size)
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(20, 'T'), (10, 'G'), (0, 'M')];
        let (shift, unit) =
            units.into_iter().find(|(shift, _)| self.mebibytes.is_multiple_of(1 << shift)).unwrap_or((0, 'M'));
        write!(f, "{}{unit}", self.mebibytes >> shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn memory_sizes_have_a_unit() {
        assert_eq!("128M".parse(), Ok(MemorySize { mebibytes: 128 }));
        assert_eq!("8G".parse(), Ok(MemorySize { mebibytes: 8192 }));
        assert_eq!("32768K".parse(), Ok(MemorySize { mebibytes: 32 }));
        assert_eq!("1T".parse(), Ok(MemorySize { mebibytes: 1 << 20 }));
        for size in ["31M", "1023M", "1G", "1025M", "3G", "1T", "1025G"] {
            assert_eq!(size.parse::<MemorySize>().unwrap().to_string(), size);
        }
        for (wrong, why) in [
            ("", "128M"),
            ("8", "unit"),
            ("G", "whole number"),
            ("1.5G", "whole number"),
            ("-1G", "whole number"),
            ("8X", "128M"),
            ("0M", "needs 31M"),
            ("1K", "needs 31M"),
            ("30M", "needs 31M"),
            ("31745K", "whole MiB"),
            ("99999999999G", "address"),
        ] {
            let said = wrong.parse::<MemorySize>().unwrap_err();
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }

    #[test]
    fn a_card_is_offered_for_boards_that_boot_from_one() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(drop).map_err(|error| error.to_string());
        assert_eq!(parse("xtask image --board rpi4 -o card"), Ok(()));
        assert!(parse("xtask image --board virt -o card").unwrap_err().contains("rpi4"));
    }

    #[test]
    fn a_debugger_s_port_has_a_default() {
        let port = |line: &str| match Cli::try_parse_from(line.split(' ')).map(|cli| cli.command) {
            Ok(Command::Run(options)) => options.gdb,
            _ => panic!("{line}"),
        };
        assert_eq!(port("xtask run"), None);
        assert_eq!(port("xtask run --gdb"), Some(1234));
        assert_eq!(port("xtask run --gdb=4321 --smp 1"), Some(4321));
        assert_eq!(port("xtask run --gdb --smp 1"), Some(1234));
    }

    #[test]
    fn values_that_cannot_work_are_refused_with_those_that_do() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(drop).map_err(|error| error.to_string());
        for line in ["run --smp 16 --gic 3", "run --timeout 1", "bench fault. ipc.call_8", "test --filter mm::areas"] {
            assert_eq!(parse(&format!("xtask {line}")), Ok(()));
        }
        for (line, why) in [
            ("run --smp 512", "Quire uses 16 CPUs at most: --smp 16 --gic 3"),
            ("run --smp 17 --gic 3", "16 CPUs at most"),
            ("run --smp 0", "from 1 to 16"),
            ("run --smp many", "from 1 to 16"),
            ("run --timeout 0", "1..=4294967295"),
            ("run --timeout 18446744073709551615", "too large"),
            ("bench fault.;poweroff", "like fault.read_zero"),
            ("test --filter=--list", "part of a test's name"),
        ] {
            let said = parse(&format!("xtask {line}")).unwrap_err();
            assert!(said.contains(why), "{line}: {said}");
        }
        assert_eq!(MOST_CPUS as usize, quire_mm::machine::MAX_CPUS);
    }

    #[test]
    fn an_added_file_has_a_guest_path() {
        let added = |text: &str| text.parse::<AddedFile>().map(|a| (a.host.display().to_string(), a.guest));
        assert_eq!(added("dir/hello"), Ok(("dir/hello".into(), "hello".into())));
        assert_eq!(added("hello:/bin/hi"), Ok(("hello".into(), "bin/hi".into())));
        for wrong in ["hello:", "hello:/", "hello:/../x", "hello:a//b", ".."] {
            assert!(added(wrong).is_err(), "{wrong}");
        }
    }
}
