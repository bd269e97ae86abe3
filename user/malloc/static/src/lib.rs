//! `libquire_malloc.a`: what a static Linux program on AArch64 links in place of its libc's malloc.
#![no_std]

quire_malloc_capi::export!();
