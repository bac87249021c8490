//! Which policies apply, read and compiled; every error at once.

use std::path::{Path, PathBuf};

use sidegate_policy::{
    CompileOptions, Date, Diagnostic, Document, PolicySet, Source,
    document::{self, Spanned},
    set::Generation,
};

use super::args::Mode;

/// The policies of one run.
#[derive(Debug)]
pub(super) struct Policies {
    /// Compiled.
    pub(super) set: PolicySet,
    /// There was no file: everything is denied.
    pub(super) absent: bool,
}

/// Why there are no policies.
#[derive(Debug)]
pub(super) enum Refused {
    /// A file can't be read.
    Unreadable(PathBuf, std::io::Error),
    /// Documents are invalid.
    Invalid(Vec<Diagnostic>),
}

/// Looked for in the current directory when no file is named.
pub(super) const DEFAULT_FILE: &str = "sidegate.yaml";

/// The last day that a date can name; audit mode of a run has no end of its own.
const FOREVER: Date = Date::from_days(2_932_896);

/// Reads and compiles the named files, or the default one.
///
/// # Errors
/// A file that can't be read, or every diagnostic of all files.
pub(super) fn load(named: &[PathBuf], mode: Mode) -> Result<Policies, Refused> {
    let fallback = PathBuf::from(DEFAULT_FILE);
    let files = match named {
        [] if fallback.exists() => std::slice::from_ref(&fallback),
        named => named,
    };
    let mut documents = Vec::new();
    let mut diagnostics = Vec::new();
    for file in files {
        match document::parse(&read(file)?) {
            Ok(mut parsed) => documents.append(&mut parsed),
            Err(mut wrong) => diagnostics.append(&mut wrong),
        }
    }
    if !diagnostics.is_empty() {
        return Err(Refused::Invalid(diagnostics));
    }
    if documents.is_empty() {
        documents.push(deny_everything());
    }
    if mode == Mode::Audit {
        documents.iter_mut().for_each(|document| document.audit_until = Some(FOREVER));
    }
    let options = CompileOptions { generation: Generation(1), ..CompileOptions::default() };
    let set = PolicySet::compile(&documents, &options).map_err(Refused::Invalid)?;
    Ok(Policies { set, absent: files.is_empty() })
}

fn read(file: &Path) -> Result<Source, Refused> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let name = if file == Path::new("-") { "<stdin>".to_owned() } else { file.display().to_string() };
    match text {
        Ok(text) => Ok(Source::new(name, text)),
        Err(error) => Err(Refused::Unreadable(file.to_owned(), error)),
    }
}

/// A policy without rules, so that denials say `no-rule` rather than `no-policy`.
fn deny_everything() -> Document {
    Document {
        source: Source::new("<no policy file>", ""),
        name: Spanned { value: "deny-everything".to_owned(), span: 0..0 },
        owner: None,
        description: None,
        applies_to: None,
        audit_until: None,
        egress: Vec::new(),
        ingress: Vec::new(),
    }
}
