//! The first bytes of HTTP/1.x and HTTP/2 with prior knowledge.

use std::net::IpAddr;

use sidegate_policy::HostName;

use super::head::{Head, RequestLine, ends_in_version, has_known_method, is_token_byte};

/// A recognised beginning of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preface {
    /// A whole HTTP/1.x head.
    Http1 {
        /// Exact method token.
        method: String,
        /// The target's path without its query: of an absolute target too; `*` or the authority where that is all.
        target: String,
        /// The one canonical host of `Host` and an absolute target.
        host: Option<HostName>,
        /// Their host where it is an IP literal.
        host_address: Option<IpAddr>,
        /// How long the body behind the head is.
        body: BodyLength,
    },
    /// The HTTP/2 connection preface. RFC 9113 section 3.4.
    Http2,
}

/// How a request's body ends. RFC 9112 section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// After so many bytes; without a length there is no body.
    Exactly(u64),
    /// With its last chunk.
    Chunked,
}

/// How far the recognition is. Everything but [`PrefaceProgress::NeedMore`] stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrefaceProgress {
    /// Not HTTP, whatever follows.
    NotHttp,
    /// More bytes are needed.
    NeedMore,
    /// A whole head, or the whole HTTP/2 preface.
    Done(Preface),
    /// HTTP, but not such that all readers would understand it alike.
    Refused(PrefaceError),
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefaceError {
    /// Breaks the grammar of RFC 9112, or uses a form that readers disagree about.
    #[error("malformed HTTP head")]
    Malformed,
    /// `Host` and the absolute target name different hosts.
    #[error("two parts of the head name different hosts")]
    HostMismatch,
    /// The host is neither a canonical name nor an address.
    #[error("the host is not a valid name")]
    HostInvalid,
    /// Larger than the budget.
    #[error("HTTP head larger than the budget")]
    TooLarge,
}

/// Recognises HTTP in bytes given piece by piece. Each byte is looked at once.
#[derive(Debug)]
pub struct PrefaceReader {
    budget: usize,
    taken: usize,
    state: State,
    /// The line under way, without its end.
    line: Vec<u8>,
    /// A space was seen in the request line.
    method_ended: bool,
    /// The last byte was a CR, so that LF must follow.
    after_cr: bool,
    /// The head that is done may ask for another protocol.
    upgrades: bool,
}

#[derive(Debug)]
enum State {
    /// The method or the rest of the request line.
    RequestLine,
    /// Header lines.
    Head(Head),
    /// Behind `PRI * HTTP/2.0`: how much of [`HTTP2_TAIL`] was seen.
    Http2(usize),
    Over(PrefaceProgress),
}

/// What follows the request line of the HTTP/2 preface.
const HTTP2_TAIL: &[u8] = b"\r\nSM\r\n\r\n";
/// The longest method token that is taken for one. The longest registered is UPDATEREDIRECTREF (17).
const METHOD_MAX: usize = 24;

impl PrefaceReader {
    /// A reader that refuses a head beyond `budget` bytes.
    pub fn new(budget: usize) -> Self {
        PrefaceReader {
            budget,
            taken: 0,
            state: State::RequestLine,
            line: Vec::new(),
            method_ended: false,
            after_cr: false,
            upgrades: false,
        }
    }

    /// Takes the bytes that arrived since the last call. Bytes behind the head are not looked at.
    pub fn push(&mut self, bytes: &[u8]) -> PrefaceProgress {
        for &byte in bytes {
            if let State::Over(progress) = &self.state {
                return progress.clone();
            }
            self.taken += 1;
            if let Err(over) = self.step(byte) {
                self.state = State::Over(over);
            } else if self.taken >= self.budget {
                self.state = State::Over(PrefaceProgress::Refused(PrefaceError::TooLarge));
            }
        }
        match &self.state {
            State::Over(progress) => progress.clone(),
            _ => PrefaceProgress::NeedMore,
        }
    }

    /// How many bytes were looked at.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// The head that is done may ask for another protocol: what follows it can be taken two ways until it is answered.
    pub(super) fn upgrades(&self) -> bool {
        self.upgrades
    }

    /// It is surely HTTP, though perhaps not yet whole or not well-formed.
    pub fn is_recognised(&self) -> bool {
        match &self.state {
            State::RequestLine => has_known_method(&self.line),
            State::Head(_) | State::Http2(_) => true,
            State::Over(progress) => *progress != PrefaceProgress::NotHttp,
        }
    }

    /// Takes one byte; an `Err` is the last word.
    fn step(&mut self, byte: u8) -> Result<(), PrefaceProgress> {
        if let State::Http2(seen) = &mut self.state {
            if HTTP2_TAIL.get(*seen) != Some(&byte) {
                return Err(PrefaceProgress::Refused(PrefaceError::Malformed));
            }
            *seen += 1;
            let whole = *seen == HTTP2_TAIL.len();
            return if whole { Err(PrefaceProgress::Done(Preface::Http2)) } else { Ok(()) };
        }
        match (self.after_cr, byte) {
            (true, b'\n') => {
                self.after_cr = false;
                let line = std::mem::take(&mut self.line);
                self.line_ended(&line)
            }
            (true, _) | (false, b'\n' | 0) => Err(self.bad_byte()),
            (false, byte) => {
                if matches!(self.state, State::RequestLine) {
                    self.check_request_line_byte(byte)?;
                }
                if byte == b'\r' {
                    self.after_cr = true;
                } else {
                    self.line.push(byte);
                }
                Ok(())
            }
        }
    }

    /// Binary and line-based protocols are told apart as early as their bytes allow.
    fn check_request_line_byte(&mut self, byte: u8) -> Result<(), PrefaceProgress> {
        let length = self.line.len();
        match byte {
            b' ' if length > 0 => self.method_ended = true,
            byte if self.method_ended && (byte.is_ascii_graphic() || byte == b'\r') => {}
            _ if self.method_ended => return Err(self.bad_byte()),
            byte if is_token_byte(byte) && length < METHOD_MAX => {}
            _ => return Err(PrefaceProgress::NotHttp),
        }
        Ok(())
    }

    fn line_ended(&mut self, line: &[u8]) -> Result<(), PrefaceProgress> {
        let refused = PrefaceProgress::Refused;
        match &mut self.state {
            State::RequestLine => {
                self.state = match RequestLine::parse(line) {
                    Ok(RequestLine::Http2) => State::Http2(0),
                    Ok(RequestLine::Http1(start)) => State::Head(Head::new(start)),
                    Err(error) if has_known_method(line) || ends_in_version(line) => {
                        return Err(refused(error));
                    }
                    Err(_) => return Err(PrefaceProgress::NotHttp),
                };
                Ok(())
            }
            State::Head(head) if line.is_empty() => {
                let preface = head.finish().map_err(refused)?;
                self.upgrades = head.upgrades;
                Err(PrefaceProgress::Done(preface))
            }
            State::Head(head) => head.take_line(line).map_err(refused),
            State::Http2(_) | State::Over(_) => Ok(()),
        }
    }

    /// A byte that no head may hold: it is malformed HTTP only if it is HTTP at all.
    fn bad_byte(&self) -> PrefaceProgress {
        if self.is_recognised() {
            PrefaceProgress::Refused(PrefaceError::Malformed)
        } else {
            PrefaceProgress::NotHttp
        }
    }
}
