//! sockets: local sockets of all kinds, and their names.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;

use quire_rt::abi::flags::{Open, sig};
use quire_rt::abi::layout::{Iovec, PollFd, Timeval, at, epoll, mode, poll};
use quire_rt::abi::nr;
use quire_rt::abi::socket::{MMsgHdr, MsgHdr, how, kind, msg, option};
use quire_rt::process::{self, Status};
use quire_rt::{Errno, fs, io, signal};
use user_tests::files::{close, open, remove};
use user_tests::ready::{ppoll, set as new_set, wait as wait_in};
use user_tests::unix::{
    IN, OUT, accept, address, bind, connect, events, get_option, listen, name_of, pair, receive, receive_from,
    receive_message, send, send_to, set_option, shutdown, socket,
};
use user_tests::{Checks, KERNEL, raw, start, until_asleep};

quire_rt::entry!(main);

const NONBLOCK: u32 = kind::NONBLOCK;
const PATH: &core::ffi::CStr = c"/tmp/sockets.test";

fn main() -> i32 {
    let mut checks = Checks::new();
    let _ = remove(PATH, 0);
    arguments(&mut checks);
    streams(&mut checks);
    ends(&mut checks);
    bounds(&mut checks);
    messages(&mut checks);
    names(&mut checks);
    connections(&mut checks);
    datagrams(&mut checks);
    many(&mut checks);
    options(&mut checks);
    checks.finish()
}

fn arguments(checks: &mut Checks) {
    let family = |domain: usize, what: usize, protocol: usize| raw(nr::SOCKET, [domain, what, protocol]);
    checks.fails(family(2, 1, 0), Errno::EAFNOSUPPORT, "no internet");
    checks.fails(family(10, 2, 0), Errno::EAFNOSUPPORT, "of neither kind");
    checks.fails(family(1, 4, 0), Errno::ESOCKTNOSUPPORT, "no such kind");
    checks.fails(family(1, 1, 6), Errno::EPROTONOSUPPORT, "no such protocol");
    checks.fails(family(1, 1 | 1 << 20, 0), Errno::EINVAL, "unknown flags");
    checks.fails(raw(nr::SOCKETPAIR, [1, 1, 0, KERNEL]), Errno::EFAULT, "a bad address");
    checks.fails(listen(1, 5), Errno::ENOTSOCK, "no socket");
    checks.fails(listen(-1, 5), Errno::EBADF, "no descriptor");
    let fd = socket(kind::STREAM | kind::CLOEXEC | NONBLOCK).unwrap_or(-1);
    checks.eq(raw(nr::FCNTL, [fd as usize, 1]), Ok(1), "exec will close it");
    checks.eq(raw(nr::FCNTL, [fd as usize, 3]), Ok(2 | NONBLOCK as usize), "and its status");
    let stat = fs::fstat(fd).unwrap_or_default();
    checks.eq(stat.mode & mode::FMT, mode::SOCK, "it is a socket");
    checks.fails(fs::lseek(fd, 0, 0), Errno::ESPIPE, "without position");
    checks.fails(fs::pread(fd, &mut [0], 0), Errno::ESPIPE, "in any way");
    checks.fails(io::write(fd, b"x"), Errno::ENOTCONN, "nothing to write to");
    checks.fails(io::read(fd, &mut [0]), Errno::EINVAL, "nor to read from");
    checks.fails(name_of(fd, nr::GETPEERNAME), Errno::ENOTCONN, "no other end");
    checks.eq(name_of(fd, nr::GETSOCKNAME), Ok(address(b"")), "and no name");
    checks.eq(events(fd), OUT | poll::HUP, "ready as on Linux");
    checks.fails(listen(fd, 1), Errno::EINVAL, "nobody listens without a name");
    checks.fails(bind(fd, &[b'x'; 109]), Errno::EINVAL, "a long name");
    checks.fails(connect(fd, b"/tmp/nothing-here"), Errno::ENOENT, "a path without a node");
    checks.fails(connect(fd, b"/bin"), Errno::ECONNREFUSED, "what is no socket");
    checks.fails(connect(fd, b"\0nobody"), Errno::ECONNREFUSED, "a name of nobody");
    checks.fails(send_to(fd, b"x", b"\0nobody"), Errno::EOPNOTSUPP, "a stream sends to its peer only");
    close(fd);
}

fn streams(checks: &mut Checks) {
    let (a, b) = pair(kind::STREAM);
    checks.eq((events(a), events(b)), (OUT, OUT), "two ends");
    checks.eq((io::write(a, b"hello"), io::write(a, b" world")), (Ok(5), Ok(6)), "two writes");
    checks.eq(events(b), IN | OUT, "the other end is readable");
    let mut count = 0u32;
    let _ = raw(nr::IOCTL, [b as usize, 0x541b, (&raw mut count) as usize]);
    checks.eq(count, 11, "so many bytes");
    checks.eq(receive(b, 20, msg::PEEK), Ok(b"hello world".to_vec()), "a look");
    checks.eq(receive(b, 7, 0), Ok(b"hello w".to_vec()), "a read across messages");
    checks.eq(receive(b, 20, 0), Ok(b"orld".to_vec()), "the rest");
    checks.fails(receive(b, 20, msg::DONTWAIT), Errno::EAGAIN, "nothing more");
    checks.fails(raw(nr::SENDTO, [a as usize, KERNEL, 5, 0, 0, 0]), Errno::EFAULT, "a bad buffer");
    let _ = io::write(a, b"kept");
    checks.fails(raw(nr::RECVFROM, [b as usize, KERNEL, 4, 0, 0, 0]), Errno::EFAULT, "a bad buffer for a reader");
    checks.eq(receive(b, 20, 0), Ok(b"kept".to_vec()), "loses nothing");
    let reader = start(|| (receive(b, 6, msg::WAITALL) != Ok(b"abcdef".to_vec())) as i32).unwrap_or(-1);
    until_asleep(reader);
    let _ = io::write(a, b"abc");
    until_asleep(reader);
    let _ = io::write(a, b"def");
    checks.eq(process::waitpid(reader), Ok(Status::Exited(0)), "a read of all waits for all");
    let parts = [Iovec { base: b"ab".as_ptr() as u64, len: 2 }, Iovec { base: b"cd".as_ptr() as u64, len: 2 }];
    checks.eq(raw(nr::WRITEV, [a as usize, parts.as_ptr() as usize, 2]), Ok(4), "a vector");
    checks.eq(receive(b, 9, 0), Ok(b"abcd".to_vec()), "is one after the other");
    checks.fails(send(a, b"x", msg::OOB), Errno::EOPNOTSUPP, "nothing is urgent");
    let interrupted = start(|| {
        let _ = signal::handle(sig::USR1, nothing, 0, 0);
        receive(b, 1, 0).err().map_or(0, Errno::get)
    });
    let interrupted = interrupted.unwrap_or(-1);
    until_asleep(interrupted);
    let _ = process::kill(interrupted, sig::USR1);
    checks.eq(process::waitpid(interrupted), Ok(Status::Exited(4)), "a reader is interrupted");
    close(a);
    close(b);
}

extern "C" fn nothing(_: i32, _: *const signal::Info, _: *mut u8) {}

fn ends(checks: &mut Checks) {
    let (a, b) = pair(kind::STREAM);
    let _ = io::write(a, b"last");
    checks.eq(shutdown(a, how::WRITE), Ok(0), "no more is written");
    checks.eq(events(b), IN | OUT | poll::RDHUP, "the other end sees that");
    checks.eq((receive(b, 9, 0), receive(b, 9, 0)), (Ok(b"last".to_vec()), Ok(vec![])), "after what was written");
    checks.eq(io::write(b, b"back"), Ok(4), "the other way is open");
    checks.eq(receive(a, 9, 0), Ok(b"back".to_vec()), "and used");
    checks.fails(send(a, b"x", msg::NOSIGNAL), Errno::EPIPE, "but not this one");
    checks.killed(|| io::write(a, b"x"), sig::PIPE, "a write there is SIGPIPE");
    close(a);
    checks.eq(events(b), IN | OUT | poll::RDHUP | poll::HUP, "a closed end is a hang-up");
    checks.fails(send(b, b"x", msg::NOSIGNAL), Errno::EPIPE, "and no reader");
    close(b);
    let (a, b) = pair(kind::STREAM);
    let _ = io::write(a, b"unread");
    close(b);
    checks.eq(events(a) & poll::ERR, poll::ERR, "an end that has not read all is a reset");
    checks.eq(get_option(a, option::ERROR), Ok(Errno::ECONNRESET.get() as u32), "the error is told");
    checks.eq((get_option(a, option::ERROR), receive(a, 1, 0)), (Ok(0), Ok(vec![])), "once");
    close(a);
    let (a, b) = pair(kind::STREAM);
    let reader = start(|| {
        close(a);
        (receive(b, 1, 0) != Ok(vec![])) as i32
    });
    let reader = reader.unwrap_or(-1);
    until_asleep(reader);
    close(a);
    checks.eq(process::waitpid(reader), Ok(Status::Exited(0)), "a close wakes a reader");
    let reader = start(|| (receive(b, 1, 0) != Ok(vec![])) as i32).unwrap_or(-1);
    checks.eq(process::waitpid(reader), Ok(Status::Exited(0)), "and is seen later, too");
    close(b);
}

fn bounds(checks: &mut Checks) {
    let (a, b) = pair(kind::STREAM | NONBLOCK);
    let piece = vec![7; 10_000];
    let mut sent = 0;
    let end = loop {
        match io::write(a, &piece) {
            Ok(n) => sent += n,
            Err(e) => break e,
        }
    };
    checks.eq(end, Errno::EAGAIN, "a writer that nobody reads from has to wait");
    checks.ok((100_000..1_000_000).contains(&sent), "with a bounded number of bytes");
    checks.eq(events(a), 0, "it is not writable");
    let set = new_set();
    let _ = user_tests::ready::control(set, epoll::ADD, a, u32::from(OUT) | epoll::ET, 3);
    checks.eq(wait_in(set, 4, 0).map(|found| found.len()), Ok(0), "for epoll too");
    let mut read = 0;
    while let Ok(bytes) = receive(b, 60_000, 0) {
        read += bytes.len();
    }
    checks.eq(read, sent, "all can be read");
    checks.eq(wait_in(set, 4, 0), Ok(vec![(u32::from(OUT), 3)]), "then it is writable again");
    close(set);
    let small = (0..100_000).take_while(|_| io::write(a, b"x").is_ok()).count();
    checks.ok(small < 10_000, "small messages are bounded, too");
    close(a);
    close(b);
    let (a, b) = pair(kind::STREAM);
    let writer = start(|| {
        close(b);
        (io::write_all(a, &vec![5; 1_000_000]).is_err()) as i32
    });
    close(a);
    let (mut read, mut right) = (0, true);
    while let Ok(bytes) = receive(b, 50_000, 0) {
        if bytes.is_empty() {
            break;
        }
        right &= bytes.iter().all(|byte| *byte == 5);
        read += bytes.len();
    }
    checks.eq((read, right), (1_000_000, true), "a long write in parts");
    checks.eq(writer.and_then(process::waitpid), Ok(Status::Exited(0)), "ends");
    close(b);
}

fn messages(checks: &mut Checks) {
    for what in [kind::SEQPACKET, kind::DGRAM] {
        let (a, b) = pair(what);
        let _ = (send(a, b"first", 0), send(a, b"", 0), send(a, b"third", 0));
        checks.eq(receive(b, 3, msg::PEEK), Ok(b"fir".to_vec()), "a look at a message");
        checks.eq(
            receive_message(b, 3, 0, 0).map(|came| (came.bytes, came.flags)),
            Ok((b"fir".to_vec(), msg::TRUNC)),
            "what does not fit is cut off",
        );
        checks.eq((receive(b, 9, 0), receive(b, 9, 0)), (Ok(vec![]), Ok(b"third".to_vec())), "an empty one counts");
        let _ = send(a, b"whole", 0);
        let mut byte = 0u8;
        let words = [b as usize, (&raw mut byte) as usize, 1, msg::TRUNC as usize, 0, 0];
        checks.eq((raw(nr::RECVFROM, words), byte), (Ok(5), b'w'), "its length can be asked for");
        checks.fails(send(a, &vec![0; 300_000], 0), Errno::EMSGSIZE, "one that is too long");
        checks.fails(receive(b, 9, msg::DONTWAIT), Errno::EAGAIN, "nothing more");
        let large = vec![9; 200_000];
        checks.eq(
            (send(a, &large, 0), receive(b, 300_000, 0)),
            (Ok(large.len()), Ok(large)),
            "one that is as long as it may",
        );
        let sent = (0..10_000).take_while(|_| send(a, &[0; 1000], msg::DONTWAIT).is_ok()).count();
        checks.ok((50..1000).contains(&sent), "they are bounded");
        checks.eq(events(a), 0, "and then not writable");
        let read = (0..10_000).take_while(|_| receive(b, 1000, msg::DONTWAIT).is_ok()).count();
        checks.eq((read, events(a)), (sent, OUT), "until they are read");
        close(a);
        let end = receive(b, 1, msg::DONTWAIT);
        checks.eq(end, if what == kind::DGRAM { Err(Errno::EAGAIN) } else { Ok(vec![]) }, "the end of a connection");
        checks.fails(
            send(b, b"x", 0),
            if what == kind::DGRAM { Errno::ECONNREFUSED } else { Errno::EPIPE },
            "without SIGPIPE",
        );
        close(b);
    }
}

fn names(checks: &mut Checks) {
    let path = PATH.to_bytes();
    let fd = socket(kind::STREAM).unwrap_or(-1);
    checks.eq(bind(fd, path), Ok(0), "a path");
    let stat = fs::stat(PATH, at::SYMLINK_NOFOLLOW).unwrap_or_default();
    checks.eq((stat.mode & mode::FMT, stat.nlink), (mode::SOCK, 1), "has a node");
    checks.fails(open(PATH, Open::RDWR, 0), Errno::ENXIO, "that cannot be opened");
    checks.eq(name_of(fd, nr::GETSOCKNAME), Ok(address(&[path, b"\0"].concat())), "it is told");
    let other = socket(kind::STREAM).unwrap_or(-1);
    checks.fails(bind(other, path), Errno::EADDRINUSE, "it is taken");
    checks.fails(bind(fd, b"\0second"), Errno::EINVAL, "one name a socket");
    checks.fails(connect(other, path), Errno::ECONNREFUSED, "nobody listens");
    let wrong = socket(kind::DGRAM).unwrap_or(-1);
    checks.fails(connect(wrong, path), Errno::EPROTOTYPE, "another kind");
    let _ = listen(fd, 5);
    checks.eq(connect(other, path), Ok(0), "a connection");
    let _ = (remove(PATH, 0), close(other));
    let other = socket(kind::STREAM).unwrap_or(-1);
    checks.fails(connect(other, path), Errno::ENOENT, "a name that is removed leads nowhere");
    let second = socket(kind::STREAM).unwrap_or(-1);
    checks.eq((bind(second, path), listen(second, 1)), (Ok(0), Ok(0)), "and can be used again");
    checks.eq(connect(other, path), Ok(0), "by another one");
    close(second);
    let late = socket(kind::STREAM).unwrap_or(-1);
    checks.fails(connect(late, path), Errno::ECONNREFUSED, "a node that is left over");
    let _ = remove(PATH, 0);
    [fd, other, wrong, late].iter().for_each(|fd| close(*fd));
    // Abstract ones.
    let (a, b) = (socket(kind::DGRAM).unwrap_or(-1), socket(kind::DGRAM).unwrap_or(-1));
    checks.eq(bind(a, b"\0quire\0test"), Ok(0), "an abstract name");
    checks.fails(bind(b, b"\0quire\0test"), Errno::EADDRINUSE, "is one for all");
    checks.eq(name_of(a, nr::GETSOCKNAME), Ok(address(b"\0quire\0test")), "and told as it is");
    let stream = socket(kind::STREAM).unwrap_or(-1);
    checks.eq(bind(stream, b"\0quire\0test"), Ok(0), "but each kind has its own");
    checks.eq(bind(b, b""), Ok(0), "any name");
    checks.eq(name_of(b, nr::GETSOCKNAME).map(|name| (name.len(), name[2])), Ok((8, 0)), "is an abstract one");
    close(a);
    let a = socket(kind::DGRAM).unwrap_or(-1);
    checks.eq(bind(a, b"\0quire\0test"), Ok(0), "it goes with its socket");
    [a, b, stream].iter().for_each(|fd| close(*fd));
}

fn connections(checks: &mut Checks) {
    let name = b"\0quire.connections";
    let server = socket(kind::STREAM | NONBLOCK).unwrap_or(-1);
    let _ = (bind(server, name), listen(server, 1));
    checks.eq((events(server), accept(server, 0)), (0, Err(Errno::EAGAIN)), "nobody comes");
    checks.eq(get_option(server, option::ACCEPTCONN), Ok(1), "it listens");
    let clients = [(); 3].map(|()| socket(kind::STREAM | NONBLOCK).unwrap_or(-1));
    checks.eq((connect(clients[0], name), connect(clients[1], name)), (Ok(0), Ok(0)), "two come");
    checks.fails(connect(clients[2], name), Errno::EAGAIN, "for a third there is no room");
    checks.fails(connect(clients[0], name), Errno::EISCONN, "one is connected already");
    checks.eq(events(server), IN, "somebody waits");
    checks.eq(io::write(clients[0], b"early"), Ok(5), "and may send");
    let first = accept(server, kind::CLOEXEC).unwrap_or(-1);
    checks.eq(receive(first, 9, 0), Ok(b"early".to_vec()), "what is read later");
    checks.eq(name_of(first, nr::GETSOCKNAME), Ok(address(name)), "the name of the server");
    checks.eq(name_of(clients[0], nr::GETPEERNAME), Ok(address(name)), "is that of the other end");
    let _ = io::write(first, b"answer");
    checks.eq(receive(clients[0], 9, 0), Ok(b"answer".to_vec()), "both ways");
    let waiting = start(|| {
        let client = socket(kind::STREAM).unwrap_or(-1);
        (connect(client, name).is_err() || connect(clients[2], name).is_ok()) as i32
    });
    checks.eq(waiting.and_then(process::waitpid), Ok(Status::Exited(0)), "there is room for one again");
    let waiting = start(|| {
        let client = socket(kind::STREAM).unwrap_or(-1);
        connect(client, name).is_err() as i32
    });
    let waiting = waiting.unwrap_or(-1);
    until_asleep(waiting);
    let second = accept(server, 0).unwrap_or(-1);
    checks.eq(process::waitpid(waiting), Ok(Status::Exited(0)), "whoever waits for a place gets one");
    let mut bytes = [0; 1];
    checks.eq(io::read(clients[1], &mut bytes), Err(Errno::EAGAIN), "a connection");
    close(server);
    checks.eq(io::read(clients[1], &mut bytes), Err(Errno::EAGAIN), "outlives its server");
    checks.fails(connect(clients[2], name), Errno::ECONNREFUSED, "which is gone");
    [first, second, clients[0], clients[1], clients[2]].iter().for_each(|fd| close(*fd));
    let server = socket(kind::SEQPACKET).unwrap_or(-1);
    let _ = (bind(server, name), listen(server, 1));
    let client = socket(kind::SEQPACKET).unwrap_or(-1);
    let _ = connect(client, name);
    close(server);
    checks.eq(get_option(client, option::ERROR), Ok(Errno::ECONNRESET.get() as u32), "nobody will accept it");
    close(client);
    let server = socket(kind::STREAM).unwrap_or(-1);
    let _ = (bind(server, name), listen(server, 1));
    let acceptor = start(|| accept(server, 0).is_err() as i32).unwrap_or(-1);
    until_asleep(acceptor);
    let client = socket(kind::STREAM).unwrap_or(-1);
    let _ = connect(client, name);
    checks.eq(process::waitpid(acceptor), Ok(Status::Exited(0)), "a connection wakes an acceptor");
    [server, client].iter().for_each(|fd| close(*fd));
}

fn datagrams(checks: &mut Checks) {
    let name = b"\0quire.datagrams";
    let server = socket(kind::DGRAM).unwrap_or(-1);
    let _ = bind(server, name);
    let (a, b) = (socket(kind::DGRAM | NONBLOCK).unwrap_or(-1), socket(kind::DGRAM).unwrap_or(-1));
    let _ = bind(b, b"\0quire.b");
    checks.eq((send_to(a, b"from a", name), send_to(b, b"from b", name)), (Ok(6), Ok(6)), "two senders");
    checks.eq(receive_from(server, 9), Ok((b"from a".to_vec(), vec![])), "one without a name");
    checks.eq(receive_from(server, 9), Ok((b"from b".to_vec(), address(b"\0quire.b"))), "and one with a name");
    checks.fails(send(a, b"x", 0), Errno::ENOTCONN, "to nobody");
    checks.eq(
        (connect(a, name), send(a, b"x", 0), receive(server, 9, 0)),
        (Ok(0), Ok(1), Ok(b"x".to_vec())),
        "a destination",
    );
    let sent = (0..1000).take_while(|_| send(a, b"x", 0).is_ok()).count();
    checks.eq((sent, events(a)), (11, 0), "a few wait at a receiver that is not connected back");
    let set = new_set();
    let _ = user_tests::ready::control(set, epoll::ADD, a, u32::from(OUT), 1);
    checks.eq(wait_in(set, 2, 0).map(|found| found.len()), Ok(0), "more do not fit");
    let _ = receive(server, 1, 0);
    checks.eq(wait_in(set, 2, 100).map(|found| found.len()), Ok(1), "until one is read");
    close(set);
    let _ = send(a, b"x", 0);
    let mut fds = [PollFd { fd: a, events: OUT, revents: 0 }];
    let reader = start(|| {
        user_tests::ready::look(&mut [PollFd { fd: server, events: IN, revents: 0 }]);
        quire_rt::time::sleep_ms(20);
        receive(server, 1, 0).is_err() as i32
    });
    checks.eq(ppoll(&mut fds, None), Ok(1), "poll waits for that, too");
    let _ = reader.and_then(process::waitpid);
    while receive(server, 1, msg::DONTWAIT).is_ok() {}
    let blocked = socket(kind::DGRAM).unwrap_or(-1);
    let _ = (0..11).all(|_| send_to(blocked, b"x", name).is_ok());
    let writer = start(|| send_to(blocked, b"y", name).is_err() as i32).unwrap_or(-1);
    until_asleep(writer);
    let _ = receive(server, 1, 0);
    checks.eq(process::waitpid(writer), Ok(Status::Exited(0)), "a sender that waits goes on");
    close(server);
    checks.fails(send(a, b"x", 0), Errno::ECONNREFUSED, "a destination that is gone");
    checks.fails(send(a, b"x", 0), Errno::ENOTCONN, "is none any more");
    let (c, d) = pair(kind::DGRAM);
    let _ = bind(c, b"\0quire.c");
    checks.fails(send_to(a, b"x", b"\0quire.c"), Errno::EPERM, "a connected socket hears its peer alone");
    [a, b, c, d, blocked].iter().for_each(|fd| close(*fd));
}

fn many(checks: &mut Checks) {
    let (a, b) = pair(kind::DGRAM);
    let bytes = *b"abcdef";
    let parts = [0, 1, 2].map(|i| Iovec { base: bytes[i..].as_ptr() as u64, len: i as u64 + 1 });
    let message = |part: &Iovec| MMsgHdr {
        header: MsgHdr { vector: core::ptr::from_ref(part) as u64, count: 1, ..MsgHdr::default() },
        ..MMsgHdr::default()
    };
    let mut all = [message(&parts[0]), message(&parts[1]), message(&parts[2])];
    checks.eq(raw(nr::SENDMMSG, [a as usize, all.as_mut_ptr() as usize, 3, 0]), Ok(3), "three messages");
    checks.eq(all.map(|message| message.len), [1, 2, 3], "of so many bytes");
    let mut to = [[0u8; 8]; 4];
    let places = [0, 1, 2, 3].map(|i| Iovec { base: to[i].as_mut_ptr() as u64, len: 8 });
    let mut room = [0, 1, 2, 3].map(|i| message(&places[i]));
    let words = [b as usize, room.as_mut_ptr() as usize, 4, msg::WAITFORONE as usize, 0];
    checks.eq(raw(nr::RECVMMSG, words), Ok(3), "come together");
    checks.eq(room.map(|message| message.len), [1, 2, 3, 0], "each by itself");
    close(a);
    close(b);
}

fn options(checks: &mut Checks) {
    let (a, b) = pair(kind::STREAM);
    checks.eq((get_option(a, option::TYPE), get_option(a, option::DOMAIN)), (Ok(1), Ok(1)), "what it is");
    checks.eq((set_option(a, option::SNDBUF, 10_000), get_option(a, option::SNDBUF)), (Ok(0), Ok(20_000)), "a buffer");
    checks.eq((set_option(a, option::SNDBUF, 0), get_option(a, option::SNDBUF)), (Ok(0), Ok(4608)), "at least");
    checks.eq((set_option(a, option::KEEPALIVE, 1), get_option(a, option::KEEPALIVE)), (Ok(0), Ok(1)), "a switch");
    checks.fails(get_option(a, 1000), Errno::ENOPROTOOPT, "an unknown option");
    let time = Timeval { sec: 0, usec: 20_000 };
    let at = (&raw const time) as usize;
    checks.eq(raw(nr::SETSOCKOPT, [b as usize, 1, option::RCVTIMEO as usize, at, 16]), Ok(0), "a time");
    checks.fails(receive(b, 1, 0), Errno::EAGAIN, "ends a wait");
    close(a);
    close(b);
}
