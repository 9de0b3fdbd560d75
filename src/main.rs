//! The binary: parse, delegate, exit code; and what all of it allocates by.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir::cli::main()
}

/// Batches are many small values that one thread makes and another drops, which jemalloc is quicker with.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
mod allocator {
    use tikv_jemallocator::Jemalloc;

    #[global_allocator]
    static JEMALLOC: Jemalloc = Jemalloc;

    /// What jemalloc reads when it starts: pages that nobody uses go back to the system after one second, not ten.
    #[allow(non_upper_case_globals, reason = "the name that jemalloc looks for")]
    #[allow(unsafe_code, reason = "no other part of the program has a symbol of this name")]
    #[unsafe(export_name = "malloc_conf")]
    static malloc_conf: &[u8] = b"dirty_decay_ms:1000\0";
}
