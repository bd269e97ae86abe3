//! A process beside others that keeps memory short, so that pages leave and come back all the time: `/bin/hog`.

use core::ffi::CStr;

use quire_rt::abi::flags::{Control, Open, sig, wait};
use quire_rt::process::{self, Status};
use quire_rt::{Errno, env, handles, info, io};

const PROGRAM: &CStr = c"/bin/hog";

/// The OOM killer's adjustment that makes a process its first choice.
const FIRST: i32 = 1000;

/// Such a process, a child of this one.
pub struct Hog(i32);

impl Hog {
    /// Starts it, and waits until memory is short. If memory runs out it is killed before others; the caller has the right
    /// to say so.
    pub fn start() -> Result<Hog, Errno> {
        let (read, write) = io::pipe(Open::CLOEXEC.bits())?;
        let forked = process::fork();
        if let Ok(0) = forked {
            let _ = process::setpgid(0, 0);
            let _ = io::dup3(write, 1, 0);
            let _ = handles::grant(Control::empty());
            process::execve(PROGRAM, [PROGRAM], env());
            process::exit_now(127);
        }
        let _ = io::close(write);
        let started = forked.and_then(|pid| {
            let adjusted = info::set_oom_score_adj(pid as u32, FIRST, true);
            // It prints a line then, or ends.
            let said = adjusted.and_then(|()| io::read(read, &mut [0; 16]));
            let hog = Hog(pid);
            match said {
                Ok(1..) => Ok(hog),
                said => {
                    hog.stop();
                    Err(said.err().unwrap_or(Errno::ECHILD))
                }
            }
        });
        let _ = io::close(read);
        started
    }

    /// Ends it. The result is how it had ended before, if it had.
    pub fn stop(self) -> Option<Status> {
        let Hog(pid) = self;
        let ended = process::wait4(pid, wait::WNOHANG).ok().flatten();
        if ended.is_none() {
            let _ = process::kill(pid, sig::KILL);
            let _ = process::waitpid(pid);
        }
        ended.map(|changed| changed.status)
    }
}
