//! The `dfs` binary: hands its arguments to `cmd` and ends with the status that comes back.

use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // To clear 2 MiB for the first byte of each costs more than huge pages save here, and they
    // double what an idle node holds. Where the system does not let them go, it is only slower.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    ExitCode::from(dfs::cmd::main(std::env::args_os()))
}
