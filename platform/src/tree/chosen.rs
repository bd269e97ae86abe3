//! `/chosen`: the boot loader's parameters for the kernel.

use heapless::{String, Vec};

use super::walk::Node;
use super::{Board, Oddity, Region, copy};

/// The same limit as Linux's on this architecture.
const MAX_BOOTARGS: usize = 2048;
const MAX_SEED: usize = 64;

/// The boot loader's parameters.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The kernel's command line.
    pub bootargs: String<MAX_BOOTARGS>,
    /// The boot archive.
    pub initrd: Option<Initrd>,
    /// Random bytes to start the kernel's generator with; at most 64 are kept.
    pub rng_seed: Vec<u8, MAX_SEED>,
    /// A random number for the layout of the kernel's address space.
    pub kaslr_seed: Option<u64>,
    /// The text after the colon in `stdout-path`, as in `115200n8`.
    pub stdout_options: String<32>,
}

/// The boot archive in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initrd {
    /// Its exact bytes, all of which are in memory.
    pub region: Region,
}

impl Chosen {
    pub(super) const fn new() -> Self {
        Self {
            bootargs: String::new(),
            initrd: None,
            rng_seed: Vec::new(),
            kaslr_seed: None,
            stdout_options: String::new(),
        }
    }
}

impl Default for Chosen {
    fn default() -> Self {
        Self::new()
    }
}

impl Board {
    /// Runs after the banks are settled. Returns the device part of `stdout-path`.
    pub(super) fn read_chosen<'a>(&mut self, node: &Node<'a>) -> Option<&'a str> {
        if node.property("bootargs").is_some() {
            let text = node.text("bootargs");
            let fits = text.is_some_and(|text| copy(&mut self.chosen.bootargs, text));
            if !fits {
                let what = if text.is_some() { Oddity::TextCut } else { Oddity::BadText };
                self.warn(what, "bootargs", 0, 0);
            }
        }
        let seed = node.property("rng-seed").unwrap_or_default();
        self.chosen.rng_seed = seed.iter().copied().take(MAX_SEED).collect();
        // A boot loader without a random number leaves 0.
        self.chosen.kaslr_seed = node.number("kaslr-seed").filter(|seed| *seed != 0);
        self.read_initrd(node);
        let path = node.text("stdout-path").or_else(|| node.text("linux,stdout-path"))?;
        let (device, options) = path.split_once(':').unwrap_or((path, ""));
        copy(&mut self.chosen.stdout_options, options);
        Some(device)
    }

    fn read_initrd(&mut self, node: &Node<'_>) {
        let given = (node.property("linux,initrd-start"), node.property("linux,initrd-end"));
        if given == (None, None) {
            return;
        }
        let (start, size) = initrd_place(node);
        match initrd_region(node).filter(|region| self.is_memory(region)) {
            Some(region) => self.chosen.initrd = Some(Initrd { region }),
            None => self.warn(Oddity::BadInitrd, "initrd", start.unwrap_or(0), size.unwrap_or(0)),
        }
    }
}

/// The region of the boot archive according to `/chosen`.
pub(super) fn initrd_region(chosen: &Node<'_>) -> Option<Region> {
    let (start, size) = initrd_place(chosen);
    Region::new(start?, size?)
}

fn initrd_place(chosen: &Node<'_>) -> (Option<u64>, Option<u64>) {
    let (start, end) = (chosen.number("linux,initrd-start"), chosen.number("linux,initrd-end"));
    (start, start.zip(end).and_then(|(start, end)| end.checked_sub(start)))
}
