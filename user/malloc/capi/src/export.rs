//! The C names.

/// Defines the C functions in the calling crate.
#[macro_export]
macro_rules! export {
    (@ $($name:ident($($arg:ident: $type:ty),*) $(-> $answer:ty)?;)*) => {
        $(
            /// The C function of that name.
            ///
            /// # Safety
            ///
            /// As its manual page says.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $type),*) $(-> $answer)? {
                // SAFETY: the caller keeps to the manual page.
                #[allow(unused_unsafe)]
                unsafe { $crate::$name($($arg),*) }
            }
        )*
    };
    () => {
        $crate::export! { @
            malloc(size: usize) -> *mut u8;
            free(at: *mut u8);
            calloc(count: usize, size: usize) -> *mut u8;
            realloc(at: *mut u8, size: usize) -> *mut u8;
            reallocarray(at: *mut u8, count: usize, size: usize) -> *mut u8;
            memalign(align: usize, size: usize) -> *mut u8;
            aligned_alloc(align: usize, size: usize) -> *mut u8;
            posix_memalign(out: *mut *mut u8, align: usize, size: usize) -> i32;
            valloc(size: usize) -> *mut u8;
            pvalloc(size: usize) -> *mut u8;
            malloc_usable_size(at: *mut u8) -> usize;
            mallopt(parameter: i32, value: i32) -> i32;
            malloc_trim(pad: usize) -> i32;
            free_sized(at: *mut u8, size: usize);
            free_aligned_sized(at: *mut u8, align: usize, size: usize);
            mallinfo2() -> $crate::Mallinfo;
            malloc_stats();
            malloc_info(options: i32, stream: *mut core::ffi::c_void) -> i32;
            sbrk(by: isize) -> usize;
        }

        #[panic_handler]
        fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
            $crate::panicked()
        }
    };
}
