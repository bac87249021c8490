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

    /// 1-based line and column (in characters) of a byte offset; the end when it lies beyond.
    pub fn place(&self, offset: usize) -> (usize, usize) {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = self.text.get(..end).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = 1 + before.bytes().filter(|&byte| byte == b'\n').count();
        (line, 1 + before.get(line_start..).unwrap_or_default().chars().count())
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

impl Diagnostic {
    /// A diagnostic at a byte range of a source.
    pub fn new(
        source: &Source,
        code: &'static str,
        span: Range<usize>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let (line, column) = source.place(span.start);
        let (message, fix) = (message.into(), fix.into());
        Diagnostic { code, file: source.name.clone(), line, column, span, message, fix, related: None }
    }

    /// With a second place that matters.
    #[must_use]
    pub fn with_related(mut self, file: Arc<str>, span: Range<usize>, words: impl Into<String>) -> Self {
        self.related = Some((file, span, words.into()));
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {} [{}]: {}",
            self.file, self.line, self.column, self.message, self.code, self.fix
        )
    }
}

impl std::error::Error for Diagnostic {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters() {
        let source = Source::new("p.yaml", "a\r\nbü c\n");
        let places: Vec<_> = [0, 1, 3, 4, 6, 7, 9, 99].iter().map(|&offset| source.place(offset)).collect();
        assert_eq!(places, [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (2, 4), (3, 1), (3, 1)]);
    }
}
