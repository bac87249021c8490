//! One direction of a relay: plain reads and writes, and `splice` once a transfer shows itself to be bulk.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{io::AsyncWrite, net::TcpStream};

use super::{
    super::scratch::{SCRATCH, poll_read},
    pipe::{Pipe, splice_in, splice_out},
};
use crate::limits::Limits;

/// A splice below this is no bulk; so many in a row end the splicing.
const THIN: usize = SCRATCH / 4;
const THIN_IN_A_ROW: u8 = 8;

/// The side that failed.
#[derive(Debug)]
pub(in crate::connection) enum Broken {
    /// Where the bytes come from.
    Source,
    /// Where they go.
    Sink,
}

/// What one direction is at.
enum State {
    /// Nothing is in flight.
    Reading,
    /// Bytes that the sink had no room for, and how many of them are gone.
    Holding(Vec<u8>, usize),
    /// Bytes in a pipe.
    Piping(Pipe, usize),
    /// The source is at its end, and the sink was told.
    Ended,
}

/// One direction.
pub(super) struct Flow {
    state: State,
    bulk: bool,
    thin: u8,
}

impl Flow {
    /// A direction that begins with bytes held by earlier stages.
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        let state = if bytes.is_empty() { State::Reading } else { State::Holding(bytes, 0) };
        Flow { state, bulk: false, thin: 0 }
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Holds neither a buffer nor a pipe.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Reading)
    }

    /// Moves bytes until the source has no more, the sink no more room, or the source ends. `last`: the other
    /// direction has ended, so the sockets are about to be closed anyway. `count` rises by the bytes delivered.
    pub(super) fn poll(
        &mut self,
        (source, sink): (&mut TcpStream, &mut TcpStream),
        last: bool,
        (limits, count): (&Arc<Limits>, &mut u64),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            match &mut self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Holding(bytes, gone) => {
                    let rest = bytes.get(*gone..).unwrap_or_default();
                    let written =
                        ready!(Pin::new(&mut *sink).poll_write(cx, rest)).map_err(|_| Broken::Sink)?;
                    *count += written as u64;
                    *gone += written;
                    if *gone >= bytes.len() {
                        self.state = State::Reading;
                    }
                }
                State::Piping(pipe, filled) => {
                    let moved = ready!(splice_out(pipe, *filled, sink, cx)).map_err(|_| Broken::Sink)?;
                    *count += moved as u64;
                    *filled -= moved.min(*filled);
                    if *filled == 0
                        && let State::Piping(pipe, _) = std::mem::replace(&mut self.state, State::Reading)
                    {
                        pipe.give_back();
                    }
                }
                State::Reading => {
                    let pipe = if self.bulk { Pipe::take(limits) } else { None };
                    let ended = match pipe {
                        Some(pipe) => ready!(self.fill(pipe, source, cx)),
                        None => ready!(self.copy(source, sink, count, cx)),
                    }?;
                    if ended {
                        if !last {
                            ready!(Pin::new(&mut *sink).poll_shutdown(cx)).map_err(|_| Broken::Sink)?;
                        }
                        self.state = State::Ended;
                    }
                }
            }
        }
    }

    /// One read, and the write of what it brought. True: the source has ended.
    fn copy(
        &mut self,
        source: &mut TcpStream,
        sink: &mut TcpStream,
        count: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Broken>> {
        let read = poll_read(source, SCRATCH, cx, |bytes, cx| {
            if bytes.is_empty() {
                return Ok((0, None));
            }
            let written = match Pin::new(sink).poll_write(cx, bytes) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            *count += written as u64;
            let rest = bytes.get(written..).filter(|rest| !rest.is_empty());
            Ok::<_, io::Error>((bytes.len(), rest.map(<[u8]>::to_vec)))
        });
        let (read, rest) = ready!(read).map_err(|_| Broken::Source)?.map_err(|_| Broken::Sink)?;
        self.bulk = read == SCRATCH;
        if let Some(rest) = rest {
            self.state = State::Holding(rest, 0);
        }
        Poll::Ready(Ok(read == 0))
    }

    /// One splice into an empty pipe. True: the source has ended.
    fn fill(&mut self, pipe: Pipe, source: &TcpStream, cx: &mut Context<'_>) -> Poll<Result<bool, Broken>> {
        match splice_in(source, &pipe, cx) {
            Poll::Ready(Ok(0)) => {
                pipe.give_back();
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Ok(filled)) => {
                self.thin = if filled < THIN { self.thin + 1 } else { 0 };
                if self.thin == THIN_IN_A_ROW {
                    (self.bulk, self.thin) = (false, 0);
                }
                self.state = State::Piping(pipe, filled);
                Poll::Ready(Ok(false))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(Broken::Source)),
            Poll::Pending => {
                pipe.give_back();
                Poll::Pending
            }
        }
    }
}
