//! cgroupfs: the kernel's control groups as directories, and their numbers as files, as Linux's version 2 has them.
//!
//! Nothing is kept here: names and numbers are the kernel's, so a server that is started again goes on where the former
//! one was.
//!
//! Floors, lowest first: [`facts`], what is asked of the kernel; [`values`], how numbers are written; [`files`], what
//! each file says and does; [`names`], which there are; [`serve`], requests.

#![no_std]

extern crate alloc;

pub mod facts;
pub mod files;
pub mod names;
pub mod serve;
pub mod values;
