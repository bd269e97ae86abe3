//! The boot archive: an uncompressed cpio in the "newc" form, laid out so that the kernel can map it.
//!
//! The data of every regular file that has any starts at a multiple of [`PAGE`] from the start of the archive, and
//! zeros fill its last page. So the kernel can map the archive's own frames as the pages of its files, and no program
//! sees bytes beyond the end of a file. Before the data this is plain newc: `namesize` includes the NULs that pad the
//! name to the page boundary. After the data it is not: the next header is at the next multiple of `PAGE` instead of
//! the next multiple of four, so a reader rounds up to that, or skips zeros until the next magic, as GNU cpio does.
//!
//! Directories come before what is in them, everything belongs to root and no time is recorded: the same
//! files always give the same archive.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

/// The alignment of file data.
pub const PAGE: usize = 4096;

const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";

enum Entry {
    Directory { mode: u32 },
    File { data: Vec<u8>, mode: u32 },
    Symlink { target: String },
}

/// The permissions of a directory that nobody said anything about.
const DIRECTORY_MODE: u32 = 0o755;

impl Entry {
    fn mode(&self) -> u32 {
        match self {
            Entry::Directory { mode } => 0o040000 | mode,
            Entry::File { mode, .. } => 0o100000 | mode,
            Entry::Symlink { .. } => 0o120777,
        }
    }
}

/// An archive under construction. Paths have no leading slash. A later file or link replaces an earlier one of its path;
/// a directory stays one, and so does a file, or what lies below would be lost.
#[derive(Default)]
pub struct Archive {
    // A directory's path is a prefix of its files' and so comes before them.
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Puts in a regular file and the directories above it.
    pub fn file(&mut self, path: &str, data: Vec<u8>, executable: bool) -> Result<()> {
        self.file_with_mode(path, data, if executable { 0o755 } else { 0o644 })
    }

    /// The same with these permissions.
    pub fn file_with_mode(&mut self, path: &str, data: Vec<u8>, mode: u32) -> Result<()> {
        self.insert(path, Entry::File { data, mode: mode & 0o7777 })
    }

    /// Whether there is something of this path.
    pub fn has(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// Puts in a symbolic link and the directories above it.
    pub fn symlink(&mut self, path: &str, target: String) -> Result<()> {
        self.insert(path, Entry::Symlink { target })
    }

    /// Puts in a directory and those above it.
    pub fn directory(&mut self, path: &str) -> Result<()> {
        self.directory_with_mode(path, DIRECTORY_MODE)
    }

    /// The same with these permissions.
    pub fn directory_with_mode(&mut self, path: &str, mode: u32) -> Result<()> {
        self.insert(path, Entry::Directory { mode: mode & 0o7777 })
    }

    fn insert(&mut self, path: &str, entry: Entry) -> Result<()> {
        let above = path.match_indices('/').map(|(slash, _)| &path[..slash]);
        for directory in above.clone() {
            let is_free = self.entries.get(directory).is_none_or(|there| matches!(there, Entry::Directory { .. }));
            ensure!(is_free, "/{path} has no place in the boot archive: /{directory} is not a directory there");
        }
        if let Some(there) = self.entries.get(path) {
            let [was, becomes] = [there, &entry].map(|entry| matches!(entry, Entry::Directory { .. }));
            ensure!(!was || becomes, "/{path} is a directory of the boot archive: name a file in it, as /{path}/FILE");
            ensure!(was || !becomes, "/{path} is a file of the boot archive, and cannot be a directory");
        }
        for directory in above {
            self.entries.entry(directory.to_owned()).or_insert(Entry::Directory { mode: DIRECTORY_MODE });
        }
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }

    /// The archive's bytes, a whole number of pages.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (path, entry)) in self.entries.iter().enumerate() {
            let data: &[u8] = match entry {
                Entry::Directory { .. } => &[],
                Entry::File { data, .. } => data,
                Entry::Symlink { target } => target.as_bytes(),
            };
            let links = if matches!(entry, Entry::Directory { .. }) { 2 } else { 1 };
            let paged = matches!(entry, Entry::File { .. }) && !data.is_empty();
            let grain = if paged { PAGE } else { 4 };
            put_header(&mut out, path, number + 1, entry.mode(), links, data.len(), grain);
            out.extend_from_slice(data);
            pad(&mut out, grain);
        }
        put_header(&mut out, TRAILER, 0, 0, 1, 0, 4);
        pad(&mut out, PAGE);
        out
    }
}

/// Appends a header and a name such that the data, which comes next, starts at a multiple of `grain`.
fn put_header(out: &mut Vec<u8>, name: &str, inode: usize, mode: u32, links: u32, size: usize, grain: usize) {
    let name_at = out.len() + HEADER;
    let data_at = (name_at + name.len() + 1).next_multiple_of(grain);
    // Below a page the alignment is the format's own padding, which namesize does not count.
    let name_size = if grain == PAGE { data_at - name_at } else { name.len() + 1 };
    let fields = [inode, mode as usize, 0, 0, links as usize, 0, size, 0, 0, 0, 0, name_size, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.resize(data_at, 0);
}

fn pad(out: &mut Vec<u8>, grain: usize) {
    out.resize(out.len().next_multiple_of(grain), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Read {
        name: String,
        mode: u32,
        data_at: usize,
        data: Vec<u8>,
    }

    /// Reads an archive by the rule of the module head, independently of the writer's arithmetic.
    fn read(bytes: &[u8]) -> Vec<Read> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            while bytes[at] == 0 {
                at += 1;
            }
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |i: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + i * 8..at + 14 + i * 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1) as u32, field(6), field(11));
            let name = &bytes[at + HEADER..at + HEADER + name_size];
            let name = name[..name.iter().position(|&b| b == 0).unwrap()].to_vec();
            let data_at = (at + HEADER + name_size).next_multiple_of(4);
            at = data_at + size;
            if name == TRAILER.as_bytes() {
                assert!(bytes[at..].iter().all(|&b| b == 0));
                return entries;
            }
            let data = bytes[data_at..at].to_vec();
            entries.push(Read { name: String::from_utf8(name).unwrap(), mode, data_at, data });
        }
    }

    #[test]
    fn file_data_fills_whole_pages() {
        let mut archive = Archive::default();
        for size in [0, 1, 4095, 4096, 4097, 20000] {
            archive.file(&format!("bin/program-{size}"), vec![0xa5; size], true).unwrap();
        }
        archive.file(&"n".repeat(250), vec![1; 100], false).unwrap();
        let bytes = archive.to_bytes();
        assert_eq!(bytes.len() % PAGE, 0);
        let mut files = 0;
        for entry in read(&bytes).iter().filter(|e| e.mode & 0o170000 == 0o100000 && !e.data.is_empty()) {
            assert_eq!(entry.data_at % PAGE, 0, "{}", entry.name);
            let end = entry.data_at + entry.data.len();
            assert!(bytes[end..end.next_multiple_of(PAGE)].iter().all(|&b| b == 0), "{}", entry.name);
            files += 1;
        }
        assert_eq!(files, 6);
    }

    #[test]
    fn entries_keep_kind_mode_and_order() {
        let mut archive = Archive::default();
        archive.file("etc/motd", b"old".to_vec(), false).unwrap();
        archive.file("etc/motd", b"hello\n".to_vec(), false).unwrap();
        archive.file("a/b/run", b"x".to_vec(), true).unwrap();
        archive.symlink("bin/sh", "../init".into()).unwrap();
        archive.directory("tmp").unwrap();
        let entries = read(&archive.to_bytes());
        let seen: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.mode, e.data.as_slice())).collect();
        let expected: &[(&str, u32, &[u8])] = &[
            ("a", 0o040755, b""),
            ("a/b", 0o040755, b""),
            ("a/b/run", 0o100755, b"x"),
            ("bin", 0o040755, b""),
            ("bin/sh", 0o120777, b"../init"),
            ("etc", 0o040755, b""),
            ("etc/motd", 0o100644, b"hello\n"),
            ("tmp", 0o040755, b""),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_tree_s_modes_are_kept() {
        let mut archive = Archive::default();
        archive.directory_with_mode("root", 0o40700).unwrap();
        archive.file_with_mode("root/key", b"x".to_vec(), 0o100600).unwrap();
        archive.file_with_mode("root/run", b"x".to_vec(), 0o104755).unwrap();
        archive.file("root/plain", b"x".to_vec(), false).unwrap();
        let modes: Vec<_> = read(&archive.to_bytes()).iter().map(|entry| entry.mode).collect();
        assert_eq!(modes, [0o040700, 0o100600, 0o100644, 0o104755]);
        assert!(archive.has("root/key") && !archive.has("key"));
    }

    /// An entry that took the place of a directory would leave its files without one.
    #[test]
    fn a_directory_stays_a_directory_and_a_file_a_file() {
        let mut archive = Archive::default();
        archive.file("bin/sh", b"x".to_vec(), true).unwrap();
        let before = archive.to_bytes();
        let said = archive.file("bin", b"y".to_vec(), false).unwrap_err().to_string();
        assert!(said.contains("/bin is a directory"), "{said}");
        assert!(archive.symlink("bin", "sh".into()).is_err());
        let said = archive.file("bin/sh/a/b", b"y".to_vec(), false).unwrap_err().to_string();
        assert!(said.contains("/bin/sh is not a directory"), "{said}");
        assert!(archive.directory("bin/sh").is_err());
        assert!(archive.to_bytes() == before, "a refused entry leaves nothing");
        archive.directory("bin").unwrap();
    }
}
