//! The first bytes of HTTP/1.x and HTTP/2 with prior knowledge.

use sidegate_policy::HostName;

/// A recognised beginning of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preface {
    /// A whole HTTP/1.x head.
    Http1 {
        /// Exact method token.
        method: String,
        /// Request target without its query.
        target: String,
        /// The one canonical host of `Host` and an absolute target.
        host: Option<HostName>,
    },
    /// The HTTP/2 connection preface. RFC 9113 section 3.4.
    Http2,
}
