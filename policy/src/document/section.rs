//! The strict reader of policies, for other documents of ours (the sidecar's configuration): unknown fields,
//! duplicate keys and guesses refused, every error at once, each with its place.

use std::{cell::RefCell, ops::Range};

use super::{
    fields::{self, Fields},
    findings::Findings,
    scalar,
    tree::{self, Entry, Node, Value},
};
use crate::{Diagnostic, Source};

/// Reads the one document of a source, whose root has the fields `known`.
///
/// `build` gets the root and returns `None` after it reported why there is nothing to return.
///
/// # Errors
/// Every diagnostic of the source, in the order of their places.
pub fn read_sections<T>(
    source: &Source,
    what: &str,
    known: &[&'static str],
    build: impl FnOnce(&Section<'_, '_, '_>) -> Option<T>,
) -> Result<T, Vec<Diagnostic>> {
    let findings = RefCell::new(Findings::new(source));
    let roots = tree::read(&source.text, &mut findings.borrow_mut());
    let built = roots.as_deref().and_then(|roots| match roots {
        [root] => Section::open(root, what, known, &findings).and_then(|section| build(&section)),
        _ => {
            let message = format!("the file holds {} documents", roots.len());
            findings.borrow_mut().add("documents", &(0..0), message, format!("write exactly one {what}"));
            None
        }
    });
    let findings = findings.into_inner();
    match built {
        Some(built) if findings.is_empty() => Ok(built),
        _ => Err(findings.finish()),
    }
}

/// A mapping with known fields. What is wrong with a field is reported, and the field then reads as absent.
pub struct Section<'n, 's, 'f> {
    fields: Fields<'n, 's>,
    findings: &'n RefCell<Findings<'f>>,
}

impl<'n, 's, 'f> Section<'n, 's, 'f> {
    fn open(
        node: &'n Node<'s>,
        what: &str,
        known: &[&'static str],
        findings: &'n RefCell<Findings<'f>>,
    ) -> Option<Self> {
        let fields = Fields::open(node, what, known, &mut findings.borrow_mut())?;
        Some(Section { fields, findings })
    }

    /// A field that is a section itself.
    pub fn section(&self, name: &str, known: &[&'static str]) -> Option<Section<'n, 's, 'f>> {
        Section::open(self.fields.value(name)?, name, known, self.findings)
    }

    /// A list of sections, each called `what` in messages; `None`: there is no such field.
    pub fn sections(
        &self,
        name: &str,
        what: &str,
        known: &[&'static str],
    ) -> Option<Vec<Section<'n, 's, 'f>>> {
        let node = self.fields.value(name)?;
        let items = fields::list(node, name, &mut self.findings.borrow_mut());
        Some(items.iter().filter_map(|item| Section::open(item, what, known, self.findings)).collect())
    }

    /// A mapping from names of the author's own to sections, each called `what` in messages.
    pub fn section_map(
        &self,
        name: &str,
        what: &str,
        known: &[&'static str],
    ) -> Option<std::collections::BTreeMap<String, Section<'n, 's, 'f>>> {
        let node = self.fields.value(name)?;
        let Value::Mapping(entries) = &node.value else {
            scalar::wrong_type(node, name, "a mapping", &mut self.findings.borrow_mut());
            return None;
        };
        let named = entries.iter().filter(|entry| is_name(entry, name, &mut self.findings.borrow_mut()));
        let opened = |entry: &'n Entry<'s>| {
            Some((entry.key.to_string(), Section::open(&entry.value, what, known, self.findings)?))
        };
        Some(named.filter_map(opened).collect())
    }

    /// Reports the absence of a field.
    pub fn require(&self, name: &str, what: &str, fix: &str) {
        self.fields.required(name, what, fix, &mut self.findings.borrow_mut());
    }

    /// Where a field stands, if it is there.
    pub fn place(&self, name: &str) -> Option<Range<usize>> {
        self.fields.entry(name).map(|entry| entry.key_span.clone())
    }

    /// A text and its place.
    pub fn text(&self, name: &str) -> Option<(&'n str, Range<usize>)> {
        let node = self.fields.value(name)?;
        let text = scalar::text(node, name, &mut self.findings.borrow_mut())?;
        Some((text, node.span.clone()))
    }

    /// A text, parsed; `fix` says what to write when `parse` won't have it.
    pub fn parsed<T>(&self, name: &str, fix: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let (text, span) = self.text(name)?;
        let parsed = parse(text);
        if parsed.is_none() {
            self.wrong(&span, "value", format!("`{}` is no valid `{name}`", scalar::shown(text)), fix);
        }
        parsed
    }

    /// The texts of a list that is not empty, each parsed.
    pub fn list<T>(&self, name: &str, fix: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        let placed = self.placed_list(name, fix, parse)?;
        Some(placed.into_iter().map(|(parsed, _)| parsed).collect())
    }

    /// The same, each with its place.
    pub fn placed_list<T>(
        &self,
        name: &str,
        fix: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<(T, Range<usize>)>> {
        let node = self.fields.value(name)?;
        Some(fields::texts(node, name, &mut self.findings.borrow_mut(), |text, span, findings| {
            let parsed = parse(text);
            if parsed.is_none() {
                let message = format!("`{}` is no valid entry of `{name}`", scalar::shown(text));
                findings.add("value", span, message, fix);
            }
            Some((parsed?, span.clone()))
        }))
    }

    /// A mapping from names of the author's own, 1 to 63 of `a-z`, `0-9` and `-`, to texts that are each parsed.
    pub fn map<T>(
        &self,
        name: &str,
        fix: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<std::collections::BTreeMap<String, T>> {
        let node = self.fields.value(name)?;
        let findings = &mut *self.findings.borrow_mut();
        let Value::Mapping(entries) = &node.value else {
            scalar::wrong_type(node, name, "a mapping", findings);
            return None;
        };
        let mut found = std::collections::BTreeMap::new();
        for entry in entries {
            if !is_name(entry, name, findings) {
                continue;
            }
            let Some(text) = scalar::text(&entry.value, &entry.key, findings) else { continue };
            match parse(text) {
                Some(value) => {
                    found.insert(entry.key.to_string(), value);
                }
                None => {
                    let message = format!("`{}` is no valid entry of `{name}`", scalar::shown(text));
                    findings.add("value", &entry.value.span, message, fix);
                }
            }
        }
        Some(found)
    }

    /// `true` or `false`.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        scalar::boolean(self.fields.value(name)?, name, &mut self.findings.borrow_mut())
    }

    /// One of a few words.
    pub fn word<T: Copy>(&self, name: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        scalar::word(self.fields.value(name)?, name, words, &mut self.findings.borrow_mut())
    }

    /// An unquoted decimal number within a range.
    pub fn number(&self, name: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let node = self.fields.value(name)?;
        let found = match &node.value {
            Value::Scalar(text, true) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        };
        let number = found.filter(|number| range.contains(number));
        if number.is_none() {
            let fix = format!("write a number from {} to {}", range.start(), range.end());
            self.wrong(&node.span, "value", format!("`{name}` is no number that is allowed here"), &fix);
        }
        number
    }

    /// Reports something wrong at a place.
    pub fn wrong(&self, span: &Range<usize>, code: &'static str, message: String, fix: &str) {
        self.findings.borrow_mut().add(code, span, message, fix);
    }
}

fn is_name(entry: &Entry<'_>, of: &str, findings: &mut Findings<'_>) -> bool {
    let right = scalar::is_name(&entry.key);
    if !right {
        let message = format!("`{}` is no name in `{of}`", scalar::shown(&entry.key));
        findings.add("name", &entry.key_span, message, "write 1 to 63 of a-z, 0-9 and `-`");
    }
    right
}
