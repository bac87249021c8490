//! What became of policy files: one JSON object, or text.

use std::{path::PathBuf, process::ExitCode};

use sidegate_policy::{Diagnostic, Document};

use super::{read::Reading, report};

/// The JSON form of what was read; the same for every command that refuses files.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer<'a> {
    valid: bool,
    policies: Vec<Summary<'a>>,
    diagnostics: &'a [Diagnostic],
    /// What is worth knowing of valid policies.
    notes: &'a [Diagnostic],
    unreadable: Vec<Unreadable>,
}

#[derive(serde::Serialize)]
struct Unreadable {
    file: String,
    error: String,
}

impl<'a> Answer<'a> {
    pub(super) fn of(reading: &'a Reading, notes: &'a [Diagnostic]) -> Self {
        let unreadable = |(file, error): &(PathBuf, std::io::Error)| Unreadable {
            file: file.display().to_string(),
            error: error.to_string(),
        };
        Answer {
            valid: !reading.is_faulty(),
            policies: reading.documents.iter().map(Summary::of).collect(),
            diagnostics: &reading.diagnostics,
            notes,
            unreadable: reading.unreadable.iter().map(unreadable).collect(),
        }
    }
}

/// One policy in a line.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary<'a> {
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

impl<'a> Summary<'a> {
    pub(super) fn of(document: &'a Document) -> Self {
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
    pub(super) fn line(&self, audited: bool) -> String {
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
        let audit = match self.audit_until.as_ref().filter(|_| audited) {
            Some(date) => format!("; AUDIT ONLY, nothing is enforced until the end of {date}"),
            None => String::new(),
        };
        format!("{}: {}: {rules}; for {workloads}{audit}", self.file, self.name)
    }
}

/// Says what is wrong with files that can't be used, and the exit status for it: 2 when some can't be read, else 1.
pub(super) fn refuse(reading: &Reading, json: bool) -> ExitCode {
    if json {
        report::say_json(&Answer::of(reading, &[]));
    } else {
        print_faults(reading);
    }
    status(reading)
}

/// Files that can't be read, and every fault of the others, on standard error.
pub(super) fn print_faults(reading: &Reading) {
    for (file, error) in &reading.unreadable {
        eprintln!("sidegate: {}: {error}", file.display());
    }
    report::print(&reading.sources, &reading.diagnostics);
}

/// 0 every file is valid, 1 some are not, 2 some can't be read.
pub(super) fn status(reading: &Reading) -> ExitCode {
    match (reading.unreadable.is_empty(), reading.diagnostics.is_empty()) {
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(1),
        (false, _) => ExitCode::from(2),
    }
}

/// `1 rule`, `2 rules`.
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
