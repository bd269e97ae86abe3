//! File systems on disks: what Quire writes, the host's tools read, and they find nothing wrong; and the other way
//! round.

use std::fs;
use std::path::{Path, PathBuf};

use crate::disks::{md5, partition, tool};
use crate::harness::{Machine, busybox, compile};

const SECTOR: usize = 512;

/// A file for a disk or partition.
fn path_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Runs a program of the host's, which must succeed; what it prints.
#[track_caller]
fn host(name: &str, arguments: &[&str]) -> Vec<u8> {
    let done = tool(name).env("LC_ALL", "C.UTF-8").env("MTOOLS_SKIP_CHECK", "1").args(arguments).output();
    let done = done.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(done.status.success(), "{name} {arguments:?}: {done:?}");
    done.stdout
}

/// Makes a FAT of `kib` KiB in a file of its own.
fn make_fat(path: &Path, kib: usize, arguments: &[&str]) {
    let _ = fs::remove_file(path);
    let size = kib.to_string();
    host("mkfs.vfat", &[&["-C"], arguments, &[path.to_str().expect("a path"), &size]].concat());
}

/// Bytes that do not repeat soon.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(step).collect()
}

/// A FAT in a file, and what mtools call it.
struct Fat {
    path: PathBuf,
}

impl Fat {
    /// Part of a disk, copied.
    fn of(disk: &Path, name: &str, start: usize, sectors: usize) -> Self {
        let bytes = fs::read(disk).expect("the disk");
        let path = path_of(name);
        fs::write(&path, &bytes[start * SECTOR..(start + sectors) * SECTOR]).expect("the partition");
        Self { path }
    }

    fn image(&self) -> &str {
        self.path.to_str().expect("a path")
    }

    /// A file's content, as mtools read it.
    fn read(&self, file: &str) -> Vec<u8> {
        host("mtype", &["-i", self.image(), &format!("::{file}")])
    }

    fn put(&self, host_file: &Path, file: &str) {
        host("mcopy", &["-i", self.image(), host_file.to_str().expect("a path"), &format!("::{file}")]);
    }

    /// fsck.vfat finds nothing.
    #[track_caller]
    fn is_clean(&self) {
        host("fsck.vfat", &["-n", "-v", self.image()]);
    }
}

/// What is done to the file system at `$D`, which has `from-host.bin`. Every program is busybox's.
const COMMANDS: &str = r#"
B=/busybox
cd $D
$B md5sum from-host.bin FROM-HOST.BIN
$B mkdir -p "A directory with a long name/below it/Ελληνικά"
$B dd if=/noise of=big.bin bs=64k 2>/dev/null
$B cp big.bin "A directory with a long name/below it/copy of big.bin"
$B cmp big.bin "A directory with a long name/below it/copy of big.bin" && echo same
i=0; while [ $i -lt 120 ]; do echo "file $i" >"A directory with a long name/a file with number $i"; i=$((i+1)); done
$B rm "A directory with a long name/a file with number 7"
$B mv "A directory with a long name/a file with number 8" "A directory with a long name/below it/Übergrößenträger.txt"
echo first >replaced; echo second >other; $B mv other replaced; cat replaced
echo one >log; echo two >>log; $B cat log
$B truncate -s 5 log; $B wc -c <log
$B dd if=big.bin of=odd.bin bs=1000 count=77 2>/dev/null; echo tail | $B dd of=odd.bin bs=1 seek=100000 conv=notrunc 2>/dev/null
$B stat -c '%s %F %a' odd.bin "A directory with a long name"
ls "A directory with a long name" | $B wc -l
$B mkdir bin; $B cp /busybox bin/busybox; bin/busybox echo executed; $B cmp bin/busybox /busybox && echo whole
$B mkdir gone; $B rmdir gone; $B ls gone 2>/dev/null || echo gone
(echo x >"bad:name") 2>/dev/null || echo refused
$B ln -s a b 2>/dev/null || echo no links
cd /; $B grep -c "^/dev/block/[a-z0-9]* $D vfat rw 0 0$" /proc/mounts
$B md5sum $D/big.bin $D/odd.bin
$B sync
"#;

/// Runs the commands on a machine whose disk has a FAT in a partition, and reads the partition back.
fn written_and_read(name: &str, options: &[&str], script: &str, place: &str, kib: usize, arguments: &[&str]) {
    let disk = path_of(&format!("{name}.img"));
    fs::write(&disk, vec![0; 64 << 20]).expect("the disk is made");
    partition(&disk, script);
    let fat = Fat { path: path_of(&format!("{name}.fat")) };
    make_fat(&fat.path, kib, arguments);
    let given = noise(300_001, 1);
    let file = path_of(&format!("{name}.bin"));
    fs::write(&file, &given).expect("a file");
    fat.put(&file, "from-host.bin");
    let (start, sectors) = (32768, kib * 2);
    let mut bytes = fs::read(&disk).expect("the disk");
    bytes[start * SECTOR..(start + sectors) * SECTOR].copy_from_slice(&fs::read(&fat.path).expect("the file system"));
    fs::write(&disk, &bytes).expect("the disk");

    let options = [options, &["--disk", disk.to_str().expect("a path")]].concat();
    let root = path_of(&format!("{name}.root"));
    fs::create_dir_all(&root).expect("a directory");
    fs::write(root.join("commands"), COMMANDS).expect("the commands");
    fs::write(root.join("noise"), noise(3 << 20, 2)).expect("a file");
    let machine = Machine::new(&options).add(&busybox(), "/busybox").root(&root);
    let outcome = machine.exec(&format!("D={place} /busybox sh /commands"));
    let lines: Vec<_> = outcome.succeeded().lines().collect();
    let sum = md5(&given);
    let expected = [
        &*format!("{sum}  from-host.bin"),
        &*format!("{sum}  FROM-HOST.BIN"),
        "same",
        "second",
        "one",
        "two",
        "5",
        "100005 regular file 755",
        "0 directory 755",
        "119",
        "executed",
        "whole",
        "gone",
        "refused",
        "no links",
        "1",
    ];
    let [heads @ .., big, odd] = &lines[..] else { panic!("{outcome}") };
    assert_eq!(heads, expected, "{outcome}");

    let fat = Fat::of(&disk, &format!("{name}.after"), start, sectors);
    fat.is_clean();
    assert!(fat.read("/from-host.bin") == given, "{outcome}");
    let written = noise(3 << 20, 2);
    assert!(fat.read("/big.bin") == written, "{outcome}");
    assert_eq!(*big, format!("{}  {place}/big.bin", md5(&written)), "{outcome}");
    assert!(fat.read("/A directory with a long name/below it/copy of big.bin") == written, "{outcome}");
    let mut odd_bytes = written[..77_000].to_vec();
    odd_bytes.resize(100_000, 0);
    odd_bytes.extend(b"tail\n");
    assert!(fat.read("/odd.bin") == odd_bytes && odd.starts_with(&md5(&odd_bytes)), "{outcome}");
    assert_eq!(fat.read("/A directory with a long name/below it/Übergrößenträger.txt"), b"file 8\n");
    assert_eq!(fat.read("/A directory with a long name/a file with number 119"), b"file 119\n");
    assert_eq!((&fat.read("/replaced")[..], &fat.read("/log")[..]), (&b"second\n"[..], &b"one\nt"[..]));
    assert!(fat.read("/bin/busybox") == fs::read(busybox()).expect("busybox"), "{outcome}");
    let listed = host("mdir", &["-b", "-i", fat.image(), "::/A directory with a long name"]);
    assert_eq!(String::from_utf8_lossy(&listed).lines().count(), 119, "{outcome}");
}

#[test]
fn a_fat32_of_a_virtio_disk_is_written_and_the_host_reads_it() {
    let script = "label: gpt\n2048,2048,L\n32768,81920,U\n";
    written_and_read("fat32", &["--smp", "4"], script, "/disk", 40 << 10, &["-F", "32", "-s", "1"]);
}

#[test]
fn the_second_partition_of_a_card_is_written_and_the_host_reads_it() {
    let script = "label: dos\n2048,30720,83\n32768,81920,0c\n";
    written_and_read("card-fat", &["--board", "rpi4"], script, "/sd", 40 << 10, &["-F", "16"]);
}

/// On the whole disk. What was changed is written back soon, without sync, and at the end of `--exec`.
#[test]
fn a_disk_without_a_table_is_mounted_and_what_is_changed_is_written_back() {
    let fat = Fat { path: path_of("whole.img") };
    make_fat(&fat.path, 1440, &["-F", "12"]);
    let machine = Machine::new(&["--disk", fat.image()]).add(&busybox(), "/busybox");
    let outcome = machine.exec(
        "B=/busybox; echo text >/disk/file; $B sleep 2; cat /disk/file; \
         /busybox df -k /disk | $B tail -n1 | $B grep -o '^[^ ]*'; echo end >/disk/last",
    );
    assert_eq!(outcome.succeeded(), "text\n/dev/block/vda\n", "{outcome}");
    fat.is_clean();
    assert_eq!((&fat.read("/file")[..], &fat.read("/last")[..]), (&b"text\n"[..], &b"end\n"[..]));
}

/// What a Pi boots from is not written.
#[test]
fn the_boot_partition_is_for_reading() {
    let disk = path_of("boots.img");
    fs::write(&disk, vec![0; 16 << 20]).expect("the disk is made");
    partition(&disk, "label: dos\n2048,16384,0c\n");
    let fat = Fat { path: path_of("boots.fat") };
    make_fat(&fat.path, 8 << 10, &["-F", "16", "-s", "1"]);
    let file = path_of("boots.txt");
    fs::write(&file, "enable_uart=1\n").expect("a file");
    fat.put(&file, "start4.elf");
    fat.put(&file, "config.txt");
    let mut bytes = fs::read(&disk).expect("the disk");
    bytes[2048 * SECTOR..18432 * SECTOR].copy_from_slice(&fs::read(&fat.path).expect("the file system"));
    fs::write(&disk, &bytes).expect("the disk");
    let options = ["--board", "rpi4", "--disk", disk.to_str().expect("a path")];
    let machine = Machine::new(&options).add(&busybox(), "/busybox");
    let outcome = machine.exec(
        "cat /boot/firmware/CONFIG.TXT; echo x 2>/dev/null >/boot/firmware/config.txt || echo no; \
         /busybox rm /boot/firmware/config.txt 2>/dev/null || echo no; ls /disk /sd",
    );
    assert_eq!(outcome.succeeded(), "enable_uart=1\nno\nno\n/disk:\n/sd:\n", "{outcome}");
    assert!(fs::read(&disk).expect("the disk") == bytes, "the disk was written");
}

/// Two files share a cluster: both can be read, and nothing is written.
#[test]
fn a_damaged_fat_is_read_and_never_written() {
    let fat = Fat { path: path_of("crossed.img") };
    make_fat(&fat.path, 16 << 10, &["-F", "16", "-a", "-R", "1", "-s", "4", "-f", "1"]);
    let file = path_of("crossed.bin");
    fs::write(&file, noise(10_000, 3)).expect("a file");
    fat.put(&file, "one");
    fat.put(&file, "two");
    let mut bytes = fs::read(&fat.path).expect("the disk");
    // (Both have five clusters, from the second on.) The chain of the first one leads into that of the second.
    let entry = SECTOR + 2 * 3;
    bytes[entry..entry + 2].copy_from_slice(&9u16.to_le_bytes());
    fs::write(&fat.path, &bytes).expect("the disk");
    let machine = Machine::new(&["--disk", fat.image()]).add(&busybox(), "/busybox");
    let outcome = machine.exec(
        "/busybox md5sum </disk/two; /busybox wc -c </disk/one; echo x 2>/dev/null >/disk/three || echo no; \
         /busybox rm -f /disk/one 2>/dev/null || echo no; ls -1 /disk",
    );
    let said = "fat: a file system is damaged (errors: 1) and remains read-only";
    let rest: Vec<_> = outcome.succeeded().lines().filter(|line| !line.contains("damaged")).collect();
    assert_eq!(rest, [&*format!("{}  -", md5(&noise(10_000, 3))), "10000", "no", "no", "one", "two"], "{outcome}");
    assert!(outcome.all().contains(said.split(" (").next().expect("a part")), "{outcome}");
    assert!(fs::read(&fat.path).expect("the disk") == bytes, "the disk was written");
}

/// The server is killed while files are written: the next one mounts the disk again, and what it finds is whole.
#[test]
fn a_server_that_is_killed_is_started_again() {
    let fat = Fat { path: path_of("killed-fat.img") };
    make_fat(&fat.path, 32 << 10, &["-F", "16"]);
    let machine = Machine::new(&["--smp", "4", "--disk", fat.image()]).add(&busybox(), "/busybox");
    let script = "echo kept >/disk/kept; $B sync; \
        (i=0; while [ $i -lt 200 ]; do $B cp /init /disk/copy$((i%5)) 2>/dev/null; i=$((i+1)); done) & \
        for i in 1 2; do $B sleep 1; $B kill -9 $($B pidof fat); done; wait; \
        until echo again >/disk/again 2>/dev/null; do $B sleep 1; done; $B sync; cat /disk/kept /disk/again";
    let outcome = machine.exec(&format!("B=/busybox /busybox sh -c '{script}'"));
    let told: Vec<_> = outcome.succeeded().lines().filter(|line| ["kept", "again"].contains(line)).collect();
    assert_eq!(told, ["kept", "again"], "{outcome}");
    assert_eq!((&fat.read("/kept")[..], &fat.read("/again")[..]), (&b"kept\n"[..], &b"again\n"[..]));
}

/// A file that is larger than memory is changed by a shared mapping and by write, and the host finds each byte; twice,
/// with a program that is executed from the disk.
#[test]
fn a_file_larger_than_memory_is_mapped_changed_and_written_back() {
    const LEN: usize = 60 << 20;
    let fat = Fat { path: path_of("mapped.img") };
    make_fat(&fat.path, 128 << 10, &["-F", "32"]);
    let file = path_of("mapped.bin");
    let mut bytes = noise(LEN, 5);
    fs::write(&file, &bytes).expect("a file");
    fat.put(&file, "large");
    fat.put(&compile("mapped.c"), "mapped");
    let machine = Machine::new(&["--mem", "64M", "--smp", "2", "--disk", fat.image()]).add(&busybox(), "/busybox");
    let outcome = machine.exec("/busybox md5sum </disk/large; /disk/mapped /disk/large; /busybox md5sum </disk/large");
    let before = md5(&bytes);
    for page in 0..LEN / 4096 {
        bytes[page * 4096 + 5] = (page * 7) as u8;
        if page % 3 == 0 {
            bytes[page * 4096 + 4000] = (page * 5) as u8;
        }
    }
    let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
    assert_eq!(outcome.succeeded(), format!("{before}  -\nsum {sum}\n{}  -\n", md5(&bytes)), "{outcome}");
    fat.is_clean();
    assert!(fat.read("/large") == bytes, "{outcome}");
}

/// Seeking, mapping, cutting, appending, syncing, and what is left of a file that was removed while it was open.
#[test]
fn a_program_uses_a_file_on_a_disk_as_on_linux() {
    let fat = Fat { path: path_of("stored.img") };
    make_fat(&fat.path, 1440, &["-F", "12"]);
    let machine =
        Machine::new(&["--mem", "64M", "--smp", "1", "--disk", fat.image()]).add(&compile("stored.c"), "/stored");
    let outcome = machine.exec("/stored /disk/file; ls /disk");
    let expected = "write 10000\nend 10000\nmapped 1\nzeros behind it 1\nprivate 1\nsecond page 1\nshared 1\nshared 1\nmsync 0\n\
        allocate -95\ncut 0\nend 5\nfar -27\nappend 3\nappend 3\nat 11\nread 11\nabcdeonetwo\nfsync 0\nfdatasync 0\nsyncfs 0\n\
        unlink 0\nremoved 1\nremoved 1\ngone -2\nreplaced 3\nfile\n";
    assert_eq!(outcome.succeeded(), expected, "{outcome}");
    fat.is_clean();
}
