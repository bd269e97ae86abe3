//! The controller.

use quire_abi::Errno;

/// The environment that the controller's driver needs.
pub trait Registers {
    /// Reads a register.
    fn read(&self, at: usize) -> Result<u32, Errno>;
    /// Writes a register.
    fn write(&self, at: usize, value: u32) -> Result<(), Errno>;
    /// Reads words from one register repeatedly.
    fn read_words(&self, at: usize, to: &mut [u8]) -> Result<(), Errno>;
    /// Writes words to one register.
    fn write_words(&self, at: usize, from: &[u8]) -> Result<(), Errno>;
    /// Waits for the controller's interrupt, or for a short time.
    fn rest(&mut self);
    /// Waits for `microseconds`.
    fn pause(&self, microseconds: u64);
    /// Nanoseconds since some moment.
    fn now(&self) -> u64;
}

/// Registers.
mod at {
    pub const BLOCKS: usize = 0x04;
    pub const ARGUMENT: usize = 0x08;
    pub const COMMAND: usize = 0x0c;
    pub const RESPONSE: usize = 0x10;
    pub const DATA: usize = 0x20;
    pub const STATE: usize = 0x24;
    pub const CONTROL: usize = 0x28;
    pub const CLOCK: usize = 0x2c;
    pub const STATUS: usize = 0x30;
    pub const STATUS_ENABLE: usize = 0x34;
    pub const SIGNAL_ENABLE: usize = 0x38;
    pub const CAPABILITIES: usize = 0x40;
}

/// Bits of the status.
mod status {
    pub const COMMAND_DONE: u32 = 1;
    pub const TRANSFER_DONE: u32 = 1 << 1;
    pub const WRITE_READY: u32 = 1 << 4;
    pub const READ_READY: u32 = 1 << 5;
    pub const ERROR: u32 = 1 << 15;
    pub const COMMAND_TIMEOUT: u32 = 1 << 16;
    pub const ALL: u32 = 0x01ff_003f | ERROR;
}

/// Bits of the clock register: clock, time-out of data, resets.
mod clock {
    pub const INTERNAL: u32 = 1;
    pub const STABLE: u32 = 1 << 1;
    pub const CARD: u32 = 1 << 2;
    pub const LONGEST_TIMEOUT: u32 = 0xe << 16;
    pub const RESET_ALL: u32 = 1 << 24;
    pub const RESET_LINES: u32 = 3 << 25;
}

/// Bits of the control register: width, speed, power.
mod control {
    pub const FOUR_BITS: u32 = 1 << 1;
    pub const HIGH_SPEED: u32 = 1 << 2;
    /// On, 3.3 V.
    pub const POWER: u32 = 0xf << 8;
}

/// In the state: a command, or data, are in progress.
const BUSY: u32 = 3;

/// Transfer modes.
mod mode {
    pub const COUNT: u32 = 1 << 1;
    pub const AUTO_STOP: u32 = 1 << 2;
    pub const READ: u32 = 1 << 4;
    pub const MULTIPLE: u32 = 1 << 5;
}

/// The kind of response to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// Nothing.
    None,
    /// A long one, R2.
    Long,
    /// A short response: R1, R6 or R7.
    Short,
    /// A short response without a checksum: R3.
    Plain,
    /// A short response, after which the card is busy for a while: R1b.
    Busy,
}

impl Response {
    fn bits(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Long => 0x09,
            Self::Short => 0x1a,
            Self::Plain => 0x02,
            Self::Busy => 0x1b,
        }
    }
}

/// The maximum time for a command or a block, in nanoseconds.
const PATIENCE: u64 = 2_000_000_000;

/// How often a register is polled before the driver rests.
const LOOKS: usize = 8;

/// Bytes of a block.
pub const BLOCK: usize = 512;

/// A controller.
pub struct Host<R> {
    registers: R,
    base_hertz: u32,
}

impl<R: Registers> Host<R> {
    /// Resets the controller, and gives the card power and its first clock. EIO if it does not respond.
    pub fn new(registers: R) -> Result<Self, Errno> {
        let mut this = Self { registers, base_hertz: 0 };
        this.registers.write(at::CLOCK, clock::RESET_ALL)?;
        this.until(at::CLOCK, clock::RESET_ALL, 0)?;
        let megahertz = this.registers.read(at::CAPABILITIES)? >> 8 & 0xff;
        this.base_hertz = megahertz * 1_000_000;
        if megahertz == 0 {
            return Err(Errno::EIO);
        }
        this.registers.write(at::CONTROL, control::POWER)?;
        this.registers.write(at::STATUS_ENABLE, status::ALL)?;
        this.registers.write(at::SIGNAL_ENABLE, 0)?;
        this.set_clock(400_000)?;
        // A card needs 74 clocks to wake up.
        this.registers.pause(2000);
        Ok(this)
    }

    /// The surroundings.
    pub fn registers(&mut self) -> &mut R {
        &mut self.registers
    }

    /// Waits for `microseconds`.
    pub fn pause(&self, microseconds: u64) {
        self.registers.pause(microseconds);
    }

    /// Sets the clock of the card, to at most `hertz`.
    pub fn set_clock(&mut self, hertz: u32) -> Result<(), Errno> {
        // The base clock is divided by twice this number, which has ten bits.
        let divisor = self.base_hertz.div_ceil(2 * hertz).min(0x3ff);
        let divisor = if self.base_hertz <= hertz { 0 } else { divisor };
        let bits = (divisor & 0xff) << 8 | (divisor >> 8) << 6 | clock::LONGEST_TIMEOUT;
        self.registers.write(at::CLOCK, bits)?;
        self.registers.write(at::CLOCK, bits | clock::INTERNAL)?;
        self.until(at::CLOCK, clock::STABLE, clock::STABLE)?;
        self.registers.write(at::CLOCK, bits | clock::INTERNAL | clock::CARD)
    }

    /// Uses four data lines instead of one; at high speed they are sampled at different times.
    pub fn set_bus(&mut self, is_fast: bool) -> Result<(), Errno> {
        let speed = if is_fast { control::HIGH_SPEED } else { 0 };
        self.registers.write(at::CONTROL, control::POWER | control::FOUR_BITS | speed)
    }

    /// Waits until the given bits of a register have the wanted values.
    fn until(&mut self, at: usize, bits: u32, wanted: u32) -> Result<(), Errno> {
        let end = self.registers.now() + PATIENCE;
        while self.registers.read(at)? & bits != wanted {
            if self.registers.now() > end {
                return Err(Errno::EIO);
            }
            self.registers.pause(10);
        }
        Ok(())
    }

    /// Waits for a bit of the status, and clears it. ETIMEDOUT if the card does not respond, EIO for all other errors;
    /// then the lines are reset.
    fn await_status(&mut self, wanted: u32) -> Result<(), Errno> {
        let end = self.registers.now() + PATIENCE;
        let mut looks = 0;
        loop {
            let status = self.registers.read(at::STATUS)?;
            if status & status::ERROR != 0 {
                self.registers.write(at::STATUS, status)?;
                self.reset_lines()?;
                let is_silent = status & status::COMMAND_TIMEOUT != 0;
                return Err(if is_silent { Errno::ETIMEDOUT } else { Errno::EIO });
            }
            if status & wanted != 0 {
                return self.registers.write(at::STATUS, wanted);
            }
            if self.registers.now() > end {
                self.reset_lines()?;
                return Err(Errno::EIO);
            }
            looks += 1;
            if looks > LOOKS {
                self.registers.write(at::SIGNAL_ENABLE, wanted | status::ERROR)?;
                self.registers.rest();
                self.registers.write(at::SIGNAL_ENABLE, 0)?;
            }
        }
    }

    fn reset_lines(&mut self) -> Result<(), Errno> {
        let clock = self.registers.read(at::CLOCK)?;
        self.registers.write(at::CLOCK, clock | clock::RESET_LINES)?;
        self.until(at::CLOCK, clock::RESET_LINES, 0)
    }

    /// Sends a command without data; returns the words of the response, the lowest first.
    pub fn command(&mut self, index: u32, argument: u32, response: Response) -> Result<[u32; 4], Errno> {
        self.until(at::STATE, BUSY, 0)?;
        self.send(index, argument, response, 0)?;
        if response == Response::Busy {
            self.await_status(status::TRANSFER_DONE)?;
        }
        let mut words = [0; 4];
        for (n, word) in words.iter_mut().enumerate() {
            *word = self.registers.read(at::RESPONSE + n * 4)?;
        }
        Ok(words)
    }

    fn send(&mut self, index: u32, argument: u32, response: Response, mode: u32) -> Result<(), Errno> {
        let has_data = if mode & (mode::COUNT | mode::READ) != 0 { 1 << 5 } else { 0 };
        self.registers.write(at::STATUS, status::ALL)?;
        self.registers.write(at::ARGUMENT, argument)?;
        self.registers.write(at::COMMAND, mode | (index << 8 | response.bits() | has_data) << 16)?;
        self.await_status(status::COMMAND_DONE)
    }

    /// Sends a command that reads blocks of `block` bytes.
    pub fn read(&mut self, index: u32, argument: u32, to: &mut [u8], block: usize) -> Result<(), Errno> {
        self.begin(index, argument, to.len() / block, block, mode::READ)?;
        for part in to.chunks_mut(block) {
            self.await_status(status::READ_READY)?;
            self.registers.read_words(at::DATA, part)?;
        }
        self.await_status(status::TRANSFER_DONE)
    }

    /// Sends a command that writes blocks.
    pub fn write(&mut self, index: u32, argument: u32, from: &[u8]) -> Result<(), Errno> {
        self.begin(index, argument, from.len() / BLOCK, BLOCK, 0)?;
        for part in from.chunks(BLOCK) {
            self.await_status(status::WRITE_READY)?;
            self.registers.write_words(at::DATA, part)?;
        }
        self.await_status(status::TRANSFER_DONE)
    }

    fn begin(&mut self, index: u32, argument: u32, count: usize, block: usize, mode: u32) -> Result<(), Errno> {
        self.until(at::STATE, BUSY, 0)?;
        self.registers.write(at::BLOCKS, block as u32 | (count as u32) << 16)?;
        let many = if count > 1 { mode::MULTIPLE | mode::AUTO_STOP } else { 0 };
        self.send(index, argument, Response::Short, mode | mode::COUNT | many)
    }
}
