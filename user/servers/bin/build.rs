//! Links the programs of this package as programs of Quire.

fn main() {
    println!("cargo::rerun-if-changed=../../../linker/user.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        println!("cargo::rustc-link-arg-bins=-T{}/../../../linker/user.ld", env!("CARGO_MANIFEST_DIR"));
        println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
    }
}
