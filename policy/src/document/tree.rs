//! YAML (and so JSON) read into a tree of nodes, each with its place. Refused here, whatever the fields mean:
//! syntax errors, depth, size, control characters, duplicate keys, aliases, anchors, tags and merge keys.

use std::{borrow::Cow, collections::HashMap, ops::Range};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{MAX_SIZE, findings::Findings};

/// Deepest nesting; a policy needs 9.
pub(super) const MAX_DEPTH: usize = 32;

pub(super) struct Node<'s> {
    pub(super) span: Range<usize>,
    pub(super) value: Value<'s>,
}

pub(super) enum Value<'s> {
    /// Text, and whether it is plain (unquoted), so that YAML might read it as something else.
    Scalar(Cow<'s, str>, bool),
    Sequence(Vec<Node<'s>>),
    Mapping(Vec<Entry<'s>>),
    /// Already reported; readers pass over it in silence.
    Refused,
}

pub(super) struct Entry<'s> {
    pub(super) key: Cow<'s, str>,
    pub(super) key_span: Range<usize>,
    pub(super) value: Node<'s>,
}

/// The root of every document. `None`: the source is broken beyond reading; the findings say where.
pub(super) fn read<'s>(text: &'s str, findings: &mut Findings<'_>) -> Option<Vec<Node<'s>>> {
    if text.len() > MAX_SIZE {
        let message = format!("the file is larger than {MAX_SIZE} bytes");
        findings.add("too-large", &(0..0), message, "split it into several policies");
        return None;
    }
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}');
    if let Some((at, c)) = text.char_indices().find(|&(_, c)| control(c)) {
        let message = format!("the file has the control character {}", c.escape_unicode());
        findings.add("control-character", &(at..at + c.len_utf8()), message, "remove it");
        return None;
    }
    Builder { places: Places::new(text), findings, open: Vec::new(), roots: Vec::new() }.build(text)
}

/// From the parser's character counts to byte offsets.
struct Places {
    /// Empty for ASCII, where both are the same.
    bytes: Vec<u32>,
    length: usize,
}

impl Places {
    fn new(text: &str) -> Self {
        let offset = |(at, _): (usize, char)| u32::try_from(at).unwrap_or(u32::MAX);
        let bytes = if text.is_ascii() { Vec::new() } else { text.char_indices().map(offset).collect() };
        Places { bytes, length: text.len() }
    }

    fn offset(&self, index: usize) -> usize {
        if self.bytes.is_empty() {
            return index.min(self.length);
        }
        self.bytes.get(index).map_or(self.length, |&at| at as usize)
    }

    fn range(&self, span: Span) -> Range<usize> {
        let start = self.offset(span.start.index());
        start..self.offset(span.end.index()).max(start)
    }
}

enum Open<'s> {
    Sequence(Range<usize>, Vec<Node<'s>>),
    Mapping(Range<usize>, Vec<Entry<'s>>, Option<(Cow<'s, str>, Range<usize>)>),
}

struct Builder<'s, 'f, 'a> {
    places: Places,
    findings: &'f mut Findings<'a>,
    open: Vec<Open<'s>>,
    roots: Vec<Node<'s>>,
}

impl<'s> Builder<'s, '_, '_> {
    fn build(mut self, text: &'s str) -> Option<Vec<Node<'s>>> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            match event {
                Ok((event, span)) => self.take(event, span)?,
                Err(error) => {
                    let at = self.places.offset(error.marker().index());
                    let (message, fix) = explain_syntax(text, at, error.info());
                    self.findings.add("syntax", &(at..at), message, fix);
                    return None;
                }
            }
        }
        Some(self.roots)
    }

    /// `None`: nested too deeply.
    fn take(&mut self, event: Event<'s>, span: Span) -> Option<()> {
        let range = self.places.range(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let refused = self.refuse_properties(anchor, tag.is_some(), &range);
                let plain = style == ScalarStyle::Plain;
                let value = if refused { Value::Refused } else { Value::Scalar(text, plain) };
                self.close(Node { span: range, value });
            }
            Event::Alias(_) => {
                self.findings.add(
                    "alias",
                    &range,
                    "aliases are not allowed in a policy",
                    "write the value out where it is used",
                );
                self.close(Node { span: range, value: Value::Refused });
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_properties(anchor, tag.is_some(), &range);
                self.push(Open::Sequence(range, Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_properties(anchor, tag.is_some(), &range);
                self.push(Open::Mapping(range, Vec::new(), None))?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(range),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
        Some(())
    }

    fn refuse_properties(&mut self, anchor: usize, tag: bool, range: &Range<usize>) -> bool {
        if anchor > 0 {
            self.findings.add("anchor", range, "anchors are not allowed in a policy", "remove the `&` name");
        }
        if tag {
            self.findings.add("tag", range, "tags are not allowed in a policy", "remove the `!` tag");
        }
        anchor > 0 || tag
    }

    fn push(&mut self, open: Open<'s>) -> Option<()> {
        let (Open::Sequence(range, _) | Open::Mapping(range, ..)) = &open;
        if self.open.len() == MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels");
            self.findings.add(
                "too-deep",
                range,
                message,
                "a policy needs no such depth; check the indentation",
            );
            return None;
        }
        self.open.push(open);
        Some(())
    }

    fn end(&mut self, end: Range<usize>) {
        // A block collection "ends" where the next token starts; its last child's end says more.
        let close = |start: Range<usize>, last: Option<usize>| {
            let flow = !start.is_empty();
            start.start..if flow { end.end } else { last.unwrap_or(start.end) }.max(start.start)
        };
        match self.open.pop() {
            Some(Open::Sequence(start, items)) => {
                let span = close(start, items.last().map(|item| item.span.end));
                self.close(Node { span, value: Value::Sequence(items) });
            }
            Some(Open::Mapping(start, entries, _)) => {
                self.refuse_duplicates(&entries);
                let span =
                    close(start, entries.last().map(|entry| entry.value.span.end.max(entry.key_span.end)));
                self.close(Node { span, value: Value::Mapping(entries) });
            }
            None => {}
        }
    }

    /// A node is complete: it goes to its parent.
    fn close(&mut self, node: Node<'s>) {
        match self.open.last_mut() {
            None => self.roots.push(node),
            Some(Open::Sequence(_, items)) => items.push(node),
            Some(Open::Mapping(_, entries, pending)) => match pending.take() {
                Some((key, key_span)) => entries.push(Entry { key, key_span, value: node }),
                None => {
                    let span = node.span.clone();
                    let key = self.key(node);
                    if let Some(Open::Mapping(_, _, pending)) = self.open.last_mut() {
                        *pending = Some((key, span));
                    }
                }
            },
        }
    }

    fn key(&mut self, node: Node<'s>) -> Cow<'s, str> {
        match node.value {
            Value::Scalar(text, true) if text == "<<" => {
                let fix = "write the fields out where they are used";
                self.findings.add("merge-key", &node.span, "merge keys are not allowed in a policy", fix);
                text
            }
            Value::Scalar(text, _) => text,
            Value::Refused => Cow::Borrowed(""),
            Value::Sequence(_) | Value::Mapping(_) => {
                self.findings.add("key-type", &node.span, "a key must be text", "write a field name");
                Cow::Borrowed("")
            }
        }
    }

    fn refuse_duplicates(&mut self, entries: &[Entry<'s>]) {
        let mut seen: HashMap<&str, &Range<usize>> = HashMap::with_capacity(entries.len());
        for entry in entries.iter().filter(|entry| !entry.key.is_empty()) {
            if let Some(first) = seen.insert(&entry.key, &entry.key_span) {
                let message = format!("`{}` is written twice", super::scalar::shown(&entry.key));
                self.findings.add("duplicate-key", &entry.key_span, message, "keep one of them");
                self.findings.relate(first, "first written here");
            }
        }
    }
}

/// What the parser says, and for the two faults that people meet, what it means.
fn explain_syntax(text: &str, at: usize, words: &str) -> (String, &'static str) {
    let line = text.get(..at).unwrap_or_default().rsplit('\n').next().unwrap_or_default();
    let indentation = line.get(..line.len() - line.trim_start().len()).unwrap_or_default();
    if text.get(at..).is_some_and(|rest| rest.starts_with('*')) {
        let message = "an unquoted `*` starts a YAML alias";
        return (message.to_owned(), "quote it, such as \"*.example.com\"");
    }
    let fix = if indentation.contains('\t') {
        "indent with spaces, not tabs"
    } else {
        "check the indentation, quotes and brackets here and on the line before"
    };
    (format!("this is not valid YAML: {words}"), fix)
}
