//! `sidegate policy diff`: what a change of policy does.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use sidegate_policy::{
    Diagnostic, SpiffeId,
    diff::{self, Difference},
};

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

#[derive(serde::Serialize)]
struct Answer<'a> {
    /// As in text.
    summary: Vec<String>,
    /// Every piece.
    #[serde(flatten)]
    difference: &'a Difference,
    /// What the new policy asks for and this build does not do.
    notes: &'a [Diagnostic],
}

pub(super) fn run(args: &DiffArgs) -> ExitCode {
    compare(args).unwrap_or_else(|status| status)
}

fn compare(args: &DiffArgs) -> Result<ExitCode, ExitCode> {
    let [old, new] = [&args.old, &args.new].map(|file| read::read(std::slice::from_ref(file)));
    if old.is_faulty() || new.is_faulty() {
        return Err(answer::refuse(&old.beside(new), args.json));
    }
    let notes: Vec<Diagnostic> = compiled::notes(&new.documents)
        .into_iter()
        .filter(|note| matches!(note.code, "not-supported" | "ingress-unenforced"))
        .collect();
    let set = |reading| compiled::Loaded::new(reading, args.json).set(args.workload.clone());
    let difference = diff::compare(&set(old)?, &set(new)?, compiled::today());
    if args.json {
        report::say_json(&Answer { summary: difference.summary(), difference: &difference, notes: &notes });
    } else {
        report::say(difference.to_string().trim_end());
        if !difference.changes.is_empty() {
            notes.iter().for_each(|note| report::say(&format!("note: {note}")));
        }
    }
    Ok(if difference.changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
