//! `cargo xtask image`: an SD card's image that a Raspberry Pi 4 boots.
//!
//! One FAT32 partition with the firmware, the device tree, the kernel and the boot archive, and an empty one for the user's files. No root is needed,
//! and the same inputs give the same bytes: no time and no random number goes into the image.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use fscommon::StreamSlice;
use mbrman::{BOOT_ACTIVE, BOOT_INACTIVE, CHS, MBR, MBRPartitionEntry};

use crate::build::{self, Added};
use crate::options::{Board, BuildOptions, CardBoard, ImageOptions};
use crate::output;
use crate::setup;

/// The size of the image: a power of two, since QEMU accepts no other card size.
pub const IMAGE_BYTES: usize = 128 << 20;
/// Where the first partition ends, and the one for the user's files begins. With clusters of one sector each has more of them than the
/// 65,525 below which a file system is not FAT32.
const BOOT_END: usize = 64 << 20;
const SECTOR: u32 = 512;
/// The partition starts at 1 MiB, as partitioning tools do it, and takes the rest.
const FIRST_SECTOR: u32 = 2048;
/// The partition type "FAT32, LBA".
const FAT32_LBA: u8 = 0x0c;
/// The serial number of disk and file system: "QUIR".
const SERIAL: u32 = 0x5155_4952;

/// How the firmware starts the kernel. The archive has no address of its own: it follows the kernel.
const CONFIG: &str = "\
arm_64bit=1
kernel=kernel8.img
kernel_address=0x80000
device_tree=bcm2711-rpi-4-b.dtb
initramfs boot.cpio followkernel
enable_gic=1
enable_uart=1
init_uart_clock=48000000
";

const COMMAND_LINE: &str = "console=serial0\n";

/// `cargo xtask image`.
pub fn image(options: &ImageOptions) -> Result<u8> {
    output::check(&options.output)?;
    let image = match options.board {
        CardBoard::Rpi4 => rpi4()?,
    };
    output::write(&options.output, &image)?;
    eprintln!("xtask: {} is a card of {} MiB", options.output.display(), image.len() >> 20);
    Ok(0)
}

/// Builds everything and returns a card image for the Pi.
pub fn rpi4() -> Result<Vec<u8>> {
    let firmware = setup::firmware()?;
    let device_tree = read(&setup::device_tree()?)?;
    let built = build::build(&BuildOptions { board: Board::Rpi4, debug: false, selftest: false })?;
    let files: [(&str, Vec<u8>); 8] = [
        ("LICENCE.broadcom", read(&firmware.licence)?),
        ("bcm2711-rpi-4-b.dtb", device_tree),
        ("boot.cpio", built.archive(&Added::default())?),
        ("cmdline.txt", COMMAND_LINE.into()),
        ("config.txt", CONFIG.into()),
        ("fixup4.dat", read(&firmware.fixup)?),
        ("kernel8.img", whole_kernel(read(&built.image)?)?),
        ("start4.elf", read(&firmware.start)?),
    ];
    card(&files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// The kernel image with the zeros of its .bss: the firmware loads the archive right after the file, and the kernel
/// must not clear it with its .bss.
fn whole_kernel(mut kernel: Vec<u8>) -> Result<Vec<u8>> {
    const SIZE_AT: usize = 16;
    const MAGIC_AT: usize = 56;
    ensure!(kernel.get(MAGIC_AT..MAGIC_AT + 4) == Some(b"ARM\x64"), "the kernel has no arm64 Image header");
    let mut size = [0; 8];
    size.copy_from_slice(&kernel[SIZE_AT..SIZE_AT + 8]);
    let size = usize::try_from(u64::from_le_bytes(size))?;
    ensure!(size >= kernel.len() && size < BOOT_END, "the kernel's header says {size} bytes");
    kernel.resize(size.next_multiple_of(4096), 0);
    Ok(kernel)
}

/// An image with these files.
fn card(files: &[(&str, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut disk = Cursor::new(vec![0; IMAGE_BYTES]);
    let mut table = MBR::new_from(&mut disk, SECTOR, SERIAL.to_be_bytes())?;
    let middle = BOOT_END as u32 / SECTOR;
    let entry = |boot: u8, start: u32, end: u32| MBRPartitionEntry {
        boot,
        first_chs: CHS::empty(),
        sys: FAT32_LBA,
        last_chs: CHS::empty(),
        starting_lba: start,
        sectors: end - start,
    };
    table[1] = entry(BOOT_ACTIVE, FIRST_SECTOR, middle);
    table[2] = entry(BOOT_INACTIVE, middle, IMAGE_BYTES as u32 / SECTOR);
    table.write_into(&mut disk)?;
    file_system(&mut disk, FIRST_SECTOR, middle, *b"QUIRE      ", files)?;
    file_system(&mut disk, middle, IMAGE_BYTES as u32 / SECTOR, *b"FILES      ", &[])?;
    Ok(disk.into_inner())
}

/// Makes a file system with these files between two sectors.
fn file_system(
    disk: &mut Cursor<Vec<u8>>,
    start: u32,
    end: u32,
    label: [u8; 11],
    files: &[(&str, Vec<u8>)],
) -> Result<()> {
    let mut partition = StreamSlice::new(disk, u64::from(start * SECTOR), u64::from(end) * u64::from(SECTOR))?;
    let format = FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(SECTOR);
    let format = format.total_sectors(end - start).volume_id(SERIAL + start).volume_label(label);
    format_volume(&mut partition, format)?;
    let volume = FileSystem::new(partition, FsOptions::new())?;
    for (name, data) in files {
        volume.root_dir().create_file(name)?.write_all(data)?;
    }
    volume.unmount()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_card_holds_its_files_and_is_the_same_each_time() {
        let files = [("config.txt", CONFIG.as_bytes().to_vec()), ("kernel8.img", vec![0x5a; 3_000_000])];
        let image = card(&files).unwrap();
        assert!(image.len().is_power_of_two());
        assert!(image == card(&files).unwrap(), "two images differ");

        let mut disk = Cursor::new(image);
        let table = MBR::read_from(&mut disk, SECTOR).unwrap();
        let bounds = |number: usize| {
            let start = u64::from(table[number].starting_lba * SECTOR);
            (start, start + u64::from(table[number].sectors * SECTOR))
        };
        assert_eq!((bounds(1).1, bounds(2)), (BOOT_END as u64, (BOOT_END as u64, IMAGE_BYTES as u64)));
        let mut files_of = |number: usize| {
            let (start, end) = bounds(number);
            let volume = FileSystem::new(StreamSlice::new(&mut disk, start, end).unwrap(), FsOptions::new()).unwrap();
            assert_eq!(volume.fat_type(), FatType::Fat32);
            assert!(volume.stats().unwrap().total_clusters() >= 65_525);
            volume.root_dir().iter().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
        };
        assert_eq!((files_of(1), files_of(2)), (vec!["config.txt".into(), "kernel8.img".into()], vec![]));
        let (start, end) = bounds(1);
        let volume = FileSystem::new(StreamSlice::new(disk, start, end).unwrap(), FsOptions::new()).unwrap();
        assert_eq!(volume.fat_type(), FatType::Fat32);
        assert!(volume.stats().unwrap().total_clusters() >= 65_525);
        for (name, data) in &files {
            let mut read = Vec::new();
            volume.root_dir().open_file(name).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == *data, "{name}");
        }
    }

    #[test]
    fn the_kernel_on_the_card_includes_its_bss() {
        let mut kernel = vec![1; 4096];
        kernel[16..24].copy_from_slice(&10_000u64.to_le_bytes());
        kernel[56..60].copy_from_slice(b"ARM\x64");
        let whole = whole_kernel(kernel.clone()).unwrap();
        assert_eq!((whole.len(), &whole[..4096]), (12288, &kernel[..]));
        assert!(whole[4096..].iter().all(|&b| b == 0));
        kernel[16..24].copy_from_slice(&100u64.to_le_bytes());
        assert!(whole_kernel(kernel).is_err(), "smaller than its file");
        assert!(whole_kernel(vec![0; 100]).is_err(), "no header");
    }
}
