//! Quire's own calls: information about the kernel, its log, its object counts, and power-off.

use quire_abi::group::GroupInfo;
use quire_abi::info::{self, Books, MapAudit, ProcessInfo, kind};
use quire_abi::layout::{Pod, Sysinfo, Utsname};
use quire_abi::pressure::Pressure;
use quire_abi::process::{DescriptorInfo, ProcessDetail, ThreadInfo, set};
use quire_abi::statistics::{
    AreaInfo, BlockFrames, BlockUse, CmaInfo, Counter, ListsInfo, PageBlocks, PageTypeInfo, SlabCacheInfo, SwapInfo,
    VmallocInfo,
};
use quire_abi::translation::TranslationInfo;
use quire_abi::{Errno, flags, nr};

use crate::handles::control;
use crate::sys;

/// A record that `QUIRE_INFO` gives.
pub trait Record: Pod + Default {
    /// Its kind, one of [`kind`].
    const KIND: usize;
}

impl Record for info::SystemInfo {
    const KIND: usize = kind::SYSTEM;
}
impl Record for info::ZoneInfo {
    const KIND: usize = kind::ZONE;
}
impl Record for info::RegionInfo {
    const KIND: usize = kind::REGION;
}
impl Record for info::CpuInfo {
    const KIND: usize = kind::CPU;
}
impl Record for info::MountInfo {
    const KIND: usize = kind::MOUNT;
}
impl Record for info::NodeInfo {
    const KIND: usize = kind::NODE;
}
impl Record for GroupInfo {
    const KIND: usize = kind::GROUP;
}
impl Record for Pressure {
    const KIND: usize = kind::PRESSURE;
}
impl Record for PageTypeInfo {
    const KIND: usize = kind::PAGE_TYPE;
}
impl Record for SlabCacheInfo {
    const KIND: usize = kind::SLAB;
}
impl Record for VmallocInfo {
    const KIND: usize = kind::VMALLOC;
}
impl Record for Counter {
    const KIND: usize = kind::COUNTER;
}
impl Record for SwapInfo {
    const KIND: usize = kind::SWAP;
}
impl Record for BlockFrames {
    const KIND: usize = kind::BLOCK_FRAMES;
}
impl Record for CmaInfo {
    const KIND: usize = kind::CMA;
}

/// Record number `index`; ENOENT past the last.
pub fn record<T: Record>(index: usize) -> Result<T, Errno> {
    let mut record = T::default();
    // SAFETY: the kernel writes a record of the size given, of a type that may hold any bytes.
    unsafe { sys::call(nr::QUIRE_INFO, [T::KIND, index, &raw mut record as usize, size_of::<T>()]) }?;
    Ok(record)
}

/// All records of a kind. Ends at the first error, which past the last record is ENOENT.
pub fn records<T: Record>() -> impl Iterator<Item = T> {
    (0..).map_while(|index| record(index).ok())
}

/// The process with this number, or else with the lowest one above it; ENOENT if there is none.
pub fn process_from(pid: u32) -> Result<ProcessInfo, Errno> {
    let mut record = ProcessInfo::default();
    let args = [kind::PROCESS, pid as usize, &raw mut record as usize, size_of::<ProcessInfo>()];
    // SAFETY: the kernel writes a record of the size given, of a type that may hold any bytes.
    unsafe { sys::call(nr::QUIRE_INFO, args) }?;
    Ok(record)
}

/// The process with this number.
pub fn process(pid: u32) -> Option<ProcessInfo> {
    process_from(pid).ok().filter(|process| process.pid == pid)
}

/// The processes with this number or a higher one, by number. Processes that start or end meanwhile may or may not be
/// included.
pub fn processes(from: u32) -> impl Iterator<Item = ProcessInfo> {
    let mut from = from;
    core::iter::from_fn(move || {
        let process = process_from(from).ok()?;
        from = process.pid + 1;
        Some(process)
    })
}

/// The first area of the kernel's vmalloc range that ends above an address; ENOENT if there is none.
pub fn vmalloc_from(from: usize) -> Result<VmallocInfo, Errno> {
    record(from)
}

/// The areas of the kernel's vmalloc range, by address.
pub fn vmalloc_areas() -> impl Iterator<Item = VmallocInfo> {
    let mut from = 0;
    core::iter::from_fn(move || {
        let area = vmalloc_from(from).ok()?;
        from = area.end as usize;
        Some(area)
    })
}

/// The areas of a process, by address; 0 is the caller. Each is counted from its first page to its last, even if that
/// takes several calls.
pub fn areas(pid: u32) -> impl Iterator<Item = Result<AreaInfo, Errno>> {
    areas_from(pid, 0)
}

/// The same for the areas that end above an address.
pub fn areas_from(pid: u32, from: usize) -> impl Iterator<Item = Result<AreaInfo, Errno>> {
    let mut from = from;
    core::iter::from_fn(move || {
        let mut area = match area(pid, from) {
            Err(Errno::ENOENT) => return None,
            other => other,
        };
        if let Ok(area) = &mut area {
            while area.to < area.end {
                match self::area(pid, area.to as usize) {
                    Ok(part) if part.start < area.end => area.add(&part),
                    // The area has changed meanwhile.
                    _ => break,
                }
            }
        }
        // After an error the iteration ends.
        from = area.map_or(usize::MAX, |area| area.end as usize);
        Some(area)
    })
}

/// A part of the first area of a process that ends after an address; ENOENT if there is none. Other users' processes
/// may require machine control.
pub fn area(pid: u32, from: usize) -> Result<AreaInfo, Errno> {
    with_control(pid, kind::AREA, from)
}

/// Page blocks of the zone whose [`info::ZoneInfo`] is record number `zone`, from the number `from` on; ENOENT after
/// the last one.
pub fn page_blocks(zone: u32, from: usize) -> Result<PageBlocks, Errno> {
    record_of(zone, kind::PAGE_BLOCKS, from)
}

/// What the frames of a zone's page blocks are used for; the arguments are those of [`page_blocks`].
pub fn block_use(zone: u32, from: usize) -> Result<BlockUse, Errno> {
    record_of(zone, kind::BLOCK_USE, from)
}

/// The translation of an address in a process; 0 is the caller. An address of the kernel's half requires machine
/// control.
pub fn translation(pid: u32, address: usize) -> Result<TranslationInfo, Errno> {
    with_control(pid, kind::TRANSLATION, address)
}

/// A record about a process, requested with machine control.
fn with_control<T: Pod + Default>(pid: u32, kind: usize, index: usize) -> Result<T, Errno> {
    let mut record = T::default();
    let args = [kind, index, &raw mut record as usize, size_of::<T>(), pid as usize, control() as usize];
    // SAFETY: the kernel writes a record of the size given, of a type that may hold any bytes.
    unsafe { sys::call(nr::QUIRE_INFO, args) }?;
    Ok(record)
}

fn record_of<T: Pod + Default>(pid: u32, kind: usize, index: usize) -> Result<T, Errno> {
    record_about(pid as usize, kind, index)
}

fn record_about<T: Pod + Default>(what: usize, kind: usize, index: usize) -> Result<T, Errno> {
    let mut record = T::default();
    let args = [kind, index, &raw mut record as usize, size_of::<T>(), what];
    // SAFETY: the kernel writes a record of the size given, of a type that may hold any bytes.
    unsafe { sys::call(nr::QUIRE_INFO, args) }?;
    Ok(record)
}

/// The control groups, by number.
pub fn groups() -> impl Iterator<Item = GroupInfo> {
    let mut from = 1;
    core::iter::from_fn(move || {
        let group: GroupInfo = record(from).ok()?;
        from = (group.key & 0xffff) as usize + 1;
        Some(group)
    })
}

/// Reclaim's lists of a node, for the control group with this key, or for pages of no group (0). ENOENT.
pub fn lists(group: u64, node: usize) -> Result<ListsInfo, Errno> {
    record_about(group as usize, kind::LISTS, node)
}

/// A process in detail. ESRCH if there is none with this number.
pub fn detail(pid: u32) -> Result<ProcessDetail, Errno> {
    record_of(pid, kind::DETAIL, 0)
}

/// The thread of a process with this number, or else with the next higher one; ENOENT if there is none.
pub fn thread_from(pid: u32, tid: u32) -> Result<ThreadInfo, Errno> {
    record_of(pid, kind::THREAD, tid as usize)
}

/// The descriptor of a process with this number, or else with the next higher one; ENOENT if there is none.
pub fn descriptor_from(pid: u32, number: u32) -> Result<DescriptorInfo, Errno> {
    record_of(pid, kind::DESCRIPTOR, number as usize)
}

/// Reads what exec has placed in a process's memory, one of [`text`](quire_abi::process::text), from an offset on;
/// returns 0 at its end.
pub fn process_text(pid: u32, which: usize, offset: usize, buffer: &mut [u8]) -> Result<usize, Errno> {
    let args = [pid as usize, which, offset, buffer.as_mut_ptr() as usize, buffer.len()];
    // SAFETY: the kernel writes only within the buffer.
    unsafe { sys::call(nr::QUIRE_PROCESS_TEXT, args) }
}

/// Sets a thread's name, NUL-padded.
pub fn set_thread_name(tid: u32, name: &[u8; 16]) -> Result<(), Errno> {
    let args = [control() as usize, tid as usize, set::NAME, name.as_ptr() as usize];
    // SAFETY: the kernel reads 16 bytes.
    unsafe { sys::call(nr::QUIRE_PROCESS_SET, args) }.map(drop)
}

/// Sets the adjustment of a process for the OOM killer. EACCES if it is below the minimum that a privileged process has
/// set, and `is_privileged` is false.
pub fn set_oom_score_adj(pid: u32, adj: i32, is_privileged: bool) -> Result<(), Errno> {
    let biased = usize::try_from(adj + 1000).map_err(|_| Errno::EINVAL)?;
    sys::plain!(nr::QUIRE_PROCESS_SET, control(), pid, set::OOM_SCORE_ADJ, biased, is_privileged as usize).map(drop)
}

/// The value of a counter of vmstat; `None` if there is none of this name.
pub fn counter(name: &str) -> Option<u64> {
    records::<Counter>().find(|counter| text(&counter.name) == name).map(|counter| counter.value)
}

/// Counters by their names, from one reading of all; 0 for a counter that does not exist.
pub fn counters<const N: usize>(names: [&str; N]) -> [u64; N] {
    let mut values = [0; N];
    for counter in records::<Counter>() {
        if let Some(at) = names.iter().position(|name| *name == text(&counter.name)) {
            values[at] = counter.value;
        }
    }
    values
}

/// The machine as a whole.
pub fn system() -> Result<info::SystemInfo, Errno> {
    record(0)
}

/// Reads the kernel's log from `offset` on; returns 0 at its end.
pub fn log(buffer: &mut [u8], offset: usize) -> Result<usize, Errno> {
    // SAFETY: the kernel writes only within the buffer.
    unsafe { sys::call(nr::QUIRE_LOG, [buffer.as_mut_ptr() as usize, buffer.len(), offset]) }
}

/// Counts of kernel resources that must be the same before and after a program.
pub fn books() -> Result<Books, Errno> {
    let mut books = Books::default();
    // SAFETY: the kernel writes one record.
    unsafe { sys::call(nr::QUIRE_BOOKS, [control() as usize, &raw mut books as usize, size_of::<Books>()]) }?;
    Ok(books)
}

/// Compares all page tables with the reverse mapping of all user pages. Programs that run meanwhile may cause
/// differences.
pub fn audit() -> Result<MapAudit, Errno> {
    let mut audit = MapAudit::default();
    // SAFETY: the kernel writes one record.
    unsafe { sys::call(nr::QUIRE_AUDIT, [control() as usize, &raw mut audit as usize, size_of::<MapAudit>()]) }?;
    Ok(audit)
}

/// Allocates all of a contiguous memory area and frees it; returns its number of pages, or EBUSY if pages are in use.
pub fn try_cma(area: usize) -> Result<usize, Errno> {
    sys::plain!(nr::QUIRE_CMA_TRY, control(), area)
}

/// Compacts all memory; returns how many page blocks of 2 MiB were emptied.
pub fn compact() -> Result<usize, Errno> {
    sys::plain!(nr::QUIRE_COMPACT, control())
}

/// Makes this thread's `n`th allocation in the kernel from now on fail, in a call or in a fault; 0 cancels that.
/// Returns how many allocations were left until the failure requested before: 0 if it has happened or was not
/// requested.
pub fn fail_nth(n: u32) -> Result<u32, Errno> {
    sys::plain!(nr::QUIRE_FAIL_NTH, control(), n).map(|left| left as u32)
}

/// Switches the machine off; under an emulator `status` becomes its exit status. Returns only on an error.
pub fn poweroff(status: i32) -> Errno {
    match sys::plain!(nr::QUIRE_POWEROFF, control(), status) {
        Err(error) => error,
        Ok(_) => Errno::EIO,
    }
}

/// `reboot` with a command of [`flags::reboot`]; returns on an error, or if the command has no effect.
pub fn reboot(command: u32) -> Result<(), Errno> {
    sys::plain!(nr::REBOOT, flags::reboot::MAGIC1, flags::reboot::MAGIC2[0], command).map(drop)
}

/// Names of system and machine.
pub fn uname() -> Result<Utsname, Errno> {
    let mut names = Utsname::default();
    // SAFETY: the kernel writes one record.
    unsafe { sys::call(nr::UNAME, [&raw mut names as usize]) }?;
    Ok(names)
}

/// Memory, load and time since start, as Linux counts them.
pub fn sysinfo() -> Result<Sysinfo, Errno> {
    let mut info = Sysinfo::default();
    // SAFETY: the kernel writes one record.
    unsafe { sys::call(nr::SYSINFO, [&raw mut info as usize]) }?;
    Ok(info)
}

/// Sets the machine's name, or its NIS domain.
pub fn set_uname(name: &[u8], is_domain: bool) -> Result<(), Errno> {
    let number = if is_domain { nr::SETDOMAINNAME } else { nr::SETHOSTNAME };
    // SAFETY: the kernel reads `name.len()` bytes.
    unsafe { sys::call(number, [name.as_ptr() as usize, name.len()]) }.map(drop)
}

/// Random bytes.
pub fn random_bytes() -> Result<[u8; 16], Errno> {
    let mut bytes = [0; 16];
    // SAFETY: the kernel writes at most `bytes.len()` bytes.
    unsafe { sys::call(nr::GETRANDOM, [bytes.as_mut_ptr() as usize, bytes.len(), 0]) }?;
    Ok(bytes)
}

/// A random number.
pub fn random() -> Result<u32, Errno> {
    let mut bytes = [0; 4];
    // SAFETY: the kernel writes at most `bytes.len()` bytes.
    unsafe { sys::call(nr::GETRANDOM, [bytes.as_mut_ptr() as usize, bytes.len(), 0]) }?;
    Ok(u32::from_ne_bytes(bytes))
}

/// The text of a NUL-padded field, up to bytes that are not UTF-8.
pub fn text(field: &[u8]) -> &str {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    match core::str::from_utf8(&field[..end]) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&field[..error.valid_up_to()]).unwrap_or(""),
    }
}

/// A setting's value ([`flags::setting`]). With `new`, sets it and returns the old value.
pub fn setting(which: usize, new: Option<usize>) -> Result<usize, Errno> {
    sys::plain!(nr::QUIRE_SETTING, control(), which, new.unwrap_or(flags::setting::READ))
}
