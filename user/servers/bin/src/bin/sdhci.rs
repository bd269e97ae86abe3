//! sdhci: serves the cards of standard host controllers as files `mmcblk0` and so on in the directory with which it is
//! started.
//!
//! A Raspberry Pi 4 has two such controllers, one for the card slot (EMMC2) and one for the radio; QEMU puts the card
//! into the other one. So both are probed, and the one without a card is released. They share an interrupt.

#![no_std]
#![no_main]

use quire_block::volume::Naming;
use quire_card::card::Card;
use quire_card::host::{Host, Registers};
use quire_rt::device::{Device, Interrupt};
use quire_rt::ipc::{self, Patience, Receiver};
use quire_rt::{Errno, time};
use quire_servers::disks;

quire_rt::entry!(main);

/// The maximum duration of a rest, in nanoseconds; then the status is read again.
const REST: u64 = 100_000_000;

/// The duration of rests while there is no interrupt yet, in microseconds.
const PAUSE: u64 = 1000;

/// As on Linux.
const NAMING: Naming = Naming { prefix: b"mmcblk", first: b'0', major: 179, minors: 8 };

fn main() -> i32 {
    disks::run(c"sdhci", NAMING, find)
}

fn find(device: Device) -> Result<Card<Controller>, Errno> {
    let host = Host::new(Controller { device, bell: None })?;
    let mut card = Card::find(host, pause)?;
    card.host().registers().listen()?;
    Ok(card)
}

fn pause(microseconds: u64) {
    time::sleep(microseconds * 1000);
}

struct Controller {
    device: Device,
    /// The receiver of the interrupt, once there is a card.
    bell: Option<(Receiver, Interrupt)>,
}

impl Controller {
    fn listen(&mut self) -> Result<(), Errno> {
        let bell = Receiver::new()?;
        let signaller = bell.signaller(1)?;
        self.bell = Some((bell, self.device.interrupt(0, signaller)?));
        ipc::close(signaller.0)
    }
}

impl Registers for Controller {
    fn read(&self, at: usize) -> Result<u32, Errno> {
        self.device.read(0, at, 4)
    }

    fn write(&self, at: usize, value: u32) -> Result<(), Errno> {
        self.device.write(0, at, 4, value)
    }

    fn read_words(&self, at: usize, to: &mut [u8]) -> Result<(), Errno> {
        self.device.read_words(0, at, to)
    }

    fn write_words(&self, at: usize, from: &[u8]) -> Result<(), Errno> {
        self.device.write_words(0, at, from)
    }

    fn rest(&mut self) {
        let Some((bell, interrupt)) = self.bell else { return pause(PAUSE) };
        // (An interrupt for something that is done by now only causes another check.)
        let _ = interrupt.unmask();
        let _ = bell.receive(Patience::Until(time::monotonic() + REST));
    }

    fn pause(&self, microseconds: u64) {
        pause(microseconds);
    }

    fn now(&self) -> u64 {
        time::monotonic()
    }
}
