//! The `dfs` binary: hands its arguments to `cmd` and ends with the status that comes back.

use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(dfs::cmd::main(std::env::args_os()))
}
