//! Devices that processes drive: their registers, interrupts and memory (docs/devices.md).

use quire_abi::Errno;
use quire_abi::device::DeviceInfo;
use quire_mm::UserAddr;
use quire_mm::fallible::KArc;

use super::{Answer, Args};
use crate::arch::mmio::Width;
use crate::arch::uaccess;
use crate::devices::interrupt::Line;
use crate::devices::memory::DmaRange;
use crate::devices::{self, Holding};
use crate::ipc::handles::{Handle, Target};
use crate::task::point::resched_point;
use crate::task::thread::current;
use crate::task::wait::Sleep;

/// The maximum length of the name of a device or a property, including its NUL.
const NAME_MAX: usize = 96;

fn insert(target: Target) -> Answer {
    current().process().handles.insert(Handle::new(target, 0)).map(|number| number as usize)
}

/// The device of a handle: EPERM for a handle of another kind.
fn device(number: u32) -> Result<KArc<Holding>, Errno> {
    current().process().handles.with(number, |handle| match &handle.target {
        Target::Device(holding) => Ok(holding.clone()),
        _ => Err(Errno::EPERM),
    })
}

fn dma(number: u32) -> Result<KArc<DmaRange>, Errno> {
    current().process().handles.with(number, |handle| match &handle.target {
        Target::Dma(range) => Ok(range.clone()),
        _ => Err(Errno::EPERM),
    })
}

/// Takes the device number x2 among those with the name x1.
pub fn take(a: Args) -> Answer {
    let mut name = [0; NAME_MAX];
    let name = uaccess::get_string(&mut name, a.addr(1))?;
    let found = devices::find(name, a.word(2))?;
    insert(Target::Device(Holding::take(&found)?))
}

/// Writes the driver's record of the device x0 to the buffer x1 of x2 bytes.
pub fn info(a: Args) -> Answer {
    let holding = device(a.uint(0))?;
    let device = holding.device();
    if a.word(2) != size_of::<DeviceInfo>() {
        return Err(Errno::EINVAL);
    }
    let mut info = DeviceInfo {
        address: device.registers().first().map_or(0, |region| region.base),
        interrupts: device.interrupts().len() as u32,
        is_coherent: device.is_coherent().into(),
        ..DeviceInfo::default()
    };
    for (to, from) in info.path.iter_mut().zip(device.path()) {
        *to = *from;
    }
    for (to, from) in info.ranges.iter_mut().zip(device.registers()) {
        *to = from.size;
    }
    uaccess::put(a.addr(1), &info)?;
    Ok(size_of::<DeviceInfo>())
}

/// Writes the property x1 of the node of x0 to the buffer x2 of x3 bytes; returns the property's length.
pub fn property(a: Args) -> Answer {
    let holding = device(a.uint(0))?;
    let mut name = [0; NAME_MAX];
    let name = core::str::from_utf8(uaccess::get_string(&mut name, a.addr(1))?).map_err(|_| Errno::ENOENT)?;
    let value = holding.device().property(name)?;
    uaccess::put_all(a.addr(2), &value[..value.len().min(a.word(3))])?;
    Ok(value.len())
}

fn width(bytes: usize) -> Result<Width, Errno> {
    match bytes {
        1 => Ok(Width::Byte),
        2 => Ok(Width::Half),
        4 => Ok(Width::Word),
        _ => Err(Errno::EINVAL),
    }
}

/// Reads the register of x3 bytes at the offset x2 in the range x1 of x0.
pub fn read(a: Args) -> Answer {
    let value = device(a.uint(0))?.read(a.word(1), a.word(2), width(a.word(3))?)?;
    Ok(value as usize)
}

/// Writes x4 to the register of x3 bytes at the offset x2 in the range x1 of x0.
pub fn write(a: Args) -> Answer {
    device(a.uint(0))?.write(a.word(1), a.word(2), width(a.word(3))?, a.uint(4))?;
    Ok(0)
}

/// How many bytes are moved between two points at which others may run.
const PIECE: usize = 512;

/// Reads x4 bytes to x3, word by word, from the register at the offset x2 in the range x1 of x0; returns how many,
/// fewer if a word fails.
pub fn read_words(a: Args) -> Answer {
    let holding = device(a.uint(0))?;
    in_pieces(a.word(4), |done, len| {
        let mut words = [0u32; PIECE / 4];
        let words = &mut words[..len / 4];
        for word in &mut *words {
            *word = holding.read(a.word(1), a.word(2), Width::Word)?;
        }
        uaccess::put_all(UserAddr::new(a.word(3).wrapping_add(done)), words)
    })
}

/// Writes x4 bytes at x3, word by word, to the register at the offset x2 in the range x1 of x0; returns how many, fewer
/// if a word fails.
pub fn write_words(a: Args) -> Answer {
    let holding = device(a.uint(0))?;
    in_pieces(a.word(4), |done, len| {
        let mut words = [0u32; PIECE / 4];
        let words = &mut words[..len / 4];
        uaccess::get_all(UserAddr::new(a.word(3).wrapping_add(done)), words)?;
        words.iter().try_for_each(|word| holding.write(a.word(1), a.word(2), Width::Word, *word))
    })
}

/// Does a transfer of whole words, piece by piece. EINVAL if the length is not a multiple of a word.
fn in_pieces(len: usize, mut transfer: impl FnMut(usize, usize) -> Result<(), Errno>) -> Answer {
    if !len.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    while done < len {
        let piece = (len - done).min(PIECE);
        match transfer(done, piece) {
            Err(_) if done > 0 => break,
            result => result?,
        }
        done += piece;
        if resched_point(Sleep::Killable).is_err() {
            break;
        }
    }
    Ok(done)
}

/// From now on the interrupt x1 of x0 sets the events of the signaller x2.
pub fn interrupt(a: Args) -> Answer {
    let holding = device(a.uint(0))?;
    let (endpoint, events) = current().process().handles.with(a.uint(2), |handle| match &handle.target {
        Target::Signaller(endpoint) => Ok((endpoint.clone(), handle.badge)),
        _ => Err(Errno::EPERM),
    })?;
    let line = Line::new(&holding, a.word(1), endpoint, events)?;
    insert(Target::Interrupt(KArc::try_new(line)?))
}

/// Unmasks the interrupt x0.
pub fn unmask(a: Args) -> Answer {
    let line = current().process().handles.with(a.uint(0), |handle| match &handle.target {
        Target::Interrupt(line) => Ok(line.clone()),
        _ => Err(Errno::EPERM),
    })?;
    line.unmask();
    Ok(0)
}

/// Allocates x1 bytes of memory for the device x0; the address by which the device accesses it is written to x2.
pub fn memory(a: Args) -> Answer {
    let range = KArc::try_new(DmaRange::new(&device(a.uint(0))?, a.word(1))?)?;
    uaccess::put(a.addr(2), &range.bus())?;
    insert(Target::Dma(range))
}

/// Maps the memory x0: where.
pub fn map(a: Args) -> Answer {
    dma(a.uint(0))?.map().map(|addr| addr.get())
}

/// Makes x2 bytes from x1 on of the memory x0 consistent between the program and the device.
pub fn sync(a: Args) -> Answer {
    dma(a.uint(0))?.sync(a.word(1), a.word(2)).map(|()| 0)
}

/// Notes that the device x0 no longer writes to memory whose handles are gone.
pub fn quiet(a: Args) -> Answer {
    device(a.uint(0))?.quiet();
    Ok(0)
}
