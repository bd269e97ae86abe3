//! rights: descriptors and credentials in messages, and sockets that only messages refer to.

#![no_std]
#![no_main]

use quire_rt::abi::layout::poll;
use quire_rt::abi::nr;
use quire_rt::abi::socket::{SOL_SOCKET, Ucred, control, kind, msg, option};
use quire_rt::process;
use quire_rt::{Errno, io};
use user_tests::files::close;
use user_tests::unix::{
    ROOM, bind, connect, events, listen, pair, receive, receive_message, send, send_files, send_message, set_option,
    socket,
};
use user_tests::{Checks, raw, start};

extern crate alloc;

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    control_messages(&mut checks);
    credentials(&mut checks);
    cycles(&mut checks);
    chains(&mut checks);
    checks.finish()
}

fn control_messages(checks: &mut Checks) {
    for what in [kind::STREAM, kind::DGRAM, kind::SEQPACKET] {
        let (a, b) = pair(what);
        let (reader, writer) = io::pipe(0).unwrap_or_default();
        checks.eq(send_files(a, b'f', &[writer, reader]), Ok(1), "two descriptors");
        close(writer);
        let came = receive_message(b, 9, ROOM, 0).unwrap_or_default();
        checks.eq((came.bytes, came.files.len(), came.flags), (b"f".to_vec(), 2, 0), "arrive");
        let (sent, file) = (io::write(came.files[0], b"through"), came.files[1]);
        let mut bytes = [0; 7];
        checks.eq((sent, io::read(file, &mut bytes), &bytes), (Ok(7), Ok(7), b"through"), "and are the same files");
        checks.eq(raw(nr::FCNTL, [file as usize, 1]), Ok(0), "open for a new program");
        came.files.iter().for_each(|fd| close(*fd));
        let _ = send_files(a, b'g', &[reader]);
        let came = receive_message(b, 9, ROOM, msg::CMSG_CLOEXEC).unwrap_or_default();
        checks.eq(raw(nr::FCNTL, [came.files[0] as usize, 1]), Ok(1), "or not");
        came.files.iter().for_each(|fd| close(*fd));
        let _ = send_files(a, b'h', &[reader, reader, reader]);
        let peeked = receive_message(b, 9, ROOM, msg::PEEK).unwrap_or_default();
        checks.eq((peeked.files.len(), peeked.bytes.len()), (3, 1), "a look brings copies");
        peeked.files.iter().for_each(|fd| close(*fd));
        let came = receive_message(b, 9, 24, 0).unwrap_or_default();
        checks.eq((came.files.len(), came.flags & msg::CTRUNC), (2, msg::CTRUNC), "what does not fit is closed");
        came.files.iter().for_each(|fd| close(*fd));
        let _ = send_files(a, b'i', &[reader]);
        checks.eq(receive(b, 9, 0), Ok(b"i".to_vec()), "a read leaves them behind");
        checks.fails(send_files(a, b'j', &[-1]), Errno::EBADF, "no descriptor");
        checks.fails(send_files(a, b'j', &[reader; 254]), Errno::EINVAL, "too many");
        checks.fails(send_message(a, b'j', SOL_SOCKET, 9, &[]), Errno::EINVAL, "an unknown kind");
        close(reader);
        close(a);
        close(b);
    }
    let (a, b) = pair(kind::STREAM);
    let _ = (io::write(a, b"12"), send_files(a, b'3', &[a]), io::write(a, b"45"));
    let came = receive_message(b, 9, ROOM, 0).unwrap_or_default();
    checks.eq((&came.bytes[..], came.files.len()), (&b"123"[..], 1), "a stream stops behind descriptors");
    came.files.iter().for_each(|fd| close(*fd));
    checks.eq(receive(b, 9, 0), Ok(b"45".to_vec()), "and goes on");
    close(a);
    close(b);
}

fn credentials(checks: &mut Checks) {
    let me = Ucred { pid: process::getpid() as u32, uid: 0, gid: 0 };
    let (a, b) = pair(kind::DGRAM);
    let mut who = Ucred::default();
    let mut len = size_of::<Ucred>() as u32;
    let at = [(&raw mut who) as usize, (&raw mut len) as usize];
    let asked = raw(nr::GETSOCKOPT, [a as usize, 1, option::PEERCRED as usize, at[0], at[1]]);
    checks.eq((asked, who.pid), (Ok(0), me.pid), "who made a pair");
    checks.eq(set_option(b, option::PASSCRED, 1), Ok(0), "senders are told");
    let child = start(|| send(a, b"x", 0).is_err() as i32).unwrap_or(-1);
    let _ = process::waitpid(child);
    let came = receive_message(b, 9, ROOM, 0).unwrap_or_default();
    checks.eq(came.who.map(|who| who.pid), Some(child as u32), "the process that has sent it");
    let data = [me.pid, me.uid, me.gid].map(u32::to_ne_bytes);
    checks.eq(
        send_message(a, b'x', SOL_SOCKET, control::CREDENTIALS, data.as_flattened()),
        Ok(1),
        "one says who it is",
    );
    checks.eq(receive_message(b, 9, ROOM, 0).map(|came| came.who), Ok(Some(me)), "and is believed");
    checks.fails(
        send_message(a, b'x', SOL_SOCKET, control::CREDENTIALS, &data.as_flattened()[..8]),
        Errno::EINVAL,
        "a part",
    );
    let lies = [1, 1, 1u32].map(u32::to_ne_bytes);
    let liar = || {
        let _ = raw(nr::SETRESUID, [1000, 1000, 1000]);
        send_message(a, b'x', SOL_SOCKET, control::CREDENTIALS, lies.as_flattened()).err().map_or(0, Errno::get)
    };
    checks.exits(liar, Errno::EPERM.get() as u8, "a user who lies is not");
    close(a);
    close(b);
    let (a, b) = pair(kind::STREAM);
    let _ = set_option(b, option::PASSCRED, 1);
    let _ = io::write(a, b"12");
    let _ = start(|| io::write(a, b"34").is_err() as i32).and_then(process::waitpid);
    let came = receive_message(b, 9, ROOM, 0).unwrap_or_default();
    checks.eq((&came.bytes[..], came.who), (&b"12"[..], Some(me)), "a stream stops where the sender is another one");
    close(a);
    close(b);
    let name = b"\0quire.credentials";
    let server = socket(kind::STREAM).unwrap_or(-1);
    let _ = (bind(server, name), listen(server, 1));
    let client = socket(kind::STREAM).unwrap_or(-1);
    let _ = connect(client, name);
    let asked = raw(nr::GETSOCKOPT, [client as usize, 1, option::PEERCRED as usize, at[0], at[1]]);
    checks.eq((asked, who.pid), (Ok(0), me.pid), "who listens");
    close(client);
    close(server);
}

/// Sockets that only messages refer to: the counts of the machine, which the shell compares, say whether they are gone.
fn cycles(checks: &mut Checks) {
    for what in [kind::STREAM, kind::DGRAM] {
        let (a, b) = pair(what);
        checks.eq((send_files(a, b'1', &[a, b]), send_files(b, b'2', &[a, b])), (Ok(1), Ok(1)), "each to itself");
        close(a);
        close(b);
    }
    let (a, b) = pair(kind::STREAM);
    let (c, d) = pair(kind::STREAM);
    let (reader, writer) = io::pipe(0).unwrap_or_default();
    // The writer waits at b, which waits at d, which waits at b.
    checks.eq(send_files(a, b'1', &[writer, d]), Ok(1), "one to another");
    checks.eq(send_files(c, b'2', &[b]), Ok(1), "and back");
    close(writer);
    checks.eq(events(reader), 0, "which is not the end");
    [b, d, a, c].iter().for_each(|fd| close(*fd));
    checks.eq(events(reader), poll::HUP, "until nobody can receive it");
    close(reader);
    // What can be received stays.
    let (a, b) = pair(kind::STREAM);
    let (c, d) = pair(kind::STREAM);
    let _ = (send_files(a, b'1', &[c]), io::write(d, b"kept"), close(c));
    let _ = (send_files(d, b'2', &[d]), close(d));
    let came = receive_message(b, 1, ROOM, 0).unwrap_or_default();
    checks.eq(receive(came.files[0], 4, 0), Ok(b"kept".to_vec()), "a message to a socket in a message");
    came.files.iter().for_each(|fd| close(*fd));
    close(a);
    close(b);
}

/// A socket in a message to a socket in a message, and so on.
fn chains(checks: &mut Checks) {
    let (mut last, mut other) = pair(kind::DGRAM);
    for _ in 0..2000 {
        let (a, b) = pair(kind::DGRAM);
        if send_files(a, b'x', &[last, other]).is_err() {
            checks.ok(false, "a long chain");
        }
        close(last);
        close(other);
        (last, other) = (a, b);
    }
    close(last);
    close(other);
    checks.ok(true, "a long chain is dropped");
}
