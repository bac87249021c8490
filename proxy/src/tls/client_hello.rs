//! The ClientHello, over any splitting into reads and records.

use sidegate_policy::HostName;

/// What a ClientHello says of itself. RFC 8446 section 4.1.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The one `host_name` of `server_name`, or why there is none.
    pub server_name: ServerName,
    /// `application_layer_protocol_negotiation`, in order; at most 32 entries are kept.
    pub alpn: Vec<Vec<u8>>,
    /// `supported_versions` offers 0x0304.
    pub offers_tls13: bool,
    /// `encrypted_client_hello` (0xfe0d) or an older ESNI code point is present.
    pub ech: bool,
    /// The hello's session id, echoed by an honest TLS 1.3 server.
    pub session_id: Vec<u8>,
}

/// The server name, or the name of its absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// A canonical name.
    Host(HostName),
    /// No extension.
    Absent,
    /// The extension holds an IP literal.
    Address,
    /// The extension holds something that is no canonical name.
    Invalid,
}

/// Why bytes are no acceptable ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The first record is not a handshake record, or is SSLv2-shaped.
    #[error("not a TLS handshake record")]
    NotTls,
    /// Malformed, ambiguous (duplicate extensions, second names) or with trailing bytes.
    #[error("malformed ClientHello")]
    Malformed,
    /// Larger than the budget.
    #[error("ClientHello larger than the budget")]
    TooLarge,
}

/// Reassembles records and parses the hello once it is whole. Linear in the bytes given, whatever their splitting.
#[derive(Debug)]
pub struct HelloReader {
    _budget: usize,
}

impl HelloReader {
    /// A reader that refuses a hello beyond `budget` bytes.
    pub fn new(budget: usize) -> Self {
        HelloReader { _budget: budget }
    }

    /// Takes the bytes that arrived since the last call. `Ok(None)`: more is needed.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
        let _ = bytes;
        todo!()
    }
}
