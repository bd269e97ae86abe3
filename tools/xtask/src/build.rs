//! Building what a machine boots: kernel image, symbols, boot archive.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::added::EXEC;
use crate::archive::Archive;
use crate::cargo::{Executable, KERNEL_TARGET, USER_TARGET, Workspace};
use crate::kernel;
use crate::lock;
use crate::options::{AddedFile, Board, BuildOptions};
use crate::output;
use crate::samples;
use crate::setup;

const KERNEL_PACKAGE: &str = "quire-kernel";

/// The packages whose programs go into the archive, and the directory in it.
const PROGRAM_PACKAGES: [(&str, &str); 5] = [
    ("quire-init", ""),
    ("quire-bin", "bin/"),
    ("quire-bench", "bin/"),
    ("quire-servers", "servers/"),
    ("quire-user-tests", "tests/"),
];

/// Directories over which servers mount file systems.
const MOUNT_POINTS: [&str; 11] =
    ["proc", "sys", "cgroup", "tmp", "run", "dev/shm", "dev/block", "mnt", "disk", "sd", "boot/firmware"];

/// The results of a build, for [`crate::qemu`].
pub struct Built {
    /// The raw kernel image, the same for every board.
    pub image: PathBuf,
    /// The kernel's ELF file with debug information. Cargo's own file is of the kind that was built last.
    pub elf: PathBuf,
    /// Directory of the files that go into the boot archive.
    root: PathBuf,
    /// The workspace's directory, which is locked ([`lock`]).
    out: PathBuf,
}

impl Built {
    /// The paths of a build of this kind, whether or not it exists yet.
    pub fn at(workspace: &Workspace, options: &BuildOptions) -> Built {
        let dir = workspace.out.join(match (options.selftest, options.debug) {
            (false, false) => "release",
            (false, true) => "debug",
            (true, false) => "selftest",
            (true, true) => "selftest-debug",
        });
        Built {
            image: dir.join("kernel.img"),
            elf: dir.join("kernel.elf"),
            root: dir.join("root"),
            out: workspace.out.clone(),
        }
    }

    /// A program of the boot archive, as a file of the host.
    pub fn program(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The boot archive: the files that were built, then those that the user adds.
    pub fn archive(&self, added: &Added) -> Result<Vec<u8>> {
        let _lock = lock::shared(&self.out)?;
        self.pack(added)
    }

    /// The same for a caller that has the lock.
    fn pack(&self, added: &Added) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        add_tree(&mut archive, &self.root, Modes::Plain)?;
        if let Some(line) = added.service {
            let path = "etc/services";
            let list = fs::read_to_string(self.root.join(path)).with_context(|| path.to_owned())?;
            archive.file(path, format!("{list}{line}\n").into_bytes(), false)?;
        }
        if let Some(packages) = &added.packages {
            add_packages(&mut archive, packages).context("--deb")?;
        }
        if let Some(tree) = added.tree {
            add_tree(&mut archive, tree, Modes::Kept).with_context(|| format!("--root {}", tree.display()))?;
        }
        for file in added.files {
            let added = add_file(&mut archive, &file.host, &file.guest, Modes::Plain);
            added.with_context(|| format!("--add {}", file.host.display()))?;
        }
        if let Some(commands) = added.exec {
            archive.file(EXEC, format!("{commands}\n").into_bytes(), false)?;
        }
        Ok(archive.to_bytes())
    }
}

/// What is put over the files that were built, each over the former.
#[derive(Default)]
pub struct Added<'a> {
    /// One more line of the list of services.
    pub service: Option<&'a str>,
    /// The tree of Debian's packages.
    pub packages: Option<PathBuf>,
    /// `--root`.
    pub tree: Option<&'a Path>,
    /// `--add`.
    pub files: &'a [AddedFile],
    /// `--exec`.
    pub exec: Option<&'a str>,
}

/// `cargo xtask build`.
pub fn build(options: &BuildOptions) -> Result<Built> {
    if options.board == Board::Rpi4 {
        setup::device_tree()?;
    }
    let workspace = Workspace::find()?;
    let mut extra = vec![];
    if options.debug {
        // For a debugger; what the host's tests are built with, lines alone, is enough for backtraces only.
        extra.extend(["--config", "profile.dev.debug='full'"]);
    } else {
        extra.push("--release");
    }
    if options.selftest {
        extra.extend(["--features", "selftest"]);
    }
    let built = Built::at(&workspace, options);

    let what = match (options.selftest, options.debug) {
        (false, false) => "building the kernel",
        (false, true) => "building the kernel with debug assertions",
        (true, false) => "building the self-test kernel",
        (true, true) => "building the self-test kernel with debug assertions",
    };
    let _lock = lock::exclusive(&workspace.out)?;
    let made = workspace.build(what, &[KERNEL_PACKAGE], KERNEL_TARGET, &extra)?;
    let Some(made) = made.iter().find(|e| e.package == KERNEL_PACKAGE) else { bail!("cargo built no kernel") };
    let elf = fs::read(&made.path).with_context(|| format!("reading {}", made.path.display()))?;
    write_root(&built.root, &elf)?;
    output::copy(&made.path, &built.elf)?;
    if !options.selftest {
        add_programs(&workspace, &built.root)?;
    }
    output::write(&built.image, kernel::raw_image(&elf)?)?;

    let archive = built.pack(&Added::default())?;
    let archive_path = built.image.with_file_name("boot.cpio");
    output::write(&archive_path, archive)?;
    eprintln!("xtask: kernel image {}, boot archive {}", size_of(&built.image)?, size_of(&archive_path)?);
    Ok(built)
}

/// Lays out the boot archive's files in a new directory: first those that the kernel itself needs.
fn write_root(root: &Path, kernel_elf: &[u8]) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("removing {}", root.display()))?;
    }
    make_directory(&root.join("boot"))?;
    output::write(&root.join("boot/kernel.sym"), kernel::symbol_file(kernel_elf)?)
}

/// Adds the programs.
fn add_programs(workspace: &Workspace, root: &Path) -> Result<()> {
    output::copy_tree(&workspace.root.join("user/etc"), &root.join("etc"))?;
    for program in programs(workspace)? {
        let (_, dir) = PROGRAM_PACKAGES.iter().find(|(package, _)| *package == program.package).context("package")?;
        let to = root.join(format!("{dir}{}", program.name));
        ensure!(!to.exists(), "two programs are called {}: {} is there", program.name, to.display());
        make_directory(to.parent().context("a program's path has a parent")?)?;
        output::copy(&program.path, &to)?;
    }
    make_directory(&root.join("etc/elf"))?;
    for (name, bytes) in samples::all() {
        let path = root.join("etc/elf").join(name);
        output::write(&path, bytes)?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&path, mode).with_context(|| format!("making {} a program", path.display()))?;
    }
    for directory in MOUNT_POINTS {
        make_directory(&root.join(directory))?;
    }
    // What /proc/partitions leads to as long as no driver has a disk.
    output::write(&root.join("dev/block/partitions"), b"major minor  #blocks  name\n\n")?;
    // init is the shell too, for every process but the first.
    let shell = root.join("bin/sh");
    symlink("/init", &shell).with_context(|| format!("making {}", shell.display()))
}

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))
}

fn programs(workspace: &Workspace) -> Result<Vec<Executable>> {
    // Always optimised: `--debug` is for the kernel, and the test programs rely on the stack frames and times of a
    // release build.
    let mut extra = vec!["--release"];
    for setting in [
        // Symbols are for the host's debugger; in the archive they would only take memory.
        "profile.release.strip='symbols'",
        // For dozens of small programs, link-time optimisation doubles the build time and saves nothing.
        "profile.release.lto=false",
    ] {
        extra.extend(["--config", setting]);
    }
    workspace.build("building the programs", &PROGRAM_PACKAGES.map(|(package, _)| package), USER_TARGET, &extra)
}

/// Puts in a tree of packages. `/bin` has Quire's programs: those of the packages are in `/usr`, and a link in `/bin` leads to each
/// whose name is free there.
fn add_packages(archive: &mut Archive, tree: &Path) -> Result<()> {
    let links = |name: &str| fs::symlink_metadata(tree.join(name)).is_ok_and(|there| there.is_symlink());
    add_entries(archive, tree, "", Modes::Kept, &|path| path != "bin")?;
    let mut kept = Vec::new();
    for name in ["bin", "sbin"].into_iter().filter(|name| links(name)) {
        let directory = tree.join("usr").join(name);
        let reading = || format!("reading {}", directory.display());
        for program in fs::read_dir(&directory).with_context(reading)? {
            let program = program.with_context(reading)?.file_name();
            let program = program.to_str().context("a file name is not UTF-8")?;
            let link = format!("bin/{program}");
            if archive.has(&link) {
                kept.push(format!("/usr/{name}/{program}"));
            } else {
                archive.symlink(&link, format!("../usr/{name}/{program}"))?;
            }
        }
    }
    if !kept.is_empty() {
        eprintln!("xtask: --deb: by their plain names Quire's programs are found, not these: {}", kept.join(" "));
    }
    Ok(())
}

/// The permissions that files have in the archive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Modes {
    /// The host's.
    Kept,
    /// Everybody's to read, and to execute if they are so here. What is built has these, whatever the host's umask is.
    Plain,
}

fn add_tree(archive: &mut Archive, dir: &Path, modes: Modes) -> Result<()> {
    add_entries(archive, dir, "", modes, &|_| true)
}

/// Puts in those of a directory's files whose paths in the archive `is_meant` selects.
fn add_entries(
    archive: &mut Archive,
    dir: &Path,
    prefix: &str,
    modes: Modes,
    is_meant: &dyn Fn(&str) -> bool,
) -> Result<()> {
    let reading = || format!("reading {}", dir.display());
    for entry in fs::read_dir(dir).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let path = format!("{prefix}{}", entry.file_name().to_str().context("a file name is not UTF-8")?);
        if !is_meant(&path) {
            continue;
        }
        let host = entry.path();
        let reading = || format!("reading {}", host.display());
        let kind = entry.file_type().with_context(reading)?;
        if kind.is_dir() {
            match modes {
                Modes::Plain => archive.directory(&path)?,
                Modes::Kept => {
                    let mode = entry.metadata().with_context(reading)?.permissions().mode();
                    archive.directory_with_mode(&path, mode)?;
                }
            }
            add_entries(archive, &host, &format!("{path}/"), modes, is_meant)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&host).with_context(reading)?;
            archive.symlink(&path, target.to_str().context("a link's target is not UTF-8")?.to_owned())?;
        } else {
            ensure!(kind.is_file(), "{}: not a file, a link or a directory", host.display());
            add_file(archive, &host, &path, modes)?;
        }
    }
    Ok(())
}

fn add_file(archive: &mut Archive, host: &Path, guest: &str, modes: Modes) -> Result<()> {
    let reading = || format!("reading {}", host.display());
    let data = fs::read(host).with_context(reading)?;
    let mode = fs::metadata(host).with_context(reading)?.permissions().mode();
    match modes {
        Modes::Kept => archive.file_with_mode(guest, data, mode),
        Modes::Plain => archive.file(guest, data, mode & 0o111 != 0),
    }
}

fn size_of(path: &Path) -> Result<String> {
    let bytes = fs::metadata(path).with_context(|| path.display().to_string())?.len();
    Ok(format!("{} ({} KiB)", path.display(), bytes.div_ceil(1024)))
}
