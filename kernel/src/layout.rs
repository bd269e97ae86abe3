//! The kernel's half of the address space (TTBR1, 48 bits).
//!
//! ```text
//! 0xffff_0000_0000_0000  direct map: physical address + PAGE_OFFSET, largest blocks that fit    64 TiB
//! 0xffff_8000_0000_0000  vmalloc: areas of pages, each before a guard page                      16 TiB
//! 0xffff_9000_0000_0000  kmap: a few pages a CPU, mapped for a moment                            1 MiB
//! 0xffff_a000_0000_0000  kernel stacks, each above a guard as large                               1 TiB
//! 0xffff_c000_0000_0000  vmemmap: a `Page` a frame, mapped only where frames exist
//! 0xffff_ffff_8000_0000  KIMAGE: the image, at TEXT_OFFSET; text RX, rodata R, data RW           1 GiB
//! 0xffff_ffff_c000_0000  FDT_WINDOW: the device tree, read-only, in the early tables only        4 MiB
//! 0xffff_ffff_ffff_ffff  end
//! ```

/// Where the direct map begins: physical address 0.
pub const PAGE_OFFSET: usize = 0xffff_0000_0000_0000;
/// Where vmalloc's areas begin.
pub const VMALLOC_START: usize = 0xffff_8000_0000_0000;
/// Where they end.
pub const VMALLOC_END: usize = 0xffff_9000_0000_0000;
/// Where the slots for short-lived mappings begin.
pub const KMAP_START: usize = 0xffff_9000_0000_0000;
/// Where kernel stacks begin.
pub const STACKS_START: usize = 0xffff_a000_0000_0000;
/// Where they end.
pub const STACKS_END: usize = 0xffff_a100_0000_0000;
/// The record of page frame 0.
pub const VMEMMAP: usize = 0xffff_c000_0000_0000;
/// The 2 MiB boundary below the image.
pub const KIMAGE: usize = 0xffff_ffff_8000_0000;
/// The image's offset from that boundary, which a Raspberry Pi's firmware expects.
pub const TEXT_OFFSET: usize = 0x8_0000;
/// The device tree's window.
pub const FDT_WINDOW: usize = 0xffff_ffff_c000_0000;
/// Bytes of it.
pub const FDT_WINDOW_SIZE: usize = 4 << 20;

/// The device tree's window begins at a multiple of this.
pub const FDT_WINDOW_ALIGN: usize = 2 << 20;

/// Bytes of a kernel stack.
pub const STACK_SIZE: usize = 16 << 10;
/// Kernel stacks are at multiples of this, so that one bit of SP reveals an overflow.
pub const STACK_ALIGN: usize = 2 * STACK_SIZE;
