//! A virtio console with one port, as a channel of bytes. (Virtual I/O Device (VIRTIO) 1.3, 5.3.)
//!
//! (The crate's own driver sends byte by byte, or polls the device while it waits.)

use bitflags::bitflags;
use quire_rt::Errno;
use quire_rt::device::{Device, Interrupt};
use quire_rt::ipc::{self, Patience, Receiver};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceType, Transport};

use super::{Memory, Registers, Slot};

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const QUEUE_SIZE: usize = 2;

/// How many bytes are received at once.
const PIECE: usize = 1024;

bitflags! {
    /// Features that the device may offer. (Without the feature of several ports it has one.)
    #[derive(Clone, Copy, Debug)]
    struct Features: u64 {
        /// It conforms to version 1 or later.
        const VERSION_1 = 1 << 32;
    }
}

/// See the module.
pub struct Console {
    registers: Registers,
    receive: VirtQueue<Memory, QUEUE_SIZE>,
    transmit: VirtQueue<Memory, QUEUE_SIZE>,
    bell: Receiver,
    interrupt: Interrupt,
    input: Slot,
    output: Slot,
    /// Bytes that wait in `output`.
    len: usize,
    /// The token of the buffer that the device was given to fill.
    token: u16,
}

fn io_error(_: virtio_drivers::Error) -> Errno {
    Errno::EIO
}

impl Console {
    /// For a device that is a console, with a buffer of `room` bytes for output.
    pub fn new(device: Device, room: usize) -> Result<Self, Errno> {
        Memory::use_device(device);
        let mut registers = Registers::new(device, DeviceType::Console).ok_or(Errno::EIO)?;
        // It was reset just now.
        device.quiet()?;
        let _ = registers.begin_init(Features::all());
        let mut receive = VirtQueue::new(&mut registers, RECEIVE, false, false).map_err(io_error)?;
        let mut transmit = VirtQueue::new(&mut registers, TRANSMIT, false, false).map_err(io_error)?;
        // The driver only waits for sent data when the buffer is full.
        transmit.set_dev_notify(false);
        let bell = Receiver::new()?;
        let signaller = bell.signaller(1)?;
        let interrupt = device.interrupt(0, signaller)?;
        ipc::close(signaller.0)?;
        let (output, input) = Memory::take(room + PIECE)?.split(room);
        registers.finish_init();
        let token = Self::offer(&mut receive, &mut registers, &input)?;
        Ok(Self { registers, receive, transmit, bell, interrupt, input, output, len: 0, token })
    }

    /// Gives the device the buffer for input.
    fn offer(queue: &mut VirtQueue<Memory, QUEUE_SIZE>, to: &mut Registers, input: &Slot) -> Result<u16, Errno> {
        // SAFETY: nothing else refers to it until the device is done with it.
        let token = unsafe { queue.add(&[], &mut [input.lent(PIECE)]) }.map_err(io_error)?;
        if queue.should_notify() {
            to.notify(RECEIVE);
        }
        Ok(token)
    }

    /// Waits until bytes may have come; ETIMEDOUT, EINTR.
    pub fn wait(&mut self, patience: Patience) -> Result<(), Errno> {
        if self.receive.can_pop() {
            return Ok(());
        }
        self.ring(patience)
    }

    /// Waits for the interrupt.
    fn ring(&mut self, patience: Patience) -> Result<(), Errno> {
        self.bell.receive(patience)?;
        self.registers.ack_interrupt();
        self.interrupt.unmask()
    }

    /// Calls `each` with the bytes that have arrived.
    pub fn take(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
        while self.receive.can_pop() {
            // SAFETY: the buffer that the device was given.
            let room = unsafe { self.input.lent(PIECE) };
            // SAFETY: as above.
            let len = unsafe { self.receive.pop_used(self.token, &[], &mut [&mut *room]) }.map_err(io_error)?;
            each(&room[..(len as usize).min(PIECE)]);
            self.token = Self::offer(&mut self.receive, &mut self.registers, &self.input)?;
        }
        Ok(())
    }

    /// Appends bytes to the output buffer; if they do not fit, appends nothing and returns `false`.
    pub fn put(&mut self, parts: [&[u8]; 2]) -> bool {
        let len = self.len;
        let all = self.output.bytes();
        let Some(to) = all.get_mut(len..len + parts[0].len() + parts[1].len()) else { return false };
        let (first, second) = to.split_at_mut(parts[0].len());
        first.copy_from_slice(parts[0]);
        second.copy_from_slice(parts[1]);
        self.len += to.len();
        true
    }

    /// Sends the bytes in the buffer, and returns when the device has them.
    pub fn flush(&mut self) -> Result<(), Errno> {
        if self.len == 0 {
            return Ok(());
        }
        // SAFETY: nothing changes the bytes until the device is done with them.
        let bytes: &[u8] = unsafe { self.output.lent(self.len) };
        self.len = 0;
        // SAFETY: as above.
        let token = unsafe { self.transmit.add(&[bytes], &mut []) }.map_err(io_error)?;
        if self.transmit.should_notify() {
            self.registers.notify(TRANSMIT);
        }
        if !self.transmit.can_pop() {
            self.transmit.set_dev_notify(true);
            while !self.transmit.can_pop() {
                match self.ring(Patience::Endless) {
                    Ok(()) | Err(Errno::EINTR) => {}
                    Err(error) => return Err(error),
                }
            }
            self.transmit.set_dev_notify(false);
        }
        // SAFETY: the buffer of this request.
        unsafe { self.transmit.pop_used(token, &[bytes], &mut []) }.map(drop).map_err(io_error)
    }
}
