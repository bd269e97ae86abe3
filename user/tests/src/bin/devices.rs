//! Devices that a process drives: who may, what of them, their interrupts and their memory.

#![no_std]
#![no_main]

use core::ffi::CStr;

use quire_rt::abi::flags::{Control, Map};
use quire_rt::abi::ipc::rights;
use quire_rt::abi::nr;
use quire_rt::device::{self, Device};
use quire_rt::ipc::{self, Patience, Receiver, What};
use quire_rt::{Errno, handles, info, time};
use user_tests::{Checks, KERNEL, PAGE, RW, is_quire, map, mmap, raw};

quire_rt::entry!(main);

/// A device whose interrupt comes when a time is reached.
struct Alarm {
    name: &'static CStr,
    /// Has it ask for an interrupt soon.
    ask: fn(Device) -> Result<(), Errno>,
    /// Tells it that it was heard.
    hear: fn(Device) -> Result<(), Errno>,
}

const ALARMS: [Alarm; 2] = [
    // Arm PrimeCell PL031: data, match, mask, clear. It counts seconds.
    Alarm {
        name: c"arm,pl031",
        ask: |device| {
            device.write(0, 0x04, 4, device.read(0, 0, 4)?.wrapping_add(1))?;
            device.write(0, 0x10, 4, 1)
        },
        hear: |device| device.write(0, 0x1c, 4, 1),
    },
    // A host controller for cards (SD Host Controller Simplified Specification 3.00, 2.2): power and clock on, the end
    // of a command as the only cause, command 0. Nobody needs to be there.
    Alarm {
        name: c"brcm,bcm2711-emmc2",
        ask: |device| {
            device.write(0, 0x29, 1, 0xf)?;
            device.write(0, 0x2c, 2, 5)?;
            device.write(0, 0x34, 4, 0x01ff_00ff)?;
            device.write(0, 0x38, 4, 1)?;
            device.write(0, 0x08, 4, 0)?;
            device.write(0, 0x0e, 2, 0)
        },
        hear: |device| device.write(0, 0x30, 4, u32::MAX),
    },
];

fn main() -> i32 {
    let mut checks = Checks::new();
    let found = ALARMS.iter().find_map(|alarm| Some((alarm, device::take(alarm.name, 0).ok()?)));
    let Some((alarm, device)) = found.filter(|_| is_quire()) else {
        checks.skip("devices", "there is none that is known here, or no right to it");
        return checks.finish();
    };
    authority(&mut checks, alarm, device);
    registers(&mut checks, device);
    interrupts(&mut checks, alarm, device);
    memory(&mut checks, device);
    checks.ok(device.release().is_ok(), "it is let go");
    checks.fails(device.read(0, 0, 4), Errno::EBADF, "then it is nobody's");
    again(&mut checks, alarm);
    checks.finish()
}

fn authority(checks: &mut Checks, alarm: &Alarm, device: Device) {
    checks.fails(device::take(alarm.name, 0), Errno::EBUSY, "a device has one holder");
    checks.fails(device::take(alarm.name, 1), Errno::ENOENT, "there is no second one");
    checks.fails(device::take(c"no,such-device", 0), Errno::ENOENT, "nor one of an unknown kind");
    checks.fails(device::take(c"/no/such/path", 0), Errno::ENOENT, "nor one at an unknown path");
    for kernels in [c"arm,pl011", c"arm,cortex-a15-gic", c"arm,gic-400", c"arm,gic-v3"] {
        let got = device::take(kernels, 0).map(drop);
        checks.ok(matches!(got, Err(Errno::EBUSY | Errno::ENOENT)), "the kernel's own devices are not to be had");
    }
    let copy = raw(nr::QUIRE_COPY, [handles::control() as usize, Control::DEVICES.bits() as usize]);
    checks.ok(copy.is_ok_and(|copy| ipc::close(copy as u32).is_ok()), "the right to devices can be passed on");
    checks.fails(raw(nr::QUIRE_DEVICE, [0, alarm.name.as_ptr() as usize, 0]), Errno::EPERM, "no right, no device");
    let copy = raw(nr::QUIRE_COPY, [device.0 as usize, rights::CONTROL as usize]);
    checks.fails(copy, Errno::EINVAL, "it cannot be copied");
    checks.ok(device.grant().is_ok(), "it can be granted");
    checks.exits(|| i32::from(device.read(0, 0, 4) == Err(Errno::EBADF)), 1, "to the next program, but to no child");
    let info = device.info();
    checks.ok(
        info.is_ok_and(|info| info.ranges[0] > 0 && info.interrupts > 0 && info.path[0] == b'/'),
        "it has registers",
    );
    let mut text = [0; 64];
    let len = device.property(c"compatible", &mut text).unwrap_or(0);
    checks.ok(len > 0 && text.starts_with(alarm.name.to_bytes_with_nul()), "its properties can be read");
    checks.fails(device.property(c"none", &mut text), Errno::ENOENT, "those that there are");
    let name = c"compatible".as_ptr() as usize;
    let to_kernel = raw(nr::QUIRE_DEVICE_PROPERTY, [device.0 as usize, name, KERNEL, 8]);
    checks.fails(to_kernel, Errno::EFAULT, "to memory of the caller's");
    let to_nowhere = raw(nr::QUIRE_DEVICE_INFO, [device.0 as usize, KERNEL, size_of_val(&info.unwrap_or_default())]);
    checks.fails(to_nowhere, Errno::EFAULT, "as is the record");
    checks.fails(raw(nr::QUIRE_DEVICE_INFO, [device.0 as usize, 0, 8]), Errno::EINVAL, "of its own size");
}

fn registers(checks: &mut Checks, device: Device) {
    let len = device.info().map_or(0, |info| info.ranges[0] as usize);
    checks.ok(device.read(0, 0, 4).is_ok(), "a register is read");
    for (range, offset, bytes) in [
        (1, 0, 4),
        (usize::MAX, 0, 4),
        (0, len, 4),
        (0, len - 2, 4),
        (0, usize::MAX - 1, 4),
        (0, 2, 4),
        (0, 1, 2),
        (0, 0, 8),
        (0, 0, 0),
    ] {
        checks.fails(device.read(range, offset, bytes), Errno::EINVAL, "nothing beside its registers is read");
        checks.fails(device.write(range, offset, bytes, 0), Errno::EINVAL, "or written");
    }
    for wrong in [nr::QUIRE_UNMASK, nr::QUIRE_DMA_MAP, nr::QUIRE_DMA_SYNC] {
        checks.fails(raw(wrong, [device.0 as usize, 0, 0]), Errno::EPERM, "each call has its kind of handle");
    }
}

/// Waits for the events of the bell, for a few seconds at most.
fn rung(bell: Receiver) -> Option<u64> {
    let until = time::monotonic() + 20_000_000_000;
    let received = bell.receive(Patience::Until(until)).ok()?;
    (received.what == What::Events).then_some(received.events)
}

fn interrupts(checks: &mut Checks, alarm: &Alarm, device: Device) {
    let Ok(bell) = Receiver::new() else { return checks.ok(false, "an endpoint") };
    let Ok(signaller) = bell.signaller(6) else { return checks.ok(false, "a signaller") };
    checks.fails(device.interrupt(99, signaller), Errno::EINVAL, "an interrupt that it does not have");
    let other = raw(nr::QUIRE_INTERRUPT, [device.0 as usize, 0, device.0 as usize]);
    checks.fails(other, Errno::EPERM, "one goes to a signaller");
    let Ok(interrupt) = device.interrupt(0, signaller) else { return checks.ok(false, "an interrupt") };
    checks.fails(device.interrupt(0, signaller), Errno::EBUSY, "and to one only");
    for round in 0..2 {
        let asked = (alarm.ask)(device).is_ok();
        checks.ok(asked && rung(bell) == Some(6), "it rings");
        checks.ok((alarm.hear)(device).is_ok(), "it is heard");
        if round < 1 {
            checks.ok(interrupt.unmask().is_ok(), "it may ring again");
        }
    }
    // It is masked since it came.
    let _ = (alarm.ask)(device);
    time::sleep_ms(if alarm.name == ALARMS[0].name { 2200 } else { 60 });
    checks.fails(bell.receive(Patience::None), Errno::EAGAIN, "one that is masked does not ring");
    checks.ok(interrupt.unmask().is_ok() && rung(bell) == Some(6), "until it is unmasked");
    let _ = (alarm.hear)(device);
    checks.ok(ipc::close(interrupt.0).is_ok(), "it is closed");
    let again = device.interrupt(0, signaller);
    checks.ok(again.is_ok_and(|again| ipc::close(again.0).is_ok()), "and can be had again");
    let _ = (ipc::close(signaller.0), ipc::close(bell.0));
}

fn memory(checks: &mut Checks, device: Device) {
    const PAGES: usize = 1024;
    let free = || info::sysinfo().map_or(0, |memory| memory.freeram / PAGE as u64);
    let before = free();
    let is_short = user_tests::is_short();
    let range = match device.memory(PAGES * PAGE) {
        Ok(range) => range,
        Err(Errno::ENOMEM) if is_short => {
            return checks.skip("memory for the device", "so much is not free in one piece");
        }
        Err(_) => return checks.ok(false, "memory for the device"),
    };
    let start = range.start().as_ptr();
    checks.ok((0..PAGES * PAGE).step_by(PAGE).all(|at| user_tests::peek(start as usize + at) == 0), "it is zeros");
    user_tests::poke(start as usize + PAGE * PAGES - 1, 7);
    checks.ok(range.bus().is_multiple_of(PAGE as u64), "the device sees it somewhere");
    checks.ok(range.sync(0, PAGES * PAGE).is_ok() && range.sync(100, 1).is_ok(), "it is made the same for both");
    checks.fails(range.sync(1, PAGES * PAGE), Errno::EINVAL, "none beside it");
    checks.fails(range.sync(usize::MAX, 2), Errno::EINVAL, "wherever that is");
    checks.fails(device.memory(0), Errno::EINVAL, "none is no memory");
    checks.fails(device.memory(usize::MAX), Errno::ENOMEM, "and all is too much");
    let inside = (mmap(start as usize, PAGE, RW, Map::PRIVATE | Map::ANONYMOUS | Map::FIXED, -1, 0), map(PAGE, RW));
    checks.ok(inside.0.is_ok(), "a program may map something else there");
    let _ = user_tests::munmap(inside.1, PAGE);
    let _ = user_tests::munmap(start as usize, PAGES * PAGE);
    checks.ok(range.close().is_ok(), "the handle is closed");
    let is_taken = before.saturating_sub(free()) > PAGES as u64 / 2;
    checks.ok(is_taken || is_short, "but the device may still write there");
    checks.ok(device.quiet().is_ok(), "until its driver says that it does not");
    let is_free = before.saturating_sub(free()) < PAGES as u64 / 2;
    checks.ok(is_free || is_short, "then it is free");
}

/// The next holder finds the memory of one that has died.
fn again(checks: &mut Checks, alarm: &Alarm) {
    let taken = || device::take(alarm.name, 0);
    checks.ok(handles::grant(Control::DEVICES).is_ok(), "a child may take devices");
    // (So much in one piece cannot be had at once if memory is short.)
    let pages = if user_tests::is_short() { 1 } else { 64 };
    checks.exits(
        || {
            let device = taken();
            i32::from(device.is_ok_and(|device| device.memory(pages * PAGE).is_ok()))
        },
        1,
        "a driver dies with memory of its device",
    );
    let device = taken();
    checks.ok(device.is_ok_and(|device| device.quiet().is_ok() && device.release().is_ok()), "another takes its place");
}
