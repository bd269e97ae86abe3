//! Scripts: a file that begins with `#!` is run by the interpreter that its first line names, as by Linux's binfmt_script.

use quire_abi::Errno;

/// What a first line may have, `#!` included (Linux's BINPRM_BUF_SIZE). What is beyond it is not seen.
pub const LINE: usize = 256;

/// Interpreters of interpreters, at most, until the program itself.
pub const DEEPEST: usize = 5;

/// The interpreter that a script names, and the one argument for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script<'a> {
    /// A path.
    pub interpreter: &'a [u8],
    /// The rest of the line, blanks inside it included.
    pub argument: Option<&'a [u8]>,
}

impl<'a> Script<'a> {
    /// Of a file's beginning, more than [`LINE`] bytes if it has them. `None` for a file that is no script. ENOEXEC for one that
    /// names no interpreter, or one with too long a name.
    pub fn parse(file: &'a [u8]) -> Result<Option<Self>, Errno> {
        let Some(rest) = file.strip_prefix(b"#!") else { return Ok(None) };
        let seen = &rest[..rest.len().min(LINE - 2)];
        let end = seen.iter().position(|&b| b == b'\n' || b == 0);
        let line = trim(&seen[..end.unwrap_or(seen.len())]);
        let name_len = line.iter().position(is_blank);
        let is_cut = end.is_none() && seen.len() < rest.len() && name_len.is_none();
        let (interpreter, rest) = line.split_at(name_len.unwrap_or(line.len()));
        if interpreter.is_empty() || is_cut {
            return Err(Errno::ENOEXEC);
        }
        let rest = trim(rest);
        Ok(Some(Self { interpreter, argument: (!rest.is_empty()).then_some(rest) }))
    }
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Without blanks at either end.
fn trim(text: &[u8]) -> &[u8] {
    let first = text.iter().position(|byte| !is_blank(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_blank(byte)).map_or(first, |last| last + 1);
    &text[first..end]
}
