//! Replays the files named, or standard input: what AFL++ and honggfuzz start once for each input.

use std::io::Read;

fn main() -> std::io::Result<()> {
    let mut files = std::env::args_os().skip(1).peekable();
    if files.peek().is_none() {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        quire_malloc_replay::replay(&bytes);
    }
    for file in files {
        quire_malloc_replay::replay(&std::fs::read(file)?);
    }
    Ok(())
}
