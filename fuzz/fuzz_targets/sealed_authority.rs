//! See `dfs::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dfs::fuzzing::run("sealed_authority", bytes));
