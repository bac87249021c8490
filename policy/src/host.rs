//! The one canonical host name and the patterns that match it.

/// A canonical host name: lower-case LDH A-labels, no trailing dot, 1-253 bytes, not an IP literal.
///
/// The same value is matched, resolved, logged and sent. RFC 1123 section 2.1, RFC 5891 section 4.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Box<str>);

/// Why a text is no host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// Nothing, or only a dot.
    #[error("it is empty")]
    Empty,
    /// More than 253 bytes.
    #[error("it is longer than 253 bytes")]
    TooLong,
    /// `a..b`, or a leading dot.
    #[error("it has an empty label")]
    EmptyLabel,
    /// A label of more than 63 bytes.
    #[error("a label is longer than 63 bytes")]
    LabelTooLong,
    /// A byte other than a letter, digit or hyphen.
    #[error("it has a character other than letters, digits and hyphens")]
    Character,
    /// A label that starts or ends with a hyphen.
    #[error("a label starts or ends with a hyphen")]
    Hyphen,
    /// `xn--` followed by invalid Punycode, or hyphens in places 3 and 4 of another label.
    #[error("a label is not a valid A-label")]
    ALabel,
    /// An IPv4 or IPv6 literal, or a name whose last label is all digits.
    #[error("it is an IP address, not a name")]
    Address,
}

impl HostName {
    /// Parses and canonicalises (case, one trailing dot). Every other deviation is an error.
    pub fn parse(text: &str) -> Result<Self, HostNameError> {
        let _ = text;
        todo!()
    }

    /// As [`HostName::parse`], from wire bytes (SNI, DNS presentation form).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HostNameError> {
        std::str::from_utf8(bytes).map_err(|_| HostNameError::Character).and_then(Self::parse)
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for HostName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host in a rule: exact, `*.x` (exactly one label) or `**.x` (one or more labels).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Exactly this name.
    Exact(HostName),
    /// `*.suffix`: one label before the suffix.
    OneLabel(HostName),
    /// `**.suffix`: one or more labels before the suffix.
    AnyDepth(HostName),
}
