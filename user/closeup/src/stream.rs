//! The stream of statistics between a machine and its view: frames, each a head and a payload (docs/view.md).
//!
//! Most payloads are records of the kernel's as `QUIRE_INFO` gives them, one behind the other, and the frame has their kind. So the machine spends
//! nothing on words, and the reader has the types of `quire-abi`.

use alloc::vec::Vec;

use quire_abi::layout::Pod;

/// What the reader and the writer must have in common. It changes with each change of a record or of a frame.
pub const VERSION: u64 = 1;

/// Bytes of a head.
pub const HEAD: usize = 16;

/// The longest payload.
pub const PAYLOAD_MAX: usize = 32 << 10;

const MAGIC: u16 = 0x7651;

/// Kinds of frames beside those of `quire_abi::info::kind`.
pub mod kind {
    /// From the machine: it is there. [`about`](super::Head::about) is the [`VERSION`](super::VERSION).
    pub const HELLO: u16 = 0x100;
    /// A picture begins; `about` is its number. The payload is [`Begin`](super::Begin).
    pub const BEGIN: u16 = 0x101;
    /// It is complete.
    pub const END: u16 = 0x102;
    /// A question cannot be answered: `about` is its number, the payload the errno (8 bytes).
    pub const ERROR: u16 = 0x103;
    /// Areas of a process, in parts: `about` is its number; and from here on all of them were sent.
    pub const AREAS_END: u16 = 0x104;

    /// To the machine: `about` pictures in 10 seconds from now on; 0: none.
    pub const RATE: u16 = 0x200;
    /// The frames of the page block with the number `about` in each picture; `u64::MAX`: of none.
    pub const ZOOM: u16 = 0x201;
    /// The areas of the process `about` first.
    pub const PROCESS: u16 = 0x202;
    /// The translation of an address; `about` is the question's number, the payload the process (0: the kernel) and the address (8 bytes each).
    /// A frame of [`TRANSLATION`](quire_abi::info::kind::TRANSLATION), or of [`ERROR`], with the same number answers it.
    pub const WALK: u16 = 0x203;
}

/// The start of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Begin {
    /// Nanoseconds since power-on.
    pub at: u64,
    /// Pictures in 10 seconds.
    pub rate: u64,
    /// The process that writes the stream: its number.
    pub pid: u64,
}

// SAFETY: a `repr(C)` record of integers of one size, so there is no padding.
unsafe impl Pod for Begin {}

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The kind: of [`kind`], or of `quire_abi::info::kind`.
    pub kind: u16,
    /// Bytes that follow.
    pub len: usize,
    /// What it is about: for records the first one's index, or what the fifth argument of `QUIRE_INFO` was.
    pub about: u64,
}

impl Head {
    /// Its bytes.
    pub fn to_bytes(self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..2].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&(self.len as u32).to_le_bytes());
        bytes[8..].copy_from_slice(&self.about.to_le_bytes());
        bytes
    }

    /// From bytes; `None` if it is none, or too long.
    pub fn from_bytes(bytes: &[u8; HEAD]) -> Option<Self> {
        let [m0, m1, k0, k1, l0, l1, l2, l3, about @ ..] = *bytes;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let is_one = u16::from_le_bytes([m0, m1]) == MAGIC && len <= PAYLOAD_MAX;
        is_one.then_some(Self { kind: u16::from_le_bytes([k0, k1]), len, about: u64::from_le_bytes(about) })
    }
}

/// A frame as bytes, for a writer that sends few.
pub fn frame(kind: u16, about: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(Head { kind, len: payload.len(), about }.to_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The records of a payload; what is left at its end is no record.
pub fn records<T: Pod>(payload: &[u8]) -> impl Iterator<Item = T> {
    payload.chunks_exact(size_of::<T>()).map(|bytes| {
        // SAFETY: as many bytes as the record has, which may have any bytes and need not be aligned here.
        unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
    })
}

/// Puts frames together from pieces as they come.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
}

impl Reader {
    /// Takes the next piece, and gives each frame that is complete to `each`. What is no head is skipped, byte by byte, until there is one.
    pub fn push(&mut self, piece: &[u8], mut each: impl FnMut(Head, &[u8])) {
        self.bytes.extend_from_slice(piece);
        let mut at = 0;
        while let Some(head) = self.bytes[at..].first_chunk() {
            let Some(head) = Head::from_bytes(head) else {
                at += 1;
                continue;
            };
            let Some(payload) = self.bytes.get(at + HEAD..at + HEAD + head.len) else { break };
            each(head, payload);
            at += HEAD + head.len;
        }
        self.bytes.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<(Head, Vec<u8>)> {
        let (mut reader, mut seen) = (Reader::default(), Vec::new());
        pieces.iter().for_each(|piece| reader.push(piece, |head, payload| seen.push((head, payload.to_vec()))));
        seen
    }

    #[test]
    fn frames_come_back_whatever_the_pieces() {
        let begin = Begin { at: 7, rate: 50, pid: 9 };
        let bytes = [frame(kind::BEGIN, 3, quire_abi::layout::bytes_of(&begin)), frame(kind::END, 3, &[])].concat();
        for size in 1..bytes.len() {
            let seen = read(&bytes.chunks(size).collect::<Vec<_>>());
            assert_eq!(seen.len(), 2);
            assert_eq!((seen[0].0.kind, seen[0].0.about, seen[1].0.kind), (kind::BEGIN, 3, kind::END));
            assert_eq!(records::<Begin>(&seen[0].1).collect::<Vec<_>>(), [begin]);
        }
    }

    #[test]
    fn a_reader_finds_the_next_frame_behind_rubbish() {
        let good = frame(kind::ERROR, 1, &[5; 8]);
        let mut too_long = frame(kind::ERROR, 2, &[]);
        too_long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(&[b"rubbish", &good, &too_long, &good]).len(), 2);
    }
}
