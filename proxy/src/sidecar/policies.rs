//! Policy files and folders, read and compiled whole; every error at once.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
};

use sidegate_policy::{
    CompileOptions, Diagnostic, Document, PolicySet, Source,
    document::{self, Protocol},
};

use super::status::DocumentSummary;

/// Extensions that count in a folder.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Largest policy file, in bytes.
const LARGEST: u64 = 16 * 1024 * 1024;

/// Where the policies of this proxy stand.
#[derive(Clone, Debug)]
pub(super) struct PolicyFiles {
    /// Files, and folders whose `.yaml`, `.yml` and `.json` files all count (not those of folders below).
    pub(super) paths: Vec<PathBuf>,
}

/// Compiled policies and what to say of them.
#[derive(Debug)]
pub(super) struct Loaded {
    /// The compiled set.
    pub(super) set: PolicySet,
    /// Its documents.
    pub(super) documents: Vec<DocumentSummary>,
}

/// What the files hold at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    sources: Vec<Source>,
    unreadable: Vec<Diagnostic>,
}

impl PolicyFiles {
    /// Reads every file, in the order of their paths.
    pub(super) fn read(&self) -> Contents {
        let mut contents = Contents::default();
        for path in &self.paths {
            match files_at(path) {
                Ok(files) => files.iter().for_each(|file| contents.read(file)),
                Err(error) => contents.unreadable.push(unreadable(path, &error)),
            }
        }
        contents
    }
}

impl Contents {
    /// There is no document and no error: no policy yet.
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.unreadable.is_empty()
    }

    /// Parses and compiles all of it, or none.
    ///
    /// # Errors
    /// Every diagnostic of every file; that there is no document at all is one.
    pub(super) fn compile(&self, options: &CompileOptions) -> Result<Loaded, Vec<Diagnostic>> {
        let mut wrong = self.unreadable.clone();
        let mut documents: Vec<Document> = Vec::new();
        for source in &self.sources {
            match document::parse(source) {
                Ok(mut parsed) => documents.append(&mut parsed),
                Err(mut diagnostics) => wrong.append(&mut diagnostics),
            }
        }
        if wrong.is_empty() && documents.is_empty() {
            wrong.push(no_documents());
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let set = PolicySet::compile(&documents, options)?;
        let documents = documents.iter().map(|document| summary(document, options)).collect();
        Ok(Loaded { set, documents })
    }

    fn read(&mut self, file: &Path) {
        match text_of(file) {
            Ok(text) => self.sources.push(Source::new(file.display().to_string(), text)),
            Err(error) => self.unreadable.push(unreadable(file, &error)),
        }
    }
}

/// Reads a regular file. Anything else might have no end, or never begin (a pipe that nobody writes to).
fn text_of(path: &Path) -> io::Result<String> {
    use std::os::unix::fs::OpenOptionsExt;
    // Without waiting: for a regular file it makes no difference.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = String::new();
    // By what comes, not by what the file says of itself: it may grow meanwhile.
    if file.take(LARGEST + 1).read_to_string(&mut text)? as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16 MiB"));
    }
    Ok(text)
}

/// The file itself, or the policy files of a folder in the order of their names.
fn files_at(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let counts = file.extension().is_some_and(|found| EXTENSIONS.iter().any(|known| found == *known));
        // Names that begin with a dot are an editor's or a mount's own.
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if counts && !hidden && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn summary(document: &Document, options: &CompileOptions) -> DocumentSummary {
    DocumentSummary {
        name: document.name.value.clone(),
        file: document.source.name.to_string(),
        egress: document.egress.len(),
        ingress: document.ingress.len(),
        ingress_datagrams: document.ingress.iter().filter(|rule| rule.protocol == Protocol::Udp).count(),
        audit: document.audit_until.is_some(),
        applies: options.counts(document),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    let source = Source::new(path.display().to_string(), "");
    let fix = "Check that it exists and that the proxy's user may read it.";
    Diagnostic::new(&source, "unreadable", 0..0, format!("can't be read: {error}"), fix)
}

fn no_documents() -> Diagnostic {
    let source = Source::new("policies", "");
    let fix = "Add a policy; to deny everything, one without rules.";
    Diagnostic::new(&source, "no-policy", 0..0, "no policy document is there", fix)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Reading each of these to its end would never return, or take all memory.
    #[test]
    fn what_has_no_end_is_refused_and_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let fifo = place.path().join("fifo.yaml");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        let endless = place.path().join("endless.yaml");
        symlink("/dev/zero", &endless).unwrap();
        let large = place.path().join("large.yaml");
        fs::File::create(&large).unwrap().set_len(LARGEST + 1).unwrap();
        for (path, why) in [(fifo, "regular"), (endless, "regular"), (large, "16 MiB")] {
            let contents = PolicyFiles { paths: vec![path] }.read();
            let [refused] = contents.unreadable.as_slice() else { panic!("{contents:?}") };
            assert!(refused.message.contains(why), "{}", refused.message);
        }
    }
}
