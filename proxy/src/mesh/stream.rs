//! One stream: bytes both ways, each way ended by itself.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pool::{Lease, Load};

/// A stream of the mesh. Dropped before both ways have ended it is reset, so that nobody takes it for complete.
#[derive(Debug)]
pub struct MeshStream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// What was received and not read yet.
    unread: Bytes,
    ended: bool,
    side: Side,
}

/// Which end of the stream this is.
#[derive(Debug)]
pub(super) enum Side {
    Client(Lease),
    Server(Arc<Load>),
}

impl MeshStream {
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream, side: Side) -> Self {
        MeshStream { send, recv, unread: Bytes::new(), ended: false, side }
    }

    /// The next bytes, without a copy; none: the other side has ended its way.
    ///
    /// # Errors
    /// The stream or its connection was cut off.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if !self.unread.is_empty() {
            return Poll::Ready(Ok(std::mem::take(&mut self.unread)));
        }
        loop {
            match ready!(self.recv.poll_data(cx)) {
                None => return Poll::Ready(Ok(Bytes::new())),
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => {
                    // Whoever takes a chunk holds no second one: the window is given back as bytes are taken.
                    let released = self.recv.flow_control().release_capacity(bytes.len());
                    return Poll::Ready(released.map(|()| bytes).map_err(|error| self.broken(error)));
                }
                Some(Err(error)) => return Poll::Ready(Err(self.broken(error))),
            }
        }
    }

    /// Sends from the front of `bytes` what there is room for, without a copy.
    ///
    /// # Errors
    /// The stream or its connection was cut off.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(cx, bytes.len()))?;
        let sent = self.send.send_data(bytes.split_to(room), false);
        Poll::Ready(sent.map(|()| room).map_err(|error| self.broken(error)))
    }

    /// Ends our way. The other one stays open.
    ///
    /// # Errors
    /// The stream or its connection was cut off before.
    pub fn end(&mut self) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        self.send.send_data(Bytes::new(), true).map_err(|error| self.broken(error))?;
        self.ended = true;
        Ok(())
    }

    /// Cuts the stream off, as a TCP connection is that was reset. RFC 9113 section 8.5.
    pub fn reset(&mut self) {
        self.send.send_reset(Reason::CONNECT_ERROR);
    }

    /// Ready when the other side takes no more: with an error if it has cut the stream off, without one if it is a server
    /// that has said all it had to say. RFC 9113 section 8.1.
    pub(super) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match ready!(self.send.poll_reset(cx)) {
            Ok(Reason::NO_ERROR) if matches!(self.side, Side::Client(_)) => Ok(()),
            Ok(reason) => Err(self.broken(reason.into())),
            Err(error) => Err(self.broken(error)),
        })
    }

    /// How much may be sent now, at most `wanted` and never nothing. Window is asked for only while there are bytes for
    /// it: what an idle stream held would be missing from the others.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(wanted);
        loop {
            let room = self.send.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room.min(wanted)));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(self.broken(error))),
                None => return Poll::Ready(Err(self.closed(cx))),
            }
        }
    }

    /// Why nothing can be sent any more.
    fn closed(&mut self, cx: &mut Context<'_>) -> io::Error {
        match self.poll_cut(cx) {
            Poll::Ready(Err(error)) => error,
            _ => io::ErrorKind::BrokenPipe.into(),
        }
    }

    fn broken(&self, error: h2::Error) -> io::Error {
        let load = match &self.side {
            Side::Client(lease) => lease.load(),
            Side::Server(load) => load,
        };
        if load.dismissed.load(Relaxed) {
            return io::Error::new(io::ErrorKind::ConnectionAborted, "the peer was dismissed");
        }
        let kind = match (error.get_io(), error.reason()) {
            (Some(error), _) => error.kind(),
            (None, Some(Reason::NO_ERROR | Reason::STREAM_CLOSED)) => io::ErrorKind::BrokenPipe,
            (None, _) => io::ErrorKind::ConnectionReset,
        };
        io::Error::new(kind, error)
    }
}

impl AsyncRead for MeshStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let mut chunk = ready!(stream.poll_chunk(cx))?;
        let taken = chunk.len().min(buf.remaining());
        buf.put_slice(&chunk.split_to(taken));
        stream.unread = chunk;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MeshStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(stream.poll_room(cx, buf.len()))?;
        let sent = stream.send.send_data(buf.take(room).copy_to_bytes(room), false);
        Poll::Ready(sent.map(|()| room).map_err(|error| stream.broken(error)))
    }

    /// The connection's own task writes; there is nothing to hasten.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().end())
    }
}
