//! Hands the kernel its linker script.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../linker/kernel.ld");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rustc-link-arg=-T{script}");
    println!("cargo::rustc-link-arg=--no-pie");
    println!("cargo::rustc-link-arg=-zmax-page-size=4096");
}
