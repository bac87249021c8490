//! Holds the server's first bytes until they show which TLS version it selected. RFC 8446 sections 4.1.3, 4.1.4.

use super::{
    client_hello::ClientHello,
    records::{Content, Malformed, Message, Piece, Records},
    second_hello::SecondHello,
    server_hello::{Selected, ServerHello},
};

pub use super::second_hello::SecondHelloError;

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
    /// A TLS alert: release it (no more than [`ServerGate::releasable`]), the server refuses by itself.
    Alert,
    /// Not TLS, malformed, more than 64 KiB without a ServerHello, or a cipher suite that does not encrypt.
    Malformed,
}

/// Follows both directions of one passthrough handshake until the version is known.
#[derive(Debug)]
pub struct ServerGate {
    first: ClientHello,
    records: Records,
    hello: Message,
    /// The part of an alert record that is there.
    alert: Vec<u8>,
    /// Bytes taken from the server in all, and since the last message.
    taken: usize,
    held: usize,
    releasable: usize,
    /// After a HelloRetryRequest: the second ClientHello.
    second: Option<SecondHello>,
    /// The verdict, once it fell.
    over: Option<Shown>,
}

/// Most bytes from the server, and again from the client after a retry, before the next hello is whole.
pub const HELD_BYTES: usize = 64 * 1024;

/// `HandshakeType.server_hello`.
const SERVER_HELLO: u8 = 2;
/// `AlertDescription.unrecognized_name`, which older servers send as a warning ahead of ServerHello.
const UNRECOGNIZED_NAME: u8 = 112;

impl ServerGate {
    /// A gate for a handshake that began with `first`.
    pub fn new(first: ClientHello) -> Self {
        ServerGate {
            first,
            records: Records::new(),
            hello: Message::new(SERVER_HELLO, HELD_BYTES),
            alert: Vec::new(),
            taken: 0,
            held: 0,
            releasable: 0,
            second: None,
            over: None,
        }
    }

    /// Takes bytes from the server. A verdict other than [`Shown::Undecided`] and [`Shown::Retry`] stays.
    /// Linear in the bytes given, whatever their splitting.
    pub fn push_server(&mut self, bytes: &[u8]) -> Shown {
        if self.over.is_none() {
            match self.read(bytes) {
                Ok(Shown::Undecided) => return Shown::Undecided,
                Ok(Shown::Retry) => return Shown::Retry,
                Ok(verdict) => self.over = Some(verdict),
                Err(Malformed) => self.over = Some(Shown::Malformed),
            }
        } else {
            self.taken += bytes.len();
        }
        let verdict = self.over.unwrap_or(Shown::Malformed);
        match verdict {
            Shown::Tls13 | Shown::Tls12 | Shown::Older => self.releasable = self.taken,
            Shown::Malformed | Shown::Undecided => self.releasable = 0,
            // Up to the end of that record: what a server appends to its refusal is nobody's TLS.
            Shown::Alert | Shown::Retry => {}
        }
        verdict
    }

    /// How many of all the bytes given to [`ServerGate::push_server`], counted from the first one, the last
    /// verdict would let pass: up to the end of a HelloRetryRequest or an alert, everything after a ServerHello
    /// (whether its version will do is the caller's judgement), nothing when malformed.
    pub fn releasable(&self) -> usize {
        self.releasable
    }

    /// Takes bytes from the client after a retry (change_cipher_spec records and refused early data may come first).
    /// `Ok(true)`: the second hello is whole and names the same host; `Ok(false)`: more is needed.
    ///
    /// # Errors
    /// The second hello is malformed or names another host, or no retry was asked for. The error stays.
    pub fn push_client(&mut self, bytes: &[u8]) -> Result<bool, SecondHelloError> {
        self.second.as_mut().ok_or(SecondHelloError)?.push(&self.first, bytes)
    }

    /// How many of the bytes given to [`ServerGate::push_client`] go as far as the end of the second hello.
    pub fn second_ends(&self) -> usize {
        self.second.as_ref().map_or(0, SecondHello::taken)
    }

    fn read(&mut self, bytes: &[u8]) -> Result<Shown, Malformed> {
        let mut input = bytes;
        let mut shown = Shown::Undecided;
        loop {
            let room = HELD_BYTES.saturating_sub(self.held).min(input.len());
            let (mut within, beyond) = input.split_at(room);
            let piece = self.records.next(&mut within)?;
            let used = room - within.len();
            self.taken += used;
            self.held += used;
            input = input.get(used..).unwrap_or(beyond);
            let verdict = match piece {
                None if self.held >= HELD_BYTES => return Err(Malformed),
                None => return Ok(shown),
                Some(Piece::Header { content, length }) => self.header(content, length)?,
                Some(Piece::Body { content: Content::Handshake, bytes, ends }) => {
                    self.handshake(bytes, ends)?
                }
                Some(Piece::Body { content: Content::Alert, bytes, ends }) => self.alert(bytes, ends)?,
                // A change_cipher_spec's single byte.
                Some(Piece::Body { bytes, .. }) if bytes == [1] => Shown::Undecided,
                Some(Piece::Body { .. }) => return Err(Malformed),
            };
            match verdict {
                Shown::Undecided => {}
                Shown::Retry => shown = Shown::Retry,
                verdict => {
                    self.taken += input.len();
                    return Ok(verdict);
                }
            }
        }
    }

    /// Which records may stand before the awaited ServerHello.
    fn header(&mut self, content: Content, length: usize) -> Result<Shown, Malformed> {
        let within_hello = !self.hello.is_empty();
        match (content, length) {
            // Only after the client's second hello went through can an answer to it come.
            (Content::Handshake, 1..) if self.second.as_ref().is_none_or(SecondHello::is_whole) => {}
            (Content::Alert, 2) if !within_hello => self.alert.clear(),
            // Middlebox compatibility (RFC 8446 appendix D.4), right after HelloRetryRequest.
            (Content::ChangeCipherSpec, 1) if !within_hello && self.second.is_some() => {}
            _ => return Err(Malformed),
        }
        Ok(Shown::Undecided)
    }

    fn alert(&mut self, bytes: &[u8], ends: bool) -> Result<Shown, Malformed> {
        self.alert.extend_from_slice(bytes);
        match *self.alert.as_slice() {
            // A warning, after which the ServerHello is still to come.
            [1, UNRECOGNIZED_NAME] => Ok(Shown::Undecided),
            [1 | 2, _] => {
                self.releasable = self.taken;
                Ok(Shown::Alert)
            }
            _ if ends => Err(Malformed),
            _ => Ok(Shown::Undecided),
        }
    }

    fn handshake(&mut self, bytes: &[u8], ends: bool) -> Result<Shown, Malformed> {
        let Some(used) = self.hello.push(bytes).map_err(|_| Malformed)? else { return Ok(Shown::Undecided) };
        let aligned = used == bytes.len() && ends;
        let hello = ServerHello::parse(self.hello.body())?;
        match hello.selected {
            Selected::Retry | Selected::Tls13 => {
                // Keys change behind either, so that the message ends its record (section 5.1).
                let honest = self.first.offers_tls13 && hello.session_id == self.first.session_id && aligned;
                if !honest {
                    return Err(Malformed);
                }
            }
            Selected::Tls12 | Selected::Older if self.second.is_some() => return Err(Malformed),
            Selected::Tls12 => return Ok(Shown::Tls12),
            Selected::Older => return Ok(Shown::Older),
        }
        if hello.selected == Selected::Tls13 {
            return Ok(Shown::Tls13);
        }
        if self.second.is_some() {
            return Err(Malformed);
        }
        self.second = Some(SecondHello::new(&self.first));
        self.hello = Message::new(SERVER_HELLO, HELD_BYTES);
        self.held = 0;
        self.releasable = self.taken;
        Ok(Shown::Retry)
    }
}

/// A fatal `protocol_version` alert record (RFC 8446 section 6).
pub const PROTOCOL_VERSION_ALERT: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 70];
/// A fatal `access_denied` alert record.
pub const ACCESS_DENIED_ALERT: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 49];

#[cfg(test)]
mod tests;
