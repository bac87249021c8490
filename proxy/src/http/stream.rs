//! The client's socket under the engine: the bytes that were read before the verdict come first, and no HTTP/1 byte
//! passes that [`Framing`] has not found in order.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::Framing;
use crate::connection::live::Live;

/// Where an HTTP/1 client is in its requests; shared with what answers them.
#[derive(Clone, Debug)]
pub(super) struct Watched(Arc<Mutex<Framing>>);

impl Watched {
    pub(super) fn new(budget: usize) -> Self {
        Watched(Arc::new(Mutex::new(Framing::new(budget))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Framing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client's side.
#[derive(Debug)]
pub(super) struct ClientStream<S> {
    pub(super) socket: S,
    early: Bytes,
    /// HTTP/1 alone: HTTP/2 has one framing, and its engine knows it.
    watched: Option<Watched>,
    live: Arc<Live>,
    /// The last write found no room.
    pub(super) stalled: bool,
}

impl<S: AsyncRead + Unpin> ClientStream<S> {
    pub(super) fn new(socket: S, early: Vec<u8>, watched: Option<Watched>, live: Arc<Live>) -> Self {
        ClientStream { socket, early: early.into(), watched, live, stalled: false }
    }

    /// Bytes as they come, early ones first.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.has_remaining() {
            let taken = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early.split_to(taken));
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        self.live.touch();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let Some(watched) = stream.watched.clone() else { return stream.poll_bytes(cx, buf) };
        let before = buf.filled().len();
        // What is not in order ends the stream, as if the client had said no more.
        if watched.lock().refused().is_some() {
            return Poll::Ready(Ok(()));
        }
        ready!(stream.poll_bytes(cx, buf))?;
        let taken = watched.lock().push(buf.filled().get(before..).unwrap_or_default());
        buf.set_filled(before + taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.stalled = written.is_pending();
        let written = ready!(written)?;
        self.live.touch();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.stalled = written.is_pending();
        let written = ready!(written)?;
        self.live.touch();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
