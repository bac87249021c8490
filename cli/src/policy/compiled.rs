//! Files as one compiled set, for the commands that ask it.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use sidegate_policy::{CompileOptions, Date, PolicySet, SpiffeId};

use super::{read, report};

/// `None`: what is wrong with the files was printed.
pub(super) fn set(files: &[PathBuf], workload: Option<SpiffeId>) -> Option<PolicySet> {
    let reading = read::read(files);
    for (file, error) in &reading.unreadable {
        eprintln!("sidegate: {}: {error}", file.display());
    }
    report::print(&reading.sources, &reading.diagnostics);
    if !reading.unreadable.is_empty() || !reading.diagnostics.is_empty() {
        return None;
    }
    let options = CompileOptions { workload, ..CompileOptions::default() };
    PolicySet::compile(&reading.documents, &options)
        .map_err(|diagnostics| report::print(&reading.sources, &diagnostics))
        .ok()
}

/// The current day in UTC, which ends audit modes.
pub(super) fn today() -> Date {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Date::from_days(i32::try_from(seconds / 86_400).unwrap_or(i32::MAX))
}

pub(super) fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(json) => report::say(&json),
        Err(error) => eprintln!("sidegate: {error}"),
    }
}
