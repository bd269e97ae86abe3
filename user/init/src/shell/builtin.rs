//! Builtins: commands that the shell runs itself because they affect its own process, or so that they work when no
//! other can be made.

use alloc::ffi::CString;
use alloc::vec::Vec;

use quire_bin::basic;
use quire_rt::{eprintln, fs, io, println};
use quire_shell::help;

use super::launch::show;
use super::{Shell, Variable};

/// A command of the shell's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    Cd,
    Echo,
    Exec,
    Exit,
    Export,
    Help,
    Kill,
    Nothing,
    Ps,
    Pwd,
    Unset,
    Wait,
}

/// Their names, in order.
pub const NAMES: [(&str, Builtin); 12] = [
    (":", Builtin::Nothing),
    ("cd", Builtin::Cd),
    ("echo", Builtin::Echo),
    ("exec", Builtin::Exec),
    ("exit", Builtin::Exit),
    ("export", Builtin::Export),
    ("help", Builtin::Help),
    ("kill", Builtin::Kill),
    ("ps", Builtin::Ps),
    ("pwd", Builtin::Pwd),
    ("unset", Builtin::Unset),
    ("wait", Builtin::Wait),
];

const _: () = {
    let mut at = 0;
    while at < NAMES.len() {
        assert!(help::lists(NAMES[at].0), "a command that help does not list");
        at += 1;
    }
};

impl Builtin {
    /// The builtin of this name.
    pub fn find(name: &[u8]) -> Option<Builtin> {
        NAMES.iter().find(|(other, _)| other.as_bytes() == name).map(|(_, builtin)| *builtin)
    }
}

impl Shell {
    pub(super) fn run_builtin(&mut self, builtin: Builtin, arguments: &[Vec<u8>]) -> i32 {
        let operands = &arguments[1..];
        match builtin {
            // `exec` as a single command is handled where the process can be replaced; in a pipeline it has no effect.
            Builtin::Exec | Builtin::Nothing => 0,
            Builtin::Cd => self.cd(operands),
            Builtin::Exit => self.leave(operands),
            Builtin::Export => self.export(operands),
            Builtin::Echo => basic::echo(&words(operands)),
            Builtin::Help => show_help(operands),
            Builtin::Kill => basic::kill(&words(operands)),
            Builtin::Ps => basic::ps(&words(operands)),
            Builtin::Pwd => pwd(),
            Builtin::Unset => {
                operands.iter().for_each(|name| drop(self.variables.remove(name)));
                0
            }
            Builtin::Wait => self.wait(operands),
        }
    }

    fn cd(&mut self, operands: &[Vec<u8>]) -> i32 {
        let target = match operands {
            [] => b"/".to_vec(),
            [dash] if dash == b"-" => {
                self.variables.get(&b"OLDPWD"[..]).map_or(b"/".to_vec(), |variable| variable.value.clone())
            }
            [target] => target.clone(),
            _ => {
                eprintln!("cd: too many arguments");
                return 1;
            }
        };
        let before = fs::getcwd();
        match CString::new(&target[..]).map(|path| fs::chdir(&path)) {
            Ok(Ok(())) => {
                if let Ok(before) = before {
                    self.set(b"OLDPWD", before);
                }
                if let Ok(now) = fs::getcwd() {
                    self.set(b"PWD", now);
                }
                0
            }
            Ok(Err(error)) => {
                eprintln!("cd: {}: {error}", show(&target));
                1
            }
            Err(_) => {
                eprintln!("cd: {}: not a path", show(&target));
                1
            }
        }
    }

    fn leave(&mut self, operands: &[Vec<u8>]) -> i32 {
        let status = match operands.first().map(|text| number(text)) {
            None => self.status,
            Some(Some(status)) => status & 0xff,
            Some(None) => {
                eprintln!("exit: {}: not a number", show(&operands[0]));
                2
            }
        };
        self.exit = Some(status);
        status
    }

    fn export(&mut self, operands: &[Vec<u8>]) -> i32 {
        if operands.is_empty() {
            for (name, variable) in self.variables.iter().filter(|(_, variable)| variable.exported) {
                println!("export {}='{}'", show(name), show(&variable.value));
            }
        }
        for operand in operands {
            let mut halves = operand.splitn(2, |byte| *byte == b'=');
            let name = halves.next().unwrap_or_default();
            let value = halves.next();
            if name.is_empty() || !name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
                eprintln!("export: {}: not a name", show(name));
                return 1;
            }
            if value.is_some() || self.variables.contains_key(name) {
                let old = self.variables.remove(name).map(|variable| variable.value);
                let value = value.map(<[u8]>::to_vec).or(old).unwrap_or_default();
                self.variables.insert(name.to_vec(), Variable { value, exported: true });
            }
        }
        0
    }

    fn wait(&mut self, operands: &[Vec<u8>]) -> i32 {
        if operands.is_empty() {
            let all = self.children.running();
            self.children.wait_for(&all);
            return 0;
        }
        let mut status = 0;
        for operand in operands {
            status = match number(operand) {
                Some(pid) => self.children.wait_for_background(pid),
                None => {
                    eprintln!("wait: {}: not a process", show(operand));
                    2
                }
            };
        }
        status
    }
}

fn words(operands: &[Vec<u8>]) -> Vec<&[u8]> {
    operands.iter().map(|word| &word[..]).collect()
}

fn show_help(operands: &[Vec<u8>]) -> i32 {
    if operands.is_empty() {
        io::print_bytes(help::all().as_bytes());
    }
    let mut status = 0;
    for operand in operands {
        match help::of(&show(operand)) {
            Some(line) => io::print_bytes(line.as_bytes()),
            None => {
                eprintln!("help: {}: no such command", show(operand));
                status = 1;
            }
        }
    }
    status
}

fn pwd() -> i32 {
    match fs::getcwd() {
        Ok(path) => {
            io::print_bytes(&path);
            println!();
            0
        }
        Err(error) => {
            eprintln!("pwd: {error}");
            1
        }
    }
}

fn number(text: &[u8]) -> Option<i32> {
    core::str::from_utf8(text).ok()?.parse().ok()
}
