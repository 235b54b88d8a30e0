//! `dfs completions`.

use super::Cli;
use super::failure::{Failure, Outcome};
use clap::CommandFactory;
use clap_complete::{Shell, generate};
use std::io::{self, Write};

/// Print the completion script of a shell
#[derive(clap::Args)]
pub struct Args {
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

pub fn run(args: &Args) -> Outcome {
    // Into memory first: the generator panics where a write fails.
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "dfs", &mut script);
    io::stdout().write_all(&script).map_err(Failure::output)
}
