//! The trees that the tests read.

#![allow(dead_code)]

use std::path::PathBuf;

macro_rules! corpus {
    ($($name:literal),* $(,)?) => { [$(($name, include_bytes!(concat!("../../trees/", $name, ".dtb")) as &[u8])),*] };
}

/// Every tree in `platform/trees`: what QEMU generates, and our own.
pub const CORPUS: [(&str, &[u8]); 11] = corpus![
    "virt-128m",
    "virt-1g-smp4-numa2",
    "virt-256m-secure",
    "virt-4g-smp4-gic3-el2",
    "virt-512m-smp4-nops",
    "virt-512m-two-serials-initrd",
    "virt-8g-smp4-numa4-gic3",
    "virt-8g-smp8-gic3",
    "buses",
    "liar",
    "reserved",
];

pub fn tree(name: &str) -> Vec<u8> {
    let found = CORPUS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no tree {name}")).1.to_vec()
}

/// The Raspberry Pi's own tree is under the GPL and not part of this repository: `cargo xtask setup` fetches it.
pub fn rpi4() -> Option<Vec<u8>> {
    let cached = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/quire/bcm2711-rpi-4-b.dtb"));
    let path = std::env::var_os("QUIRE_RPI4_DTB").map(PathBuf::from).or_else(cached)?;
    let bytes = std::fs::read(&path).ok();
    if bytes.is_none() {
        eprintln!("skipped: no {}", path.display());
    }
    bytes
}
