//! The traces that `lab` has in it: textbook exercises, and a few of our own.

use super::Trace;
use crate::Error;

/// A trace that comes with the laboratory.
pub struct Builtin {
    /// What `--trace` calls it.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! builtin {
    ($($name:literal)*) => {
        /// All of them.
        pub const ALL: &[Builtin] =
            &[$(Builtin { name: $name, text: include_str!(concat!("../../traces/", $name, ".trace")) }),*];
    };
}

builtin! { "t1" "t2" "t3" "t4" "t5" "t6" "t7" "t8" "t9" "t10" "t11" "t12" "t13" "t14" "t15" "t16" "t17" "t18" "t19" }

/// The text of one.
pub fn text(name: &str) -> Option<&'static str> {
    ALL.iter().find(|builtin| builtin.name == name).map(|builtin| builtin.text)
}

/// One, read.
pub fn read(name: &str) -> Option<Result<Trace, Error>> {
    text(name).map(Trace::parse)
}
