//! The `dfs` binary.

fn main() {}
