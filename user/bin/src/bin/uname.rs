//! uname: names of the system (`-s`), its node (`-n`), release (`-r`), version (`-v`), machine (`-m`); `-a` is all.

#![no_std]
#![no_main]

use quire_bin::Options;
use quire_rt::{eprintln, info, print, println};

quire_rt::entry!(main);

fn main() -> i32 {
    let options = match Options::parse_alone("asnrvm", &[], "uname [-asnrvm]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    let names = match info::uname() {
        Ok(names) => names,
        Err(error) => {
            eprintln!("uname: {error}");
            return 1;
        }
    };
    let fields = [
        ('s', &names.sysname),
        ('n', &names.nodename),
        ('r', &names.release),
        ('v', &names.version),
        ('m', &names.machine),
    ];
    let none = !"asnrvm".chars().any(|letter| options.has(letter));
    let mut separator = "";
    for (letter, field) in fields {
        if options.has('a') || options.has(letter) || none && letter == 's' {
            print!("{separator}{}", info::text(field));
            separator = " ";
        }
    }
    println!();
    0
}
