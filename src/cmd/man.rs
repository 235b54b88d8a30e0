//! `dfs man`.

use super::Cli;
use super::failure::Outcome;
use crate::error::Error;
use clap::CommandFactory;
use std::path::PathBuf;

/// Write the manual pages into a directory
#[derive(clap::Args)]
pub struct Args {
    /// Made if missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub fn run(args: &Args) -> Outcome {
    let failed = |e: std::io::Error| Error::io("write the manual pages", &args.dir, &e);
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        run(&Args {
            dir: dir.path().join("man"),
        })
        .unwrap();
        for page in ["dfs.1", "dfs-put.1", "dfs-op-status.1"] {
            let text = std::fs::read_to_string(dir.path().join("man").join(page)).unwrap();
            assert!(text.contains(".SH"), "{page}");
        }
    }
}
