//! `libquire_malloc_preload.so`: what a dynamic program on an x86_64 Linux host loads in front of its libc.
#![no_std]

quire_malloc_capi::export!();
