//! SPIFFE IDs, trust domains, and the patterns that match them.

/// A trust domain: 1-255 bytes of `[a-z0-9.-_]`. SPIFFE-ID section 2.1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Box<str>);

/// A SPIFFE ID, at most 2048 bytes. SPIFFE-ID section 2.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(Box<str>);

/// A SPIFFE ID in a rule: `*` matches one path segment, a final `**` the rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffePattern(Box<str>);
