//! Follows the bytes of an HTTP/1 client, request after request, and stops at the first that two readers could take
//! differently. The engine behind it then never sees a head, a length or a chunk whose end is in doubt. RFC 9112.

#[cfg(test)]
mod tests;

use super::{
    head::is_token_byte,
    preface::{BodyLength, Preface, PrefaceError, PrefaceProgress, PrefaceReader},
};

/// The longest line of trailers, and all of them together, in bytes.
const TRAILERS: usize = 8 * 1024;

/// Where in the stream of requests the client is.
#[derive(Debug)]
pub struct Framing {
    budget: usize,
    state: State,
    /// Whole heads so far.
    heads: usize,
}

#[derive(Debug)]
enum State {
    Head(PrefaceReader),
    /// Bytes that are left of a body, or of a chunk with what follows it.
    Body {
        left: u64,
    },
    Chunk(Chunk, u64),
    /// Trailers: bytes taken so far, the line under way, and whether a CR was seen.
    Trailers {
        taken: usize,
        line: Vec<u8>,
        after_cr: bool,
    },
    /// The last head asked for another protocol and is not answered yet. What came now could be taken two ways.
    Asked,
    /// Another protocol took over.
    Upgraded,
    Refused(PrefaceError),
}

/// Where in a chunk, with its size as far as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// The first digit of the size.
    Start,
    /// Further digits, so many.
    Size(u8),
    SizeLf,
    Content,
    ContentCr,
    ContentLf,
}

impl Framing {
    /// At the beginning of a request, whose head may have `budget` bytes.
    pub fn new(budget: usize) -> Self {
        Framing { budget, state: State::Head(PrefaceReader::new(budget)), heads: 0 }
    }

    /// Takes the next bytes; returns how many of them are in order. Fewer than there are: see [`Framing::refused`].
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            match self.step(rest) {
                Ok(more) => taken += more,
                Err(error) => {
                    self.state = State::Refused(error);
                    break;
                }
            }
        }
        taken
    }

    /// Why no more bytes are taken.
    pub fn refused(&self) -> Option<PrefaceError> {
        match self.state {
            State::Refused(error) => Some(error),
            _ => None,
        }
    }

    /// At the beginning of a request, of which nothing has come yet.
    pub fn between_requests(&self) -> bool {
        matches!(&self.state, State::Head(reader) if reader.taken() == 0)
    }

    /// The far end agreed to what the last head asked for: nothing more is looked at. False: no head asked, or something
    /// came before the answer.
    pub fn upgraded(&mut self) -> bool {
        let asked = matches!(self.state, State::Asked);
        if asked {
            self.state = State::Upgraded;
        }
        asked
    }

    /// So many heads are answered. If the last of them asked for another protocol, it did not get it: the next one follows.
    pub fn answered(&mut self, heads: usize) {
        if matches!(self.state, State::Asked) && heads == self.heads {
            self.state = self.next_head();
        }
    }

    /// Takes some of `rest`, which is not empty.
    fn step(&mut self, rest: &[u8]) -> Result<usize, PrefaceError> {
        match &mut self.state {
            State::Head(reader) => {
                let before = reader.taken();
                let progress = reader.push(rest);
                let taken = reader.taken() - before;
                self.heads += usize::from(matches!(progress, PrefaceProgress::Done(_)));
                match progress {
                    PrefaceProgress::NeedMore => {}
                    PrefaceProgress::Done(Preface::Http1 { body: BodyLength::Exactly(0), .. })
                        if reader.upgrades() =>
                    {
                        self.state = State::Asked;
                    }
                    PrefaceProgress::Done(Preface::Http1 { body, .. }) => self.state = self.behind_head(body),
                    PrefaceProgress::Done(Preface::Http2) | PrefaceProgress::NotHttp => {
                        return Err(PrefaceError::Malformed);
                    }
                    PrefaceProgress::Refused(error) => return Err(error),
                }
                Ok(taken)
            }
            State::Body { left } => {
                let taken = (rest.len() as u64).min(*left);
                *left -= taken;
                if *left == 0 {
                    self.state = self.next_head();
                }
                Ok(taken as usize)
            }
            State::Chunk(chunk, size) => {
                let (taken, next) = step_chunk(*chunk, *size, rest)?;
                self.state = next;
                Ok(taken)
            }
            State::Trailers { taken, line, after_cr } => {
                let byte = rest.first().copied().unwrap_or_default();
                *taken += 1;
                if *taken > TRAILERS {
                    return Err(PrefaceError::TooLarge);
                }
                match (*after_cr, byte) {
                    (true, b'\n') if line.is_empty() => self.state = self.next_head(),
                    (true, b'\n') => {
                        check_trailer(line)?;
                        line.clear();
                        *after_cr = false;
                    }
                    (true, _) | (false, b'\n' | 0) => return Err(PrefaceError::Malformed),
                    (false, b'\r') => *after_cr = true,
                    (false, byte) => line.push(byte),
                }
                Ok(1)
            }
            State::Asked => Err(PrefaceError::Malformed),
            State::Upgraded => Ok(rest.len()),
            State::Refused(error) => Err(*error),
        }
    }

    fn behind_head(&self, body: BodyLength) -> State {
        match body {
            BodyLength::Exactly(0) => self.next_head(),
            BodyLength::Exactly(left) => State::Body { left },
            BodyLength::Chunked => State::Chunk(Chunk::Start, 0),
        }
    }

    fn next_head(&self) -> State {
        State::Head(PrefaceReader::new(self.budget))
    }
}

/// Takes some bytes of a chunk. Extensions are refused: nobody needs them, and readers disagree where they end.
fn step_chunk(chunk: Chunk, size: u64, rest: &[u8]) -> Result<(usize, State), PrefaceError> {
    let byte = rest.first().copied().unwrap_or_default();
    let next = match (chunk, byte) {
        (Chunk::Start, _) => State::Chunk(Chunk::Size(1), digit(byte)?),
        (Chunk::Size(_), b'\r') => State::Chunk(Chunk::SizeLf, size),
        // Sixteen digits fill 64 bits; a body of that size comes from nobody.
        (Chunk::Size(digits @ ..15), _) => State::Chunk(Chunk::Size(digits + 1), size << 4 | digit(byte)?),
        (Chunk::SizeLf, b'\n') if size == 0 => {
            State::Trailers { taken: 0, line: Vec::new(), after_cr: false }
        }
        (Chunk::SizeLf, b'\n') => State::Chunk(Chunk::Content, size),
        (Chunk::Content, _) => {
            let taken = (rest.len() as u64).min(size);
            let left = size - taken;
            let next = if left == 0 { Chunk::ContentCr } else { Chunk::Content };
            return Ok((taken as usize, State::Chunk(next, left)));
        }
        (Chunk::ContentCr, b'\r') => State::Chunk(Chunk::ContentLf, 0),
        (Chunk::ContentLf, b'\n') => State::Chunk(Chunk::Start, 0),
        _ => return Err(PrefaceError::Malformed),
    };
    Ok((1, next))
}

fn digit(byte: u8) -> Result<u64, PrefaceError> {
    char::from(byte).to_digit(16).map(u64::from).ok_or(PrefaceError::Malformed)
}

/// A field line as in a head; fields that frame or route the message have no place behind it. RFC 9110 section 6.5.1.
fn check_trailer(line: &[u8]) -> Result<(), PrefaceError> {
    const FORBIDDEN: [&[u8]; 6] =
        [b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"trailer"];
    let colon = line.iter().position(|byte| *byte == b':').ok_or(PrefaceError::Malformed)?;
    let (name, value) = line.split_at(colon);
    let token = !name.is_empty() && name.iter().all(|byte| is_token_byte(*byte));
    let plain = !value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
    if token && plain && !FORBIDDEN.iter().any(|field| name.eq_ignore_ascii_case(field)) {
        Ok(())
    } else {
        Err(PrefaceError::Malformed)
    }
}
