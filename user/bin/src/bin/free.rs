//! free: memory in use and free, in KiB (`-m` MiB, `-b` bytes), and what the kernel itself uses.

#![no_std]
#![no_main]

use quire_bin::Options;
use quire_rt::{eprintln, info, println};

quire_rt::entry!(main);

fn main() -> i32 {
    let options = match Options::parse("bkm", "free [-bkm]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    let system = match info::system() {
        Ok(system) => system,
        Err(error) => {
            eprintln!("free: {error}");
            return 1;
        }
    };
    let show = |pages: u64| {
        let bytes = pages * quire_rt::abi::PAGE_SIZE as u64;
        if options.has('m') {
            bytes >> 20
        } else if options.has('b') {
            bytes
        } else {
            bytes >> 10
        }
    };
    println!("{:>18} {:>14} {:>14}", "total", "used", "free");
    println!(
        "Mem: {:13} {:14} {:14}",
        show(system.managed),
        show(system.managed.saturating_sub(system.free)),
        show(system.free)
    );
    println!();
    let counted = |name: &str| info::counter(name).unwrap_or(0);
    for (what, pages) in [
        ("programs", counted("nr_user_pages")),
        ("their page tables", system.page_tables),
        ("kernel stacks", system.kernel_stacks),
        ("slab", system.slab),
        ("vmalloc", counted("nr_vmalloc")),
        ("per-CPU areas", counted("nr_per_cpu_areas")),
        ("the kernel's page tables", counted("nr_kernel_page_tables")),
        ("contiguous memory in use", counted("nr_cma_used") + counted("nr_cma_bitmaps")),
        ("boot archive", system.archive),
        ("promised to processes", system.committed),
        ("promised at most, in mode 2", system.commit_limit),
        ("never given to the allocator", system.ram.saturating_sub(system.managed)),
    ] {
        println!("{what:30} {:12}", show(pages));
    }
    0
}
