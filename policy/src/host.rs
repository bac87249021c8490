//! The one canonical host name and the patterns that match it.

mod pattern;
mod punycode;
mod shared;
#[cfg(test)]
mod tests;

pub(crate) use shared::public_labels;

pub use pattern::{HostPattern, HostPatternError, HostSpecificity};

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
    /// `xn--` followed by Punycode that is invalid, not canonical, or encodes plain ASCII.
    #[error("a label is not a valid A-label")]
    ALabel,
    /// An IPv4 or IPv6 literal, or a name whose last label is a number (decimal, or hexadecimal with `0x`).
    #[error("it is an IP address, not a name")]
    Address,
}

const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

impl HostName {
    /// Parses and canonicalises (case, one trailing dot). Every other deviation is an error.
    ///
    /// Hyphens in places 3 and 4 are fine outside `xn--` labels: large sites use such names, and no two
    /// readings of them exist.
    pub fn parse(text: &str) -> Result<Self, HostNameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(HostNameError::Empty);
        }
        if is_address(name) {
            return Err(HostNameError::Address);
        }
        if name.len() > MAX_NAME {
            return Err(HostNameError::TooLong);
        }
        let name = name.to_ascii_lowercase();
        name.split('.').try_for_each(check_label)?;
        Ok(HostName(name.into_boxed_str()))
    }

    /// As [`HostName::parse`], from wire bytes (SNI, DNS presentation form).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HostNameError> {
        std::str::from_utf8(bytes).map_err(|_| HostNameError::Character).and_then(Self::parse)
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels, leftmost first.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// The A-label form of a name that was written with Unicode letters, when there is an unambiguous one.
    ///
    /// Meant for the fix of a diagnostic, never for matching: it lowers case, but does not map or normalise.
    pub fn suggest_a_labels(text: &str) -> Option<HostName> {
        let lower = text.to_lowercase();
        let labels: Option<Vec<String>> = lower.split('.').map(punycode::to_a_label).collect();
        HostName::parse(&labels?.join(".")).ok()
    }
}

impl std::fmt::Display for HostName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The forms that some stack would take for an address: `inet_aton` reads `1`, `0x7f.1` and `10.1`; brackets and
/// colons are IPv6. A name whose last label is numeric can't be a host (WHATWG URL, "ends in a number").
fn is_address(name: &str) -> bool {
    let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let address = inner.split_once('%').map_or(inner, |(address, _zone)| address);
    if address.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `label` is already lower-case.
fn check_label(label: &str) -> Result<(), HostNameError> {
    if label.is_empty() {
        return Err(HostNameError::EmptyLabel);
    }
    if !label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return Err(HostNameError::Character);
    }
    if label.len() > MAX_LABEL {
        return Err(HostNameError::LabelTooLong);
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(HostNameError::Hyphen);
    }
    match label.strip_prefix("xn--") {
        Some(encoded) if !punycode::is_canonical(encoded) => Err(HostNameError::ALabel),
        _ => Ok(()),
    }
}
