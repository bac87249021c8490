//! Diagnostics for people: the line, what is wrong with it, and how to mend it.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    ops::Range,
};

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use sidegate_policy::{Diagnostic, Source};

/// Prints to standard error, with colour on a terminal unless `NO_COLOR` is set.
pub(crate) fn print(sources: &[Source], diagnostics: &[Diagnostic]) {
    let terminal = io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = render(sources, diagnostics, colour, width(terminal));
    // Nobody is left to tell when standard error is closed.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A line on standard output; a closed pipe (`| head`) is no failure.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// One JSON value on standard output.
pub(super) fn say_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(json) => say(&json),
        Err(error) => eprintln!("sidegate: {error}"),
    }
}

fn width(terminal: bool) -> usize {
    let columns = rustix::termios::tcgetwinsize(io::stderr()).map(|size| usize::from(size.ws_col));
    match columns {
        Ok(columns) if terminal && columns > 0 => columns.clamp(40, 140),
        _ => 110,
    }
}

fn render(sources: &[Source], diagnostics: &[Diagnostic], colour: bool, width: usize) -> String {
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(width)
        .with_links(false)
        .with_context_lines(1)
        .without_primary_span_start();
    let mut out = String::new();
    for diagnostic in diagnostics {
        let source = sources.iter().find(|source| source.name == diagnostic.file);
        let source = source.filter(|source| is_short(source, diagnostic.span.start));
        let report =
            Report { diagnostic, named: source.map(|source| named(source, diagnostic)), source, sources };
        if source.is_none() || handler.render_report(&mut out, &report).is_err() {
            out.push_str(&format!("{diagnostic}\n"));
        }
        out.push('\n');
    }
    out
}

/// Whether the lines around a place are fit to be shown: not a file without line ends.
fn is_short(source: &Source, at: usize) -> bool {
    const LONGEST: usize = 500;
    let (before, after) = source.text.split_at_checked(at).unwrap_or_default();
    let lines = before.rsplit('\n').take(2).chain(after.split('\n').take(2));
    lines.map(str::len).max().unwrap_or_default() <= LONGEST
}

/// The text with what could drive a terminal replaced, byte for byte. The name carries the place, since miette
/// counts columns in bytes.
fn named(source: &Source, diagnostic: &Diagnostic) -> NamedSource<String> {
    let visible = |c: char| match c {
        '\n' | '\r' | '\t' => c,
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => '\u{FFFD}',
        _ if c.is_control() && c.is_ascii() => '?',
        _ if c.is_control() => '\u{BF}',
        _ => c,
    };
    let name = format!("{}:{}:{}", source.name, diagnostic.line, diagnostic.column);
    NamedSource::new(name, source.text.chars().map(visible).collect::<String>())
}

#[derive(Debug)]
struct Report<'a> {
    diagnostic: &'a Diagnostic,
    named: Option<NamedSource<String>>,
    source: Option<&'a Source>,
    sources: &'a [Source],
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.diagnostic.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let elsewhere = self.diagnostic.related.as_ref().filter(|(file, ..)| *file != self.diagnostic.file);
        let elsewhere = elsewhere.and_then(|(file, span, words)| {
            let source = self.sources.iter().find(|source| source.name == *file)?;
            let (line, column) = source.place(span.start);
            Some(format!("\n{file}:{line}:{column}: {words}"))
        });
        Some(Box::new(format!("{}{}", self.diagnostic.fix, elsewhere.unwrap_or_default())))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.named.as_ref().map(|named| named as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let source = self.source?;
        let here = LabeledSpan::new_primary_with_span(None, first_line(source, &self.diagnostic.span));
        let related = self.diagnostic.related.as_ref().filter(|(file, ..)| *file == source.name);
        let related = related.map(|(_, span, words)| {
            LabeledSpan::new_with_span(Some(words.clone()), first_line(source, span))
        });
        Some(Box::new(std::iter::once(here).chain(related)))
    }
}

/// A rule spans many lines; its first one says which it is.
fn first_line(source: &Source, span: &Range<usize>) -> Range<usize> {
    let text = source.text.get(span.clone()).unwrap_or_default();
    let length = text.find(['\n', '\r']).unwrap_or(text.len());
    span.start..span.start + length
}
