//! The `sidegate` command.
#![forbid(unsafe_code)]

mod demo;
mod policy;
mod run;

use std::{io::Write, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

/// Decide what a program may talk to, and see what it did.
#[derive(Debug, Parser)]
#[command(name = "sidegate", version, arg_required_else_help = true, after_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Demo(demo::DemoArgs),
    /// Check policy files and ask what they say.
    Policy {
        #[command(subcommand)]
        command: policy::PolicyCommand,
    },
    /// Print a completion script for a shell.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
}

const EXIT_STATUS: &str = "\
Exit status:
  0  yes, done
  1  a negative answer: denied, invalid, different, unexpected
  2  wrong usage
  3  not available: what is needed can't be reached or is not permitted here
  `sidegate run` exits with the command's own status (128+N when signal N killed it).";

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Policy { command } => command.run(),
        Command::Run(args) => run::run(args),
        Command::Demo(args) => demo::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sidegate", &mut script);
            // A reader that has seen enough is no failure.
            let _ = std::io::stdout().write_all(&script);
            ExitCode::SUCCESS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
