//! Files of others that are fetched and cached, never committed: their licences are not this project's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::{apt, cache, say};

/// The Pi's device tree, GPL-2.0, out of Debian's Linux.
pub fn device_tree() -> Result<PathBuf> {
    let file = cache()?.join("bcm2711-rpi-4-b.dtb");
    if !file.exists() {
        say("fetching the Raspberry Pi 4's device tree out of Debian's Linux package (60 MB or more)");
        ensure!(apt::present(), "there is no apt-get here: put the Pi's bcm2711-rpi-4-b.dtb to {}", file.display());
        // A full version, or it is a package that only depends on another; the cloud's flavour has no boards.
        let pattern = "^linux-image-[0-9]+[.][0-9]+[.][0-9]+.*-arm64$";
        let package = || apt::smallest_arm64(pattern, |name| !name.contains("cloud"));
        apt::arm64_file(package, "*/bcm2711-rpi-4-b.dtb", &file)?;
    }
    Ok(file)
}

/// A busybox that needs no libraries, GPL-2.0, for the test that runs unmodified Linux programs.
pub fn busybox() -> Result<PathBuf> {
    let file = cache()?.join("busybox-arm64");
    if !file.exists() {
        say("fetching Debian's busybox-static for AArch64: tests run it");
        ensure!(apt::present(), "there is no apt-get here: put a static AArch64 busybox to {}", file.display());
        apt::arm64_file(|| Ok("busybox-static".to_owned()), "./bin/busybox", &file)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    Ok(file)
}
