//! `sidegate policy`: what a policy says, before anything runs under it.

mod answer;
mod check;
mod compiled;
mod diff;
mod explain;
pub(crate) mod read;
pub(crate) mod report;
mod suggestion;
mod test;

use std::process::ExitCode;

use clap::Subcommand;

/// Commands on policy files. None of them needs a network or a control plane.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    Check(check::CheckArgs),
    Explain(explain::ExplainArgs),
    Test(test::TestArgs),
    Diff(diff::DiffArgs),
}

impl PolicyCommand {
    pub(crate) fn run(self) -> ExitCode {
        match self {
            PolicyCommand::Check(args) => check::run(&args),
            PolicyCommand::Explain(args) => explain::run(&args),
            PolicyCommand::Test(args) => test::run(&args),
            PolicyCommand::Diff(args) => diff::run(&args),
        }
    }
}
