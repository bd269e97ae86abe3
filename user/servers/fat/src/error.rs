//! Errors of `hadris-fat` as errno.

use hadris_fs::{Error, ErrorKind};
use quire_abi::Errno;

use crate::disk::Failure;

/// The errno of an error. Damage is EIO, as on Linux.
pub fn errno(error: Error<Failure>) -> Errno {
    if let Some(Failure(errno)) = error.device_error() {
        return *errno;
    }
    match error.kind() {
        ErrorKind::NotFound => Errno::ENOENT,
        ErrorKind::AlreadyExists => Errno::EEXIST,
        ErrorKind::NotADirectory => Errno::ENOTDIR,
        ErrorKind::IsADirectory => Errno::EISDIR,
        ErrorKind::DirectoryNotEmpty => Errno::ENOTEMPTY,
        ErrorKind::NoSpace | ErrorKind::LimitExceeded => Errno::ENOSPC,
        ErrorKind::ReadOnly => Errno::EROFS,
        ErrorKind::InvalidInput | ErrorKind::NotRecognized => Errno::EINVAL,
        ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        ErrorKind::NameTooLong => Errno::ENAMETOOLONG,
        ErrorKind::FileTooLarge => Errno::EFBIG,
        ErrorKind::InvalidHandle => Errno::ESTALE,
        ErrorKind::Busy => Errno::EBUSY,
        _ => Errno::EIO,
    }
}
