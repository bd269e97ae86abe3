//! QEMU's CPUs: which of them can run Quire.
//!
//! QEMU puts a CPU of 32 bits into a machine without complaint, and the kernel cannot say a word on it. So QEMU is asked
//! about the CPU first, over its monitor protocol, QMP.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::QEMU;

/// What a CPU is for Quire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Suitable,
    /// It has no AArch64 state.
    Narrow,
    Unknown,
}

/// Refuses a CPU that QEMU does not have, or that has only 32 bits. QEMU must be installed.
pub fn check(option: &str) -> Result<()> {
    // Features may follow the name; QEMU itself complains about those.
    let name = option.split(',').next().unwrap_or_default();
    let why = match kind(name)? {
        Kind::Suitable => return Ok(()),
        Kind::Narrow => "a CPU of 32 bits",
        Kind::Unknown => "QEMU has no such CPU",
    };
    bail!("--cpu {name}: {why}; Quire needs AArch64, as cortex-a53, cortex-a72, neoverse-n1 or max have it");
}

fn kind(name: &str) -> Result<Kind> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Ok(Kind::Unknown);
    }
    let mut qemu = Command::new(QEMU);
    qemu.args(["-M", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"]);
    let mut qemu = qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting QEMU")?;
    let questions = format!(
        r#"{{"execute":"qmp_capabilities"}}
{{"execute":"query-cpu-model-expansion","arguments":{{"type":"full","model":{{"name":"{name}"}}}},"id":"cpu"}}
{{"execute":"quit"}}
"#
    );
    qemu.stdin.take().context("QEMU's input")?.write_all(questions.as_bytes())?;
    Ok(answer(&String::from_utf8_lossy(&qemu.wait_with_output()?.stdout)))
}

/// Reads QEMU's answer, a line among others. Without one, QEMU's own complaint about the machine has to do.
fn answer(said: &str) -> Kind {
    match said.lines().find(|line| line.contains(r#""id": "cpu""#)) {
        Some(line) if line.contains(r#""error": "#) => Kind::Unknown,
        Some(line) if !line.contains(r#""aarch64": true"#) => Kind::Narrow,
        _ => Kind::Suitable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_qemu_are_understood() {
        let greeting = r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#;
        let says = |line: &str| answer(&format!("{greeting}\n{{\"return\": {{}}}}\n{line}\n"));
        let narrow = r#"{"return": {"model": {"name": "cortex-a15", "props": {"pmu": true}}}, "id": "cpu"}"#;
        let wide = r#"{"return": {"model": {"name": "max", "props": {"aarch64": true, "pmu": true}}}, "id": "cpu"}"#;
        let unknown = r#"{"id": "cpu", "error": {"class": "GenericError", "desc": "The CPU type is not recognized"}}"#;
        assert_eq!((says(narrow), says(wide), says(unknown)), (Kind::Narrow, Kind::Suitable, Kind::Unknown));
        assert_eq!(says(""), Kind::Suitable);
    }
}
