//! What the small programs share: arguments, messages, numbers.

#![no_std]

extern crate alloc;
