//! The ClientHello, over any splitting into reads and records.

use sidegate_policy::{HostName, HostNameError};

use super::{
    records::{Content, Malformed, Message, MessageError, Piece, Records},
    wire::{Cursor, Extension, each_extension},
};

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
    /// `early_data`: records of 0-RTT data may follow the hello.
    pub early_data: bool,
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
    budget: usize,
    /// Bytes of the stream taken so far, record headers included.
    taken: usize,
    records: Records,
    message: Message,
    /// A result was given; nothing more is accepted.
    over: Option<HelloError>,
}

/// `HandshakeType.client_hello`.
const CLIENT_HELLO: u8 = 1;
/// ALPN names kept for the record; the rest is only checked.
const ALPN_KEPT: usize = 32;

impl HelloReader {
    /// A reader that refuses a hello beyond `budget` bytes, record headers included: the headers of
    /// many tiny records count too.
    pub fn new(budget: usize) -> Self {
        HelloReader {
            budget,
            taken: 0,
            records: Records::new(),
            message: Message::new(CLIENT_HELLO, budget),
            over: None,
        }
    }

    /// Takes the bytes that arrived since the last call. `Ok(None)`: more is needed. Bytes behind the hello's
    /// last record are not looked at; see [`HelloReader::taken`].
    ///
    /// # Errors
    /// An error stays: later calls repeat it. Bytes pushed after a whole hello are [`HelloError::Malformed`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
        if let Some(error) = self.over {
            return Err(error);
        }
        let result = self.read(bytes);
        self.over = match &result {
            Ok(None) => None,
            Ok(Some(_)) => Some(HelloError::Malformed),
            Err(error) => Some(*error),
        };
        result
    }

    /// How many bytes of the stream were looked at; once the hello is whole, where it ends. What follows
    /// there is early data or an impatient client, and goes to the server as it is.
    pub fn taken(&self) -> usize {
        self.taken
    }

    fn read(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
        let room = self.budget.saturating_sub(self.taken).min(bytes.len());
        let Some(mut input) = bytes.get(..room) else { return Err(HelloError::TooLarge) };
        loop {
            let before = input.len();
            let piece = self.records.next(&mut input);
            self.taken += before - input.len();
            match piece.map_err(|Malformed| self.not_yet_tls())? {
                None if self.taken >= self.budget => return Err(HelloError::TooLarge),
                None => return Ok(None),
                Some(Piece::Header { content: Content::Handshake, length: 1.. }) => {}
                Some(Piece::Header { .. }) => return Err(self.not_yet_tls()),
                Some(Piece::Body { bytes, ends, .. }) => {
                    let Some(used) = self.message.push(bytes)? else { continue };
                    if used < bytes.len() || !ends {
                        return Err(HelloError::Malformed);
                    }
                    return Ok(Some(ClientHello::parse(self.message.body())?));
                }
            }
        }
    }

    /// The error for a bad record: without any handshake byte before it, this is no TLS at all.
    fn not_yet_tls(&self) -> HelloError {
        if self.message.is_empty() { HelloError::NotTls } else { HelloError::Malformed }
    }
}

impl From<Malformed> for HelloError {
    fn from(_: Malformed) -> Self {
        HelloError::Malformed
    }
}

impl From<MessageError> for HelloError {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::Type => HelloError::Malformed,
            MessageError::TooLarge => HelloError::TooLarge,
        }
    }
}

impl ClientHello {
    /// Parses the body of the handshake message: all of it, or nothing.
    fn parse(body: &[u8]) -> Result<ClientHello, Malformed> {
        let mut cursor = Cursor::new(body);
        let legacy_version = cursor.u16()?;
        let _random: [u8; 32] = cursor.array()?;
        let session_id = cursor.vector8()?;
        let cipher_suites = cursor.vector16()?;
        let compression = cursor.vector8()?;
        if session_id.len() > 32 || cipher_suites.is_empty() || cipher_suites.len() % 2 != 0 {
            return Err(Malformed);
        }
        let mut hello = ClientHello {
            server_name: ServerName::Absent,
            alpn: Vec::new(),
            offers_tls13: false,
            ech: false,
            early_data: false,
            session_id: session_id.to_vec(),
        };
        // Hellos from before RFC 3546 end here.
        if !cursor.is_empty() {
            let extensions = cursor.vector16()?;
            cursor.end()?;
            each_extension(extensions, |extension| hello.take_extension(extension))?;
        }
        hello.check_legacy_fields(legacy_version, compression)?;
        Ok(hello)
    }

    fn take_extension(&mut self, extension: Extension<'_>) -> Result<(), Malformed> {
        match extension.kind {
            0 => self.server_name = server_name(extension.body)?,
            16 => self.alpn = alpn(extension.body)?,
            // pre_shared_key is the last one: its binders cover all that precedes (section 4.2.11).
            41 if !extension.last => return Err(Malformed),
            42 if !extension.body.is_empty() => return Err(Malformed),
            42 => self.early_data = true,
            43 => self.offers_tls13 = supported_versions(extension.body)?.contains(&[3, 4]),
            // ECH (RFC 9849), its drafts, and ESNI before it.
            0xfe08..=0xfe0d | 0xff02 | 0xff03 | 0xffce => self.ech = true,
            // ech_outer_extensions never stands outside the encrypted hello.
            0xfd00 => return Err(Malformed),
            _ => {}
        }
        Ok(())
    }

    /// Section 4.1.2: what a hello that offers TLS 1.3 must say in the fields of older versions.
    fn check_legacy_fields(&self, version: u16, compression: &[u8]) -> Result<(), Malformed> {
        let sound = if self.offers_tls13 {
            version == 0x0303 && compression == [0]
        } else {
            version >> 8 == 3 && compression.contains(&0)
        };
        if sound { Ok(()) } else { Err(Malformed) }
    }
}

/// RFC 6066 section 3: exactly one entry, a `host_name`. Several would let two readers believe different ones.
fn server_name(body: &[u8]) -> Result<ServerName, Malformed> {
    let mut cursor = Cursor::new(body);
    let mut list = Cursor::new(cursor.vector16()?);
    cursor.end()?;
    let name_type = list.u8()?;
    let name = list.vector16()?;
    list.end()?;
    if name_type != 0 || name.is_empty() {
        return Err(Malformed);
    }
    // RFC 6066 leaves no trailing dot, and the bytes pass on as they are: two spellings would be two names.
    if name.ends_with(b".") {
        return Ok(ServerName::Invalid);
    }
    Ok(match HostName::from_bytes(name) {
        Ok(host) => ServerName::Host(host),
        Err(HostNameError::Address) => ServerName::Address,
        Err(_) => ServerName::Invalid,
    })
}

/// RFC 7301 section 3.1: a non-empty list of non-empty names.
fn alpn(body: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut cursor = Cursor::new(body);
    let mut list = Cursor::new(cursor.vector16()?);
    cursor.end()?;
    if list.is_empty() {
        return Err(Malformed);
    }
    let mut names = Vec::new();
    while !list.is_empty() {
        let name = list.vector8()?;
        if name.is_empty() {
            return Err(Malformed);
        }
        if names.len() < ALPN_KEPT {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Section 4.2.1: a non-empty list of two-byte versions, unknown ones (GREASE) included.
fn supported_versions(body: &[u8]) -> Result<&[[u8; 2]], Malformed> {
    let mut cursor = Cursor::new(body);
    let (versions, odd) = cursor.vector8()?.as_chunks::<2>();
    cursor.end()?;
    if versions.is_empty() || !odd.is_empty() { Err(Malformed) } else { Ok(versions) }
}

#[cfg(test)]
mod tests;
