//! What is wrong with one source, collected while reading and placed at the end in one pass.

use std::ops::Range;

use crate::{Diagnostic, Source};

use super::tree::Entry;

/// More than this and the text is no policy; what a hostile source can make us print is bounded.
const MAX_FINDINGS: usize = 200;

pub(super) struct Findings<'a> {
    pub(super) source: &'a Source,
    found: Vec<Finding>,
    dropped: usize,
}

struct Finding {
    code: &'static str,
    span: Range<usize>,
    message: String,
    fix: String,
    related: Option<(Range<usize>, String)>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Findings { source, found: Vec::new(), dropped: 0 }
    }

    pub(super) fn add(
        &mut self,
        code: &'static str,
        span: &Range<usize>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        if self.is_full() {
            self.dropped += 1;
            return;
        }
        let (message, fix) = (message.into(), fix.into());
        self.found.push(Finding { code, span: span.clone(), message, fix, related: None });
    }

    /// Reports a field that has no place where it stands, when it is written.
    pub(super) fn refuse(&mut self, entry: Option<&Entry<'_>>, code: &'static str, message: &str, fix: &str) {
        if let Some(entry) = entry {
            self.add(code, &entry.key_span, message, fix);
        }
    }

    /// Nothing more will be shown: not worth a search for what was meant.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() == MAX_FINDINGS
    }

    /// Gives the finding added last a second place.
    pub(super) fn relate(&mut self, span: &Range<usize>, words: &str) {
        if let Some(last) = self.found.last_mut().filter(|_| self.dropped == 0) {
            last.related = Some((span.clone(), words.to_owned()));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// In the order of their places. Lines and columns are counted onwards, never from the start again.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|finding| finding.span.start);
        if self.dropped > 0 {
            let end = self.source.text.len();
            self.found.push(Finding {
                code: "too-many-errors",
                span: end..end,
                message: format!("{} more errors are not shown", self.dropped),
                fix: "mend these first".to_owned(),
                related: None,
            });
        }
        let source = self.source;
        let (mut line, mut column, mut at) = (1, 1, 0);
        let place = |finding: Finding| {
            let passed = source.text.get(at..finding.span.start).unwrap_or_default();
            line += passed.bytes().filter(|&byte| byte == b'\n').count();
            column = match passed.rsplit_once('\n') {
                Some((_, after)) => 1 + after.chars().count(),
                None => column + passed.chars().count(),
            };
            at = finding.span.start;
            Diagnostic {
                code: finding.code,
                file: source.name.clone(),
                line,
                column,
                span: finding.span,
                message: finding.message,
                fix: finding.fix,
                related: finding.related.map(|(span, words)| (source.name.clone(), span, words)),
            }
        };
        self.found.into_iter().map(place).collect()
    }
}
