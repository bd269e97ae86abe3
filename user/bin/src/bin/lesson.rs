//! lesson: the exercises of docs/lessons. `lesson` lists them, `lesson 3` shows the words of one, and `lesson 3 check` says whether it
//! is solved, and if not, what was seen.

#![no_std]
#![no_main]

use quire_bin::lesson::LESSONS;
use quire_bin::{Options, USAGE, number};
use quire_rt::{eprintln, print, println};

quire_rt::entry!(main);

const USAGE_LINE: &str = "lesson [NUMBER [check]]";

fn main() -> i32 {
    let options = match Options::parse("", USAGE_LINE) {
        Ok(options) => options,
        Err(status) => return status,
    };
    let (wanted, checks) = match options.operands[..] {
        [] => {
            LESSONS.iter().zip(1..).for_each(|(lesson, number)| println!("{number:>2}  {}", lesson.title));
            return 0;
        }
        [wanted] => (wanted, false),
        [wanted, word] if word == c"check" => (wanted, true),
        _ => return usage(),
    };
    let Some(wanted) = number::<usize>(wanted.to_bytes()) else { return usage() };
    let Some(lesson) = wanted.checked_sub(1).and_then(|at| LESSONS.get(at)) else {
        eprintln!("lesson: there are lessons 1 to {}", LESSONS.len());
        return USAGE;
    };
    if !checks {
        print!("{}", lesson.exercise);
        return 0;
    }
    match (lesson.check)() {
        Ok(seen) => {
            println!("lesson {wanted} is solved: {seen}");
            0
        }
        Err(seen) => {
            println!("lesson {wanted} is not solved: {seen}");
            1
        }
    }
}

fn usage() -> i32 {
    eprintln!("usage: {USAGE_LINE}");
    USAGE
}
