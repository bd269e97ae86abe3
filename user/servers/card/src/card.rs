//! A card: how it is identified, and transfers of its sectors.

use quire_abi::Errno;
use quire_block::disk::{Disk, SECTOR};

use crate::csd::Csd;
use crate::host::{BLOCK, Host, Registers, Response};

/// Commands.
mod command {
    pub const IDLE: u32 = 0;
    pub const ALL_SEND_ID: u32 = 2;
    pub const SEND_ADDRESS: u32 = 3;
    pub const SWITCH: u32 = 6;
    pub const SELECT: u32 = 7;
    pub const SEND_CONDITION: u32 = 8;
    pub const SEND_CSD: u32 = 9;
    pub const STATUS: u32 = 13;
    pub const BLOCK_LENGTH: u32 = 16;
    pub const READ_ONE: u32 = 17;
    pub const READ_MANY: u32 = 18;
    pub const WRITE_ONE: u32 = 24;
    pub const WRITE_MANY: u32 = 25;
    pub const APPLICATION: u32 = 55;
    /// After [`APPLICATION`]: the width of the bus, and the available voltages.
    pub const BUS_WIDTH: u32 = 6;
    pub const OPERATE: u32 = 41;
}

/// 2.7 to 3.6 V, and a pattern that the card returns.
const CONDITION: u32 = 0x1aa;
/// 3.2 to 3.4 V.
const VOLTAGES: u32 = 0x0030_0000;
/// The host supports cards that are addressed by sectors; the card is addressed in this way.
const HIGH_CAPACITY: u32 = 1 << 30;
/// The card has powered up.
const POWERED_UP: u32 = 1 << 31;

/// Switches the first group of functions to high speed; the response has 64 bytes.
const TO_HIGH_SPEED: u32 = 0x80ff_fff1;
const SWITCH_STATUS: usize = 64;

/// Clocks: the default one, and that of high speed.
const USUAL: u32 = 25_000_000;
const FAST: u32 = 50_000_000;

/// The card is ready for data, and in the transfer state.
const READY: u32 = 1 << 8;

/// How often a card that powers up is polled, with a pause in microseconds: a second in total.
const ASKED: usize = 1000;
const PAUSE: u64 = 1000;

/// Tries of a transfer.
const TRIES: usize = 3;

/// The maximum number of bytes of a transfer.
const MOST: usize = 64 << 10;

/// A card that was identified.
pub struct Card<R> {
    host: Host<R>,
    /// Its address on the bus, in the upper half.
    address: u32,
    sectors: u64,
    counts_sectors: bool,
}

impl<R: Registers> Card<R> {
    /// Finds the card of a controller. ENODEV if there is none, or if it is not a memory card.
    pub fn find(mut host: Host<R>, pause: impl Fn(u64)) -> Result<Self, Errno> {
        host.command(command::IDLE, 0, Response::None)?;
        let is_second = match host.command(command::SEND_CONDITION, CONDITION, Response::Short) {
            Ok([answer, ..]) if answer & 0xfff == CONDITION => true,
            Ok(_) => return Err(Errno::ENODEV),
            // A card of the first version does not know this command.
            Err(Errno::ETIMEDOUT) => false,
            Err(error) => return Err(error),
        };
        let condition = power_up(&mut host, is_second, pause)?;
        host.command(command::ALL_SEND_ID, 0, Response::Long)?;
        let [answer, ..] = host.command(command::SEND_ADDRESS, 0, Response::Short)?;
        let address = answer & 0xffff_0000;
        let csd = Csd(host.command(command::SEND_CSD, address, Response::Long)?);
        let sectors = csd.sectors().ok_or(Errno::ENODEV)?;
        host.command(command::SELECT, address, Response::Busy)?;
        host.set_clock(USUAL)?;
        host.command(command::BLOCK_LENGTH, BLOCK as u32, Response::Short)?;
        let mut this = Self { host, address, sectors, counts_sectors: condition & HIGH_CAPACITY != 0 };
        // All cards have four data lines (Physical Layer, 4.7.4).
        this.application(command::BUS_WIDTH, 2)?;
        this.host.set_bus(false)?;
        if csd.can_switch() {
            this.speed_up()?;
        }
        Ok(this)
    }

    fn application(&mut self, index: u32, argument: u32) -> Result<(), Errno> {
        self.host.command(command::APPLICATION, self.address, Response::Short)?;
        self.host.command(index, argument, Response::Short).map(drop)
    }

    /// Switches to high speed, if the card supports it.
    fn speed_up(&mut self) -> Result<(), Errno> {
        let mut status = [0; SWITCH_STATUS];
        self.host.read(command::SWITCH, TO_HIGH_SPEED, &mut status, SWITCH_STATUS)?;
        // Bits 379 to 376: the function of the first group.
        if status[16] & 0xf == 1 {
            self.host.set_bus(true)?;
            self.host.set_clock(FAST)?;
        }
        Ok(())
    }

    /// The controller's surroundings.
    pub fn host(&mut self) -> &mut Host<R> {
        &mut self.host
    }

    fn argument(&self, sector: u64) -> Result<u32, Errno> {
        let at = if self.counts_sectors { sector } else { sector * SECTOR as u64 };
        u32::try_from(at).map_err(|_| Errno::EINVAL)
    }

    /// Tries a transfer several times: there may be interference on the lines.
    fn repeated(&mut self, mut transfer: impl FnMut(&mut Host<R>) -> Result<(), Errno>) -> Result<(), Errno> {
        let mut done = Err(Errno::EIO);
        for _ in 0..TRIES {
            done = transfer(&mut self.host);
            if done.is_ok() {
                break;
            }
            let _ = self.wait_until_ready();
        }
        done.map_err(|_| Errno::EIO)
    }

    /// Waits until the written data is in the card's memory.
    fn wait_until_ready(&mut self) -> Result<(), Errno> {
        for _ in 0..ASKED {
            let [status, ..] = self.host.command(command::STATUS, self.address, Response::Short)?;
            if status & READY != 0 {
                return Ok(());
            }
            self.host.pause(PAUSE);
        }
        Err(Errno::EIO)
    }
}

/// Powers a card up, and polls it until it is ready; returns the register in which it describes itself.
fn power_up<R: Registers>(host: &mut Host<R>, is_second: bool, pause: impl Fn(u64)) -> Result<u32, Errno> {
    let capacity = if is_second { HIGH_CAPACITY } else { 0 };
    for _ in 0..ASKED {
        let asked = host
            .command(command::APPLICATION, 0, Response::Short)
            .and_then(|_| host.command(command::OPERATE, VOLTAGES | capacity, Response::Plain));
        let [condition, ..] = asked.map_err(|e| if e == Errno::ETIMEDOUT { Errno::ENODEV } else { e })?;
        if condition & POWERED_UP != 0 {
            return Ok(condition);
        }
        pause(PAUSE);
    }
    Err(Errno::ENODEV)
}

impl<R: Registers> Disk for Card<R> {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn most(&self) -> usize {
        MOST
    }

    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), Errno> {
        let argument = self.argument(sector)?;
        let index = if to.len() > SECTOR { command::READ_MANY } else { command::READ_ONE };
        self.repeated(|host| host.read(index, argument, to, BLOCK))
    }

    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), Errno> {
        let argument = self.argument(sector)?;
        let index = if from.len() > SECTOR { command::WRITE_MANY } else { command::WRITE_ONE };
        self.repeated(|host| host.write(index, argument, from))
    }

    fn flush(&mut self) -> Result<(), Errno> {
        self.wait_until_ready().map_err(|_| Errno::EIO)
    }
}
