//! The same program on Debian's Linux: it is the first and only process, so that nothing else runs.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::archive::Archive;
use crate::qemu::QEMU;
use crate::setup;

/// Boots Linux with `program` as init and returns the output of its serial port.
pub fn run(program: &Path, rows: &str, expected: usize) -> Result<String> {
    let kernel = setup::linux_kernel()?;
    let what = format!("measuring {} (minutes)", version(&fs::read(&kernel)?));
    let mut archive = Archive::default();
    archive.file("bench", fs::read(program).with_context(|| program.display().to_string())?, true)?;
    // Inherited: the descriptor is not closed on exec.
    let mut initramfs = File::from(memfd_create("linux-initramfs", MemfdFlags::empty())?);
    initramfs.write_all(&archive.to_bytes())?;

    let mut qemu = Command::new(QEMU);
    qemu.args(["-M", "virt", "-cpu", "cortex-a72", "-m", "1024", "-smp", "1", "-nodefaults", "-display", "none"]);
    qemu.args([
        "-icount",
        "shift=0,sleep=off",
        "-seed",
        "1",
        "-rtc",
        "base=2024-01-01T00:00:00,clock=vm",
        "-no-reboot",
    ]);
    qemu.args(["-serial", "stdio", "-monitor", "none"]).arg("-kernel").arg(kernel);
    qemu.args(["-initrd", &format!("/proc/self/fd/{}", initramfs.as_raw_fd())]);
    // Work that Linux defers at boot would disturb the first rows, hence `settle`.
    let arguments = "console=ttyAMA0 loglevel=3 norandmaps panic=-1 rdinit=/bench -- settle poweroff";
    qemu.args(["-append", &format!("{arguments} {rows}")]);
    let (_, output) = super::measure(&what, expected, &mut qemu)?;
    ensure!(output.lines().any(|line| line.trim() == "DONE"), "the benchmark did not end on Linux:\n{output}");
    Ok(output)
}

/// The version string in a kernel image: "Linux version" and a word.
fn version(image: &[u8]) -> String {
    const BANNER: &[u8] = b"Linux version ";
    let at = image.windows(BANNER.len()).position(|window| window == BANNER);
    let rest = at.map_or(&b"Linux"[..], |at| &image[at..]);
    let words = rest.split(|&b| b == b' ' || b == 0).take(3).collect::<Vec<_>>().join(&b' ');
    String::from_utf8_lossy(&words).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_its_version() {
        assert_eq!(version(b"\0\x01xxLinux version 6.1.2-arm64 (debian"), "Linux version 6.1.2-arm64");
        assert!(version(b"no such words").starts_with("Linux"));
    }
}
