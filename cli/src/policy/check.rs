//! `sidegate policy check`: all errors at once, with line, column and a fix; and what valid policies won't do.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use sidegate_policy::Diagnostic;

use super::{
    answer::{self, Answer, Summary, count},
    compiled,
    read::{self, Reading},
    report,
};

/// Check policy files: all errors at once, with line, column and a fix.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 every file is valid, 1 some are not, 2 some can't be read.
Policies that may apply to the same workload are also checked against each other.
Notes tell what a valid policy does not do: they leave the exit status as it is.")]
pub(crate) struct CheckArgs {
    /// Policy files, YAML or JSON; `-` reads standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let reading = read::read(&args.files);
    let notes = compiled::notes(&reading.documents);
    if args.json {
        report::say_json(&Answer::of(&reading, &notes));
    } else {
        print_text(&reading, &notes);
    }
    answer::status(&reading)
}

fn print_text(reading: &Reading, notes: &[Diagnostic]) {
    answer::print_faults(reading);
    let faulty = |name: &str| reading.diagnostics.iter().any(|diagnostic| &*diagnostic.file == name);
    let today = compiled::today();
    for document in reading.documents.iter().filter(|document| !faulty(&document.source.name)) {
        let audited = document.audit_until.is_some_and(|last| today <= last);
        report::say(&Summary::of(document).line(audited));
    }
    for note in notes {
        report::say(&format!("note: {note}"));
    }
    let files = reading.sources.iter().filter(|source| faulty(&source.name)).count();
    if files > 0 {
        let errors = count(reading.diagnostics.len(), "error");
        eprintln!("{errors} in {} of {}", files, count(reading.sources.len(), "file"));
    }
}
