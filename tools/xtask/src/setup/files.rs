//! Third-party files that are fetched and cached, never committed: their licences are not this project's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::{apt, cache, say};

/// A full version, or it is a package that only depends on another.
const LINUX_PACKAGES: &str = "^linux-image-[0-9]+[.][0-9]+[.][0-9]+.*-arm64$";

/// Debian's Linux kernel for AArch64, GPL-2.0, to compare with.
pub fn linux_kernel() -> Result<PathBuf> {
    let file = cache()?.join("linux-arm64");
    if !file.exists() {
        say("fetching Debian's Linux kernel for AArch64 (60 MB or more): the benchmark runs on it too");
        ensure!(apt::present(), "there is no apt-get here: put an AArch64 Linux Image at {}", file.display());
        let usual = |name: &str| !name.contains("cloud") && !name.contains("-rt-");
        apt::arm64_files(|| apt::newest_arm64(LINUX_PACKAGES, usual), &[("./boot/vmlinuz-*", &file)])?;
    }
    Ok(file)
}

/// The Pi's device tree, GPL-2.0, out of Debian's Linux.
pub fn device_tree() -> Result<PathBuf> {
    let file = cache()?.join("bcm2711-rpi-4-b.dtb");
    if !file.exists() {
        say("fetching the Raspberry Pi 4's device tree out of Debian's Linux package (60 MB or more)");
        ensure!(apt::present(), "there is no apt-get here: put the Pi's bcm2711-rpi-4-b.dtb at {}", file.display());
        // The cloud flavour has no board's device trees.
        let package = || apt::smallest_arm64(LINUX_PACKAGES, |name| !name.contains("cloud"));
        apt::arm64_files(package, &[("*/bcm2711-rpi-4-b.dtb", &file)])?;
    }
    Ok(file)
}

/// A static busybox, GPL-2.0, for the test that runs unmodified Linux programs.
pub fn busybox() -> Result<PathBuf> {
    let file = cache()?.join("busybox-arm64");
    if !file.exists() {
        say("fetching Debian's busybox-static for AArch64: tests run it");
        ensure!(apt::present(), "there is no apt-get here: put a static AArch64 busybox at {}", file.display());
        apt::arm64_files(|| Ok("busybox-static".to_owned()), &[("./bin/busybox", &file)])?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    Ok(file)
}

/// SQLite's speed test, public domain, which the allocator's tests compile and run; only the source package has it.
pub fn speedtest1() -> Result<PathBuf> {
    let file = cache()?.join("speedtest1.c");
    if !file.exists() {
        say("fetching SQLite's speedtest1.c out of Debian's source package (14 MB): tests of malloc run it");
        ensure!(apt::present(), "there is no apt-get here: put SQLite's test/speedtest1.c at {}", file.display());
        apt::source_file("sqlite3", "*/test/speedtest1.c", &file)?;
    }
    Ok(file)
}

/// The firmware that the Pi's VideoCore runs before it starts the ARM cores. Debian's package has both parts in one
/// version, and the licence, which must be distributed with them: unmodified, for use with a Raspberry Pi only.
pub struct Firmware {
    pub start: PathBuf,
    pub fixup: PathBuf,
    pub licence: PathBuf,
}

/// The Pi's firmware.
pub fn firmware() -> Result<Firmware> {
    let dir = cache()?.join("rpi-firmware");
    let path = |name: &str| dir.join(name);
    let firmware = Firmware { start: path("start4.elf"), fixup: path("fixup4.dat"), licence: path("copyright") };
    let Firmware { start, fixup, licence } = &firmware;
    if ![start, fixup, licence].iter().all(|file| file.exists()) {
        say("fetching the Raspberry Pi's firmware (Debian's raspi-firmware): a card does not boot without it");
        ensure!(apt::present(), "there is no apt-get here: put start4.elf, fixup4.dat, copyright at {}", dir.display());
        fs::create_dir_all(&dir)?;
        let files = [("*/start4.elf", start.as_path()), ("*/fixup4.dat", fixup), ("*/copyright", licence)];
        apt::component_files("non-free-firmware", "raspi-firmware", &files)?;
    }
    Ok(firmware)
}
