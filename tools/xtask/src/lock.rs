//! One xtask at a time writes below target/quire.
//!
//! Two commands in one checkout would lay out the same directory at once, and either might pack the kernel that the other one
//! has just had built: cargo has one file for the kernel and the self-test kernel. So a build holds the lock from before it
//! calls cargo until all is packed ([`exclusive`]), and whoever only reads its results holds it with other readers ([`shared`]).
//! The lock ends with the process that holds it. Nobody who holds it starts another xtask or takes it again.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::progress::Progress;

const NAME: &str = "lock";

/// How long a wait may last before anything is said about it.
const MOMENT: Duration = Duration::from_millis(500);

/// Held until it is dropped.
#[must_use]
pub struct Lock {
    _file: File,
}

/// Waits until nobody else reads or writes in this directory.
pub fn exclusive(out: &Path) -> Result<Lock> {
    take(out, FlockOperation::LockExclusive, FlockOperation::NonBlockingLockExclusive)
}

/// Waits until nobody writes in this directory.
pub fn shared(out: &Path) -> Result<Lock> {
    take(out, FlockOperation::LockShared, FlockOperation::NonBlockingLockShared)
}

fn take(out: &Path, wait: FlockOperation, ask: FlockOperation) -> Result<Lock> {
    let path = out.join(NAME);
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = opened.with_context(|| format!("opening {}", path.display()))?;
    let locked = || format!("locking {}", path.display());
    let begun = Instant::now();
    while begun.elapsed() < MOMENT {
        match flock(&file, ask) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(20)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).with_context(locked),
        }
    }
    let progress = Progress::new("waiting for another xtask that builds here");
    progress.detail(&path.display().to_string());
    loop {
        match flock(&file, wait) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).with_context(locked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn writers_are_alone_and_readers_are_not() {
        let out = std::env::temp_dir().join(format!("quire-lock-{}", std::process::id()));
        let (writers, readers) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let lock = exclusive(&out).unwrap();
                        assert_eq!(writers.fetch_add(1, Ordering::SeqCst), 0);
                        assert_eq!(readers.load(Ordering::SeqCst), 0);
                        thread::sleep(Duration::from_millis(1));
                        writers.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                        let lock = shared(&out).unwrap();
                        readers.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(writers.load(Ordering::SeqCst), 0);
                        readers.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        let (one, two) = (shared(&out).unwrap(), shared(&out).unwrap());
        drop((one, two));
        fs::remove_dir_all(&out).unwrap();
    }

    #[test]
    fn what_cannot_be_locked_is_named() {
        let Err(error) = exclusive(Path::new("/proc/quire")) else { panic!("/proc has no place") };
        assert!(format!("{error:#}").contains("/proc/quire"), "{error:#}");
    }
}
