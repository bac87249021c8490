//! The ClientHello that answers a HelloRetryRequest. RFC 8446 section 4.1.2.

use super::{
    client_hello::{ClientHello, HelloReader},
    records::{Content, Malformed, Piece, Records},
    server_gate::HELD_BYTES,
};

/// The second ClientHello is not what the first promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the second ClientHello differs from the first")]
pub struct SecondHelloError;

/// Awaits the second hello behind the records that may precede it.
#[derive(Debug)]
pub(super) struct SecondHello {
    /// Finds the first handshake record; from there on `reader` has the stream.
    records: Records,
    reader: HelloReader,
    state: State,
    /// Early data that was under way when the server asked again; it will skip it.
    may_skip_early_data: bool,
    skipped: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Skipping,
    Reading,
    Whole,
    Refused,
}

impl SecondHello {
    pub(super) fn new(first: &ClientHello) -> Self {
        SecondHello {
            records: Records::new(),
            reader: HelloReader::new(HELD_BYTES),
            state: State::Skipping,
            may_skip_early_data: first.early_data,
            skipped: 0,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.state == State::Whole
    }

    /// How many of all the bytes pushed were looked at: once whole, where the hello ends.
    pub(super) fn taken(&self) -> usize {
        self.skipped + self.reader.taken()
    }

    /// See [`super::server_gate::ServerGate::push_client`].
    pub(super) fn push(&mut self, first: &ClientHello, bytes: &[u8]) -> Result<bool, SecondHelloError> {
        let result = self.read(first, bytes);
        if result.is_err() {
            self.state = State::Refused;
        }
        result
    }

    fn read(&mut self, first: &ClientHello, bytes: &[u8]) -> Result<bool, SecondHelloError> {
        let mut input = bytes;
        if self.state == State::Skipping {
            self.skip(&mut input)?;
        }
        match self.state {
            State::Whole => Ok(true),
            State::Refused => Err(SecondHelloError),
            State::Skipping => Ok(false),
            State::Reading => {
                let Some(second) = self.reader.push(input).map_err(|_| SecondHelloError)? else {
                    return Ok(false);
                };
                if !repeats(first, &second) {
                    return Err(SecondHelloError);
                }
                self.state = State::Whole;
                Ok(true)
            }
        }
    }

    /// Passes over change_cipher_spec and early data; stops in front of the first handshake record.
    fn skip(&mut self, input: &mut &[u8]) -> Result<(), SecondHelloError> {
        while let Some(&kind) = input.first() {
            if self.records.at_boundary() && kind == 22 {
                self.state = State::Reading;
                return Ok(());
            }
            let before = input.len();
            let piece = self.records.next(input).map_err(|Malformed| SecondHelloError)?;
            self.skipped += before - input.len();
            let permitted = match piece {
                None => true,
                Some(Piece::Header { content: Content::ChangeCipherSpec, length }) => length == 1,
                Some(Piece::Body { content: Content::ChangeCipherSpec, bytes, .. }) => bytes == [1],
                Some(Piece::Header { content: Content::ApplicationData, .. })
                | Some(Piece::Body { content: Content::ApplicationData, .. }) => self.may_skip_early_data,
                Some(_) => false,
            };
            if !permitted || self.skipped > HELD_BYTES {
                return Err(SecondHelloError);
            }
        }
        Ok(())
    }
}

/// Only key shares, cookie, padding and pre-shared keys may change, and early data must end.
fn repeats(first: &ClientHello, second: &ClientHello) -> bool {
    second.server_name == first.server_name
        && second.alpn == first.alpn
        && second.offers_tls13
        && second.ech == first.ech
        && !second.early_data
        && second.session_id == first.session_id
}
