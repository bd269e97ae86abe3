//! Servers of names that lie; with the argument `die`, the one of /tmp is killed in the middle of its work.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::ffi::CStr;

use quire_rt::abi::flags::{Control, Map, Open, sig};
use quire_rt::abi::ipc::{AttachedHandle, Attachments, rights};
use quire_rt::abi::layout::{at, mode};
use quire_rt::abi::names::{DONE, LINK, UP};
use quire_rt::abi::nr;
use quire_rt::ipc::{self, Message, Patience, Receiver, What};
use quire_rt::process::{self, Status};
use quire_rt::{Errno, args, fs, handles, info, io, time};
use user_tests::files::{close, create, mkdir, open, path, remove, stat};
use user_tests::{Checks, PAGE, RW, is_quire, mmap, raw, until};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    if !is_quire() {
        checks.skip("servers", "not on Quire");
    } else if args().nth(1) == Some(c"die") {
        deaths(&mut checks);
    } else {
        liars(&mut checks);
    }
    checks.finish()
}

/// A directory of the archive for servers of this test.
const MOUNT: &CStr = c"/mnt";

/// What a lying server answers to whatever it is asked.
#[derive(Clone, Copy)]
enum Lie {
    Words(u64, [u64; 6]),
    /// With a handle of an object.
    File([u64; 6]),
    /// With a handle that is no file.
    Endpoint([u64; 6]),
    /// Dies with the question.
    Death,
}

/// Serves lies at [`MOUNT`] for ever, in a child that is mounted by now, or has ended.
fn liar(lie: Lie) -> Option<i32> {
    let (reader, writer) = io::pipe(0).ok()?;
    let pid = user_tests::start(|| {
        close(reader);
        let Ok(receiver) = Receiver::new() else { return 1 };
        let Ok(sender) = receiver.sender(0) else { return 1 };
        if raw(nr::QUIRE_MOUNT, [handles::control() as usize, path(MOUNT), sender.0 as usize, path(c"lies")]).is_err() {
            return 2;
        }
        close(writer);
        let mut received = receiver.receive(Patience::Endless);
        loop {
            let Ok(ipc::Received { what: What::Call { .. }, .. }) = received else { return 3 };
            received = match lie {
                Lie::Words(label, words) => receiver.reply_receive(&Message { label, words }, Patience::Endless),
                Lie::Death => return 0,
                Lie::File(words) | Lie::Endpoint(words) => {
                    let number = match lie {
                        Lie::File(_) => raw(nr::QUIRE_MEMORY, [0o100644, 0, 5]).unwrap_or(0) as u32,
                        _ => receiver.sender(1).map_or(0, |sender| sender.0),
                    };
                    let rights = if let Lie::File(_) = lie { rights::READ } else { rights::SEND };
                    let mut attachments = Attachments::default();
                    attachments.handles[0] = AttachedHandle { number, rights };
                    receiver.reply_carrying_receive(&Message { label: DONE, words }, &attachments, Patience::Endless)
                }
            };
        }
    });
    close(writer);
    let _ = io::read(reader, &mut [0]);
    close(reader);
    pid.ok()
}

fn liars(checks: &mut Checks) {
    if handles::control() == 0 {
        return checks.skip("servers that lie", "the right to mount was not given");
    }
    checks.eq(handles::grant(Control::MOUNT), Ok(()), "children may mount");
    let regular = u64::from(mode::REG | 0o644);
    let directory = u64::from(mode::DIR | 0o755);
    let lies = [
        ("an answer without meaning", Lie::Words(77, [0; 6]), Errno::EIO),
        ("an error that there is not", Lie::Words(-5000i64 as u64, [0; 6]), Errno::EIO),
        ("an error", Lie::Words(-(Errno::EXDEV.get() as i64) as u64, [0; 6]), Errno::EXDEV),
        ("a file that is an endpoint", Lie::Endpoint([1, regular, 0, 0, 0, 0]), Errno::EIO),
        ("a number that is none", Lie::Words(DONE, [1 << 48, directory, 0, 0, 0, 0]), Errno::EIO),
        ("a kind that there is not", Lie::Words(DONE, [1, 0, 0, 0, 0, 0]), Errno::EIO),
        ("links without end", Lie::Words(LINK, [0, 1, 1, 0, 0, 0]), Errno::EIO),
        ("a link behind the path", Lie::Words(LINK, [0, 1000, 1, 0, 0, 0]), Errno::EIO),
        ("a link with a text of any length", Lie::Words(LINK, [0, 3, u64::MAX, 0, 0, 0]), Errno::EIO),
        ("a link without a text", Lie::Words(LINK, [0, 3, 0, 0, 0, 0]), Errno::ENOENT),
        ("up without an end", Lie::Words(UP, [0, 0, 0, 0, 0, 0]), Errno::EIO),
        ("up in the middle of a name", Lie::Words(UP, [0, 1, 0, 0, 0, 0]), Errno::EIO),
        ("its death", Lie::Death, Errno::EIO),
    ];
    for (what, lie, wanted) in lies {
        let Some(pid) = liar(lie) else { return checks.ok(false, "a server") };
        checks.eq(fs::stat(c"/mnt/abc", 0).err(), Some(wanted), what);
        let _ = raw(nr::KILL, [pid as usize, sig::KILL as usize]);
        let _ = process::waitpid(pid);
    }
    checks.fails(fs::stat(c"/mnt/abc", 0), Errno::EIO, "nobody is there any more");
    // A file that is whole, and handed out with less than what is asked for.
    let pid = liar(Lie::File([1, regular, 0, 0, 0, 0]));
    checks.ok(fs::stat(c"/mnt/abc", 0).is_ok(), "a server takes a dead one's place");
    checks.ok(open(c"/mnt/abc", Open::empty(), 0).is_ok(), "its file opens for reading");
    checks.fails(open(c"/mnt/abc", Open::WRONLY, 0), Errno::EACCES, "and not for writing");
    let second = liar(Lie::Death);
    checks.eq(second.map(process::waitpid), Some(Ok(Status::Exited(2))), "a mount whose server lives is not taken");
    if let Some(pid) = pid {
        let _ = raw(nr::KILL, [pid as usize, sig::KILL as usize]);
        let _ = process::waitpid(pid);
    }
    checks.fails(raw(nr::QUIRE_MOUNT, [0, path(MOUNT), 0]), Errno::EPERM, "mounting needs the right");
}

/// The number of the process that serves /tmp.
fn server() -> Option<i32> {
    let mut all = info::processes(0);
    all.find(|process| info::text(&process.name) == "tmpfs").map(|process| process.pid as i32)
}

/// With the argument `die`: the server is killed, in the middle of its work.
fn deaths(checks: &mut Checks) {
    for round in 0..3 {
        create(c"/tmp/kept", b"kept");
        let fd = open(c"/tmp/kept", Open::RDWR, 0).expect("a file");
        let at = mmap(0, PAGE, RW, Map::SHARED, fd, 0).expect("a mapping");
        let _ = mkdir(c"/tmp/here", 0o755);
        checks.eq(fs::chdir(c"/tmp/here"), Ok(()), "a directory is entered");
        let busy: Vec<i32> = (0..4)
            .filter_map(|_| {
                user_tests::start(|| {
                    loop {
                        let made = open(c"/tmp/busy", Open::CREAT | Open::RDWR, 0o644);
                        let _ = made.map(close);
                        let gone = remove(c"/tmp/busy", 0);
                        // Whatever happens to the server, these are the answers.
                        let is_known = |e: Errno| matches!(e, Errno::EIO | Errno::ENOENT);
                        if made.is_err_and(|e| !is_known(e)) || gone.is_err_and(|e| !is_known(e)) {
                            return 1;
                        }
                    }
                })
                .ok()
            })
            .collect();
        let Some(old) = server() else { return checks.ok(false, "a server") };
        time::sleep_ms(20 + 13 * round);
        checks.eq(raw(nr::KILL, [old as usize, sig::KILL as usize]), Ok(0), "the server is killed");
        let is_back = until(|| server().is_some_and(|pid| pid != old) && stat(c"/tmp").is_ok());
        checks.ok(is_back, "another one serves");
        for pid in busy {
            let ended = process::wait4(pid, 1);
            checks.ok(matches!(ended, Ok(None)), "its clients go on");
            let _ = raw(nr::KILL, [pid as usize, sig::KILL as usize]);
            let _ = process::waitpid(pid);
        }
        checks.fails(stat(c"/tmp/kept"), Errno::ENOENT, "what it had is lost");
        // SAFETY: the page is mapped, and nothing else refers to it.
        unsafe { (at as *mut u8).write_volatile(b'K') };
        let mut bytes = [0; 4];
        checks.eq((fs::pread(fd, &mut bytes, 0), &bytes), (Ok(4), b"Kept"), "an open file goes on");
        checks.eq(io::write(fd, b"more"), Ok(4), "in both directions");
        checks.fails(open(c"new", Open::CREAT, 0o644), Errno::ENOENT, "a directory of the old one is gone");
        checks.eq(fs::chdir(c"/tmp"), Ok(()), "one comes back");
        checks.eq(mkdir(c"new", 0o755).and(remove(c"new", at::REMOVEDIR)), Ok(0), "and works");
        let _ = raw(nr::MUNMAP, [at, PAGE]);
        close(fd);
        let _ = remove(c"/tmp/busy", 0);
        time::sleep_ms(2100);
    }
}
