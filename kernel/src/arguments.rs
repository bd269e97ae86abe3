//! Kernel arguments: the known ones, and a report of those that have no effect.

use core::fmt;

use quire_platform::bootargs;

/// All arguments that the kernel reads.
const KNOWN: &[&str] = &[
    "cma",
    "console",
    "fail_page_alloc",
    "failslab",
    "kernelcore",
    "log",
    "loglevel",
    "min_free_kbytes",
    "movablecore",
    "norandmaps",
    "page_poison",
    #[cfg(feature = "selftest")]
    "selftest",
    "semihosting",
    "slab",
    "slice",
    "slub_debug",
    "swap",
    "transparent_hugepage",
    "vm.overcommit_kbytes",
    "vm.overcommit_memory",
    "vm.overcommit_ratio",
];

/// Those that take no value.
const BARE: &[&str] = &["norandmaps", "semihosting"];

/// How many known arguments fit into a line of the log.
const A_LINE: usize = 12;

/// The value of a kernel argument. An invalid one is logged and ignored.
pub fn argument<T>(args: &str, key: &str, form: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    debug_assert!(KNOWN.contains(&key), "{key} is not listed");
    let text = bootargs::find(args, key)?;
    let value = read(text);
    if value.is_none() {
        log::warn!("{key}={text}: not {form}");
    }
    value
}

/// Logs unknown arguments, a list of those that exist, and values that have no effect.
pub fn report_unknown(args: &str) {
    for (key, value) in bootargs::arguments(args).filter(|(key, _)| BARE.contains(key)) {
        if let Some(value) = value {
            log::warn!("{key}={value}: {key} takes no value; the value is ignored");
        }
    }
    let unknown = || bootargs::arguments(args).map(|(key, _)| key).filter(|key| !KNOWN.contains(key));
    if unknown().next().is_some() {
        log::warn!("unknown kernel arguments:{}", Words(unknown));
        for some in KNOWN.chunks(A_LINE) {
            log::info!("known kernel arguments:{}", Words(|| some.iter().copied()));
        }
    }
}

/// Words, each after a space.
struct Words<F>(F);

impl<'a, I: Iterator<Item = &'a str>, F: Fn() -> I> fmt::Display for Words<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)().try_for_each(|word| write!(f, " {word}"))
    }
}
