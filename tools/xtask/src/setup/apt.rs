//! Debian's packages: installing them, and taking single files out of packages of another architecture.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, bail, ensure};

use super::{cache, on_path, output, run, say};

/// The architecture of the Pi, whose packages some files come from.
const ARM64: &str = "arm64";

/// Whether this machine has apt.
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
    update();
    run(apt_get().args(arguments))
}

/// Installs a package in at least this version, if the distribution has one.
///
/// Debian 12 is the release whose own QEMU is too old and whose backports have a newer one.
pub fn install_at_least(package: &str, minimum: (u32, u32)) -> Result<()> {
    update();
    let new_enough = candidate(package)?.is_some_and(|version| version >= minimum);
    match debian_codename() {
        Some(codename) if !new_enough => {
            let suite = format!("{codename}-backports");
            add_suite(&codename, &suite)?;
            install(&[package], Some(&suite))
        }
        _ => install(&[package], None),
    }
}

/// The code name of this Debian release; `None` on another distribution.
fn debian_codename() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let field = |name: &str| release.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
    (field("ID") == Some("debian")).then_some(())?;
    Some(field("VERSION_CODENAME")?.trim_matches('"').to_owned())
}

/// The major and minor version that `apt-get install` would take.
fn candidate(package: &str) -> Result<Option<(u32, u32)>> {
    let policy = output(Command::new("apt-cache").args(["policy", package]))?;
    let Some(version) = policy.lines().find_map(|l| l.trim().strip_prefix("Candidate: ")) else { return Ok(None) };
    // "1:10.0.2+ds-2": the part before the colon is the epoch.
    let upstream = version.rsplit(':').next().unwrap_or(version);
    let mut numbers = upstream.split('.').map(|n| n.parse().ok());
    Ok(numbers.next().flatten().zip(numbers.next().flatten()))
}

/// Adds a suite of the archive that the release itself comes from, unless it is there.
fn add_suite(codename: &str, suite: &str) -> Result<()> {
    if sources()?.iter().any(|(_, name)| name == suite) {
        return Ok(());
    }
    let uri = archive_of(codename)?;
    let file = format!("/etc/apt/sources.list.d/{suite}.sources");
    let line = format!("deb {uri} {suite} main");
    need_root(&format!("sh -c 'echo {line} >/etc/apt/sources.list.d/{suite}.list && apt-get update'"))?;
    say(&format!("adding the suite {suite} to apt's sources ({file})"));
    fs::write(&file, source("deb", &uri, suite, "main"))?;
    run(apt_get().arg("update"))
}

/// Address and code name of each suite that apt knows.
fn sources() -> Result<Vec<(String, String)>> {
    let format = "$(REPO_URI) $(CODENAME)";
    let targets = output(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    Ok(targets.lines().filter_map(|line| line.split_once(' ')).map(|(uri, name)| (uri.into(), name.into())).collect())
}

/// The address that this machine gets its Debian release from.
fn archive_of(codename: &str) -> Result<String> {
    let found = sources()?.into_iter().find(|(_, name)| name == codename);
    Ok(found.with_context(|| format!("apt's sources have no {codename}"))?.0)
}

/// The text of a sources file.
fn source(kind: &str, uri: &str, suite: &str, component: &str) -> String {
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let signed = if Path::new(keyring).exists() { format!("Signed-By: {keyring}\n") } else { String::new() };
    format!("Types: {kind}\nURIs: {uri}\nSuites: {suite}\nComponents: {component}\n{signed}")
}

/// Takes files out of an arm64 package without installing it.
///
/// `package` gets the package's name once apt knows that architecture. Each file is a pattern of tar's and
/// where the file goes.
pub fn arm64_files(package: impl FnOnce() -> Result<String>, files: &[(&str, &Path)]) -> Result<()> {
    know_arm64()?;
    let package = format!("{}:{ARM64}", package()?);
    in_scratch(|dir| {
        run(apt_get().current_dir(dir).args(["download", &package]))?;
        extract(dir, files)
    })
}

/// Takes files out of a package of a component of Debian's archive, with lists of our own: the system's sources
/// stay as they are.
pub fn component_files(component: &str, package: &str, files: &[(&str, &Path)]) -> Result<()> {
    with_own_lists("deb", component, |dir, own_apt_get| {
        run(own_apt_get().args(["download", package]))?;
        extract(dir, files)
    })
}

/// Takes a file out of the upstream archive of a source package, with lists of our own.
pub fn source_file(package: &str, pattern: &str, into: &Path) -> Result<()> {
    with_own_lists("deb-src", "main", |dir, own_apt_get| {
        run(own_apt_get().args(["source", "--download-only", package]))?;
        let part = dir.join("part");
        let pipe = r#"tar -xO --wildcards -f *.orig.tar.* "$0" >"$1""#;
        run(Command::new("bash").current_dir(dir).arg("-c").arg(pipe).arg(pattern).arg(&part))?;
        ensure!(fs::metadata(&part)?.len() > 0, "the source of {package} has no {pattern}");
        fs::rename(&part, into)?;
        Ok(())
    })
}

/// Calls `work` with a directory and a maker of apt-get commands that know one kind of package of one component.
fn with_own_lists(
    kind: &str,
    component: &str,
    work: impl FnOnce(&Path, &dyn Fn() -> Command) -> Result<()>,
) -> Result<()> {
    let Some(codename) = debian_codename() else { bail!("only Debian has its component {component}") };
    let uri = archive_of(&codename)?;
    in_scratch(|dir| {
        fs::create_dir_all(dir.join("sources"))?;
        fs::create_dir_all(dir.join("lists/partial"))?;
        fs::write(dir.join("sources/own.sources"), source(kind, &uri, &codename, component))?;
        let own_apt_get = || {
            let mut command = apt_get();
            command.current_dir(dir).args(["-o", "Dir::Etc::sourcelist=/dev/null", "-o", "Dir::Cache::pkgcache="]);
            command.arg("-o").arg(format!("Dir::Etc::sourceparts={}", dir.join("sources").display()));
            command.arg("-o").arg(format!("Dir::State::lists={}", dir.join("lists").display()));
            command
        };
        run(own_apt_get().arg("update"))?;
        work(dir, &own_apt_get)
    })
}

/// Runs `work` in a temporary directory of its own.
fn in_scratch(work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let dir = cache()?.join(format!("scratch-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let done = work(&dir);
    fs::remove_dir_all(&dir)?;
    done
}

/// Takes files out of the one package in a directory.
fn extract(dir: &Path, files: &[(&str, &Path)]) -> Result<()> {
    let entries = fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    let packages = entries.iter().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "deb"));
    let package = packages.context("apt-get download left no package")?;
    for (pattern, into) in files {
        let part = dir.join("part");
        // Through standard output a file comes without its parent directories.
        let pipe = r#"set -o pipefail; dpkg-deb --fsys-tarfile "$0" | tar -xO --wildcards "$1" >"$2""#;
        run(Command::new("bash").arg("-c").arg(pipe).arg(&package).arg(pattern).arg(&part))?;
        ensure!(fs::metadata(&part)?.len() > 0, "{} has no {pattern}", package.display());
        fs::rename(&part, into)?;
    }
    Ok(())
}

/// The smallest package whose name matches; names and sizes come from apt's lists.
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

/// The package of the highest version whose name matches; the version is in the name.
pub fn newest_arm64(pattern: &str, fits: impl Fn(&str) -> bool) -> Result<String> {
    let names = output(Command::new("apt-cache").args(["search", "--names-only", pattern]))?;
    let names = names.lines().filter_map(|line| line.split(' ').next()).filter(|name| fits(name));
    Ok(names.max_by_key(|name| numbers_in(name)).with_context(|| format!("apt knows no package {pattern}"))?.to_owned())
}

/// The numbers in a text, in their order.
fn numbers_in(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn know_arm64() -> Result<()> {
    let native = output(Command::new("dpkg").arg("--print-architecture"))?;
    let foreign = output(Command::new("dpkg").arg("--print-foreign-architectures"))?;
    if native.trim() != ARM64 && !foreign.lines().any(|a| a == ARM64) {
        let add = ["--add-architecture", ARM64];
        need_root(&format!("sh -c 'dpkg {} && apt-get update'", add.join(" ")))?;
        say("making apt list the packages of arm64 as well");
        run(Command::new("dpkg").args(add))?;
        return run(apt_get().arg("update"));
    }
    update();
    Ok(())
}

/// Refreshes apt's lists once per run of xtask. If that fails or is not permitted, the existing lists may still do.
fn update() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        if root()
            && let Err(error) = run(apt_get().arg("update"))
        {
            say(&format!("{error}; continuing with the existing package lists"));
        }
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_names_are_compared_as_numbers() {
        let names =
            ["linux-image-6.12.95+deb12-arm64", "linux-image-6.12.117+deb12-arm64", "linux-image-6.1.0-56-arm64"];
        assert_eq!(names.into_iter().max_by_key(|name| numbers_in(name)), Some(names[1]));
    }
}
