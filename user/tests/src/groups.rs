//! Control groups by their files.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;

use quire_rt::abi::flags::Open;
use quire_rt::abi::layout::at;
use quire_rt::abi::nr;
use quire_rt::process::Status;
use quire_rt::{Errno, fs, io, time};

use crate::{child, raw};

const ROOT: &str = "/sys/fs/cgroup";

/// The path of a group, or of a file of it.
pub fn path(group: &str, file: &str) -> CString {
    let text = match (group, file) {
        ("", file) => format!("{ROOT}/{file}"),
        (group, "") => format!("{ROOT}/{group}"),
        (group, file) => format!("{ROOT}/{group}/{file}"),
    };
    CString::new(text).unwrap_or_default()
}

/// Makes a group.
pub fn make(group: &str) -> Result<(), Errno> {
    let at = path(group, "");
    raw(nr::MKDIRAT, [at::FDCWD as usize, at.as_ptr() as usize, 0o755]).map(drop)
}

/// Removes one.
pub fn remove(group: &str) -> Result<(), Errno> {
    let at = path(group, "");
    raw(nr::UNLINKAT, [at::FDCWD as usize, at.as_ptr() as usize, at::REMOVEDIR as usize]).map(drop)
}

/// Writes to a file of a group.
pub fn write(group: &str, file: &str, text: &str) -> Result<(), Errno> {
    let fd = fs::open(&path(group, file), Open::WRONLY)?;
    let done = io::write(fd, text.as_bytes());
    let _ = io::close(fd);
    done.map(drop)
}

/// What a file of a group says.
pub fn read(group: &str, file: &str) -> Result<String, Errno> {
    let text = fs::File::open(&path(group, file), Open::empty())?.read_to_end()?;
    String::from_utf8(text).map_err(|_| Errno::EIO)
}

/// The number that a file has, or that stands behind a word; of a line of pressure its total.
pub fn number(group: &str, file: &str, word: &str) -> usize {
    let text = read(group, file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(word)).unwrap_or("");
    let line = line.rsplit_once("total=").map_or(line, |(_, total)| total);
    line.trim().parse().unwrap_or(usize::MAX)
}

/// Runs in a group.
pub fn inside(group: &str, run: impl FnOnce() -> i32) -> Result<Status, Errno> {
    child(|| if write(group, "cgroup.procs", "0").is_err() { 101 } else { run() })
}

/// Groups that were removed while something was charged to them are forgotten, now that nothing is: the last stacks of
/// threads go after their ends were told. (The kernel looks when a group is removed.)
pub fn settle() {
    for _ in 0..10 {
        time::sleep_ms(20);
        let _ = make("settled").and_then(|()| remove("settled"));
    }
}
