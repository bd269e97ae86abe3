//! The boot options that check every object, and the room that they need in its cell. [`debug`](super::debug) acts on
//! them.

use crate::slab::report::Track;

bitflags::bitflags! {
    /// The checks.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct DebugFlags: u32 {
        /// Double frees, also delayed ones.
        const CHECKS = 1 << 0;
        /// Writes before and behind an object.
        const RED_ZONE = 1 << 1;
        /// Writes to free objects.
        const POISON = 1 << 2;
        /// The call sites of an object's allocation and free.
        const TRACK = 1 << 3;
        /// Injected allocation failures.
        const INJECT = 1 << 4;
        /// The flags that change the layout of objects.
        const LAYOUT = Self::CHECKS.bits() | Self::RED_ZONE.bits() | Self::POISON.bits() | Self::TRACK.bits();
    }
}

impl DebugFlags {
    /// From `slub_debug=`: letters as on Linux; without letters, all checks except INJECT. The letters end at a comma,
    /// after which Linux has names of caches. Unknown letters are ignored ([`DebugFlags::unknown_letter`]).
    pub fn from_letters(argument: &str) -> DebugFlags {
        let letters = letters(argument);
        if letters.is_empty() {
            return Self::LAYOUT;
        }
        letters.bytes().fold(Self::empty(), |flags, letter| match letter.to_ascii_uppercase() {
            b'F' => flags | Self::CHECKS,
            b'Z' => flags | Self::RED_ZONE,
            b'P' => flags | Self::POISON,
            b'U' => flags | Self::TRACK,
            _ => flags,
        })
    }

    /// The first letter of `slub_debug=` that has no meaning here.
    pub fn unknown_letter(argument: &str) -> Option<char> {
        letters(argument).chars().find(|letter| !"FZPU".contains(letter.to_ascii_uppercase()))
    }
}

/// Without the list of caches.
fn letters(argument: &str) -> &str {
    argument.split(',').next().unwrap_or_default()
}

/// The number of bytes after the link: the state, and two tracks if they are recorded.
pub(super) fn bytes_behind_link(flags: DebugFlags) -> usize {
    match flags {
        flags if flags.contains(DebugFlags::TRACK) => size_of::<usize>() + 2 * size_of::<Track>(),
        flags if flags.intersects(DebugFlags::LAYOUT) => size_of::<usize>(),
        _ => 0,
    }
}
