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

impl Reading {
    /// Something can't be read, or is wrong.
    pub(crate) fn is_faulty(&self) -> bool {
        !self.unreadable.is_empty() || !self.diagnostics.is_empty()
    }

    /// Both together, without asking whether they agree.
    pub(super) fn beside(mut self, mut other: Reading) -> Reading {
        self.unreadable.append(&mut other.unreadable);
        self.sources.append(&mut other.sources);
        self.documents.append(&mut other.documents);
        self.diagnostics.append(&mut other.diagnostics);
        self
    }
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
    reading.diagnostics.extend(disagreements(&reading.documents));
    reading
}

/// The two mistakes that people make with a path, in words that say what to do.
fn in_words(file: &Path, error: io::Error) -> io::Error {
    let words = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::IsADirectory => {
            format!("this is a folder; name the files in it, such as {}", file.join("*.yaml").display())
        }
        _ => return error,
    };
    io::Error::new(error.kind(), words)
}

/// A source, and its fault when it is not UTF-8.
pub(super) fn read_source(file: &Path) -> io::Result<(Source, Option<Diagnostic>)> {
    read_bytes(file).map_err(|error| in_words(file, error)).map(|(name, bytes)| as_source(name, bytes))
}

fn read_bytes(file: &Path) -> io::Result<(String, Vec<u8>)> {
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
    Ok((name, bytes))
}

fn as_source(name: String, bytes: Vec<u8>) -> (Source, Option<Diagnostic>) {
    match String::from_utf8(bytes) {
        Ok(text) => (Source::new(name, text), None),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let source = Source::new(name, String::from_utf8_lossy(error.as_bytes()));
            let whole = error.as_bytes().len() > MAX_SIZE;
            let fault = (!whole).then(|| {
                Diagnostic::new(&source, "encoding", at..at, "the file is not UTF-8", "save it as UTF-8")
            });
            (source, fault)
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
