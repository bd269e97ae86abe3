//! `--dtb`: whether a device tree is of the machine that it is shown to.
//!
//! A kernel that believes another machine's tree finds neither memory nor a console, and ends without a word. The tree is
//! read by the kernel's own reader. One that is damaged inside passes: the kernel names it on the console.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use quire_platform::tree::{Board as Tree, TreeError};

use crate::options::Board;

/// Refuses what is not a device tree, and the tree of another machine.
pub fn check(board: Board, file: &Path) -> Result<()> {
    let bytes = fs::read(file).with_context(|| format!("--dtb {}", file.display()))?;
    let mut tree = Box::new(Tree::new());
    // Of other errors, QEMU mends the want of memory, and the kernel names the rest.
    if let Err(error @ (TreeError::Magic(_) | TreeError::Size(_))) = tree.read(&bytes, &[]) {
        bail!("--dtb {}: {error}", file.display());
    }
    let (name, compatible) = match board {
        Board::Virt => ("virt", "linux,dummy-virt"),
        Board::Rpi4 => ("rpi4", "brcm,bcm2711"),
    };
    let said: Vec<&str> = tree.compatible.iter().map(|name| name.as_str()).collect();
    // A tree need not say what it is compatible with.
    ensure!(
        said.is_empty() || said.contains(&compatible),
        "--dtb {}: the tree of another machine ({}); --board {name} needs one that is compatible with {compatible}",
        file.display(),
        said.join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(board: Board, name: &str) -> Result<(), String> {
        let trees = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../platform/trees");
        check(board, &trees.join(name)).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_tree_of_another_machine_is_refused() {
        for tree in ["virt-128m.dtb", "virt-8g-smp4-numa4-gic3.dtb"] {
            assert_eq!(ask(Board::Virt, tree), Ok(()));
            let said = ask(Board::Rpi4, tree).unwrap_err();
            assert!(said.contains("linux,dummy-virt") && said.contains("brcm,bcm2711"), "{said}");
        }
        assert!(ask(Board::Virt, "buses.dtb").is_err());
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        for (file, why) in [("README.md", "no device tree"), (".", "directory"), ("nowhere", "No such file")] {
            let said = ask(Board::Virt, file).unwrap_err();
            assert!(said.contains(why), "{file}: {said}");
        }
    }
}
