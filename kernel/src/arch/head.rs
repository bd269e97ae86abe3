//! From the boot loader's jump to Rust: the arm64 Image header, the drop to EL1, the early tables, the MMU.
//!
//! The boot protocol (Linux, `Documentation/arch/arm64/booting.rst`): x0 holds the device tree's physical
//! address, the MMU is off, the caller is at EL2 or EL1, and the image lies at a 2 MiB boundary plus
//! `text_offset`. Secondary CPUs enter at `secondary_entry` in the same state, by PSCI or spin table.
//!
//! Early tables, all in `.boot.tables`, 2 MiB blocks:
//!
//! ```text
//! TTBR0  identity   the one page of .idmap.text: what runs while the MMU goes on, for all CPUs
//! TTBR1  KIMAGE     the image, read-write-execute until boot::memory builds the real tables
//!        FDT_WINDOW 4 MiB from the device tree's 2 MiB boundary, read-only
//! ```

use core::arch::global_asm;

use quire_mm::pte::{MAIR, MemoryType, bits};

use crate::layout::{FDT_WINDOW, KIMAGE, TEXT_OFFSET};

/// Normal memory, present, accessed, inner shareable.
const NORMAL: u64 = (MemoryType::Normal as u64) << bits::ATTR_SHIFT | bits::ACCESSED | bits::INNER_SHARE | bits::VALID;
const BLOCK_RWX: u64 = NORMAL | bits::UXN;
const BLOCK_RO: u64 = NORMAL | bits::UXN | bits::PXN | bits::READ_ONLY;
const TABLE: u64 = bits::TABLE | bits::VALID;

/// TCR_EL1 without IPS and AS: 48-bit halves, 4 KiB granules, walks are write-back and inner shareable
/// (T0SZ = T1SZ = 16; IRGN, ORGN = 1; SH = 3; TG0 = 0, TG1 = 2). In the lower half the top byte of an address is ignored
/// (TBI0): programs may keep a tag there.
const TCR: u64 = 16 | 16 << 16 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 24 | 1 << 26 | 3 << 28 | 2 << 30 | 1 << 37;

/// SCTLR_EL1 with the MMU off: the bits that are RES1 in Armv8.0.
const SCTLR_RES1: u64 = 1 << 29 | 1 << 28 | 1 << 23 | 1 << 22 | 1 << 20 | 1 << 11;

/// SCTLR_EL1 with the MMU on: RES1, and M, C, SA, SA0, I; EL0 may use DC ZVA (DZE), CTR_EL0 (UCT), cache
/// maintenance by address (UCI), and is not trapped on WFI and WFE (nTWI, nTWE).
const SCTLR_ON: u64 =
    SCTLR_RES1 | 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18 | 1 << 26;

global_asm!(
    r#"
    .section .head.text, "ax"
    .global _head
_head:
    b       primary_entry               // code0
    .long   0                           // code1
    .quad   {TEXT_OFFSET}               // text_offset
    .quad   __image_size                // .bss included
    .quad   0xa                         // flags: little-endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

primary_entry:
    mov     x21, x0                     // device tree
    mrs     x22, CurrentEL
    bl      to_el1

    // Zero the early tables. The MMU is off, so these stores bypass the caches; lines that the loader left there are
    // invalidated afterwards, before a walk could hit them (Arm ARM B2.8, mismatched attributes).
    adrp    x0, __boot_tables_start
    adrp    x1, __boot_tables_end
    mov     x2, x0
1:  stp     xzr, xzr, [x2], #16
    cmp     x2, x1
    b.lo    1b

    // Identity mapping: the 2 MiB block that holds .idmap.text.
    adrp    x3, __idmap_start
    adrp    x4, idmap_l0
    adrp    x5, idmap_l1
    adrp    x6, idmap_l2
    ubfx    x7, x3, #39, #9
    orr     x8, x5, #{TABLE}
    str     x8, [x4, x7, lsl #3]
    ubfx    x7, x3, #30, #9
    orr     x8, x6, #{TABLE}
    str     x8, [x5, x7, lsl #3]
    ubfx    x7, x3, #21, #9
    and     x8, x3, #~0x1fffff
    ldr     x9, ={BLOCK_RWX}
    orr     x8, x8, x9
    str     x8, [x6, x7, lsl #3]

    // The image. Its base must be what the protocol says, or no block can map it.
    adrp    x3, __image_start
    sub     x3, x3, #{TEXT_OFFSET}
    tst     x3, #0x1fffff
    b.ne    misplaced
    adrp    x4, early_l0
    adrp    x5, early_l1
    adrp    x6, early_l2_image
    orr     x8, x5, #{TABLE}
    str     x8, [x4, #511 * 8]
    orr     x8, x6, #{TABLE}
    str     x8, [x5, #510 * 8]
    adrp    x7, __image_end
    orr     x8, x3, x9
2:  str     x8, [x6], #8
    add     x8, x8, #0x200000
    add     x3, x3, #0x200000
    cmp     x3, x7
    b.lo    2b

    // The device tree.
    adrp    x6, early_l2_fdt
    orr     x8, x6, #{TABLE}
    str     x8, [x5, #511 * 8]
    ldr     x9, ={BLOCK_RO}
    and     x8, x21, #0x0000ffffffffffff
    and     x8, x8, #~0x1fffff
    orr     x8, x8, x9
    str     x8, [x6]
    add     x8, x8, #0x200000
    str     x8, [x6, #8]

    dsb     sy
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4             // DminLine
    mov     x3, #4
    lsl     x3, x3, x2
3:  dc      ivac, x0
    add     x0, x0, x3
    cmp     x0, x1
    b.lo    3b
    dsb     sy

    adrp    x1, early_l0
    bl      mmu_on

    // From here on at the linked address.
    ldr     x0, =__bss_start
    ldr     x1, =__bss_end
4:  stp     xzr, xzr, [x0], #16
    cmp     x0, x1
    b.lo    4b
    ldr     x0, =__boot_stack_top
    mov     sp, x0
    ldr     x0, =vectors
    msr     vbar_el1, x0
    isb
    mov     x0, x21
    mov     x1, x28                     // physical address of KIMAGE
    ubfx    x2, x22, #2, #2             // the exception level that it was entered in
    mov     x29, xzr
    mov     x30, xzr
    ldr     x3, =primary_main
    br      x3

misplaced:
    wfe
    b       misplaced

    // Entry of a secondary CPU, by PSCI (x0 is arbitrary) or spin table. SECONDARY holds TTBR1, stack top and per-CPU
    // base, cleaned to memory.
    .global secondary_entry
secondary_entry:
    bl      to_el1
    adrp    x19, {SECONDARY}
    add     x19, x19, :lo12:{SECONDARY}
    ldr     x1, [x19]
    bl      mmu_on
    ldr     x19, ={SECONDARY}
    ldr     x0, [x19, #8]
    mov     sp, x0
    ldr     x0, [x19, #16]
    msr     tpidr_el1, x0
    ldr     x1, =vectors
    msr     vbar_el1, x1
    isb
    mov     x29, xzr
    mov     x30, xzr
    ldr     x2, =secondary_main
    br      x2

    // Leaves EL2 for EL1, interrupts masked. x30 is kept; clobbers x0, x1.
to_el1:
    msr     daifset, #0xf
    ldr     x0, ={SCTLR_RES1}
    mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.eq    5f
    msr     sctlr_el1, x0
    isb
    ret
5:  mov     x1, #(1 << 31)              // HCR_EL2.RW: EL1 is AArch64; nothing is trapped; not E2H, with which
    msr     hcr_el2, x1                 // the name of a register of EL1 means EL2's own
    isb
    msr     sctlr_el1, x0
    mov     x0, #3                      // EL1 may use the physical counter and timer
    msr     cnthctl_el2, x0
    msr     cntvoff_el2, xzr
    mov     x0, #0x33ff                 // CPTR_EL2: RES1; FP and SIMD are not trapped
    msr     cptr_el2, x0
    msr     hstr_el2, xzr
    msr     vttbr_el2, xzr
    mrs     x0, midr_el1
    msr     vpidr_el2, x0
    mrs     x0, mpidr_el1
    msr     vmpidr_el2, x0
    mrs     x0, id_aa64dfr0_el1
    sbfx    x0, x0, #8, #4              // PMUVer; -1: not the architecture's
    cmp     x0, #1
    mov     x0, xzr                     // MDCR_EL2: nothing of debug and counters is trapped
    b.lt    6f
    mrs     x0, pmcr_el0
    ubfx    x0, x0, #11, #5             // HPMN: EL1 has all counters
6:  msr     mdcr_el2, x0
    mrs     x0, id_aa64mmfr1_el1
    ubfx    x0, x0, #40, #4             // HCRX_EL2
    cbz     x0, 9f
    msr     S3_4_C1_C2_2, xzr
9:  mrs     x0, id_aa64mmfr0_el1
    ubfx    x0, x0, #56, #4             // fine-grained traps: HFGRTR, HFGWTR, HFGITR, HDFGRTR, HDFGWTR (EL2)
    cbz     x0, 10f
    msr     S3_4_C1_C1_4, xzr
    msr     S3_4_C1_C1_5, xzr
    msr     S3_4_C1_C1_6, xzr
    msr     S3_4_C3_C1_4, xzr
    msr     S3_4_C3_C1_5, xzr
10: mrs     x0, midr_el1
    lsr     x0, x0, #4
    ldr     x1, =0x410fd08              // a Cortex-A72: EL1 may write CPUACTLR_EL1 if EL3 lets it (see `errata`)
    cmp     x0, x1
    b.ne    11f
    mov     x0, #1
    msr     actlr_el2, x0
11: mrs     x0, id_aa64pfr0_el1
    ubfx    x0, x0, #24, #4             // GIC system registers
    cbz     x0, 7f
    mrs     x0, S3_4_C12_C9_5           // ICC_SRE_EL2: SRE, and EL1 may set its own
    mov     x1, #9
    orr     x0, x0, x1
    msr     S3_4_C12_C9_5, x0
    isb
    msr     S3_4_C12_C11_0, xzr         // ICH_HCR_EL2
7:  mov     x0, #0x3c5                  // EL1h, DAIF masked
    msr     spsr_el2, x0
    msr     elr_el2, x30
    eret

    // Turns the MMU on with TTBR1 = x1 and returns to the linked address. The physical base of the image
    // comes back in x28.
mmu_on:
    adrp    x28, __image_start
    sub     x0, x30, x28                // the caller, as an offset into the image
    ldr     x2, =__image_start
    add     x30, x2, x0
    sub     x28, x28, #{TEXT_OFFSET}
    ldr     x0, ={MAIR}
    msr     mair_el1, x0
    ldr     x0, ={TCR}
    mrs     x2, id_aa64mmfr0_el1
    ubfx    x3, x2, #0, #4              // PARange; 52 bits (6) needs another granule or LPA2: 48 then
    cmp     x3, #5
    mov     x4, #5
    csel    x3, x3, x4, ls
    bfi     x0, x3, #32, #3             // IPS
    ubfx    x3, x2, #4, #4              // ASIDBits: 2 means 16
    cmp     x3, #2
    cset    x3, eq
    bfi     x0, x3, #36, #1             // AS
    msr     tcr_el1, x0
    adrp    x2, idmap_l0
    msr     ttbr0_el1, x2
    msr     ttbr1_el1, x1
    ldr     x0, ={SCTLR_ON}
    mrs     x2, id_aa64mmfr1_el1
    ubfx    x2, x2, #20, #4             // PAN: with it, SPAN = 0 sets PSTATE.PAN at every exception
    cbz     x2, 8f
    bic     x0, x0, #(1 << 23)
8:  b       mmu_switch_on

    // The only code that runs at its physical address with the MMU on.
    .section .idmap.text, "ax"
mmu_switch_on:
    tlbi    vmalle1                     // no stale TLB entry may hit (Arm ARM D8.13)
    dsb     nsh
    isb
    msr     sctlr_el1, x0
    isb
    ic      iallu                       // the instruction cache may hold what was fetched with it off
    dsb     nsh
    isb
    ret

    // x0: new TTBR1. Break-before-make for the whole upper half (Arm ARM D8.14.1): it is switched to empty tables, the
    // TLB is invalidated, then the new tables are installed. Called through the identity mapping, with interrupts
    // masked; returns to the linked address in x30.
    .global replace_ttbr1
replace_ttbr1:
    adrp    x1, early_empty
    msr     ttbr1_el1, x1
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
    msr     ttbr1_el1, x0
    isb
    ret

    .section .boot.tables, "aw", @nobits
    .balign 4096
    .global idmap_l0
idmap_l0:       .space 4096
idmap_l1:       .space 4096
idmap_l2:       .space 4096
    .global early_l0
early_l0:       .space 4096
early_l1:       .space 4096
early_l2_image: .space 4096
    .global early_l2_fdt
early_l2_fdt:   .space 4096
    .global early_empty
early_empty:    .space 4096
    "#,
    TEXT_OFFSET = const TEXT_OFFSET,
    TABLE = const TABLE,
    BLOCK_RWX = const BLOCK_RWX,
    BLOCK_RO = const BLOCK_RO,
    MAIR = const MAIR,
    TCR = const TCR,
    SCTLR_RES1 = const SCTLR_RES1,
    SCTLR_ON = const SCTLR_ON,
    SECONDARY = sym super::smp::SECONDARY,
);

const _: () = assert!(KIMAGE >> 39 & 511 == 511 && KIMAGE >> 30 & 511 == 510 && FDT_WINDOW >> 30 & 511 == 511);
