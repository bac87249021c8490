//! `sidegate policy check`: all errors at once, with line, column and a fix.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use sidegate_policy::{Diagnostic, Document};

use super::{
    read::{self, Reading},
    report,
};

/// Check policy files: all errors at once, with line, column and a fix.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 every file is valid, 1 some are not, 2 some can't be read.
Policies that may apply to the same workload are also checked against each other.")]
pub(crate) struct CheckArgs {
    /// Policy files, YAML or JSON; `-` reads standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    valid: bool,
    policies: Vec<Summary<'a>>,
    diagnostics: &'a [Diagnostic],
    unreadable: Vec<Unreadable>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    file: &'a str,
    name: &'a str,
    egress: usize,
    ingress: usize,
    /// Absent: every workload that loads the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    applies_to: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_until: Option<String>,
}

#[derive(serde::Serialize)]
struct Unreadable {
    file: String,
    error: String,
}

pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let reading = read::read(&args.files);
    if args.json {
        print_json(&reading)
    } else {
        print_text(&reading)
    }
    if !reading.unreadable.is_empty() {
        ExitCode::from(2)
    } else if !reading.diagnostics.is_empty() {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    }
}

fn print_json(reading: &Reading) {
    let unreadable = |(file, error): &(PathBuf, std::io::Error)| Unreadable {
        file: file.display().to_string(),
        error: error.to_string(),
    };
    let answer = Answer {
        valid: reading.diagnostics.is_empty() && reading.unreadable.is_empty(),
        policies: reading.documents.iter().map(Summary::of).collect(),
        diagnostics: &reading.diagnostics,
        unreadable: reading.unreadable.iter().map(unreadable).collect(),
    };
    match serde_json::to_string_pretty(&answer) {
        Ok(json) => report::say(&json),
        Err(error) => eprintln!("sidegate: {error}"),
    }
}

fn print_text(reading: &Reading) {
    for (file, error) in &reading.unreadable {
        eprintln!("sidegate: {}: {error}", file.display());
    }
    report::print(&reading.sources, &reading.diagnostics);
    let faulty = |name: &str| reading.diagnostics.iter().any(|diagnostic| &*diagnostic.file == name);
    for document in reading.documents.iter().filter(|document| !faulty(&document.source.name)) {
        report::say(&Summary::of(document).line());
    }
    let files = reading.sources.iter().filter(|source| faulty(&source.name)).count();
    if files > 0 {
        let errors = count(reading.diagnostics.len(), "error");
        eprintln!("{errors} in {} of {}", files, count(reading.sources.len(), "file"));
    }
}

impl<'a> Summary<'a> {
    fn of(document: &'a Document) -> Self {
        let patterns = document.applies_to.as_ref();
        Summary {
            file: &document.source.name,
            name: &document.name.value,
            egress: document.egress.len(),
            ingress: document.ingress.len(),
            applies_to: patterns.map(|patterns| patterns.iter().map(|pattern| pattern.as_str()).collect()),
            audit_until: document.audit_until.map(|date| date.to_string()),
        }
    }

    /// Such as `payments.yaml: payments: 3 egress rules, 1 ingress rule; for every workload that loads it`.
    fn line(&self) -> String {
        let rules = match (self.egress, self.ingress) {
            (0, 0) => "no rules: nothing is allowed".to_owned(),
            (egress, 0) => count(egress, "egress rule"),
            (0, ingress) => count(ingress, "ingress rule"),
            (egress, ingress) => {
                format!("{}, {}", count(egress, "egress rule"), count(ingress, "ingress rule"))
            }
        };
        let workloads = match &self.applies_to {
            Some(patterns) => patterns.join(" and "),
            None => "every workload that loads it".to_owned(),
        };
        let audit = match &self.audit_until {
            Some(date) => format!("; AUDIT ONLY, nothing is enforced until the end of {date}"),
            None => String::new(),
        };
        format!("{}: {}: {rules}; for {workloads}{audit}", self.file, self.name)
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
