//! `cargo xtask flash`: writes the Pi's image to a card and verifies it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::{Advice, OFlags, fadvise};

use crate::image;
use crate::options::FlashOptions;

/// Bytes written or compared between two updates of the progress bar.
const CHUNK: usize = 1 << 20;

/// `cargo xtask flash`.
pub fn flash(options: &FlashOptions) -> Result<u8> {
    let device = options.device.canonicalize().with_context(|| format!("{}", options.device.display()))?;
    ensure!(fs::metadata(&device)?.file_type().is_block_device(), "{} is not a block device", device.display());
    let mut card = open(&device)?;
    let (size, least) = (size_of(&device)?, image::IMAGE_BYTES as u64);
    ensure!(
        size >= least,
        "{} has {} MiB, which is too small: the image has {}",
        device.display(),
        size >> 20,
        least >> 20
    );
    let image = image::rpi4()?;
    if !confirmed(&device, size)? {
        eprintln!("xtask: nothing was written");
        return Ok(1);
    }
    write(&mut card, &image)?;
    verify(&device, &card, &image)?;
    eprintln!("xtask: {} holds the image; it can be removed", device.display());
    Ok(0)
}

/// Opens a device exclusively: Linux refuses that if it or one of its partitions is mounted.
fn open(device: &Path) -> Result<File> {
    let exclusive = OFlags::EXCL.bits() as i32;
    let opened = OpenOptions::new().read(true).write(true).custom_flags(exclusive).open(device);
    match opened {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            bail!("{} is in use: unmount its partitions first", device.display())
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!("no permission to write to {}: run `sudo chown $USER {0}`, then try again", device.display())
        }
        opened => opened.with_context(|| format!("opening {}", device.display())),
    }
}

/// The device's size in bytes.
fn size_of(device: &Path) -> Result<u64> {
    let sectors = attribute(device, "size").context("cannot read the device's size")?;
    Ok(sectors.parse::<u64>()? * 512)
}

/// An attribute of a block device in /sys.
fn attribute(device: &Path, name: &str) -> Option<String> {
    let path = Path::new("/sys/class/block").join(device.file_name()?).join(name);
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Shows the device that is about to be overwritten, and asks the user to type its name.
fn confirmed(device: &Path, size: u64) -> Result<bool> {
    let model = attribute(device, "device/model").or_else(|| attribute(device, "device/name")).unwrap_or_default();
    eprintln!("xtask: {} ({} MiB{}{model})", device.display(), size >> 20, if model.is_empty() { "" } else { ", " });
    if attribute(device, "removable").is_some_and(|removable| removable != "1") {
        eprintln!("xtask: Linux does not list it as removable: make sure that it is the card");
    }
    eprint!("xtask: all of it will be overwritten. Type {} to go on: ", device.display());
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(Path::new(answer.trim()) == device)
}

fn progress(what: &'static str, bytes: usize) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg:9} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec}")?;
    Ok(ProgressBar::new(bytes as u64).with_style(style.progress_chars("=> ")).with_message(what))
}

fn write(card: &mut File, image: &[u8]) -> Result<()> {
    let bar = progress("writing", image.len())?;
    for chunk in image.chunks(CHUNK) {
        card.write_all(chunk)?;
        // Written through, or the bar would show the speed of memory.
        card.sync_data()?;
        bar.inc(chunk.len() as u64);
    }
    card.sync_all()?;
    bar.finish();
    Ok(())
}

/// Reads the card back and compares, from the card and not from memory.
fn verify(device: &Path, card: &File, image: &[u8]) -> Result<()> {
    fadvise(card, 0, None, Advice::DontNeed)?;
    let mut card = File::open(device)?;
    let bar = progress("comparing", image.len())?;
    let mut read = vec![0; CHUNK];
    for (number, chunk) in image.chunks(CHUNK).enumerate() {
        let read = &mut read[..chunk.len()];
        card.read_exact(read)?;
        if let Some(at) = chunk.iter().zip(&*read).position(|(wanted, found)| wanted != found) {
            bail!(
                "{}: byte {} differs from what was written: the card is faulty",
                device.display(),
                number * CHUNK + at
            );
        }
        bar.inc(chunk.len() as u64);
    }
    bar.finish();
    Ok(())
}
