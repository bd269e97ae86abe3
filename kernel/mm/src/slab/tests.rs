//! The front end against a simple model, on every back end.

mod backends;
mod debug;
mod demand;
mod machine;
mod model;
mod shrink;
mod slabs;
