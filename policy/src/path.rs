//! The one canonical URL path and the patterns that match it.

#[cfg(test)]
mod tests;

/// A canonical absolute path: decoded where harmless, dot segments resolved, no empty segments; judged and forwarded alike.
///
/// A trailing slash is kept. Percent-encodings that remain are of reserved or non-ASCII bytes, with capital digits.
/// RFC 3986 sections 3.3 and 6.2.2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CanonicalPath(Box<str>);

/// Why a text is no path that every reader would read alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with `/`.
    #[error("it does not start with `/`")]
    NotAbsolute,
    /// More than [`MAX_PATH`] bytes.
    #[error("it is longer than 8192 bytes")]
    TooLong,
    /// `?` or `#`: a query or fragment is no part of the path.
    #[error("it carries a query or fragment")]
    Query,
    /// A `%` without two hexadecimal digits.
    #[error("a `%` is not followed by two hexadecimal digits")]
    Percent,
    /// `%2F`, `%5C` or `\`: some servers take them for `/`.
    #[error("it has a backslash or an encoded slash, which servers read differently")]
    Separator,
    /// NUL or another control character, raw or encoded.
    #[error("it has a control character")]
    Control,
    /// `%25` followed by two hexadecimal digits: decoded twice it would be another path.
    #[error("it is encoded twice")]
    DoubleEncoding,
    /// The decoded bytes are not UTF-8.
    #[error("it is not UTF-8 once decoded")]
    Utf8,
    /// A space or a raw non-ASCII character.
    #[error("it has a character that must be percent-encoded")]
    Character,
    /// `..;x`: some servers strip the parameter and then go up.
    #[error("it has a dot segment with a parameter, which servers read differently")]
    DotParameter,
}

/// Longest path, in bytes, as given and in canonical form.
pub const MAX_PATH: usize = 8192;

impl CanonicalPath {
    /// Parses and canonicalises the path of a request target, without its query.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        if !text.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        let decoded = decode(text.as_bytes())?;
        let canonical = resolve(&decoded)?;
        // Encoding what was raw can make it longer than the text was.
        if canonical.len() > MAX_PATH {
            Err(PathError::TooLong)
        } else {
            Ok(CanonicalPath(canonical.into_boxed_str()))
        }
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Decodes what is unreserved, writes every other encoding with capitals, refuses what is ambiguous.
fn decode(text: &[u8]) -> Result<String, PathError> {
    let mut canonical = String::with_capacity(text.len());
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let (decoded, encoded) = match byte {
            b'%' => {
                let [high, low, after @ ..] = rest else { return Err(PathError::Percent) };
                rest = after;
                (hexadecimal(*high, *low)?, true)
            }
            _ => (byte, false),
        };
        check_byte(decoded, encoded)?;
        plain.push(decoded);
        if is_unreserved(decoded) || (!encoded && is_reserved_in_path(decoded)) {
            canonical.push(char::from(decoded));
        } else {
            canonical.push_str(&format!("%{decoded:02X}"));
        }
    }
    let plain = String::from_utf8(plain).map_err(|_| PathError::Utf8)?;
    if plain.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    if encodes_a_percent_encoding(&canonical) { Err(PathError::DoubleEncoding) } else { Ok(canonical) }
}

fn check_byte(byte: u8, encoded: bool) -> Result<(), PathError> {
    match byte {
        b'\\' => Err(PathError::Separator),
        b'/' if encoded => Err(PathError::Separator),
        0..0x20 | 0x7F => Err(PathError::Control),
        b'?' | b'#' if !encoded => Err(PathError::Query),
        b' ' | 0x80.. if !encoded => Err(PathError::Character),
        _ => Ok(()),
    }
}

fn hexadecimal(high: u8, low: u8) -> Result<u8, PathError> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digit(high).zip(digit(low)).map(|(high, low)| high * 16 + low).ok_or(PathError::Percent)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Sub-delimiters, `:`, `@` and `/`, which mean something else than their encodings.
fn is_reserved_in_path(byte: u8) -> bool {
    matches!(
        byte,
        b'/' | b':' | b'@' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
    )
}

/// Hexadecimal digits are unreserved, so that they stand decoded here whichever way they were written.
fn encodes_a_percent_encoding(canonical: &str) -> bool {
    canonical
        .as_bytes()
        .windows(5)
        .any(|window| window.starts_with(b"%25") && window.iter().skip(3).all(u8::is_ascii_hexdigit))
}

/// Drops empty segments, then resolves dot segments; `..` at the root stays there (RFC 3986 section 5.2.4).
fn resolve(decoded: &str) -> Result<String, PathError> {
    let mut kept: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in decoded.split('/').skip(1) {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            _ if is_dot_with_parameter(segment) => return Err(PathError::DotParameter),
            _ => kept.push(segment),
        }
    }
    let mut path = String::with_capacity(decoded.len());
    for segment in &kept {
        path.push('/');
        path.push_str(segment);
    }
    if directory || path.is_empty() {
        path.push('/');
    }
    Ok(path)
}

fn is_dot_with_parameter(segment: &str) -> bool {
    let before = segment.split(';').next().unwrap_or_default();
    let before = before.split("%3B").next().unwrap_or_default();
    before.len() < segment.len() && matches!(before, "." | "..")
}

/// A path in a rule: `*` matches one segment, a final `**` the rest (zero or more segments).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern(Box<str>);

/// Why a text is no path pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    /// A literal segment is ambiguous, or the whole is no path.
    #[error("{0}")]
    Path(#[from] PathError),
    /// `/a*`: a wildcard must be a whole segment.
    #[error("`*` stands within a segment; a wildcard is a whole segment")]
    MidSegment,
    /// `/**/a`: `**` must be last.
    #[error("`**` stands before the end; it matches the rest and comes last")]
    NotLast,
    /// Not in canonical form, so that it could never match.
    #[error("it is not in canonical form and would never match")]
    NotCanonical(String),
}

impl PathPattern {
    /// Parses a pattern, which must be written in canonical form.
    pub fn parse(text: &str) -> Result<Self, PathPatternError> {
        let canonical = CanonicalPath::parse(text)?;
        let mut segments = text.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            match segment {
                "**" if segments.peek().is_some() => return Err(PathPatternError::NotLast),
                "*" | "**" => {}
                _ if segment.contains('*') => return Err(PathPatternError::MidSegment),
                _ => {}
            }
        }
        if canonical.as_str() == text {
            Ok(PathPattern(canonical.0))
        } else {
            Err(PathPatternError::NotCanonical(canonical.to_string()))
        }
    }

    /// Whether the path matches. `/a/**` matches `/a`, `/a/` and `/a/b/c`; `/a/*` matches `/a/b` only; a trailing slash counts.
    pub fn matches(&self, path: &CanonicalPath) -> bool {
        let mut segments = path.as_str().split('/');
        for wanted in self.0.split('/') {
            match (wanted, segments.next()) {
                ("**", _) => return true,
                ("*", Some(segment)) if !segment.is_empty() => {}
                (_, Some(segment)) if wanted == segment => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PathPatternError {
    /// How to mend it.
    pub fn fix(&self) -> String {
        let fix = match self {
            PathPatternError::NotCanonical(canonical) => return format!("write `{canonical}`"),
            PathPatternError::MidSegment => {
                "let `*` stand for a whole segment, such as `/v1/*/items`, or name the segments"
            }
            PathPatternError::NotLast => "use `*` for one segment; `**` only at the end, such as `/v1/**`",
            PathPatternError::Path(error) => match error {
                PathError::NotAbsolute => "start it with `/`",
                PathError::TooLong => "shorten it",
                PathError::Query => "remove the query or fragment; only the path is judged",
                PathError::Percent => "write `%` as two hexadecimal digits after it, or `%25` for itself",
                PathError::Separator => "requests with such paths are refused; remove it",
                PathError::Control => "requests with such paths are refused; remove it",
                PathError::DoubleEncoding => "requests with such paths are refused; encode once only",
                PathError::Utf8 => "encode the UTF-8 form of the character",
                PathError::Character => "percent-encode it, such as `%20` for a space",
                PathError::DotParameter => "requests with such paths are refused; remove it",
            },
        };
        fix.to_owned()
    }
}

impl std::fmt::Display for PathPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
