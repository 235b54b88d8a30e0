//! See `dfs::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dfs::fuzzing::run("certificate_request", bytes));
