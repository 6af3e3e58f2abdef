//! The `trine` binary; all it does is in the library, but for what the first process of a container has to do.

mod first_process;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if first_process::is_needed() {
        return first_process::run().unwrap_or_else(|error| {
            eprintln!("trine: can't be the first process here: {error}");
            ExitCode::FAILURE
        });
    }
    trine::cli::main()
}
