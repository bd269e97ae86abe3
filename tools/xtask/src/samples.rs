//! Malformed and unusual ELF files, and scripts, for the test program `elf`: the exit status of each tells what it did.
//!
//! Most add up bytes of their own memory, which shows how the kernel mapped them. The test has the sums.

/// Where the first segment lies, with the headers and, at [`CODE`], the code.
const BASE: u64 = 0x40_0000;
/// Where the code is in the file.
const CODE: u64 = 0x200;
/// Where the segment under test lies.
const DATA: u64 = 0x41_0000;

/// The end of user space.
const TOP: u64 = 1 << 48;

const EXEC: u16 = 2;
const DYN: u16 = 3;
const LOAD: u32 = 1;
const INTERP: u32 = 3;
const GNU_PROPERTY: u32 = 0x6474_e553;
const R: u32 = 4;
const RW: u32 = 6;
const RX: u32 = 5;

/// A program header.
#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file: u64,
    memory: u64,
    align: u64,
}

const fn segment(flags: u32, offset: u64, address: u64, file: u64, memory: u64) -> Segment {
    Segment { kind: LOAD, flags, offset, address, file, memory, align: 0x1000 }
}

impl Segment {
    fn bytes(&self) -> Vec<u8> {
        let words = [self.offset, self.address, self.address, self.file, self.memory, self.align];
        let head = [self.kind, self.flags];
        head.iter().flat_map(|w| w.to_le_bytes()).chain(words.iter().flat_map(|w| w.to_le_bytes())).collect()
    }
}

/// A file under construction.
struct Sample {
    kind: u16,
    entry: u64,
    segments: Vec<Segment>,
    /// Bytes at offsets, behind the headers.
    body: Vec<(usize, Vec<u8>)>,
    size: usize,
    /// Wrong bytes at offsets of the file header.
    patches: Vec<(usize, Vec<u8>)>,
}

impl Sample {
    /// A program that adds up the bytes at `addresses`, with further segments and bytes.
    fn sum(addresses: &[u64], segments: &[Segment], body: &[(usize, u8)]) -> Self {
        let mut all = vec![segment(RX, 0, BASE, 0x1000, 0x1000)];
        all.extend(segments);
        let mut bytes = vec![(CODE as usize, sum_of(addresses))];
        bytes.extend(body.iter().map(|(at, byte)| (*at, vec![*byte])));
        Self { kind: EXEC, entry: BASE + CODE, segments: all, body: bytes, size: 0x4000, patches: Vec::new() }
    }

    fn patched(at: usize, bytes: &[u8]) -> Self {
        Self { patches: vec![(at, bytes.to_vec())], ..Self::sum(&[BASE + 1], &[], &[]) }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let u16s = |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
        u16s(&mut file, &[self.kind, 183]);
        file.extend(1u32.to_le_bytes());
        [self.entry, 64, 0].iter().for_each(|v| file.extend(v.to_le_bytes()));
        file.extend(0u32.to_le_bytes());
        u16s(&mut file, &[64, 56, self.segments.len() as u16, 0, 0, 0]);
        self.segments.iter().for_each(|s| file.extend(s.bytes()));
        file.resize(self.size.max(CODE as usize), 0);
        for (at, bytes) in self.body.iter().chain(&self.patches) {
            file[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        file
    }
}

fn words(instructions: &[u32]) -> Vec<u8> {
    instructions.iter().flat_map(|i| i.to_le_bytes()).collect()
}

/// `mov xR, #value`, in four instructions.
fn mov(register: u32, value: u64) -> [u32; 4] {
    let piece = |i: u32| (value >> (16 * i)) as u32 & 0xffff;
    let first = [0xd280_0000, 0xf280_0000, 0xf280_0000, 0xf280_0000];
    [0, 1, 2, 3].map(|i| first[i as usize] | i << 21 | piece(i) << 5 | register)
}

/// `exit(x0)`.
fn exit() -> Vec<u32> {
    [&mov(8, 93)[..], &[0xd400_0001]].concat()
}

fn sum_of(addresses: &[u64]) -> Vec<u8> {
    let mut code = mov(0, 0).to_vec();
    for address in addresses {
        code.extend(mov(1, *address));
        // ldrb w2, [x1]; add x0, x0, x2
        code.extend([0x3940_0022, 0x8b02_0000]);
    }
    code.extend(exit());
    words(&code)
}

/// A position-independent program that exits with bits 12 to 15 of its own address.
fn aligned(align: u64) -> Sample {
    // adr x0, .; ubfx x0, x0, #12, #4
    let code = [&[0x1000_0000, 0xd34c_3c00][..], &exit()].concat();
    let segments = [segment(RX, 0, 0, 0x1000, 0x1000), segment(RW, 0x1000, 0x1_1000, 0x100, 0x100)];
    Sample {
        kind: DYN,
        entry: CODE,
        segments: segments.map(|s| Segment { align, ..s }).to_vec(),
        body: vec![(CODE as usize, words(&code))],
        size: 0x2000,
        patches: Vec::new(),
    }
}

/// A program with a segment at `data` that handles a signal, without a word on where the handler returns to, and exits with 5.
fn signalled(data: u64) -> Sample {
    let call = |number: u64| [&mov(8, number)[..], &[0xd400_0001]].concat();
    let action = [&mov(0, 10)[..], &mov(1, data + 0x20), &mov(2, 0), &mov(3, 8), &call(134)].concat();
    let kill = [&call(172)[..], &mov(1, 10), &call(129)].concat();
    // ldrb w0, [x1]; exit(w0); the handler: ret
    let code = [&action[..], &kill, &mov(1, data + 0x10), &[0x3940_0020], &exit(), &[0xd65f_03c0]].concat();
    let handler = BASE + CODE + 4 * (code.len() as u64 - 1);
    let mut sample = Sample::sum(&[], &[segment(RW, 0x1000, data, 0x100, 0x100)], &[(0x1010, 5)]);
    sample.body.extend([(CODE as usize, words(&code)), (0x1020, handler.to_le_bytes().to_vec())]);
    sample
}

/// A program that exits with 21 and names an interpreter.
fn interpreted(by: &str) -> Sample {
    let mut name = by.as_bytes().to_vec();
    name.push(0);
    let len = name.len() as u64;
    let names = Segment { kind: INTERP, ..segment(R, 0x800, BASE + 0x800, len, len) };
    let mut sample = Sample::sum(&[DATA + 0x10], &[names, segment(RW, 0x1000, DATA, 0x100, 0x100)], &[(0x1010, 21)]);
    sample.body.push((0x800, name));
    sample
}

/// A program that exits with 69 and has a note of properties of this size, whose one property says that it has `len` bytes.
fn with_properties(size: u64, len: u32) -> Sample {
    let note = Segment { kind: GNU_PROPERTY, ..segment(R, 0x900, BASE + 0x900, size, size) };
    let words = [4, 16, 5, u32::from_le_bytes(*b"GNU\0"), 0xc000_0000, len, 0, 0];
    let mut sample = Sample::sum(&[BASE + 1], &[note], &[]);
    sample.body.push((0x900, words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect()));
    sample
}

/// An interpreter that goes on to the program, if AT_BASE is where it lies; else it exits with 99.
fn loader() -> Sample {
    let code = [
        // The auxiliary vector is behind the arguments and the environment: x9.
        0x910003e9, 0xf8408521, 0x8b010d29, 0x91002129, 0xf8408521, 0xb5ffffe1,
        // x3: AT_BASE, x4: AT_ENTRY
        0xa8c10921, 0xf1001c3f, 0x9a830043, 0xf100243f, 0x9a840044, 0xb5ffff61,
        // adr x5, (its first byte); cmp x3, x5; b.ne 1f; br x4; 1: mov x0, #99
        0x10ffee85, 0xeb05007f, 0x54000041, 0xd61f0080, 0xd2800c60,
    ];
    Sample { body: vec![(CODE as usize, words(&[&code[..], &exit()].concat()))], ..aligned(0x1000) }
}

const SCRIPTS: &[(&str, &str)] = &[
    ("script", "#! /etc/elf/plain\t \nnot read"),
    ("script-script", "#!/etc/elf/script"),
    ("script-arguments", "#!/tests/elf  one  word \n"),
    ("script-circle", "#!/etc/elf/script-circle\n"),
    ("script-missing", "#!/etc/elf/no-such-file\n"),
    ("script-nothing", "#!  \n"),
];

/// All files, by name.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let data = |file, memory| segment(RW, 0x1000, DATA, file, memory);
    let parts = [segment(R, 0, BASE, 0x200, 0x200), segment(RX, 0x200, BASE + 0x200, 0x200, 0x200)];
    let mut unsorted = Sample::sum(&[DATA + 0x10], &[data(0x100, 0x100)], &[(0x1010, 11)]);
    unsorted.segments.reverse();
    let no_load = Segment { kind: 0, ..segment(R, 0, 0, 0, 0) };
    let stray = Segment { kind: 6, ..segment(R, 64, u64::MAX - 7, 112, 112) };
    let bytes: &[(usize, u8)] = &[(0x1010, 4), (0x1080, 0x20), (0x1fff, 0x63)];
    [
        ("plain", Sample::sum(&[DATA + 0x10], &[data(0x100, 0x100)], &[(0x1010, 5)])),
        (
            "past-end",
            Sample {
                size: 0x1040,
                ..Sample::sum(&[DATA + 0x10, DATA + 0x80], &[data(0x3000, 0x3000)], &[(0x1010, 6)])
            },
        ),
        ("past-end-touched", Sample { size: 0x1040, ..Sample::sum(&[DATA + 0x1000], &[data(0x3000, 0x3000)], &[]) }),
        (
            "bss-past-end",
            Sample { size: 0x1040, ..Sample::sum(&[DATA], &[segment(RW, 0x3000, DATA, 0x10, 0x20)], &[]) },
        ),
        (
            "shared-page",
            Sample { segments: parts.to_vec(), ..Sample::sum(&[BASE + 0x300, BASE + 1], &[], &[(0x300, 7)]) },
        ),
        ("same-twice", Sample::sum(&[DATA + 0x10], &[data(0x1000, 0x1000); 2], &[(0x1010, 9)])),
        (
            "overlapping",
            Sample::sum(
                &[DATA + 0x10],
                &[data(0x1000, 0x1000), segment(RW, 0x2000, DATA, 0x1000, 0x1000)],
                &[(0x1010, 9), (0x2010, 10)],
            ),
        ),
        ("unsorted", unsorted),
        ("bss-only", Sample::sum(&[DATA + 0x10, DATA + 0x1fff], &[segment(RW, 0x7000, DATA, 0, 0x2000)], &[])),
        ("empty", Sample::sum(&[BASE + 1], &[segment(RW, 0, 0, 0, 0)], &[])),
        ("bss-tail", Sample::sum(&[DATA + 0x10, DATA + 0x80, DATA + 0x1000], &[data(0x18, 0x1800)], bytes)),
        ("behind-bss", Sample::sum(&[DATA + 0x10, DATA + 0x80], &[data(0x18, 0x40)], bytes)),
        ("behind-file", Sample::sum(&[DATA + 0x10, DATA + 0x80], &[data(0x18, 0x18)], bytes)),
        ("odd-offset", Sample::sum(&[DATA], &[segment(RW, 0x1010, DATA, 0x100, 0x100)], &[])),
        ("less-memory", Sample::sum(&[DATA], &[data(0x100, 0x50)], &[])),
        ("huge-memory", Sample::sum(&[BASE + 1], &[data(0x100, 1 << 46)], &[])),
        ("memory-wraps", Sample::sum(&[BASE + 1], &[data(0x100, 0u64.wrapping_sub(0x1000))], &[])),
        ("kernel-address", Sample::sum(&[BASE + 1], &[segment(RW, 0x1000, 0xffff << 48, 0x100, 0x100)], &[])),
        ("top-page", signalled(TOP - 0x1000)),
        (
            "top-stack",
            Sample::sum(
                &[TOP - 0x200_0000 + 0x10],
                &[segment(RW, 0x1000, TOP - 0x200_0000, 0x100, 0x180_0000)],
                &[(0x1010, 5)],
            ),
        ),
        ("top-all", Sample::sum(&[TOP - 1], &[segment(RW, 0, TOP - (1 << 30), 0, 1 << 30)], &[])),
        ("no-load", Sample { segments: vec![no_load], ..Sample::sum(&[BASE], &[], &[]) }),
        ("stray-phdr", Sample { segments: [&[stray][..], &aligned(0x1_0000).segments].concat(), ..aligned(0x1_0000) }),
        ("aligned", aligned(0x1_0000)),
        ("align-not-power", Sample::sum(&[DATA + 0x10], &[Segment { align: 3, ..data(0x100, 0x100) }], &[(0x1010, 5)])),
        ("sections-beyond", Sample::patched(40, &0x700_0000u64.to_le_bytes())),
        ("sections-odd", Sample::patched(58, &[3, 0, 5, 0, 4, 0])),
        ("class", Sample::patched(4, &[1])),
        ("version", Sample::patched(20, &[7])),
        ("header-size", Sample::patched(54, &[57, 0])),
        ("header-count", Sample::patched(56, &[0xe8, 0xfd])),
        ("machine", Sample::patched(18, &[62, 0])),
        ("entry-nowhere", Sample::patched(24, &[0; 8])),
        ("entry-odd", Sample::patched(24, &(BASE + CODE + 2).to_le_bytes())),
        ("entry-kernel", Sample::patched(24, &0xffff_0000_0008_0000u64.to_le_bytes())),
        ("loader", loader()),
        ("interpreted", interpreted("/etc/elf/loader")),
        // It lies where the program does.
        ("interpreter-over", interpreted("/etc/elf/plain")),
        ("properties", with_properties(32, 4)),
        ("properties-wrong", with_properties(32, 8)),
        ("properties-cut", with_properties(32, 9)),
        ("properties-long", with_properties(0x2000, 4)),
        ("far-offset", Sample::sum(&[BASE + 1], &[segment(RW, 1 << 63, DATA, 0x100, 0x100)], &[])),
        ("interpreter-missing", interpreted("/etc/elf/no-such-file")),
        ("interpreter-short", interpreted("/etc/elf/script")),
        ("interpreter-script", interpreted("/etc/elf/script-long")),
        ("interpreter-directory", interpreted("/etc/elf")),
    ]
    .into_iter()
    .map(|(name, sample)| (name, sample.bytes()))
    .chain([("short", b"\x7fELF\x02\x01\x01".to_vec()), ("nothing", Vec::new())])
    .chain([("script-long", [b"#!/".to_vec(), vec![b'x'; 300], b"\n".to_vec()].concat())])
    .chain(SCRIPTS.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())))
    .collect()
}
