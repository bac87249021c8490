//! The one canonical URL path and the patterns that match it.

/// A canonical absolute path: decoded where harmless, dot segments resolved, no empty segments; judged and forwarded alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CanonicalPath(Box<str>);

impl CanonicalPath {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A path in a rule: `*` matches one segment, a final `**` the rest (zero or more segments).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern(Box<str>);
