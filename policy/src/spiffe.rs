//! SPIFFE IDs, trust domains, and the patterns that match them.

#[cfg(test)]
mod tests;

const SCHEME: &str = "spiffe://";
const MAX_TRUST_DOMAIN: usize = 255;
const MAX_ID: usize = 2048;

/// A trust domain: 1-255 bytes of `[a-z0-9.-_]`. SPIFFE-ID section 2.1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Box<str>);

/// A SPIFFE ID, at most 2048 bytes. SPIFFE-ID section 2.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(Box<str>);

/// A SPIFFE ID in a rule: `*` matches one path segment, a final `**` the rest (one or more segments).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffePattern(Box<str>);

/// Which rule of the SPIFFE-ID specification, or of patterns, a text breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// It does not start with `spiffe://`, in lower case.
    #[error("it does not start with `spiffe://`")]
    Scheme,
    /// More than 2048 bytes.
    #[error("it is longer than 2048 bytes")]
    TooLong,
    /// No trust domain.
    #[error("it has no trust domain")]
    TrustDomainEmpty,
    /// A trust domain of more than 255 bytes.
    #[error("its trust domain is longer than 255 bytes")]
    TrustDomainTooLong,
    /// A trust domain with a byte outside `[a-z0-9.-_]`.
    #[error("its trust domain has a character other than lower-case letters, digits, `.`, `-` and `_`")]
    TrustDomainCharacter,
    /// A wildcard in the trust domain: it would trust strangers' authorities.
    #[error("its trust domain has a wildcard")]
    TrustDomainWildcard,
    /// `//` in the path.
    #[error("its path has an empty segment")]
    EmptySegment,
    /// A path that ends in `/`.
    #[error("it ends in `/`")]
    TrailingSlash,
    /// `.` or `..` as a segment.
    #[error("its path has a dot segment")]
    DotSegment,
    /// A path byte outside `[A-Za-z0-9._-]`.
    #[error("its path has a character other than letters, digits, `.`, `-` and `_`")]
    PathCharacter,
    /// A wildcard that is no whole segment.
    #[error("`*` stands within a segment; a wildcard is a whole segment")]
    MidSegment,
    /// `**` before the end.
    #[error("`**` stands before the end; it matches the rest and comes last")]
    NotLast,
}

/// How specific a SPIFFE pattern is; greater is more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeSpecificity {
    /// Segments written out.
    pub(crate) literal: u16,
    /// No final `**`.
    pub(crate) bounded: bool,
}

impl TrustDomain {
    /// Parses the bare name, without scheme.
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        check_trust_domain(text)?;
        Ok(TrustDomain(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SpiffeId {
    /// Parses an ID; nothing is normalised.
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        let (_, path) = split(text)?;
        for segment in path {
            check_segment(segment)?;
        }
        Ok(SpiffeId(text.into()))
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(trust_domain_of(&self.0).into())
    }

    /// The path with its leading `/`, or nothing for the ID of the trust domain itself.
    pub fn path(&self) -> &str {
        self.0.get(SCHEME.len() + trust_domain_of(&self.0).len()..).unwrap_or_default()
    }
}

impl SpiffePattern {
    /// Parses a pattern. The trust domain is always written out.
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        let (_, path) = split(text)?;
        let mut path = path.peekable();
        while let Some(segment) = path.next() {
            match segment {
                "**" if path.peek().is_some() => return Err(SpiffeError::NotLast),
                "*" | "**" => {}
                _ if segment.contains('*') => return Err(SpiffeError::MidSegment),
                _ => check_segment(segment)?,
            }
        }
        Ok(SpiffePattern(text.into()))
    }

    /// Whether the ID matches: the same trust domain, and the path segment by segment.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        let mut segments = id.0.split('/');
        for wanted in self.0.split('/') {
            match (wanted, segments.next()) {
                ("**", Some(_)) => return true,
                ("*", Some(_)) => {}
                (_, Some(segment)) if wanted == segment => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }

    /// Whether some ID matches both.
    pub fn overlaps(&self, other: &SpiffePattern) -> bool {
        let (mut ours, mut theirs) = (self.0.split('/'), other.0.split('/'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some("**"), Some(_)) | (Some(_), Some("**")) => return true,
                (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
                _ => return false,
            }
        }
    }

    /// How specific it is: more literal segments, else without `**`.
    pub fn specificity(&self) -> SpiffeSpecificity {
        let literal = self.0.split('/').filter(|segment| !segment.contains('*')).count();
        SpiffeSpecificity {
            literal: u16::try_from(literal).unwrap_or(u16::MAX),
            bounded: !self.0.ends_with("/**"),
        }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SpiffeError {
    /// How to mend it.
    pub fn fix(self) -> &'static str {
        match self {
            SpiffeError::Scheme | SpiffeError::TrustDomainEmpty => {
                "write `spiffe://trust-domain/path`, such as `spiffe://example.org/ns/web/sa/front`"
            }
            SpiffeError::TooLong | SpiffeError::TrustDomainTooLong => "shorten it",
            SpiffeError::TrustDomainCharacter => {
                "a trust domain is a plain lower-case name without port or user"
            }
            SpiffeError::TrustDomainWildcard => "name one trust domain; wildcards belong to the path",
            SpiffeError::EmptySegment => "remove the extra `/`",
            SpiffeError::TrailingSlash => "remove the final `/`, or write `/**` to match everything below",
            SpiffeError::DotSegment => "write the path without `.` and `..`",
            SpiffeError::PathCharacter => "SPIFFE paths are not percent-encoded; check the path",
            SpiffeError::MidSegment => "let `*` stand for a whole segment, such as `/ns/web/sa/*`",
            SpiffeError::NotLast => "use `*` for one segment; `**` only at the end",
        }
    }
}

macro_rules! display_text {
    ($($name:ident),*) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
display_text!(TrustDomain, SpiffeId, SpiffePattern);

fn trust_domain_of(id: &str) -> &str {
    id.split('/').nth(2).unwrap_or_default()
}

/// The trust domain, checked, and the path's segments, which are neither empty nor trailing.
fn split(text: &str) -> Result<(&str, impl Iterator<Item = &str>), SpiffeError> {
    let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
    if text.len() > MAX_ID {
        return Err(SpiffeError::TooLong);
    }
    let (trust_domain, path) = rest.split_once('/').map_or((rest, None), |(name, path)| (name, Some(path)));
    check_trust_domain(trust_domain)?;
    if path.is_some_and(|path| path.is_empty() || path.ends_with('/')) {
        return Err(SpiffeError::TrailingSlash);
    }
    if path.is_some_and(|path| path.split('/').any(str::is_empty)) {
        return Err(SpiffeError::EmptySegment);
    }
    Ok((trust_domain, path.into_iter().flat_map(|path| path.split('/'))))
}

fn check_trust_domain(name: &str) -> Result<(), SpiffeError> {
    if name.is_empty() {
        return Err(SpiffeError::TrustDomainEmpty);
    }
    if name.contains('*') {
        return Err(SpiffeError::TrustDomainWildcard);
    }
    if name.len() > MAX_TRUST_DOMAIN {
        return Err(SpiffeError::TrustDomainTooLong);
    }
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    if name.bytes().all(plain) { Ok(()) } else { Err(SpiffeError::TrustDomainCharacter) }
}

fn check_segment(segment: &str) -> Result<(), SpiffeError> {
    if matches!(segment, "." | "..") {
        return Err(SpiffeError::DotSegment);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if segment.bytes().all(plain) { Ok(()) } else { Err(SpiffeError::PathCharacter) }
}
