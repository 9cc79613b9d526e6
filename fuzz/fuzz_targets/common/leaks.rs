//! What is no leak, though it looks like one.

/// Threads of a scope, as recovery has them, are done a moment before they are gone: until then the C library
/// keeps what it has to do at their end, and the leak checker finds it.
#[unsafe(no_mangle)]
extern "C" fn __lsan_default_suppressions() -> *const std::ffi::c_char {
    c"leak:__cxa_thread_atexit_impl\nleak:spawn_scoped".as_ptr()
}
