//! The common start-up of drivers of disks: they look for disks at their devices, and serve them as files of one
//! directory.

use alloc::boxed::Box;
use core::ffi::CStr;

use quire_block::disk::Disk;
use quire_block::table::Damage;
use quire_block::volume::{Disks, Naming};
use quire_rt::device::{self, Device};
use quire_rt::ipc::{self, Receiver};
use quire_rt::{Errno, args, eprintln, fs};

/// Drives the devices with which the program was started, as files in the directory with which it was started; returns
/// the exit status. `find` looks for a device's disk; a device without one (ENODEV), or whose disk cannot be used, is
/// released. Without a disk the program ends.
pub fn run<D: Disk + 'static>(program: &CStr, naming: Naming, find: impl Fn(Device) -> Result<D, Errno>) -> i32 {
    let told = program.to_string_lossy();
    let start = || -> Result<Option<(Receiver, Disks<'static>)>, Errno> {
        let mut disks = Disks::new(naming, report);
        for device in device::granted() {
            match find(device) {
                Ok(disk) => disks.add(Box::new(disk))?,
                Err(error) => {
                    if error != Errno::ENODEV {
                        eprintln!("{told}: a disk cannot be used: {error}");
                    }
                    device.release()?;
                }
            }
        }
        if disks.is_empty() {
            return Ok(None);
        }
        let receiver = Receiver::new()?;
        let sender = receiver.sender(0)?;
        fs::mount(args().nth(1).ok_or(Errno::EINVAL)?, sender, program)?;
        ipc::close(sender.0)?;
        Ok(Some((receiver, disks)))
    };
    match start() {
        Ok(None) => 0,
        Ok(Some((receiver, mut disks))) => crate::serve(&told, receiver, |_, request, room| disks.serve(request, room)),
        Err(error) => {
            eprintln!("{told}: {error}");
            1
        }
    }
}

fn report(disk: &[u8], damage: &Damage) {
    eprintln!("{}: its partition table is damaged: {damage}", alloc::string::String::from_utf8_lossy(disk));
}
