//! What the first bytes are. Pure: the caller reads (without consuming), keeps time, and forwards the very
//! same bytes afterwards.

use sidegate_policy::Reason;

use crate::{
    http::preface::{Preface, PrefaceProgress, PrefaceReader},
    tls::client_hello::{ClientHello, HelloError, HelloReader},
};

/// What a connection's first bytes turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// A whole ClientHello.
    Tls(ClientHello),
    /// A whole HTTP/1.x head or the HTTP/2 preface.
    Http(Preface),
    /// Neither.
    Opaque,
}

/// How far the recognition is. Everything but [`Progress::NeedMore`] stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Read on, until the deadline; then ask [`Classifier::finish`].
    NeedMore,
    /// Recognised.
    Done(FirstBytes),
    /// Can't be judged: `tls-malformed`, `http-malformed`, `host-mismatch`, `host-invalid`, `classify-too-large`.
    Refused(Reason),
}

/// Why no more bytes will be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMore {
    /// The client closed its sending side.
    Eof,
    /// The deadline passed.
    Deadline,
}

/// Recognises TLS and HTTP in bytes given piece by piece. The verdict depends on the bytes alone, never on
/// their splitting, and falls at the first byte that settles it.
#[derive(Debug)]
pub struct Classifier {
    budget: usize,
    taken: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Start,
    /// 0x80 came first: an SSLv2 hello if the third byte says so. Holds the bytes seen.
    MaybeSslv2(usize),
    Tls(HelloReader),
    Http(PrefaceReader),
    Over(Progress),
}

impl Classifier {
    /// A classifier that refuses a first message beyond `budget` bytes.
    pub fn new(budget: usize) -> Self {
        Classifier { budget, taken: 0, state: State::Start }
    }

    /// Takes the bytes that arrived since the last call.
    pub fn push(&mut self, bytes: &[u8]) -> Progress {
        let mut rest = bytes;
        loop {
            if let State::Over(progress) = &self.state {
                return progress.clone();
            }
            if rest.is_empty() {
                return Progress::NeedMore;
            }
            if let Some(progress) = self.step(&mut rest) {
                self.state = State::Over(progress);
            }
        }
    }

    /// How many bytes were looked at. After [`FirstBytes::Tls`]: where the hello ends; what follows belongs to
    /// [`crate::tls::server_gate::ServerGate::push_client`] if the server asks again.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// The last word when no more bytes will come. Text that could still have become an HTTP request line,
    /// but has not, is opaque.
    ///
    /// # Errors
    /// `classify-eof` or `classify-timeout` when nothing or half of a hello or head came, else as [`Progress::Refused`].
    pub fn finish(self, why: NoMore) -> Result<FirstBytes, Reason> {
        let too_early = match why {
            NoMore::Eof => Reason::ClassifyEof,
            NoMore::Deadline => Reason::ClassifyTimeout,
        };
        match self.state {
            State::Over(Progress::Done(first)) => Ok(first),
            State::Over(Progress::Refused(reason)) => Err(reason),
            State::Http(reader) if !reader.is_recognised() => Ok(FirstBytes::Opaque),
            State::MaybeSslv2(_) => Ok(FirstBytes::Opaque),
            State::Over(Progress::NeedMore) | State::Start | State::Tls(_) | State::Http(_) => Err(too_early),
        }
    }

    /// Feeds `rest` to the recogniser of this state, or chooses one by the first byte.
    fn step(&mut self, rest: &mut &[u8]) -> Option<Progress> {
        match &mut self.state {
            State::Start => {
                self.state = match rest.first() {
                    // Servers may skip an empty line before a request (RFC 9112 section 2.2): no opaque bytes, then.
                    Some(b'\r' | b'\n') => State::Over(Progress::Refused(Reason::HttpMalformed)),
                    Some(0x16) => State::Tls(HelloReader::new(self.budget)),
                    Some(0x80) => State::MaybeSslv2(0),
                    _ => State::Http(PrefaceReader::new(self.budget)),
                };
                None
            }
            State::MaybeSslv2(seen) => {
                let (&byte, later) = rest.split_first()?;
                *rest = later;
                *seen += 1;
                self.taken += 1;
                match *seen {
                    3 if byte == 1 => Some(Progress::Refused(Reason::TlsMalformed)),
                    3 => Some(Progress::Done(FirstBytes::Opaque)),
                    _ => None,
                }
            }
            State::Tls(reader) => {
                let result = reader.push(std::mem::take(rest));
                self.taken = reader.taken();
                match result {
                    Ok(None) => None,
                    Ok(Some(hello)) => Some(Progress::Done(FirstBytes::Tls(hello))),
                    Err(error) => Some(Progress::Refused(hello_reason(error))),
                }
            }
            State::Http(reader) => {
                let result = reader.push(std::mem::take(rest));
                self.taken = reader.taken();
                match result {
                    PrefaceProgress::NeedMore => None,
                    PrefaceProgress::NotHttp => Some(Progress::Done(FirstBytes::Opaque)),
                    PrefaceProgress::Done(preface) => Some(Progress::Done(FirstBytes::Http(preface))),
                    PrefaceProgress::Refused(error) => Some(Progress::Refused(Reason::from(error))),
                }
            }
            State::Over(_) => None,
        }
    }
}

fn hello_reason(error: HelloError) -> Reason {
    match error {
        HelloError::NotTls | HelloError::Malformed => Reason::TlsMalformed,
        HelloError::TooLarge => Reason::ClassifyTooLarge,
    }
}

#[cfg(test)]
mod tests;
