//! The front against a simple model, on every back end.

mod machine;
mod model;
