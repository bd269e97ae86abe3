//! translation: what the kernel says of the translation of an address, compared with what this program knows of it.

#![no_std]
#![no_main]

use quire_rt::abi::PAGE_SIZE;
use quire_rt::abi::flags::{Map, Prot, madv, sig};
use quire_rt::abi::info::kind;
use quire_rt::abi::nr;
use quire_rt::abi::translation::{TranslationInfo, note, outcome, software, touch, whereabouts};
use quire_rt::process::{self, waitpid};
use quire_rt::{Errno, info, mem, time};
use user_tests::{
    Checks, KERNEL, PAGE, RW, is_quire, is_short, map, mmap, mprotect, munmap, peek, poke, raw, start, until_asleep,
};

quire_rt::entry!(main);

const VALID: u64 = 1;
const READ_ONLY: u64 = 1 << 7;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
const UID: usize = 1000;

fn main() -> i32 {
    let mut checks = Checks::new();
    if !is_quire() {
        checks.skip("translations", "other kernels do not tell them");
        return checks.finish();
    }
    anonymous(&mut checks);
    rights(&mut checks);
    shared(&mut checks);
    swapped(&mut checks);
    nothing(&mut checks);
    others(&mut checks);
    kernel(&mut checks);
    refused(&mut checks);
    checks.finish()
}

fn of(addr: usize) -> TranslationInfo {
    info::translation(0, addr).unwrap_or_default()
}

/// Of a page that was written just now. (Where memory is short it may leave again at once.)
fn of_written(addr: usize) -> TranslationInfo {
    let mut info = of(addr);
    for _ in 0..1000 {
        poke(addr, 1);
        info = of(addr);
        if info.outcome == outcome::MAPPED {
            break;
        }
    }
    info
}

/// The entry that ends the walk.
fn last(info: &TranslationInfo) -> u64 {
    info.entries[(info.levels as usize).saturating_sub(1)]
}

/// The steps lead from one to the next, and to the physical address.
fn is_whole(info: &TranslationInfo) -> bool {
    let leads = |level: usize| info.entries[level] & ADDRESS == info.tables[level + 1];
    let mapped = last(info) & ADDRESS | info.address & (PAGE_SIZE as u64 - 1) == info.physical;
    info.levels == 4 && info.root == info.tables[0] && (0..3).all(leads) && mapped && last(info) & 3 == 3
}

fn anonymous(checks: &mut Checks) {
    let at = map(4 * PAGE, RW);
    let fresh = of(at);
    checks.eq(fresh.outcome, outcome::UNTOUCHED, "a page that was not accessed");
    checks.eq([fresh.first_read, fresh.first_write], [touch::ZERO_PAGE, touch::NEW_PAGE], "what an access would do");
    checks.eq(fresh.notes & note::AREA, note::AREA, "it is in an area");
    checks.ok(fresh.area[0] <= at as u64 && fresh.area[1] >= (at + 4 * PAGE) as u64, "around it");
    peek(at);
    let zero = of(at + 5);
    checks.ok(is_whole(&zero) && zero.notes & note::ZERO_PAGE != 0, "a page that was read is the zero page");
    checks.eq(last(&zero) & (READ_ONLY | software::ANON), READ_ONLY, "read-only");
    let written = of_written(at + 5);
    checks.ok(is_whole(&written) && written.notes & note::ZERO_PAGE == 0, "a page that was written is another one");
    checks.eq(last(&written) & (READ_ONLY | software::ANON), software::ANON, "writable, and anonymous");
    checks.eq(info::text(&written.frame.state), "Anon", "its record says so too");
    checks.ok(written.frame.mappings == 1 || is_short(), "it is mapped here alone");
    checks.eq((written.frame.pfn, written.frame.exists), (written.physical / PAGE_SIZE as u64, 1), "it is its frame");
    let is_own = written.asid != 0 && written.notes & note::CURRENT != 0 && written.running != 0;
    checks.ok(is_own, "a program that runs has an ASID of this generation, and a CPU");
    let next = of_written(at + PAGE).physical;
    checks.ok(next != of(at).physical, "the next page is in another frame");
    checks.ok(of((at + PAGE) | 0x5a << 56).physical == next || is_short(), "a tag makes no difference");
    let _ = munmap(at, 4 * PAGE);
    checks.eq(of(at).outcome, outcome::UNMAPPED, "what is unmapped is nothing");
}

fn rights(checks: &mut Checks) {
    let at = map(PAGE, RW);
    let before = of_written(at);
    let _ = mprotect(at, PAGE, Prot::READ);
    let after = of(at);
    let is_now = last(&before) & READ_ONLY == 0 && last(&after) & READ_ONLY != 0;
    checks.ok(is_now || is_short(), "mprotect makes it read-only");
    checks.ok(after.physical == before.physical || is_short(), "in the same frame");
    let none = map(PAGE, Prot::empty());
    let info = of(none);
    checks.eq([info.first_read, info.first_write], [touch::REFUSED; 2], "without rights there is no access");
    let read = map(PAGE, Prot::READ);
    let info = of(read);
    checks.eq([info.first_read, info.first_write], [touch::ZERO_PAGE, touch::REFUSED], "with one there is");
    [at, none, read].iter().for_each(|at| _ = munmap(*at, PAGE));
}

/// Memory that two mappings share is one frame; its object has it before the second one does.
fn shared(checks: &mut Checks) {
    let at = mmap(0, PAGE, RW, Map::SHARED | Map::ANONYMOUS, -1, 0).unwrap_or(0);
    let fresh = of(at);
    checks.eq((fresh.first_write, fresh.whereabouts), (touch::OBJECT_PAGE, whereabouts::NOWHERE), "shared memory");
    let written = of_written(at);
    checks.eq(info::text(&written.frame.state), "Object", "has pages of an object");
    let child = start(|| {
        poke(at, 2);
        time::sleep_ms(100_000);
        0
    })
    .unwrap_or(-1);
    until_asleep(child);
    let childs = info::translation(child as u32, at).unwrap_or_default();
    checks.ok(childs.physical == of(at).physical || is_short(), "a child has the same frame");
    checks.ok(childs.asid != of(at).asid, "under another ASID");
    checks.ok(childs.tables[3] != of(at).tables[3], "by other tables");
    checks.ok(of(at).frame.mappings == 2 || is_short(), "so two entries map it");
    let _ = (process::kill(child, sig::KILL), waitpid(child));
    // The text of this program is the boot archive's.
    let text = of(main as *const () as usize);
    checks.ok(is_whole(&text) && info::text(&text.name) == "/tests/translation", "the program's text is its file");
    checks.eq(last(&text) & 1 << 54, 0, "and executable");
    let _ = munmap(at, PAGE);
}

fn swapped(checks: &mut Checks) {
    if info::sysinfo().map_or(0, |info| info.totalswap) == 0 {
        return checks.skip("a page in swap", "there is none");
    }
    let at = map(PAGE, RW);
    poke(at + 9, 3);
    // SAFETY: a mapping of the test's own.
    let _ = unsafe { mem::madvise(at, PAGE, madv::PAGEOUT) };
    let out = of(at);
    checks.eq((out.outcome, last(&out) & VALID), (outcome::SWAPPED, 0), "a page that went to swap");
    checks.eq(out.slot.users, 1, "is in a slot of its own");
    checks.ok(peek(at + 9) == 3 && (of(at).outcome == outcome::MAPPED || is_short()), "an access brings it back");
    let _ = munmap(at, PAGE);
    let shared = mmap(0, PAGE, RW, Map::SHARED | Map::ANONYMOUS, -1, 0).unwrap_or(0);
    poke(shared + 9, 3);
    // SAFETY: as above.
    let _ = unsafe { mem::madvise(shared, PAGE, madv::PAGEOUT) };
    let out = of(shared);
    let is_out = out.outcome == outcome::UNTOUCHED && out.whereabouts == whereabouts::IN_SWAP;
    checks.ok(is_out && out.slot.users == 1, "a page of shared memory is in swap by its object");
    let _ = munmap(shared, PAGE);
}

fn nothing(checks: &mut Checks) {
    checks.eq((of(0).outcome, of(0).notes & note::AREA), (outcome::UNMAPPED, 0), "nothing is at 0");
    checks.eq(of(1 << 50).outcome, outcome::OUTSIDE, "an address in neither half");
    let local = 0u8;
    let here = of(&raw const local as usize);
    checks.eq(here.outcome, outcome::MAPPED, "the stack is there");
    let below = of(here.area[0] as usize - PAGE);
    checks.eq(below.outcome, outcome::BELOW_STACK, "below it there is room to grow");
}

/// Whoever may not inspect a process does not learn its translations.
fn others(checks: &mut Checks) {
    let parent = process::getpid() as u32;
    checks.fails(info::translation(u32::MAX >> 1, 0), Errno::ESRCH, "nobody's memory");
    checks.exits(
        || {
            let _ = raw(nr::SETUID, [UID]);
            let mut record = TranslationInfo::default();
            let (to, size) = (&raw mut record as usize, size_of::<TranslationInfo>());
            let without = |pid: u32| {
                raw(nr::QUIRE_INFO, [kind::TRANSLATION, main as *const () as usize, to, size, pid as usize, 0])
            };
            (without(parent) != Err(Errno::EPERM) || without(0) != Ok(size)) as i32
        },
        0,
        "another user's process is none of its business; its own is",
    );
    checks.exits(
        || {
            let zombie = start(|| 0).unwrap_or(-1);
            until_asleep(zombie);
            let ended = info::translation(zombie as u32, main as *const () as usize).map(|info| info.outcome);
            let _ = waitpid(zombie);
            (ended != Ok(outcome::ENDED)) as i32
        },
        0,
        "a process that has ended has no memory",
    );
}

/// The kernel's half: blocks of the direct map, and the right that it takes.
fn kernel(checks: &mut Checks) {
    let at = map(PAGE, RW);
    let own = of_written(at);
    let direct = of(0xffff_0000_0000_0000 | own.physical as usize);
    checks.eq((direct.outcome, direct.physical), (outcome::MAPPED, own.physical), "the direct map has the same byte");
    checks.eq(direct.notes & note::KERNEL, note::KERNEL, "by the kernel's tables");
    checks.eq(direct.frame.pfn, direct.physical / PAGE_SIZE as u64, "in the same frame");
    checks.ok(direct.levels < 4 && last(&direct) & 3 == 1, "a block maps it");
    let root = of(0xffff_0000_0000_0000 | own.root as usize);
    checks.eq(info::text(&root.frame.state), "Table", "this process's root table is a table's frame");
    checks.eq(of(KERNEL - PAGE).outcome, outcome::UNMAPPED, "what is not mapped is not");
    let mut record = TranslationInfo::default();
    let (to, size) = (&raw mut record as usize, size_of::<TranslationInfo>());
    let without = raw(nr::QUIRE_INFO, [kind::TRANSLATION, KERNEL, to, size, 0, 0]);
    checks.fails(without, Errno::EPERM, "the kernel's half takes machine control, even of root");
    let _ = munmap(at, PAGE);
}

fn refused(checks: &mut Checks) {
    let mut record = TranslationInfo::default();
    let (to, size) = (&raw mut record as usize, size_of::<TranslationInfo>());
    checks.fails(raw(nr::QUIRE_INFO, [kind::TRANSLATION, 0, to, size - 1, 0, 0]), Errno::EINVAL, "another size");
    checks.fails(raw(nr::QUIRE_INFO, [kind::TRANSLATION, 0, KERNEL, size, 0, 0]), Errno::EFAULT, "nowhere to put it");
}
