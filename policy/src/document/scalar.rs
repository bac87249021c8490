//! Scalars: text, booleans, dates and words. YAML's guesses are refused, not followed.

use std::ops::Range;

use crate::{Date, date::DateError};

use super::{
    findings::Findings,
    tree::{Node, Value},
};

/// What YAML software may take an unquoted scalar for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Guess {
    Nothing,
    Boolean,
    /// `yes`, `on`, ...: booleans in YAML 1.1, text in 1.2.
    Switch,
    Number,
    Text,
}

impl Guess {
    pub(super) fn of(text: &str) -> Guess {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Guess::Nothing,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Guess::Boolean,
            "y" | "Y" | "yes" | "Yes" | "YES" | "n" | "N" | "no" | "No" | "NO" | "on" | "On" | "ON"
            | "off" | "Off" | "OFF" => Guess::Switch,
            ".inf" | ".Inf" | ".INF" | "-.inf" | "+.inf" | ".nan" | ".NaN" | ".NAN" => Guess::Number,
            _ if is_number(text) => Guess::Number,
            _ => Guess::Text,
        }
    }
}

/// Integers and floats of YAML 1.1 and 1.2 alike: signs, underscores, hexadecimal, octal, binary, exponents.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(radix) = digits.get(..2).filter(|_| digits.len() > 2)
        && matches!(radix, "0x" | "0X" | "0o" | "0O" | "0b" | "0B")
    {
        return digits.bytes().skip(2).all(|byte| byte.is_ascii_hexdigit() || byte == b'_');
    }
    let number = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'e' | b'E' | b'+' | b'-');
    let starts = digits.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit());
    starts && digits.bytes().all(number) && digits.replace('_', "").parse::<f64>().is_ok()
}

/// What a node is, for "expected ..., found ...".
pub(super) fn kind(node: &Node<'_>) -> &'static str {
    match &node.value {
        Value::Scalar(text, true) => match Guess::of(text) {
            Guess::Nothing => "nothing",
            Guess::Boolean | Guess::Switch => "a boolean",
            Guess::Number => "a number",
            Guess::Text => "text",
        },
        Value::Scalar(..) => "text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Refused => "a refused value",
    }
}

/// Adds "expected, found", unless the node was refused before.
pub(super) fn wrong_type(node: &Node<'_>, what: &str, expected: &str, findings: &mut Findings<'_>) {
    match &node.value {
        Value::Refused => {}
        Value::Scalar(text, true) if Guess::of(text) == Guess::Nothing => {
            let message = format!("{what} has no value");
            findings.add("no-value", &node.span, message, format!("write {expected}, or remove the field"));
        }
        _ => {
            let message = format!("{what} must be {expected}, found {}", kind(node));
            findings.add("wrong-type", &node.span, message, format!("write {expected}"));
        }
    }
}

/// Text that every YAML reader takes for text: what YAML 1.1 or 1.2 would guess to be something else is refused.
pub(super) fn text<'n>(node: &'n Node<'_>, field: &str, findings: &mut Findings<'_>) -> Option<&'n str> {
    match &node.value {
        Value::Scalar(text, plain) => match Guess::of(text) {
            Guess::Boolean | Guess::Switch | Guess::Number if *plain => {
                let message = format!("`{field}` must be text, found {}", kind(node));
                findings.add("wrong-type", &node.span, message, format!("quote it: \"{}\"", shown(text)));
                None
            }
            Guess::Nothing if *plain => {
                wrong_type(node, &format!("`{field}`"), "text", findings);
                None
            }
            _ => Some(text),
        },
        _ => {
            wrong_type(node, &format!("`{field}`"), "text", findings);
            None
        }
    }
}

/// Text for people: at most `limit` bytes, no control characters, no directional overrides.
pub(super) fn prose(
    node: &Node<'_>,
    field: &str,
    limit: usize,
    findings: &mut Findings<'_>,
) -> Option<String> {
    let text = text(node, field, findings)?;
    let hidden = |c: char| {
        (c.is_control() && c != '\n') || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    let fault = if text.trim().is_empty() {
        Some("is empty")
    } else if text.len() > limit {
        Some("is too long")
    } else if text.contains(hidden) {
        Some("has control characters or directional overrides")
    } else {
        None
    };
    if let Some(fault) = fault {
        let fix = format!("write plain text of 1 to {limit} bytes");
        findings.add("text", &node.span, format!("`{field}` {fault}"), fix);
        return None;
    }
    Some(text.to_owned())
}

/// `true` or `false`, unquoted.
pub(super) fn boolean(node: &Node<'_>, field: &str, findings: &mut Findings<'_>) -> Option<bool> {
    match &node.value {
        Value::Scalar(text, true) if text == "true" => Some(true),
        Value::Scalar(text, true) if text == "false" => Some(false),
        _ => {
            wrong_type(node, &format!("`{field}`"), "true or false (unquoted)", findings);
            None
        }
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(
    node: &Node<'_>,
    field: &'static str,
    words: &[(&'static str, T)],
    findings: &mut Findings<'_>,
) -> Option<T> {
    let text = text(node, field, findings)?;
    let known = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if known.is_none() {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let fix = match nearest(text, &names) {
            // Two edits away, and yet the opposite.
            _ if field == "protocol" && text == "https" => "write `tls`: `http` is plaintext".to_owned(),
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write one of: {}", names.join(", ")),
        };
        let code = if field == "tls.mode" { "tls-mode" } else { field };
        findings.add(code, &node.span, format!("`{}` is no {field}", shown(text)), fix);
    }
    known
}

/// A day, `YYYY-MM-DD`.
pub(super) fn date(node: &Node<'_>, field: &str, findings: &mut Findings<'_>) -> Option<Date> {
    let text = text(node, field, findings)?;
    match Date::parse(text) {
        Ok(date) => Some(date),
        Err(error) => {
            let fix = match error {
                DateError::Form => "write YYYY-MM-DD, such as 2030-12-31",
                DateError::Month | DateError::Day | DateError::TooEarly => "check the day",
            };
            findings.add("date", &node.span, format!("`{}` is no date: {error}", shown(text)), fix);
            None
        }
    }
}

/// An unquoted decimal number in a range; `code` is that of the fault.
pub(super) fn number<N: std::str::FromStr + PartialOrd + std::fmt::Display>(
    node: &Node<'_>,
    field: &str,
    (code, range): (&'static str, std::ops::RangeInclusive<N>),
    findings: &mut Findings<'_>,
) -> Option<N> {
    let Value::Scalar(text, plain) = &node.value else {
        wrong_type(node, &format!("`{field}`"), "a number", findings);
        return None;
    };
    let digits = *plain && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let number = text.parse().ok().filter(|number| digits && range.contains(number));
    if number.is_none() {
        let message = format!("`{}` is no `{field}`", shown(text));
        let fix = format!("write a number from {} to {}, unquoted", range.start(), range.end());
        findings.add(code, &node.span, message, fix);
    }
    number
}

pub(super) fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(plain)
}

/// A name, `[a-z0-9-]{1,63}`.
pub(super) fn name(node: &Node<'_>, findings: &mut Findings<'_>) -> Option<(String, Range<usize>)> {
    let text = text(node, "name", findings)?;
    if is_name(text) {
        return Some((text.to_owned(), node.span.clone()));
    }
    let mended: String = text
        .chars()
        .take(63)
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .collect();
    let mended = mended.trim_matches('-');
    let message = format!("`{}` is no name: names are 1 to 63 of a-z, 0-9 and `-`", shown(text));
    let fix = if mended.is_empty() {
        "write a name such as `payments`".to_owned()
    } else {
        format!("write `{mended}`")
    };
    findings.add("name", &node.span, message, fix);
    None
}

/// A user's text as messages show it: escaped and cut.
pub(super) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(80).flat_map(escape).collect();
    if text.chars().nth(80).is_some() { format!("{cut}...") } else { cut }
}

fn escape(c: char) -> Box<dyn Iterator<Item = char>> {
    if c.is_control() { Box::new(c.escape_default()) } else { Box::new(std::iter::once(c)) }
}

/// The candidate within two edits, for "did you mean".
pub(super) fn nearest<'c>(text: &str, candidates: &[&'c str]) -> Option<&'c str> {
    if text.len() > 32 {
        return None;
    }
    let lower = text.to_lowercase();
    candidates
        .iter()
        .map(|candidate| (edits(&lower, &candidate.to_lowercase()), *candidate))
        .filter(|(edits, candidate)| *edits <= 2 && *edits * 2 <= candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&other) {
            let cost = (diagonal + usize::from(a != *b)).min(left + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, cost);
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
