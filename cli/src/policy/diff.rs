//! `sidegate policy diff`: what a change of policy does.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use sidegate_policy::{SpiffeId, diff};

use super::{compiled, report};

/// Compare two policies: what becomes reachable, what no longer is, what is carried differently.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 they say the same, 1 they differ, 2 wrong usage or an invalid file.")]
pub(crate) struct DiffArgs {
    /// The policy file before.
    old: PathBuf,
    /// The policy file after.
    new: PathBuf,
    /// Only policies that apply to this workload.
    #[arg(long, value_name = "SPIFFE-ID", value_parser = |text: &str| SpiffeId::parse(text).map_err(|error| error.to_string()))]
    workload: Option<SpiffeId>,
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DiffArgs) -> ExitCode {
    let set = |file: &PathBuf| compiled::set(std::slice::from_ref(file), args.workload.clone());
    let (Some(old), Some(new)) = (set(&args.old), set(&args.new)) else { return ExitCode::from(2) };
    let difference = diff::compare(&old, &new, compiled::today());
    if args.json {
        compiled::print_json(&difference);
    } else {
        report::say(difference.to_string().trim_end());
    }
    if difference.changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
