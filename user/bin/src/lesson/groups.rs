//! Control groups, by their files: lesson 10.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;

use quire_rt::abi::flags::Open;
use quire_rt::abi::group::op;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, fs, group, io};

use super::faults::failed;
use super::{Area, Verdict};

const ROOT: &str = "/sys/fs/cgroup";
const OUTER: &str = "lesson";
const INNER: &str = "inner";

/// Lesson 10: a file that says what a group may still have.
pub fn room() -> Verdict {
    let outer = group::named(op::MAKE, 0, OUTER.as_bytes()).map_err(failed)?;
    let inner = write("lesson/cgroup.subtree_control", "+memory")
        .and_then(|()| group::named(op::MAKE, outer, INNER.as_bytes()))
        .map_err(failed);
    let verdict = inner.and_then(|inner| {
        let verdict = compared();
        let _ = group::change(op::REMOVE, inner, 0, 0);
        verdict
    });
    let _ = group::change(op::REMOVE, outer, 0, 0);
    verdict
}

/// Compares what the file says with what the others say, while the outer group's limit is the smaller one, and while the inner one's is.
fn compared() -> Verdict {
    const FREE: &str = "lesson/inner/memory.free";
    let without = read(FREE).map_err(|error| format!("{FREE}: {error}"))?;
    if without.trim() != "max" {
        return Err(format!("without limits {FREE} says {}", without.trim()));
    }
    let mut seen = String::new();
    for (outer, inner) in [("8M", "32M"), ("32M", "4M")] {
        write("lesson/memory.max", outer).and_then(|()| write("lesson/inner/memory.max", inner)).map_err(failed)?;
        // 0: right; 1: wrong; what it was is told in words by the child, which is in the group.
        let child = process::fork().map_err(failed)?;
        if child == 0 {
            process::exit(match inside() {
                Ok(()) => 0,
                Err(words) => {
                    quire_rt::println!("{words}");
                    1
                }
            });
        }
        match process::waitpid(child) {
            Ok(Status::Exited(0)) => {
                seen += &format!("{}{outer} and {inner} inside", if seen.is_empty() { "" } else { "; " })
            }
            _ => return Err(format!("with a limit of {outer} and one of {inner} inside, memory.free is wrong")),
        }
    }
    Ok(format!("memory.free is right with limits of {seen}"))
}

/// Uses a mebibyte in the inner group, and compares.
fn inside() -> Result<(), String> {
    write("lesson/inner/cgroup.procs", "0").map_err(failed)?;
    let area = Area::new(256).map_err(failed)?;
    area.fill();
    let number = |name: &str| -> Result<u64, String> {
        let text = read(name).map_err(failed)?;
        text.trim().parse().map_err(|_| format!("{name} says {}", text.trim()))
    };
    let left = |group: &str| {
        Ok::<_, String>(number(&format!("{group}/memory.max"))? - number(&format!("{group}/memory.current"))?)
    };
    let wanted = left("lesson")?.min(left("lesson/inner")?);
    let said = number("lesson/inner/memory.free")?;
    if said == wanted { Ok(()) } else { Err(format!("memory.free says {said}, and there are {wanted} bytes")) }
}

fn path(name: &str) -> CString {
    CString::new(format!("{ROOT}/{name}")).unwrap_or_default()
}

fn read(name: &str) -> Result<String, Errno> {
    let text = fs::File::open(&path(name), Open::empty())?.read_to_end()?;
    String::from_utf8(text).map_err(|_| Errno::EIO)
}

fn write(name: &str, text: &str) -> Result<(), Errno> {
    let fd = fs::open(&path(name), Open::WRONLY)?;
    let done = io::write(fd, text.as_bytes());
    let _ = io::close(fd);
    done.map(drop)
}
