//! `cargo xtask malloc`: builds the allocator's two C libraries and prints their paths, one a line.
//!
//! The static library is for AArch64 Linux programs; rustc puts its own memcpy and such beside the allocator, which
//! would take the place of libc's faster ones in the final link, so the archive is written anew without them. The
//! shared library is for LD_PRELOAD on an x86_64 host.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use object::read::archive::ArchiveFile;
use object::{Object, ObjectSymbol};

use crate::cargo::{self, USER_TARGET, Workspace};
use crate::lock;
use crate::output;

const HOST_TARGET: &str = "x86_64-unknown-linux-gnu";
/// Cargo's profile for libraries that leave this workspace.
const PROFILE: &str = "malloc";

/// Builds both libraries.
pub fn malloc() -> Result<u8> {
    let workspace = Workspace::find()?;
    let _lock = lock::exclusive(&workspace.out)?;
    let made = library(&workspace, "quire-malloc-static", USER_TARGET, "a")?;
    let archive = fs::read(&made).with_context(|| format!("reading {}", made.display()))?;
    let out = workspace.out.join("malloc");
    fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let path = out.join("libquire_malloc.a");
    output::write(&path, without_builtins(&archive)?)?;
    println!("{}", path.display());
    println!("{}", library(&workspace, "quire-malloc-preload", HOST_TARGET, "so")?.display());
    Ok(0)
}

/// Builds a package that is a library for other languages; returns its file with that extension.
fn library(workspace: &Workspace, package: &str, target: &str, extension: &str) -> Result<PathBuf> {
    let cargo = workspace.cargo(&["build", "--profile", PROFILE, "--package", package, "--target", target]);
    let sources = workspace.root.join("user/malloc");
    let made = cargo::artifacts(&format!("building {package}"), cargo)?.into_iter();
    let ours = made.filter(|artifact| artifact.manifest_path.as_std_path().starts_with(&sources));
    let file = ours.flat_map(|artifact| artifact.filenames).find(|file| file.extension() == Some(extension));
    Ok(file.with_context(|| format!("{package} made no .{extension} file"))?.into())
}

/// An object in an archive, and the names that it defines for others.
struct Member<'data> {
    data: &'data [u8],
    names: Vec<&'data [u8]>,
}

/// The same archive without the members of rustc's compiler_builtins.
fn without_builtins(archive: &[u8]) -> Result<Vec<u8>> {
    let mut members = Vec::new();
    for member in ArchiveFile::parse(archive)?.members() {
        let member = member?;
        if member.name().starts_with(b"compiler_builtins") {
            continue;
        }
        let data = member.data(archive)?;
        let object = object::File::parse(data)?;
        // (`is_definition` leaves out thread-local variables.)
        let defined = object.symbols().filter(|s| s.is_global() && !s.is_undefined());
        let names = defined.map(|s| s.name_bytes()).collect::<Result<_, _>>()?;
        members.push(Member { data, names });
    }
    ensure!(!members.is_empty(), "the archive holds nothing but compiler_builtins");
    Ok(write_archive(&members))
}

/// Writes an archive in the System V format: an index of names first, then the objects.
fn write_archive(members: &[Member<'_>]) -> Vec<u8> {
    let count: usize = members.iter().map(|m| m.names.len()).sum();
    let names: usize = members.iter().flat_map(|m| &m.names).map(|name| name.len() + 1).sum();
    let index_len = even(4 + 4 * count + names);

    let mut index = (count as u32).to_be_bytes().to_vec();
    let mut at = MAGIC.len() + HEADER + index_len;
    for member in members {
        for _ in &member.names {
            index.extend((at as u32).to_be_bytes());
        }
        at += HEADER + even(member.data.len());
    }
    for name in members.iter().flat_map(|m| &m.names) {
        index.extend_from_slice(name);
        index.push(0);
    }

    let mut archive = MAGIC.to_vec();
    append(&mut archive, "/", &index);
    for (i, member) in members.iter().enumerate() {
        append(&mut archive, &format!("quire{i}.o/"), member.data);
    }
    archive
}

const MAGIC: &[u8] = b"!<arch>\n";
/// The length of a member's header.
const HEADER: usize = 60;

fn even(len: usize) -> usize {
    len.next_multiple_of(2)
}

fn append(archive: &mut Vec<u8>, name: &str, data: &[u8]) {
    // Name, date, owner, group, mode, size, end mark. All but the name and the size are fixed, so that builds repeat.
    let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, even(data.len()));
    debug_assert_eq!(header.len(), HEADER);
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(data);
    archive.resize(even(archive.len()), b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_written_is_read_back_with_its_index() {
        let (one, two) = (b"first".as_slice(), b"second".as_slice());
        let members =
            [Member { data: one, names: vec![b"malloc", b"free"] }, Member { data: two, names: vec![b"sbrk"] }];
        let bytes = write_archive(&members);
        let read = ArchiveFile::parse(&*bytes).unwrap();
        let data: Vec<_> = read.members().map(|m| m.unwrap().data(&*bytes).unwrap()).collect();
        assert_eq!(data, [b"first\n".as_slice(), two]);

        let index: Vec<_> = read.symbols().unwrap().unwrap().map(Result::unwrap).collect();
        let names: Vec<_> = index.iter().map(|s| s.name()).collect();
        assert_eq!(names, [b"malloc".as_slice(), b"free", b"sbrk"]);
        let held = |i: usize| read.member(index[i].offset()).unwrap().data(&*bytes).unwrap();
        assert_eq!((held(1), held(2)), (b"first\n".as_slice(), two));
    }

    #[test]
    fn an_archive_of_many_members_is_one_too() {
        let members: Vec<_> = (0..1200).map(|_| Member { data: b"some", names: vec![b"name"] }).collect();
        let bytes = write_archive(&members);
        assert_eq!(ArchiveFile::parse(&*bytes).unwrap().members().filter(Result::is_ok).count(), 1200);
    }
}
