//! ls: names in directories; `-l` with type, permissions, links and size, `-a` with those that start with a dot.

#![no_std]
#![no_main]

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;

use quire_bin::{Options, show};
use quire_rt::abi::layout::{at, mode};
use quire_rt::abi::names::device_parts;
use quire_rt::{Errno, eprintln, fs, io, print, println, tty};

extern crate alloc;

quire_rt::entry!(main);

fn main() -> i32 {
    let options = match Options::parse("la1d", "ls [-la1d] [PATH...]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    let here = [c"."];
    let paths = if options.operands.is_empty() { &here[..] } else { &options.operands };
    let mut status = 0;
    for path in paths {
        if let Err(error) = list(path, &options, paths.len() > 1) {
            io::flush();
            eprintln!("ls: {}: {error}", path.to_string_lossy());
            status = 1;
        }
    }
    status
}

fn list(path: &CStr, options: &Options, headed: bool) -> Result<(), Errno> {
    let stat = fs::stat(path, at::SYMLINK_NOFOLLOW)?;
    if stat.mode & mode::FMT != mode::DIR || options.has('d') {
        return show_all(&[path.to_bytes().to_vec()], b"", options);
    }
    if headed {
        println!("{}:", path.to_string_lossy());
    }
    let mut names: Vec<Vec<u8>> = fs::read_dir(path)?.into_iter().map(|entry| entry.name).collect();
    names.retain(|name| options.has('a') || !name.starts_with(b"."));
    show_all(&names, &[path.to_bytes(), b"/"].concat(), options)
}

/// Shows names; `prefix` leads to where they are.
fn show_all(names: &[Vec<u8>], prefix: &[u8], options: &Options) -> Result<(), Errno> {
    if options.has('l') {
        return names.iter().try_for_each(|name| long(name, prefix));
    }
    let columns = tty::get(1).ok().map(|_| tty::size(1).map_or(80, |(columns, _)| columns));
    let width = names.iter().map(Vec::len).max().unwrap_or(0) + 2;
    let per_row = match columns {
        Some(columns) if !options.has('1') => (columns / width).max(1),
        _ => 1,
    };
    for row in names.chunks(per_row) {
        for (i, name) in row.iter().enumerate() {
            let pad = if i + 1 < row.len() { width - name.len() } else { 0 };
            print!("{}{:pad$}", show(name), "");
        }
        println!();
    }
    Ok(())
}

fn long(name: &[u8], prefix: &[u8]) -> Result<(), Errno> {
    let path = CString::new([prefix, name].concat()).map_err(|_| Errno::EINVAL)?;
    let stat = fs::stat(&path, at::SYMLINK_NOFOLLOW)?;
    let kind = match stat.mode & mode::FMT {
        mode::DIR => 'd',
        mode::LNK => 'l',
        mode::BLK => 'b',
        mode::CHR => 'c',
        mode::FIFO => 'p',
        mode::REG => '-',
        _ => '?',
    };
    print!("{kind}");
    for (i, letter) in "rwxrwxrwx".chars().enumerate() {
        print!("{}", if stat.mode & 0o400 >> i != 0 { letter } else { '-' });
    }
    print!(" {:3} ", stat.nlink);
    if matches!(kind, 'b' | 'c') {
        let (major, minor) = device_parts(stat.rdev);
        print!("{major:5},{minor:4} {}", show(name));
    } else {
        print!("{:10} {}", stat.size, show(name));
    }
    if kind == 'l' {
        print!(" -> {}", show(&fs::readlink(&path)?));
    }
    println!();
    Ok(())
}
