//! getsockopt and setsockopt: options of the level SOL_SOCKET, and no others.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::layout::{Pod, Timeval};
use quire_abi::socket::{SOL_SOCKET, family, kind, option};
use quire_mm::UserAddr;

use super::socket::{file_at, of};
use super::{Answer, Args};
use crate::arch::uaccess;
use crate::ipc::socket::{Kind, Socket};
use crate::task::thread::current;

/// The maximum size of a buffer that a program may set (Linux's `wmem_max`), and the minimum.
const BUFFER_MAX: u32 = 212_992;
const BUFFER_MIN: u32 = 4_608;

/// Options that are on or off. For local sockets all but one are stored without effect, as on Linux.
const SWITCHES: [u32; 7] = [
    option::REUSEADDR,
    option::DONTROUTE,
    option::BROADCAST,
    option::KEEPALIVE,
    option::OOBINLINE,
    option::REUSEPORT,
    option::PASSCRED,
];

const MICROSECOND: u64 = 1000;
const SECOND: u64 = 1_000_000_000;

/// A time in nanoseconds, 0 for none. EDOM.
fn to_ns(time: Timeval) -> Result<u64, Errno> {
    if !(0..1_000_000).contains(&time.usec) {
        return Err(Errno::EDOM);
    }
    // (On Linux a negative time means not to wait at all; no known program uses it.)
    let sec = u64::try_from(time.sec).unwrap_or(0);
    Ok(sec.saturating_mul(SECOND).saturating_add(time.usec as u64 * MICROSECOND))
}

fn set_buffer(socket: &Socket, receives: bool, bytes: u32) {
    let doubled = bytes.min(i32::MAX as u32 / 2) * 2;
    socket.buffer(receives).store(doubled.max(BUFFER_MIN), Ordering::Relaxed);
}

pub fn setsockopt(a: Args) -> Answer {
    let file = file_at(a.int(0))?;
    let socket = of(&file)?;
    let (at, len) = (a.addr(3), a.int(4));
    if a.int(1) != SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    let which = a.uint(2);
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    match which {
        option::RCVTIMEO | option::SNDTIMEO | option::RCVTIMEO_NEW | option::SNDTIMEO_NEW => {
            if len < size_of::<Timeval>() {
                return Err(Errno::EINVAL);
            }
            let receives = matches!(which, option::RCVTIMEO | option::RCVTIMEO_NEW);
            socket.timeout(receives).store(to_ns(uaccess::get(at)?)?, Ordering::Relaxed);
            return Ok(0);
        }
        _ if len < size_of::<i32>() => return Err(Errno::EINVAL),
        _ => {}
    }
    let value: u32 = uaccess::get(at)?;
    let is_root = || current().process().credentials.lock().is_privileged();
    match which {
        which if SWITCHES.contains(&which) => {
            let bit = 1 << which;
            if value != 0 {
                socket.options().fetch_or(bit, Ordering::Relaxed);
            } else {
                socket.options().fetch_and(!bit, Ordering::Relaxed);
            }
        }
        option::SNDBUF | option::RCVBUF => set_buffer(socket, which == option::RCVBUF, value.min(BUFFER_MAX)),
        option::SNDBUFFORCE | option::RCVBUFFORCE if !is_root() => return Err(Errno::EPERM),
        option::SNDBUFFORCE | option::RCVBUFFORCE => {
            // (A larger buffer would let one socket take memory without limit.)
            set_buffer(socket, which == option::RCVBUFFORCE, value.min(BUFFER_MAX));
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(0)
}

/// Stores a value, or as much of it as fits; the word at `len_at` has the size of the buffer, and gets the number of
/// bytes stored.
fn answer<T: Pod>(value: T, at: UserAddr, len_at: UserAddr) -> Answer {
    let room: i32 = uaccess::get(len_at)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let len = room.min(size_of::<T>());
    // SAFETY: a `Pod` has no padding, so all its bytes are initialised.
    let bytes = unsafe { core::slice::from_raw_parts(core::ptr::from_ref(&value).cast::<u8>(), len) };
    if uaccess::copy_to_user(at, bytes)? < len {
        return Err(Errno::EFAULT);
    }
    uaccess::put(len_at, &(len as u32)).map(|()| 0)
}

pub fn getsockopt(a: Args) -> Answer {
    let file = file_at(a.int(0))?;
    let socket = of(&file)?;
    let (at, len_at) = (a.addr(3), a.addr(4));
    if a.int(1) != SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    let which = a.uint(2);
    let value = match which {
        which if SWITCHES.contains(&which) => socket.options().load(Ordering::Relaxed) >> which & 1,
        option::SNDBUF | option::RCVBUF => socket.buffer(which == option::RCVBUF).load(Ordering::Relaxed),
        option::TYPE => match socket.kind {
            Kind::Stream => kind::STREAM,
            Kind::Datagram => kind::DGRAM,
            Kind::Seqpacket => kind::SEQPACKET,
        },
        option::ERROR => socket.take_error().map_or(0, |error| error.get() as u32),
        option::ACCEPTCONN => socket.is_listening().into(),
        option::DOMAIN => family::UNIX.into(),
        option::PROTOCOL => 0,
        option::PEERCRED => {
            const NONE: [u32; 3] = [0, u32::MAX, u32::MAX];
            let who = socket.peer_credentials().map_or(NONE, |who| [who.pid, who.uid, who.gid]);
            let [pid, uid, gid] = who;
            return answer(quire_abi::socket::Ucred { pid, uid, gid }, at, len_at);
        }
        option::RCVTIMEO | option::SNDTIMEO | option::RCVTIMEO_NEW | option::SNDTIMEO_NEW => {
            let receives = matches!(which, option::RCVTIMEO | option::RCVTIMEO_NEW);
            let ns = socket.timeout(receives).load(Ordering::Relaxed);
            let time = Timeval { sec: (ns / SECOND) as i64, usec: (ns % SECOND / MICROSECOND) as i64 };
            return answer(time, at, len_at);
        }
        _ => return Err(Errno::ENOPROTOOPT),
    };
    answer(value, at, len_at)
}
