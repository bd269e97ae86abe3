//! The lessons of docs/lessons: their exercises as text, and the checks that tell whether they are solved.
//!
//! The text of an exercise is the section "Exercise" of its page, and is nowhere else. A check does something that the solved
//! exercise changes, and looks at it with the calls that every program has: it knows nothing of how the kernel was changed.
//! What is in [`yours`] is for readers to change.

mod area;
mod faults;
mod frames;
mod groups;
mod kernel;
mod programs;
mod text;
pub mod yours;

use alloc::string::String;

pub use area::Area;

/// `Ok` if the exercise is solved; what was seen, either way.
pub type Verdict = Result<String, String>;

/// A lesson.
pub struct Lesson {
    /// Its title.
    pub title: &'static str,
    /// The words of its exercise.
    pub exercise: &'static str,
    /// Checks that.
    pub check: fn() -> Verdict,
}

/// A lesson of a page: only title and exercise become part of the program.
macro_rules! lesson {
    ($page:literal, $check:path) => {{
        const PAGE: &str = include_str!(concat!("../../../../docs/lessons/", $page));
        const TITLE: &[u8] = text::title(PAGE);
        const EXERCISE: &[u8] = text::exercise(PAGE);
        static TITLE_COPY: [u8; TITLE.len()] = text::copy(TITLE);
        static EXERCISE_COPY: [u8; EXERCISE.len()] = text::copy(EXERCISE);
        Lesson { title: text::text(&TITLE_COPY), exercise: text::text(&EXERCISE_COPY), check: $check }
    }};
}

/// All of them, in order; the first one is number 1.
pub static LESSONS: [Lesson; 12] = [
    lesson!("01-first-page.md", faults::own_pages),
    lesson!("02-gdb.md", faults::write_faults),
    lesson!("03-buddy.md", frames::upper_halves),
    lesson!("04-slab.md", kernel::coloured_slabs),
    lesson!("05-copy-on-write.md", faults::eager_copy),
    lesson!("06-leak.md", programs::leak),
    lesson!("07-working-set.md", programs::working_set),
    lesson!("08-fragmentation.md", frames::scattered),
    lesson!("09-cma.md", frames::lent_by_cma),
    lesson!("10-control-groups.md", groups::room),
    lesson!("11-tlb.md", kernel::invalidations),
    lesson!("12-malloc.md", programs::mapped_blocks),
];
