//! `sidegate policy diff`: what a change of policy does.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use sidegate_policy::{SpiffeId, diff};

use super::{answer, compiled, read, report};

/// Compare two policies: what becomes reachable, what no longer is, what is carried differently.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 they say the same, 1 they differ or one is invalid, 2 wrong usage or a file that can't be read.
With --json an invalid file gives `\"valid\": false` and its errors, as `check --json` does.")]
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
    compare(args).unwrap_or_else(|status| status)
}

fn compare(args: &DiffArgs) -> Result<ExitCode, ExitCode> {
    let [old, new] = [&args.old, &args.new].map(|file| read::read(std::slice::from_ref(file)));
    if old.is_faulty() || new.is_faulty() {
        return Err(answer::refuse(&old.beside(new), args.json));
    }
    let set = |reading| compiled::Loaded::new(reading, args.json).set(args.workload.clone());
    let difference = diff::compare(&set(old)?, &set(new)?, compiled::today());
    if args.json {
        report::say_json(&difference);
    } else {
        report::say(difference.to_string().trim_end());
    }
    Ok(if difference.changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
