//! What is wrong with a document, where, and how to mend it.

use std::{fmt, ops::Range, sync::Arc};

/// A named text that diagnostics point into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// File name as the user gave it, or `<stdin>`.
    pub name: Arc<str>,
    /// The whole text.
    pub text: Arc<str>,
}

impl Source {
    /// A source from its name and text.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        Source { name: name.into(), text: text.into() }
    }
}

/// One thing wrong. Documents are refused whole, with every diagnostic at once.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Stable code, `kebab-case`, such as `unknown-field`.
    pub code: &'static str,
    /// Name of the [`Source`].
    pub file: Arc<str>,
    /// 1-based line.
    pub line: usize,
    /// 1-based column, in characters.
    pub column: usize,
    /// Byte range in the source's text.
    #[serde(skip)]
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub fix: String,
    /// A second place that matters (the earlier key, the rule it disagrees with), with a few words.
    #[serde(skip)]
    pub related: Option<(Arc<str>, Range<usize>, String)>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {} [{}]: {}", self.file, self.line, self.column, self.message, self.code, self.fix)
    }
}

impl std::error::Error for Diagnostic {}
