//! The targets, by what they read.

pub(crate) mod dns;
pub(crate) mod http;
pub(crate) mod policy;
pub(crate) mod tls;

/// The bytes in pieces whose sizes the bytes themselves choose, so that a fuzzer can search for splittings.
pub(crate) fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let size = 1 + usize::from(bytes.last().copied().unwrap_or_default()) % 40;
    bytes.chunks(size)
}

/// The bytes as text, where they are text.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
