//! virtio-blk: serves the machine's virtio disks as files `vda`, `vdb` and so on in the directory with which it is
//! started.
//!
//! It drives those of its devices that are disks, and releases the others. Without a disk it ends. (Virtual I/O Device
//! (VIRTIO) 1.3, 5.2.)

#![no_std]
#![no_main]

use bitflags::bitflags;
use quire_block::disk::{Disk, SECTOR};
use quire_block::volume::Naming;
use quire_rt::device::{Device, Interrupt};
use quire_rt::ipc::{self, Patience, Receiver};
use quire_rt::{Errno, time};
use quire_servers::disks;
use quire_servers::virtio::{Memory, Registers, Slot, kind};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceType, Transport};

quire_rt::entry!(main);

/// The maximum size of a transfer in bytes.
const MOST: usize = 64 << 10;

/// The maximum time that a disk may take for one request, in nanoseconds.
const PATIENCE: u64 = 30_000_000_000;

/// The only queue, and its number of descriptors. A request takes three.
const QUEUE: u16 = 0;
const QUEUE_SIZE: usize = 4;

bitflags! {
    /// Features that a disk may offer.
    #[derive(Clone, Copy, Debug)]
    struct Features: u64 {
        /// It cannot be written.
        const READ_ONLY = 1 << 5;
        /// It may keep written data in its own cache until it is told to flush.
        const FLUSH = 1 << 9;
        /// It reports the size of its physical sectors.
        const TOPOLOGY = 1 << 10;
        /// It supports discarding sectors.
        const DISCARD = 1 << 13;
        /// It conforms to version 1 or later.
        const VERSION_1 = 1 << 32;
    }
}

/// Requests.
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const DISCARD: u32 = 11;

/// Offsets in its configuration: the number of logical sectors in a physical one, as a power of two; and the maximum
/// number of sectors of a discard.
const PHYSICAL: usize = 24;
const DISCARD_MOST: usize = 36;

/// The size of the header of a request: its kind, a reserved word, the sector.
const HEAD: usize = 16;
/// The size of its end: a byte that the device writes, 0 on success.
const END: usize = 1;

/// As on Linux, where the major number may be a different one.
const NAMING: Naming = Naming { prefix: b"vd", first: b'a', major: 254, minors: 16 };

fn main() -> i32 {
    disks::run(c"virtio-blk", NAMING, |device| match kind(device) {
        Some(DeviceType::Block) => VirtioDisk::new(device),
        _ => Err(Errno::ENODEV),
    })
}

struct VirtioDisk {
    registers: Registers,
    queue: VirtQueue<Memory, QUEUE_SIZE>,
    features: Features,
    sectors: u64,
    /// Bytes of a physical sector.
    physical: u32,
    /// The maximum number of sectors of a discard, 0 if unsupported.
    discard_most: u32,
    /// The receiver of the interrupt.
    bell: Receiver,
    interrupt: Interrupt,
    data: Slot,
    head: Slot,
    end: Slot,
    /// The device has not answered in time: the buffers that it was given belong to it for good.
    is_lost: bool,
}

fn io_error(_: virtio_drivers::Error) -> Errno {
    Errno::EIO
}

impl VirtioDisk {
    fn new(device: Device) -> Result<Self, Errno> {
        Memory::use_device(device);
        let mut registers = Registers::new(device, DeviceType::Block).ok_or(Errno::EIO)?;
        // It was reset just now.
        device.quiet()?;
        let features: Features = registers.begin_init(Features::all());
        let sectors = registers.read_consistent(|| registers.read_config_space::<[u32; 2]>(0)).map_err(io_error)?;
        let physical = match features.contains(Features::TOPOLOGY) {
            true => registers.read_config_space::<u8>(PHYSICAL).map_err(io_error)?,
            false => 0,
        };
        let physical = (SECTOR as u32) << physical.min(16);
        let discard_most = match features.contains(Features::DISCARD) {
            true => registers.read_config_space::<u32>(DISCARD_MOST).map_err(io_error)?,
            false => 0,
        };
        let queue = VirtQueue::new(&mut registers, QUEUE, false, false).map_err(io_error)?;
        let bell = Receiver::new()?;
        let signaller = bell.signaller(1)?;
        let interrupt = device.interrupt(0, signaller)?;
        ipc::close(signaller.0)?;
        let (data, ends) = Memory::take(MOST + HEAD + END)?.split(MOST);
        let (head, end) = ends.split(HEAD);
        registers.finish_init();
        let sectors = u64::from(sectors[0]) | u64::from(sectors[1]) << 32;
        let is_lost = false;
        Ok(Self {
            registers,
            queue,
            features,
            sectors,
            physical,
            discard_most,
            bell,
            interrupt,
            data,
            head,
            end,
            is_lost,
        })
    }

    /// Waits until the device is done with the request.
    fn wait(&mut self) -> Result<(), Errno> {
        let until = time::monotonic() + PATIENCE;
        while !self.queue.can_pop() {
            match self.bell.receive(Patience::Until(until)) {
                Ok(_) => {
                    self.registers.ack_interrupt();
                    self.interrupt.unmask()?;
                }
                Err(Errno::EINTR) => {}
                Err(error) => {
                    self.is_lost = true;
                    return Err(if error == Errno::ETIMEDOUT { Errno::EIO } else { error });
                }
            }
        }
        Ok(())
    }

    /// Makes a request with the first `len` bytes of the data.
    fn request(&mut self, kind: u32, sector: u64, len: usize) -> Result<(), Errno> {
        if self.is_lost {
            return Err(Errno::EIO);
        }
        // SAFETY: each slot has its own part of the memory, and until this returns no other reference to them is in
        // use: if the device does not return them, nothing uses them any more.
        let (head, data, end) = unsafe { (self.head.lent(HEAD), self.data.lent(len), self.end.lent(END)) };
        head[..4].copy_from_slice(&kind.to_le_bytes());
        head[4..8].fill(0);
        head[8..].copy_from_slice(&sector.to_le_bytes());
        end[0] = u8::MAX;
        let (with_data, only_head) = ([&*head, &*data], [&*head]);
        let done = match kind {
            OUT | DISCARD => self.exchange(&with_data, &mut [&mut *end]),
            IN => self.exchange(&only_head, &mut [data, &mut *end]),
            _ => self.exchange(&only_head, &mut [&mut *end]),
        };
        done?;
        if end[0] == 0 { Ok(()) } else { Err(Errno::EIO) }
    }

    fn exchange<'b>(&mut self, from: &'b [&'b [u8]], to: &'b mut [&'b mut [u8]]) -> Result<(), Errno> {
        // SAFETY: the caller uses the buffers again only after the device is done with them.
        let token = unsafe { self.queue.add(from, to) }.map_err(io_error)?;
        if self.queue.should_notify() {
            self.registers.notify(QUEUE);
        }
        self.wait()?;
        // SAFETY: these are the buffers of the request.
        unsafe { self.queue.pop_used(token, from, to) }.map(drop).map_err(io_error)
    }
}

impl Disk for VirtioDisk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn is_read_only(&self) -> bool {
        self.features.contains(Features::READ_ONLY)
    }

    fn most(&self) -> usize {
        MOST
    }

    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), Errno> {
        debug_assert!(to.len() <= MOST && to.len().is_multiple_of(SECTOR));
        self.request(IN, sector, to.len())?;
        to.copy_from_slice(&self.data.bytes()[..to.len()]);
        Ok(())
    }

    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), Errno> {
        debug_assert!(from.len() <= MOST && from.len().is_multiple_of(SECTOR));
        self.data.bytes()[..from.len()].copy_from_slice(from);
        self.request(OUT, sector, from.len())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        if self.features.contains(Features::FLUSH) { self.request(FLUSH, 0, 0) } else { Ok(()) }
    }

    fn physical(&self) -> u32 {
        self.physical
    }

    fn discard(&mut self, mut sector: u64, mut sectors: u64) -> Result<(), Errno> {
        if self.discard_most == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        while sectors != 0 {
            let here = sectors.min(self.discard_most.into());
            // The sector, the number of sectors (32 bits), flags (32 bits).
            let range = [sector.to_le_bytes(), here.to_le_bytes()].concat();
            self.data.bytes()[..range.len()].copy_from_slice(&range);
            self.request(DISCARD, 0, range.len())?;
            (sector, sectors) = (sector + here, sectors - here);
        }
        Ok(())
    }
}
