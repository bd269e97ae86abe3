//! Error numbers, as in Linux's `asm-generic/errno-base.h` and `errno.h`.

use core::fmt;
use core::num::NonZero;

/// Why a call failed. A system call returns its negated value in x0.
///
/// It is as wide as a register and never 0, so that a function returns `Result<usize, Errno>` in two registers and
/// `Result<(), Errno>` in one, and not through memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Errno(NonZero<usize>);

macro_rules! errnos {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Errno = Errno(NonZero::new($value).unwrap());)*

            /// The C name, `"E?"` for a number that Quire never returns.
            pub const fn name(self) -> &'static str {
                match self.0.get() { $($value => stringify!($name),)* _ => "E?" }
            }

            /// The message for users.
            pub const fn text(self) -> &'static str {
                match self.0.get() { $($value => $text,)* _ => "unknown error" }
            }
        }
    };
}

errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such file or directory";
    ESRCH = 3, "no such process";
    EINTR = 4, "interrupted call";
    EIO = 5, "input or output error";
    ENXIO = 6, "no such device or address";
    E2BIG = 7, "argument list too long";
    ENOEXEC = 8, "exec format error";
    EBADF = 9, "bad file descriptor";
    ECHILD = 10, "no child processes";
    EAGAIN = 11, "try again";
    ENOMEM = 12, "out of memory";
    EACCES = 13, "permission denied";
    EFAULT = 14, "bad address";
    EBUSY = 16, "device or resource busy";
    EEXIST = 17, "file exists";
    EXDEV = 18, "cross-device link";
    ENODEV = 19, "no such device";
    ENOTDIR = 20, "not a directory";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    ENFILE = 23, "too many open files in the system";
    EMFILE = 24, "too many open files";
    ENOTTY = 25, "not a terminal";
    EFBIG = 27, "file too large";
    ENOSPC = 28, "no space left";
    ESPIPE = 29, "illegal seek";
    EROFS = 30, "read-only file system";
    EMLINK = 31, "too many links";
    EPIPE = 32, "broken pipe";
    EDOM = 33, "argument out of domain";
    ERANGE = 34, "result out of range";
    EDEADLK = 35, "deadlock avoided";
    ENAMETOOLONG = 36, "file name too long";
    ENOLCK = 37, "no locks left";
    ENOSYS = 38, "call not implemented";
    ENOTEMPTY = 39, "directory not empty";
    ELOOP = 40, "too many symbolic links";
    EOVERFLOW = 75, "value too large";
    ELIBBAD = 80, "bad program interpreter";
    ENOTSOCK = 88, "not a socket";
    EDESTADDRREQ = 89, "no destination";
    EMSGSIZE = 90, "message too long";
    EPROTOTYPE = 91, "wrong kind of socket";
    ENOPROTOOPT = 92, "no such option";
    EPROTONOSUPPORT = 93, "protocol not supported";
    ESOCKTNOSUPPORT = 94, "kind of socket not supported";
    EOPNOTSUPP = 95, "operation not supported";
    EAFNOSUPPORT = 97, "address family not supported";
    EADDRINUSE = 98, "address in use";
    ECONNABORTED = 103, "connection aborted";
    ECONNRESET = 104, "connection reset";
    ENOBUFS = 105, "no buffer space";
    EISCONN = 106, "already connected";
    ENOTCONN = 107, "not connected";
    ETOOMANYREFS = 109, "too many references";
    ETIMEDOUT = 110, "timed out";
    ECONNREFUSED = 111, "connection refused";
    EALREADY = 114, "already in progress";
    EINPROGRESS = 115, "in progress";
    ESTALE = 116, "stale file handle";
    ECANCELED = 125, "canceled";
}

impl Errno {
    /// The positive number.
    pub const fn get(self) -> i32 {
        self.0.get() as i32
    }

    /// The value of x0 after a call that failed with this error.
    pub const fn to_ret(self) -> isize {
        -(self.0.get() as isize)
    }

    /// Decodes x0 after a call: −4095 to −1 is an error, anything else a value.
    pub const fn from_ret(ret: isize) -> Result<usize, Errno> {
        match NonZero::new(ret.unsigned_abs()) {
            Some(number) if ret < 0 && ret >= -4095 => Err(Errno(number)),
            _ => Ok(ret as usize),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::Errno;

    #[test]
    fn a_return_value_splits_at_4095() {
        assert_eq!(Errno::from_ret(-14), Err(Errno::EFAULT));
        assert_eq!(Errno::from_ret(-4096), Ok(usize::MAX - 4095));
        assert_eq!(Errno::from_ret(0), Ok(0));
        assert_eq!(Errno::from_ret(Errno::ENOSYS.to_ret()), Err(Errno::ENOSYS));
    }
}
