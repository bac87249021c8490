//! Holds the server's first bytes until they show which TLS version it selected. RFC 8446 sections 4.1.3, 4.1.4.

use super::client_hello::ClientHello;

/// What the server's bytes show so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Not enough yet: hold every byte.
    Undecided,
    /// HelloRetryRequest for TLS 1.3: release it, then check the second ClientHello with [`ServerGate::push_client`].
    Retry,
    /// ServerHello for TLS 1.3: release everything.
    Tls13,
    /// ServerHello for TLS 1.2.
    Tls12,
    /// ServerHello for something older.
    Older,
    /// A TLS alert: release it, the server refuses by itself.
    Alert,
    /// Not TLS, or malformed.
    Malformed,
}

/// Follows both directions of one passthrough handshake until the version is known.
#[derive(Debug)]
pub struct ServerGate {
    _first: ClientHello,
}

impl ServerGate {
    /// A gate for a handshake that began with `first`.
    pub fn new(first: ClientHello) -> Self {
        ServerGate { _first: first }
    }

    /// Takes bytes from the server.
    pub fn push_server(&mut self, bytes: &[u8]) -> Shown {
        let _ = bytes;
        todo!()
    }

    /// Takes bytes from the client after a retry (change_cipher_spec records may come first).
    /// `Ok(true)`: the second hello is whole and names the same host; `Ok(false)`: more is needed.
    ///
    /// # Errors
    /// The second hello is malformed or names another host.
    pub fn push_client(&mut self, bytes: &[u8]) -> Result<bool, SecondHelloError> {
        let _ = bytes;
        todo!()
    }
}

/// The second ClientHello is not what the first promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the second ClientHello differs from the first")]
pub struct SecondHelloError;

/// A fatal `protocol_version` alert record (RFC 8446 section 6).
pub const PROTOCOL_VERSION_ALERT: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 70];
/// A fatal `access_denied` alert record.
pub const ACCESS_DENIED_ALERT: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 49];
