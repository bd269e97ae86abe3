//! The front against a simple model, on every back end.

mod backends;
mod machine;
mod model;
