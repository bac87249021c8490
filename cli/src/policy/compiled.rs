//! Files as one compiled set, for the commands that ask it.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use sidegate_policy::{
    CompileOptions, Date, Demands, Diagnostic, Direction, Document, PolicySet, SpiffeId, Treatment,
    document::notes::notes as notes_of,
};
use sidegate_proxy::connection::decide::carried_out;

use super::{
    answer,
    read::{self, Reading},
};

/// Files that were read and hold no fault.
pub(super) struct Loaded {
    reading: Reading,
    json: bool,
}

/// Reads files. `Err`: what is wrong with them was said, as JSON if so wanted.
pub(super) fn load(files: &[PathBuf], json: bool) -> Result<Loaded, ExitCode> {
    let reading = read::read(files);
    if reading.is_faulty() { Err(answer::refuse(&reading, json)) } else { Ok(Loaded::new(reading, json)) }
}

impl Loaded {
    /// `reading` holds no fault.
    pub(super) fn new(reading: Reading, json: bool) -> Self {
        Loaded { reading, json }
    }

    pub(super) fn documents(&self) -> &[Document] {
        &self.reading.documents
    }

    /// What they say for one workload, or for any that loads them.
    pub(super) fn set(&self, workload: Option<SpiffeId>) -> Result<PolicySet, ExitCode> {
        PolicySet::compile(self.documents(), &options(workload)).map_err(|diagnostics| {
            let sources = self.reading.sources.clone();
            answer::refuse(&Reading { diagnostics, sources, ..Reading::default() }, self.json)
        })
    }
}

pub(super) fn options(workload: Option<SpiffeId>) -> CompileOptions {
    CompileOptions { workload, ..CompileOptions::default() }
}

/// Which treatments this build does not refuse, either way.
pub(super) fn built(_: Direction) -> fn(Treatment, &Demands) -> bool {
    carried_out
}

/// What valid documents do not do, today and in this build.
pub(super) fn notes(documents: &[Document]) -> Vec<Diagnostic> {
    documents.iter().flat_map(|document| notes_of(document, today(), carried_out)).collect()
}

/// The current day in UTC, which ends audit modes.
pub(super) fn today() -> Date {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Date::from_days(i32::try_from(seconds / 86_400).unwrap_or(i32::MAX))
}
