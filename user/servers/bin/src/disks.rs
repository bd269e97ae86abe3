//! What drivers of disks do at first: they look for disks at their devices, and serve what they find as files of one directory.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::CStr;

use quire_block::disk::Disk;
use quire_block::serve::{Disks, Named};
use quire_rt::device::{self, Device};
use quire_rt::ipc::{self, Receiver};
use quire_rt::{Errno, args, eprintln, fs};

/// Drives the devices that the program was started with, as files in the directory that it was started with: the exit status. `find` looks for the
/// disk of a device, which is let go where there is none (ENODEV), or where it cannot be used. A disk's name is `name` and what `number` makes of
/// its place in the list. Without a disk there is nothing to do.
pub fn run<D: Disk + 'static>(
    program: &CStr,
    name: &[u8],
    number: impl Fn(u8) -> u8,
    find: impl Fn(Device) -> Result<D, Errno>,
) -> i32 {
    let told = program.to_string_lossy();
    let start = || -> Result<Option<(Receiver, Disks<'static>)>, Errno> {
        let mut disks = Vec::new();
        for device in device::granted() {
            match find(device) {
                Ok(disk) => {
                    let name = [name, &[number(disks.len() as u8)]].concat();
                    disks.push(Named { name, disk: Box::new(disk) as Box<dyn Disk> });
                }
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
        Ok(Some((receiver, Disks(disks))))
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
