//! Work of a length that a program chooses, on areas and sockets: for the test of latency.

use alloc::format;
use alloc::vec::Vec;

use quire_rt::Errno;
use quire_rt::abi::flags::{Map, Prot};
use quire_rt::abi::nr;
use quire_rt::abi::socket::{SOL_SOCKET, option};
use quire_rt::process::Status;

use crate::unix::send_files;
use crate::{PAGE, RW, child, map, mmap, mprotect, munmap, poke, raw};

const UNIX: usize = 1;
const STREAM: usize = 1;
const DONTWAIT: usize = 0x40;

/// An address with the family alone.
const UNIX_FAMILY: [u8; 2] = [1, 0];

/// So many areas of a page each: every second one has other rights.
pub fn many_areas(areas: usize) -> Result<usize, Errno> {
    let at = map(areas * PAGE, RW);
    for page in (0..areas).step_by(2) {
        mprotect(at + page * PAGE, PAGE, Prot::READ)?;
    }
    Ok(at)
}

/// They are written back, of which there is nothing.
pub fn areas_synchronised(areas: usize) -> Result<bool, Errno> {
    const SYNC: usize = 4;
    let at = many_areas(areas)?;
    Ok(raw(nr::MSYNC, [at, areas * PAGE, SYNC]) == Ok(0))
}

/// Their pages are to go to swap, of which there are none.
pub fn nothing_paged_out(areas: usize) -> Result<bool, Errno> {
    const PAGEOUT: usize = 21;
    let at = many_areas(areas)?;
    let untouched = mmap(0, areas * 4 * PAGE, Prot::READ, Map::PRIVATE | Map::ANONYMOUS | Map::POPULATE, -1, 0)?;
    raw(nr::MADVISE, [at, areas * PAGE, PAGEOUT])?;
    raw(nr::MADVISE, [untouched, areas * 4 * PAGE, PAGEOUT])?;
    Ok(true)
}

/// Memory that was written may be executed.
pub fn memory_executed(bytes: usize) -> Result<bool, Errno> {
    let (at, len) = (map(bytes, RW), bytes);
    (at..at + len).step_by(PAGE).for_each(|page| poke(page, 1));
    mprotect(at, len, Prot::READ | Prot::EXEC)?;
    munmap(at, len)?;
    Ok(true)
}

/// Memory in swap is unmapped.
pub fn swapped_memory_unmapped(bytes: usize) -> Result<bool, Errno> {
    const PAGEOUT: usize = 21;
    let (at, len) = (map(bytes, RW), bytes);
    (at..at + len).step_by(PAGE).for_each(|page| poke(page, (page / PAGE) as u8));
    raw(nr::MADVISE, [at, len, PAGEOUT])?;
    munmap(at, len)?;
    Ok(true)
}

/// They are left out of a copy of the space.
pub fn areas_left_out(areas: usize) -> Result<bool, Errno> {
    const DONTFORK: usize = 10;
    let at = many_areas(areas)?;
    raw(nr::MADVISE, [at, areas * PAGE, DONTFORK])?;
    Ok(child(|| 0) == Ok(Status::Exited(0)))
}

/// A socket ends with messages that nobody has read.
pub fn messages_dropped(messages: usize) -> Result<bool, Errno> {
    let mut ends = [0_i32; 2];
    raw(nr::SOCKETPAIR, [UNIX, STREAM, 0, ends.as_mut_ptr() as usize])?;
    let room = 1_u32 << 26;
    let at = (&raw const room).expose_provenance();
    raw(nr::SETSOCKOPT, [ends[0] as usize, SOL_SOCKET as usize, option::SNDBUF as usize, at, 4])?;
    let send = |_: &usize| raw(nr::SENDTO, [ends[0] as usize, c"x".as_ptr() as usize, 1, DONTWAIT, 0, 0]) == Ok(1);
    (0..messages).take_while(send).for_each(drop);
    Ok(raw(nr::CLOSE, [ends[1] as usize]) == Ok(0))
}

/// A queue of sockets that only its messages refer to ends.
pub fn sockets_in_flight_dropped(messages: usize) -> Result<bool, Errno> {
    const EACH: usize = 250;
    let mut ends = [0_i32; 2];
    raw(nr::SOCKETPAIR, [UNIX, STREAM, 0, ends.as_mut_ptr() as usize])?;
    let files = (0..EACH).map(|_| raw(nr::SOCKET, [UNIX, STREAM, 0]).map(|fd| fd as i32));
    for _ in 0..messages {
        let files = files.clone().collect::<Result<Vec<i32>, Errno>>()?;
        send_files(ends[0], 1, &files)?;
        raw(nr::CLOSE_RANGE, [files[0] as usize, files[EACH - 1] as usize, 0])?;
    }
    Ok(raw(nr::CLOSE, [ends[1] as usize]) == Ok(0))
}

/// One that listens ends with connections that nobody has accepted.
pub fn connections_dropped(connections: usize) -> Result<bool, Errno> {
    let listener = raw(nr::SOCKET, [UNIX, STREAM, 0])?;
    let address = *b"\x01\0\0latency";
    raw(nr::BIND, [listener, address.as_ptr() as usize, address.len()])?;
    raw(nr::LISTEN, [listener, connections])?;
    for _ in 0..connections {
        let one = raw(nr::SOCKET, [UNIX, STREAM, 0])?;
        raw(nr::CONNECT, [one, address.as_ptr() as usize, address.len()])?;
    }
    Ok(raw(nr::CLOSE, [listener]) == Ok(0))
}

/// A socket gets the first name that is free, behind so many that are taken.
pub fn name_found(taken: usize) -> Result<bool, Errno> {
    const DATAGRAM: usize = 2;
    let any = || {
        let socket = raw(nr::SOCKET, [UNIX, DATAGRAM, 0])?;
        raw(nr::BIND, [socket, UNIX_FAMILY.as_ptr() as usize, 2])?;
        let (mut name, mut len) = ([0_u8; 16], 16_u32);
        let room = [name.as_mut_ptr() as usize, (&raw mut len).expose_provenance()];
        raw(nr::GETSOCKNAME, [socket, room[0], room[1]])?;
        let digits = core::str::from_utf8(&name[3..8]).map_err(|_| Errno::EINVAL)?;
        usize::from_str_radix(digits, 16).map_err(|_| Errno::EINVAL)
    };
    let first = any()?;
    for number in (first + 1..).take(taken) {
        let socket = raw(nr::SOCKET, [UNIX, DATAGRAM, 0])?;
        let name = format!("\x01\0\0{number:05x}");
        raw(nr::BIND, [socket, name.as_ptr() as usize, name.len()])?;
    }
    Ok(any()? == first + taken + 1)
}

/// Data is looked for where there was some, far apart.
pub fn far_data_sought(pages: usize) -> Result<bool, Errno> {
    const PUNCH: usize = 3;
    const DATA: usize = 3;
    const APART: usize = 1 << 38;
    let file = raw(nr::MEMFD_CREATE, [c"far".as_ptr() as usize, 0])?;
    raw(nr::FTRUNCATE, [file, pages * APART])?;
    for page in 0..pages {
        raw(nr::PWRITE64, [file, c"x".as_ptr() as usize, 1, page * APART])?;
    }
    raw(nr::FALLOCATE, [file, PUNCH, 0, pages * APART])?;
    Ok(raw(nr::LSEEK, [file, 0, DATA]) == Err(Errno::ENXIO))
}
