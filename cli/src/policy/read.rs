//! Policy files, read and compiled; every error of all of them at once.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use sidegate_policy::{
    CompileOptions, Diagnostic, Document, PolicySet, Source, SpiffePattern,
    document::{self, MAX_SIZE},
};

/// What became of the files.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Files that can't be read at all.
    pub(crate) unreadable: Vec<(PathBuf, io::Error)>,
    /// Sources that were read, for reports.
    pub(crate) sources: Vec<Source>,
    /// Documents of the sources without faults.
    pub(crate) documents: Vec<Document>,
    /// Every fault, source by source.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Reads files (`-`: standard input) and checks each, and each with every other that may apply to the same workload.
pub(crate) fn read(files: &[PathBuf]) -> Reading {
    let mut reading = Reading::default();
    for file in files {
        match read_source(file) {
            Ok((source, fault)) => {
                match fault.map_or_else(|| document::parse(&source), |fault| Err(vec![fault])) {
                    Ok(documents) => reading.documents.extend(documents),
                    Err(diagnostics) => reading.diagnostics.extend(diagnostics),
                }
                reading.sources.push(source);
            }
            Err(error) => reading.unreadable.push((file.clone(), error)),
        }
    }
    if reading.diagnostics.is_empty() {
        reading.diagnostics = disagreements(&reading.documents);
    }
    reading
}

/// A source, and its fault when it is not UTF-8.
fn read_source(file: &Path) -> io::Result<(Source, Option<Diagnostic>)> {
    // One byte more than is read: enough to refuse what is larger, without reading all of it.
    let limit = MAX_SIZE as u64 + 1;
    let mut bytes = Vec::new();
    let name = if file == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
        "<stdin>".to_owned()
    } else {
        File::open(file)?.take(limit).read_to_end(&mut bytes)?;
        file.display().to_string()
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok((Source::new(name, text), None)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let source = Source::new(name, String::from_utf8_lossy(error.as_bytes()));
            let whole = error.as_bytes().len() > MAX_SIZE;
            let fault = (!whole).then(|| {
                Diagnostic::new(&source, "encoding", at..at, "the file is not UTF-8", "save it as UTF-8")
            });
            Ok((source, fault))
        }
    }
}

/// Faults that no document has alone. Documents for different workloads never meet, so they may disagree.
fn disagreements(documents: &[Document]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut compile = |group: &[Document]| {
        let Err(diagnostics) = PolicySet::compile(group, &CompileOptions::default()) else { return };
        for diagnostic in diagnostics {
            if seen.insert((diagnostic.file.clone(), diagnostic.span.start, diagnostic.message.clone())) {
                found.push(diagnostic);
            }
        }
    };
    for (number, one) in documents.iter().enumerate() {
        compile(std::slice::from_ref(one));
        for other in documents.iter().skip(number + 1).filter(|other| may_meet(one, other)) {
            compile(&[one.clone(), other.clone()]);
        }
    }
    found
}

fn may_meet(one: &Document, other: &Document) -> bool {
    let overlap = |ours: &[SpiffePattern], theirs: &[SpiffePattern]| {
        ours.iter().any(|pattern| theirs.iter().any(|other| pattern.overlaps(other)))
    };
    match (&one.applies_to, &other.applies_to) {
        (Some(ours), Some(theirs)) => overlap(ours, theirs) || one.name.value == other.name.value,
        _ => true,
    }
}
