//! cgroupfs: the kernel's control groups as directories, and their attributes as files, as in version 2 of Linux's.
//!
//! The server keeps no state: names and numbers belong to the kernel, so a restarted server continues where the former
//! one was.
//!
//! Floors, lowest first: [`facts`], queries to the kernel; [`values`], the formats of numbers; [`files`], the content
//! and effect of each file; [`names`], the names that exist; [`serve`], requests.

#![no_std]

extern crate alloc;

pub mod facts;
pub mod files;
pub mod names;
pub mod serve;
pub mod values;
