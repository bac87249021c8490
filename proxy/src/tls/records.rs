//! The record layer before encryption, and handshake messages over any number of records.
//! RFC 8446 sections 4 and 5.1.

/// The bytes break the protocol's grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    ChangeCipherSpec,
    Alert,
    Handshake,
    ApplicationData,
}

/// Most plaintext in one record.
const PLAINTEXT_MAX: usize = 1 << 14;
/// Most ciphertext in one record of TLS 1.3 (RFC 8446 section 5.2).
const CIPHERTEXT_MAX: usize = PLAINTEXT_MAX + 256;

/// The next thing in a stream of records.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A header is whole; `length` bytes of content follow (perhaps none).
    Header { content: Content, length: usize },
    /// At least one byte of the record's content; `ends`: the record's last.
    Body { content: Content, bytes: &'a [u8], ends: bool },
}

/// Splits a stream into records, whatever its splitting into reads. An error falls at the same byte always.
#[derive(Debug)]
pub(super) struct Records {
    header: [u8; 5],
    /// Bytes of `header` that are there.
    filled: usize,
    /// The record under way, and how much of its content is still to come.
    open: Option<(Content, usize)>,
}

impl Records {
    pub(super) fn new() -> Self {
        Records { header: [0; 5], filled: 0, open: None }
    }

    /// Takes the next piece from the front of `input`; `None` once `input` is used up.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, Malformed> {
        if let Some((content, left)) = self.open {
            return Ok(self.body(input, content, left));
        }
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            let slot = self.header.get_mut(self.filled).ok_or(Malformed)?;
            *slot = byte;
            self.filled += 1;
            if let Some((content, length)) = self.checked_header()? {
                self.filled = 0;
                self.open = (length > 0).then_some((content, length));
                return Ok(Some(Piece::Header { content, length }));
            }
        }
        Ok(None)
    }

    /// Between two records.
    pub(super) fn at_boundary(&self) -> bool {
        self.open.is_none() && self.filled == 0
    }

    fn body<'a>(&mut self, input: &mut &'a [u8], content: Content, left: usize) -> Option<Piece<'a>> {
        if input.is_empty() {
            return None;
        }
        let (bytes, rest) = input.split_at(left.min(input.len()));
        *input = rest;
        let left = left - bytes.len();
        self.open = (left > 0).then_some((content, left));
        Some(Piece::Body { content, bytes, ends: left == 0 })
    }

    /// Judges the header as far as it is there. The minor version is to be ignored (section 5.1).
    fn checked_header(&self) -> Result<Option<(Content, usize)>, Malformed> {
        let [kind, major, _minor, high, low] = self.header;
        let content = match kind {
            20 => Content::ChangeCipherSpec,
            21 => Content::Alert,
            22 => Content::Handshake,
            23 => Content::ApplicationData,
            _ => return Err(Malformed),
        };
        if self.filled >= 2 && major != 3 {
            return Err(Malformed);
        }
        if self.filled < self.header.len() {
            return Ok(None);
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let most = if content == Content::ApplicationData { CIPHERTEXT_MAX } else { PLAINTEXT_MAX };
        if length > most { Err(Malformed) } else { Ok(Some((content, length))) }
    }
}

/// Why a handshake message is refused before it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageError {
    /// It is of another type than the one awaited.
    Type,
    /// It says that it is longer than the limit.
    TooLarge,
}

/// Collects one handshake message from fragments.
#[derive(Debug)]
pub(super) struct Message {
    kind: u8,
    most: usize,
    collected: Vec<u8>,
}

/// Type and 24-bit length.
const MESSAGE_HEADER: usize = 4;

impl Message {
    /// Awaits a message of type `kind` with at most `most` bytes, its header included.
    pub(super) fn new(kind: u8, most: usize) -> Self {
        Message { kind, most, collected: Vec::new() }
    }

    /// Nothing has been taken yet.
    pub(super) fn is_empty(&self) -> bool {
        self.collected.is_empty()
    }

    /// Takes what belongs to the message from `fragment`. Once it is whole: how many bytes that was.
    /// Memory grows with the bytes that arrived, never with the length that they claim.
    pub(super) fn push(&mut self, fragment: &[u8]) -> Result<Option<usize>, MessageError> {
        let mut rest = fragment;
        loop {
            if self.collected.first().is_some_and(|kind| *kind != self.kind) {
                return Err(MessageError::Type);
            }
            let whole = self.length()?;
            if Some(self.collected.len()) == whole {
                return Ok(Some(fragment.len() - rest.len()));
            }
            if rest.is_empty() {
                return Ok(None);
            }
            // The type is judged before the length, and the length before anything of the body is kept.
            let wanted = match whole {
                Some(whole) => whole,
                None if self.collected.is_empty() => 1,
                None => MESSAGE_HEADER,
            };
            let (now, later) = rest.split_at(rest.len().min(wanted.saturating_sub(self.collected.len())));
            self.collected.extend_from_slice(now);
            rest = later;
        }
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.collected.capacity()
    }

    /// The body of a whole message.
    pub(super) fn body(&self) -> &[u8] {
        self.collected.get(MESSAGE_HEADER..).unwrap_or_default()
    }

    /// The whole message's length with its header, once the header is there.
    fn length(&self) -> Result<Option<usize>, MessageError> {
        let Some([_, a, b, c]) = self.collected.first_chunk::<MESSAGE_HEADER>() else { return Ok(None) };
        let whole = MESSAGE_HEADER + (usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c));
        if whole > self.most { Err(MessageError::TooLarge) } else { Ok(Some(whole)) }
    }
}
