//! The built-in traces: textbook exercises, and a few examples of our own.

use super::Trace;
use crate::Error;

/// A built-in trace.
pub struct Builtin {
    /// The name for `--trace`.
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

builtin! { "t1" "t2" "t3" "t4" "t5" "t6" "t7" "t8" "t9" "t10" "t11" "t12" "t13" "t14" "t15" "t16" "t17" "t18" "t19" "t20"
"t21" "t22" "t23" "t24" "t25" "t26" "t27" }

/// The text of the trace of this name.
pub fn text(name: &str) -> Option<&'static str> {
    ALL.iter().find(|builtin| builtin.name == name).map(|builtin| builtin.text)
}

/// The parsed trace of this name.
pub fn read(name: &str) -> Option<Result<Trace, Error>> {
    text(name).map(Trace::parse)
}
