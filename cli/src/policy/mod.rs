//! `sidegate policy`: what a policy says, before anything runs under it.

mod check;
mod read;
mod report;

use std::process::ExitCode;

use clap::Subcommand;

/// Commands on policy files. None of them needs a network or a control plane.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    Check(check::CheckArgs),
}

impl PolicyCommand {
    pub(crate) fn run(self) -> ExitCode {
        match self {
            PolicyCommand::Check(args) => check::run(&args),
        }
    }
}
