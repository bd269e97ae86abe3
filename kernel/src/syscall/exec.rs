//! Executing programs.

use alloc::vec::Vec;
use quire_abi::Errno;
use quire_abi::layout::at;
use quire_mm::UserAddr;
use quire_mm::fallible::{TryVec, try_zeroed};

use super::lookup::{Named, named};
use super::{Answer, Args};
use crate::arch::trap::TrapFrame;
use crate::ipc::descriptor::Object;
use crate::names::path::Path;
use crate::names::target::{Allows, Found};
use crate::names::walk::Request;
use crate::task::exec;
use crate::task::program::Program;
use crate::task::script::{self, Script};
use crate::task::startup::Strings;

pub fn execve(frame: &mut TrapFrame) -> Answer {
    let [path, args, env] = [0, 1, 2].map(|i| Args(&frame.x).addr(i));
    let path = Path::from_user(path)?;
    let program = Program::find(path.rest())?;
    start(frame, program, path.rest(), args, env)
}

/// As execve, for a path relative to a directory, or for the file of a descriptor.
pub fn execveat(frame: &mut TrapFrame) -> Answer {
    let a = Args(&frame.x);
    let (directory, flags) = (a.int(0), a.uint(4));
    let [text, args, env] = [1, 2, 3].map(|i| a.addr(i));
    if flags & !(at::SYMLINK_NOFOLLOW | at::EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let path = Path::from_user(text)?;
    let is_plain = directory == at::FDCWD || path.is_absolute();
    let found = match named(directory, text, flags, &Request::LOOKUP)? {
        Named::Object(Object::Archive(node)) => Found::Archive(node),
        Named::Object(Object::Memory(file)) => Found::File(file, Allows::NOTHING),
        Named::Object(Object::Name(name)) => Found::Name(name),
        Named::Object(_) => return Err(Errno::EACCES),
        Named::Reached(reached) => Found::of(reached)?,
    };
    let program = Program::of(found)?;
    let path = path.rest();
    if is_plain && !path.is_empty() {
        return start(frame, program, path, args, env);
    }
    if Script::parse(&beginning(&program)?)?.is_some() {
        // Its interpreter would have no path to it.
        return Err(Errno::ENOENT);
    }
    let mut name: Vec<u8> = TryVec::try_with_capacity(path.len() + 24)?;
    let mut digits = [0; 10];
    let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
    let number = decimal(directory.unsigned_abs(), &mut digits);
    for byte in [b"/dev/fd/", number, slash, path].into_iter().flatten() {
        name.try_push(*byte)?;
    }
    start(frame, program, &name, args, env)
}

/// The bytes that [`Script::parse`] examines, and one more if the file has it.
fn beginning(program: &Program) -> Result<Vec<u8>, Errno> {
    let mut beginning = try_zeroed(script::LINE + 1)?;
    let len = program.read(0, &mut beginning)?;
    beginning.truncate(len);
    Ok(beginning)
}

/// A number's digits.
fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 || first == 0 {
            return &digits[first..];
        }
    }
}

/// Starts a file, or the interpreter that it names.
fn start(frame: &mut TrapFrame, program: Program, path: &[u8], args: UserAddr, env: UserAddr) -> Answer {
    let mut args = Strings::from_user(args)?;
    if args.count() == 0 {
        // Programs rely on argv[0], so an empty list is replaced by an empty name, as on Linux.
        args.push(b"")?;
    }
    let env = Strings::from_user(env)?;
    let (program, args) = interpreter_of(program, path, args)?;
    exec::exec(&program, path, &args, &env, frame)?;
    // x0 of the new program, which the ABI leaves undefined.
    Ok(0)
}

/// The program that runs a file, and its arguments: for a script its interpreter, which may be a script itself. ELOOP.
fn interpreter_of(program: Program, path: &[u8], args: Strings) -> Result<(Program, Strings), Errno> {
    let (mut program, mut args) = (program, args);
    let mut name: Vec<u8> = TryVec::try_from_slice(path)?;
    for _ in 0..=script::DEEPEST {
        let line = beginning(&program)?;
        let Some(script) = Script::parse(&line)? else { return Ok((program, args)) };
        args = match script.argument {
            Some(argument) => args.for_interpreter(&[script.interpreter, argument, &name])?,
            None => args.for_interpreter(&[script.interpreter, &name])?,
        };
        name = TryVec::try_from_slice(script.interpreter)?;
        program = Program::find(&name)?;
    }
    Err(Errno::ELOOP)
}
