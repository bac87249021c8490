//! One direction of a relay of which one side is no bare socket.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    super::scratch::{SCRATCH, poll_fill, poll_read},
    flow::Broken,
};

/// What one direction is at.
enum State {
    /// Nothing is in flight.
    Reading,
    /// Bytes that the sink had no room for, and how many of them are gone.
    Holding(Vec<u8>, usize),
    /// The source is at its end, and the sink is being told.
    Ending,
    /// It was told.
    Ended,
}

/// What one read brought, and what of it the sink had no room for.
struct Copied {
    read: usize,
    rest: Option<Vec<u8>>,
}

/// One direction.
pub(in crate::connection) struct Copying {
    state: State,
    /// Reads of the source are no system calls.
    cheap: bool,
    /// Why the source failed.
    pub(super) failure: Option<io::Error>,
}

impl Copying {
    /// A direction that begins with bytes held by earlier stages. `cheap`: reads of its source are no system calls.
    pub(in crate::connection) fn holding(bytes: Vec<u8>, cheap: bool) -> Self {
        let state = if bytes.is_empty() { State::Reading } else { State::Holding(bytes, 0) };
        Copying { state, cheap, failure: None }
    }

    pub(in crate::connection) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Moves bytes until the source has no more, the sink no more room, or the source ends. `last`: the other
    /// direction has ended; then a sink that is gone already need not be told. `count` rises by the bytes taken over.
    pub(in crate::connection) fn poll(
        &mut self,
        (source, sink): (&mut (impl AsyncRead + Unpin), &mut (impl AsyncWrite + Unpin)),
        last: bool,
        count: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            match &mut self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    let told = ready!(Pin::new(&mut *sink).poll_shutdown(cx));
                    if told.is_err() && !last {
                        return Poll::Ready(Err(Broken::Sink));
                    }
                    self.state = State::Ended;
                }
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
                State::Reading => {
                    let Copied { read, rest } = ready!(self.copy(source, sink, count, cx))?;
                    self.state = match rest {
                        Some(rest) => State::Holding(rest, 0),
                        None if read == 0 => State::Ending,
                        None => State::Reading,
                    };
                }
            }
        }
    }

    /// One read, and the write of what it brought: how much was read, and what of it is left.
    fn copy(
        &mut self,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
        count: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Copied, Broken>> {
        let take = |bytes: &[u8], cx: &mut Context<'_>| {
            if bytes.is_empty() {
                return Ok(Copied { read: 0, rest: None });
            }
            let written = match Pin::new(sink).poll_write(cx, bytes) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            *count += written as u64;
            let rest = bytes.get(written..).filter(|rest| !rest.is_empty());
            Ok::<_, io::Error>(Copied { read: bytes.len(), rest: rest.map(<[u8]>::to_vec) })
        };
        let read = match self.cheap {
            true => poll_fill(source, cx, take),
            false => poll_read(source, SCRATCH, cx, take),
        };
        let written = ready!(read).map_err(|error| {
            self.failure = Some(error);
            Broken::Source
        })?;
        Poll::Ready(written.map_err(|_| Broken::Sink))
    }
}
