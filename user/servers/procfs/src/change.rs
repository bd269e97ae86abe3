//! The effects of writing to files.

use quire_abi::Errno;

use crate::process::Subject;

/// Changes a property of a process or thread to the value in a text; `is_root` is whether the writer is root.
pub type Change = fn(&Subject<'_>, text: &[u8], is_root: bool) -> Result<(), Errno>;

/// comm: threads of the same process may change it. If the text is longer, its first 15 bytes are used.
pub fn comm(of: &Subject<'_>, text: &[u8], _: bool) -> Result<(), Errno> {
    if of.facts.caller().0 != of.process.pid {
        return Err(Errno::EINVAL);
    }
    let mut name = [0; 16];
    let len = text.iter().take(name.len() - 1).take_while(|byte| **byte != 0).count();
    name[..len].copy_from_slice(&text[..len]);
    of.facts.set_name(of.thread.map_or(of.process.pid, |thread| thread.tid), &name)
}

/// oom_score_adj.
pub fn oom_score_adj(of: &Subject<'_>, text: &[u8], is_root: bool) -> Result<(), Errno> {
    let adj = number(text).filter(|adj| (-1000..=1000).contains(adj)).ok_or(Errno::EINVAL)?;
    of.facts.set_oom_score_adj(of.process.pid, adj as i32, is_root)
}

/// The only number in a text.
pub fn number(text: &[u8]) -> Option<i64> {
    core::str::from_utf8(text).ok()?.trim_ascii().parse().ok()
}
