//! The binary: parse, delegate, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir::cli::main()
}
