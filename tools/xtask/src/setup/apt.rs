//! Debian's packages: installing them, and taking single files out of packages of another architecture.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, bail, ensure};

use super::{on_path, output, run, say};

/// The architecture of the Pi, whose packages some files come from.
const ARM64: &str = "arm64";

/// Whether this is a machine with apt.
pub fn present() -> bool {
    on_path("apt-get")
}

/// Installs packages, from the named suite if there is one. Removes nothing to make room.
pub fn install(packages: &[&str], suite: Option<&str>) -> Result<()> {
    let mut arguments = vec!["install", "-y", "--no-install-recommends", "--no-remove"];
    if let Some(suite) = suite {
        arguments.extend(["-t", suite]);
    }
    arguments.extend(packages);
    need_root(&format!("apt-get {}", arguments.join(" ")))?;
    update()?;
    run(apt_get().args(arguments))
}

/// The suite to install a package from so that it has at least this version: `None` is the default one.
///
/// Debian 12 is the release whose own QEMU is too old and whose backports have a newer one.
pub fn backports_if_older(package: &str, minimum: (u32, u32)) -> Result<Option<String>> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| release.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).unwrap_or("");
    if field("ID") != "debian" {
        return Ok(None);
    }
    let codename = field("VERSION_CODENAME").trim_matches('"').to_owned();
    need_root(&format!("apt-get install {package} (from {codename}-backports)"))?;
    update()?;
    if candidate(package)?.is_some_and(|version| version >= minimum) {
        return Ok(None);
    }
    let suite = format!("{codename}-backports");
    add_suite(&codename, &suite)?;
    Ok(Some(suite))
}

/// The major and minor version that `apt-get install` would take.
fn candidate(package: &str) -> Result<Option<(u32, u32)>> {
    let policy = output(Command::new("apt-cache").args(["policy", package]))?;
    let Some(version) = policy.lines().find_map(|l| l.trim().strip_prefix("Candidate: ")) else { return Ok(None) };
    // "1:10.0.2+ds-2": what stands before the colon is the epoch.
    let upstream = version.rsplit(':').next().unwrap_or(version);
    let mut numbers = upstream.split('.').map(|n| n.parse().ok());
    Ok(numbers.next().flatten().zip(numbers.next().flatten()))
}

/// Adds a suite of the archive that the release itself comes from, unless it is there.
fn add_suite(codename: &str, suite: &str) -> Result<()> {
    let format = "$(REPO_URI) $(CODENAME)";
    let targets = output(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    let mut archives = targets.lines().filter_map(|line| line.split_once(' '));
    if archives.clone().any(|(_, name)| name == suite) {
        return Ok(());
    }
    let Some((uri, _)) = archives.find(|&(_, name)| name == codename) else {
        bail!("apt's sources have no {codename}, so the place of {suite} is unknown: add that suite yourself")
    };
    let file = format!("/etc/apt/sources.list.d/{suite}.sources");
    say(&format!("adding the suite {suite} to apt's sources ({file})"));
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let signed = if Path::new(keyring).exists() { format!("Signed-By: {keyring}\n") } else { String::new() };
    fs::write(&file, format!("Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\n{signed}"))?;
    run(apt_get().arg("update"))
}

/// Takes one file out of an arm64 package without installing it.
///
/// `package` gets the package's name once apt knows that architecture; `path` is a pattern of tar's.
pub fn arm64_file(package: impl FnOnce() -> Result<String>, path: &str, into: &Path) -> Result<()> {
    know_arm64()?;
    let package = package()?;
    let work = into.with_extension("download");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work)?;
    run(apt_get().current_dir(&work).arg("download").arg(format!("{package}:{ARM64}")))?;
    let deb = fs::read_dir(&work)?.next().context("apt-get download left no file")??.path();
    let part = work.join("part");
    // The archive's directories are stripped by writing the file to standard output.
    let pipe = r#"set -o pipefail; dpkg-deb --fsys-tarfile "$0" | tar -xO --wildcards "$1" >"$2""#;
    run(Command::new("bash").arg("-c").arg(pipe).arg(&deb).arg(path).arg(&part))?;
    ensure!(fs::metadata(&part)?.len() > 0, "{package} has no {path}");
    fs::rename(&part, into)?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// The smallest package whose name fits: name and size of every candidate come from apt's lists.
pub fn smallest_arm64(pattern: &str, fits: impl Fn(&str) -> bool) -> Result<String> {
    let names = output(Command::new("apt-cache").args(["search", "--names-only", pattern]))?;
    let names = names.lines().filter_map(|line| line.split(' ').next()).filter(|name| fits(name));
    let mut show = Command::new("apt-cache");
    show.args(["show", "--no-all-versions"]).args(names.map(|name| format!("{name}:{ARM64}")));
    let mut smallest: Option<(u64, String)> = None;
    let mut name = "";
    for line in output(&mut show)?.lines() {
        if let Some(package) = line.strip_prefix("Package: ") {
            name = package;
        } else if let Some(size) = line.strip_prefix("Size: ") {
            let size = size.trim().parse()?;
            if smallest.as_ref().is_none_or(|(least, _)| size < *least) {
                smallest = Some((size, name.to_owned()));
            }
        }
    }
    Ok(smallest.with_context(|| format!("apt knows no package {pattern} of {ARM64}"))?.1)
}

fn know_arm64() -> Result<()> {
    let native = output(Command::new("dpkg").arg("--print-architecture"))?;
    let foreign = output(Command::new("dpkg").arg("--print-foreign-architectures"))?;
    if native.trim() != ARM64 && !foreign.lines().any(|a| a == ARM64) {
        let add = ["--add-architecture", ARM64];
        need_root(&format!("dpkg {} && apt-get update", add.join(" ")))?;
        say("making apt list the packages of arm64 as well");
        run(Command::new("dpkg").args(add))?;
        return run(apt_get().arg("update"));
    }
    update()
}

/// Refreshes apt's lists once in a run of xtask; without the right to, those that are there must do.
fn update() -> Result<()> {
    static DONE: Once = Once::new();
    let mut result = Ok(());
    DONE.call_once(|| {
        if root() {
            result = run(apt_get().args(["update", "-q"]));
        }
    });
    result
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Sandbox::User=root"]);
    command
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn need_root(command: &str) -> Result<()> {
    ensure!(root(), "this needs root: run `sudo {command}`, then try again");
    Ok(())
}
