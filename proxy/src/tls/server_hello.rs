//! ServerHello and HelloRetryRequest. RFC 8446 section 4.1.3.

use super::{
    records::Malformed,
    wire::{Cursor, each_extension},
};

/// The parts of a ServerHello that say what was selected.
#[derive(Debug)]
pub(super) struct ServerHello<'a> {
    pub(super) selected: Selected,
    pub(super) session_id: &'a [u8],
}

/// The selected version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selected {
    /// TLS 1.3, but the client must first send another hello.
    Retry,
    Tls13,
    Tls12,
    Older,
}

/// The random that makes a ServerHello a HelloRetryRequest: SHA-256 of "HelloRetryRequest".
const RETRY_RANDOM: [u8; 32] = [
    0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91, 0xC2,
    0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
];

impl<'a> ServerHello<'a> {
    /// Parses the body of the handshake message: all of it, or nothing.
    pub(super) fn parse(body: &'a [u8]) -> Result<ServerHello<'a>, Malformed> {
        let mut cursor = Cursor::new(body);
        let legacy_version = cursor.u16()?;
        let random: [u8; 32] = cursor.array()?;
        let session_id = cursor.vector8()?;
        let cipher_suite = cursor.u16()?;
        let compression = cursor.u8()?;
        if session_id.len() > 32 || sends_plaintext(cipher_suite) {
            return Err(Malformed);
        }
        let mut selected_version = None;
        // Servers without extensions end here.
        if !cursor.is_empty() {
            let extensions = cursor.vector16()?;
            cursor.end()?;
            each_extension(extensions, |extension| {
                if extension.kind == 43 {
                    let version: [u8; 2] = extension.body.try_into().map_err(|_| Malformed)?;
                    selected_version = Some(u16::from_be_bytes(version));
                }
                Ok(())
            })?;
        }
        let selected = match (selected_version, legacy_version) {
            (Some(0x0304), 0x0303) if compression != 0 => return Err(Malformed),
            (Some(0x0304), 0x0303) if random == RETRY_RANDOM => Selected::Retry,
            (Some(0x0304), 0x0303) => Selected::Tls13,
            // The extension says 1.3 or nothing (section 4.2.1).
            (Some(_), _) => return Err(Malformed),
            (None, _) if random == RETRY_RANDOM => return Err(Malformed),
            (None, 0x0303) => Selected::Tls12,
            (None, 0x0300..=0x0302) => Selected::Older,
            (None, _) => return Err(Malformed),
        };
        Ok(ServerHello { selected, session_id })
    }
}

/// Cipher suites that authenticate but do not encrypt: the NULL suites of the IANA registry, among them
/// the two of TLS 1.3 (RFC 9150).
fn sends_plaintext(cipher_suite: u16) -> bool {
    matches!(
        cipher_suite,
        0x0000..=0x0002
            | 0x002C..=0x002E
            | 0x003B
            | 0x00B0
            | 0x00B1
            | 0x00B4
            | 0x00B5
            | 0x00B8
            | 0x00B9
            | 0xC001
            | 0xC006
            | 0xC00B
            | 0xC010
            | 0xC015
            | 0xC039..=0xC03B
            | 0xC0B4
            | 0xC0B5
    )
}
