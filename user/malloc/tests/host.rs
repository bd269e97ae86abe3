//! Programs of the host under the library for LD_PRELOAD: what they print must not depend on the allocator.
//!
//! A test whose programs are missing on this machine is skipped with a line. `cargo xtask test` installs what it can
//! and names SQLite's speed test in QUIRE_SPEEDTEST1. With QUIRE_MALLOC_ROUNDS=N each program is also timed with either
//! allocator, N times in turn, and the middle one of the ratios (ours over libc's) is printed; nothing is asserted
//! about it.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Instant;

const SIGABRT: i32 = 6;
const SIGSEGV: i32 = 11;

/// The library, built as `cargo xtask malloc` does.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let target = "x86_64-unknown-linux-gnu";
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--profile", "malloc"]);
        cargo.args(["--package", "quire-malloc-preload", "--target", target]);
        assert!(cargo.status().expect("cargo starts").success(), "the library cannot be built");
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a directory in the target directory");
        out.join(target).join("malloc/libquire_malloc_preload.so")
    })
}

/// A directory of a test's own, empty.
fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("malloc-{name}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory");
    dir
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name)
}

/// Prints a line directly to standard error: the test runner hides the output of passing tests.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "malloc: {text}");
}

/// Whether all of these programs are there.
fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = programs.iter().find(|name| !std::env::split_paths(&path).any(|dir| dir.join(name).is_file()));
    missing.inspect(|name| say(&format!("skipped: there is no {name}"))).is_none()
}

/// Compiles a C program, if there is a compiler.
fn compile(source: &Path, dir: &Path, arguments: &[&str]) -> Option<PathBuf> {
    have(&["gcc"]).then(|| {
        let program = dir.join(source.file_stem().expect("a source has a name"));
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-fno-builtin", "-mno-red-zone", "-pthread", "-o"]).arg(&program).arg(source).args(arguments);
        assert!(gcc.status().expect("gcc starts").success(), "{} does not compile", source.display());
        program
    })
}

fn command(line: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(line[0]);
    command.args(&line[1..]).current_dir(dir);
    command
}

fn ours(line: &[&str], dir: &Path) -> Command {
    let mut command = command(line, dir);
    command.env("LD_PRELOAD", library());
    command
}

fn run(mut command: Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a program with either allocator; both must end well and print the same, as far as `what` picks it out.
fn same_by(name: &str, line: &[&str], dir: &Path, what: impl Fn(&str) -> String) {
    let theirs = run(command(line, dir));
    assert!(theirs.status.success(), "{name} without our library: {}", text(&theirs));
    let with_ours = run(ours(line, dir));
    assert!(with_ours.status.success(), "{name}: {} {}", with_ours.status, text(&with_ours));
    assert!(!what(&text(&theirs)).is_empty(), "{name} says nothing that could be compared");
    assert_eq!(what(&text(&with_ours)), what(&text(&theirs)), "{name}");
    time(name, line, dir);
}

fn same(name: &str, line: &[&str], dir: &Path) {
    same_by(name, line, dir, str::to_owned);
}

fn time(name: &str, line: &[&str], dir: &Path) {
    let Some(rounds) = std::env::var("QUIRE_MALLOC_ROUNDS").ok().and_then(|n| n.parse::<usize>().ok()) else { return };
    let seconds = |command: Command| {
        let start = Instant::now();
        run(command);
        start.elapsed().as_secs_f64()
    };
    let mut ratios: Vec<f64> = (0..rounds)
        .map(|round| {
            // The two take turns in going first.
            if round % 2 == 0 {
                let theirs = seconds(command(line, dir));
                seconds(ours(line, dir)) / theirs
            } else {
                let with_ours = seconds(ours(line, dir));
                with_ours / seconds(command(line, dir))
            }
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    if let Some(middle) = ratios.get(rounds / 2) {
        say(&format!("{name}: {middle:.3} of libc's time, middle of {rounds} pairs"));
    }
}

#[test]
fn python() {
    if have(&["python3"]) {
        let script = source("objects.py");
        let line = ["env", "PYTHONMALLOC=malloc", "python3", script.to_str().expect("a path of text")];
        same("python3", &line, &scratch("python"));
    }
}

#[test]
fn sqlite_shell() {
    if !have(&["sqlite3"]) {
        return;
    }
    let dir = scratch("sqlite");
    let mut sql = "create table t(a integer primary key, b text, c blob); begin;\n".to_owned();
    for i in 1..=6000 {
        sql += &format!("insert into t(b, c) values('row {i}', randomblob({}));\n", i % 900);
    }
    sql += "commit; create index i on t(b); select count(*), sum(length(c)), max(b) from t;
        select count(*) from t x join t y on x.b = y.b; delete from t where a % 3 = 0; vacuum; select count(*) from t;
        pragma integrity_check;\n";
    fs::write(dir.join("t.sql"), sql).expect("the script is written");
    same("sqlite3", &["sqlite3", ":memory:", ".read t.sql"], &dir);
}

#[test]
fn sqlite_speed_test() {
    let Some(source) = std::env::var_os("QUIRE_SPEEDTEST1").map(PathBuf::from) else {
        return say("skipped: QUIRE_SPEEDTEST1 does not name SQLite's speedtest1.c; sqlite_shell covers similar work");
    };
    let dir = scratch("speedtest1");
    if let Some(program) = compile(&source, &dir, &["-lsqlite3"]) {
        let program = program.to_str().expect("a path of text");
        let line = [program, "--memdb", "--verify", "--size", "40"];
        // Each line without the seconds at its end, and the hash over all results.
        let untimed =
            |line: &str| line.rsplit_once(' ').filter(|l| l.1.ends_with('s')).map_or(line, |l| l.0).to_owned();
        let results = |output: &str| output.lines().map(|line| untimed(line) + "\n").collect();
        same_by("speedtest1", &line, &dir, results);
    }
}

#[test]
fn git() {
    if !have(&["git", "sh"]) {
        return;
    }
    let dir = scratch("git");
    let repo = dir.join("repo");
    fs::create_dir(&repo).expect("a directory");
    for i in 1..=300u32 {
        let lines: String = (i..=i * 7).map(|n| format!("{n}\n")).collect();
        fs::write(repo.join(format!("f{i}")), lines).expect("a file is written");
    }
    let prepare = "git init -q . && git add . && git -c user.name=a -c user.email=a@b commit -qm one";
    assert!(run(command(&["sh", "-c", prepare], &repo)).status.success());
    same("git log", &["git", "log", "--stat"], &repo);
    same("git fsck", &["git", "fsck", "--full", "--root"], &repo);
    let repack = "rm -rf c && git clone -q repo c && git -C c repack -adq && git -C c count-objects -v | grep -c .";
    same("git repack", &["sh", "-c", repack], &dir);
}

#[test]
fn gcc() {
    if !have(&["gcc", "sh"]) {
        return;
    }
    let dir = scratch("gcc");
    let mut program = "#include <stdio.h>\n".to_owned();
    for i in 1..=500 {
        program += &format!("static int f{i}(int a, int b)\n{{ int s = 0; ");
        program += &format!("for (int i = a; i < b; i++) s += (i * {i}) ^ (s >> 3); return s; }}\n");
    }
    program += "int main(void) { int s = 0;\n";
    (1..=500).for_each(|i| program += &format!("s += f{i}(s & 7, {i});\n"));
    program += "printf(\"%d\\n\", s); return 0; }\n";
    fs::write(dir.join("large.c"), program).expect("a file is written");
    same("gcc", &["sh", "-c", "gcc -O1 -c large.c -o large.o && cksum large.o"], &dir);
}

#[test]
fn producer_and_consumer() {
    let dir = scratch("threads");
    let Some(program) = compile(&source("threads.c"), &dir, &[]) else { return };
    let program = program.to_str().expect("a path of text");
    same("producer and consumer", &[program], &dir);
    let plain = run(ours(&[program], &dir));
    let with_handler = run(ours(&[program, "handler"], &dir));
    assert!(with_handler.status.success(), "{} {}", with_handler.status, text(&with_handler));
    assert_eq!(text(&with_handler), text(&plain), "with a handler that allocates");
}

#[test]
fn a_signal_after_each_instruction() {
    let dir = scratch("signals");
    let Some(program) = compile(&source("signals.c"), &dir, &[]) else { return };
    let program = program.to_str().expect("a path of text");
    let done = run(ours(&[program], &dir));
    assert!(done.status.success(), "{} {}", done.status, text(&done));
    let counts: Vec<usize> = text(&done).split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(counts[0] > 5000 && counts[1] > 500, "no signal interrupted the allocator: {counts:?}");
    let mut guarded = ours(&[program, "5"], &dir);
    guarded.env("QUIRE_MALLOC_GUARD", "1");
    let done = run(guarded);
    assert!(done.status.success(), "guarded: {} {}", done.status, text(&done));
}

#[test]
fn each_function_keeps_to_its_manual_page() {
    let dir = scratch("calls");
    let library = library().to_str().expect("a path of text");
    let rpath = format!("-Wl,-rpath,{}", Path::new(library).parent().expect("a directory").display());
    let Some(program) = compile(&source("calls.c"), &dir, &[library, &rpath]) else { return };
    let program = program.to_str().expect("a path of text");
    let run_with = |guard: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).env("QUIRE_MALLOC_GUARD", guard);
        run(command)
    };
    for guard in ["0", "1"] {
        let done = run_with(guard, &[]);
        assert_eq!((done.status.code(), text(&done).as_str()), (Some(0), "as it should be\n"), "guard {guard}");
    }
    let ends = |guard, how, signal, message: &str| {
        let done = run_with(guard, &[how]);
        assert_eq!(done.status.signal(), signal, "{how}, guard {guard}: {}", text(&done));
        assert!(text(&done).contains(message), "{how}, guard {guard}: {}", text(&done));
    };
    for guard in ["0", "1"] {
        ends(guard, "free_sized", Some(SIGABRT), "free_sized(): the block is not of that size or alignment");
        ends(guard, "free_aligned_sized", Some(SIGABRT), "free_sized(): the block is not of that size or alignment");
        ends(guard, "double", Some(SIGABRT), "free(): double free detected");
        ends(guard, "inside", Some(SIGABRT), "free(): invalid pointer");
    }
    // Cases that only the guard pages detect.
    ends("0", "overrun", None, "");
    ends("0", "late", None, "");
    ends("1", "overrun", Some(SIGSEGV), "");
    ends("1", "late", Some(SIGSEGV), "");
}
