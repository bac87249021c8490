//! Moves bytes between a stream of the mesh and a socket until both ways have ended.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};

use super::stream::MeshStream;
use crate::connection::scratch;

/// How a stream ended, and what it carried.
#[derive(Debug, Default)]
pub struct Ended {
    /// Bytes from the mesh to the socket.
    pub inward: u64,
    /// Bytes from the socket to the mesh.
    pub outward: u64,
    /// Why it was cut off; `None`: both ways ended in order. The socket must be reset then, or its reader takes what
    /// it has for all.
    pub broken: Option<Broken>,
}

/// Which side broke.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The stream: the peer reset it, its connection is gone, or the peer was dismissed.
    #[error("the mesh: {0}")]
    Mesh(#[source] io::Error),
    /// The socket.
    #[error("the socket: {0}")]
    Socket(#[source] io::Error),
}

impl Broken {
    /// The peer no longer holds: it was revoked, or its certificate or root has ended.
    pub(crate) fn was_dismissed(&self) -> bool {
        matches!(self, Broken::Mesh(error) if error.kind() == io::ErrorKind::ConnectionAborted)
    }
}

/// Carries `stream` over `socket`. If the socket breaks, the stream is reset; if the stream does, resetting the socket
/// is the caller's.
pub async fn relay(stream: &mut MeshStream, socket: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Ended {
    let mut transfer = Transfer::default();
    let moved = poll_fn(|cx| transfer.poll_move(stream, socket, cx)).await;
    if let Err(Broken::Socket(_)) = moved {
        stream.reset();
    }
    Ended { inward: transfer.inward(), outward: transfer.outward(), broken: moved.err() }
}

/// Both ways of a stream over a socket.
#[derive(Default)]
pub(crate) struct Transfer {
    inward: Way,
    outward: Way,
}

impl Transfer {
    /// With bytes that were read from the socket before; they are sent first.
    pub(crate) fn holding(outward: Bytes) -> Self {
        Transfer { inward: Way::default(), outward: Way { held: outward, ..Way::default() } }
    }

    /// Bytes from the mesh to the socket.
    pub(crate) fn inward(&self) -> u64 {
        self.inward.moved
    }

    /// Bytes from the socket to the mesh.
    pub(crate) fn outward(&self) -> u64 {
        self.outward.moved
    }

    /// Moves what can be moved now. `Ready`: both ways have ended, or one side broke.
    pub(crate) fn poll_move(
        &mut self,
        stream: &mut MeshStream,
        socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        let down = self.inward.inward(stream, socket, cx)?;
        let up = self.outward.outward(stream, socket, cx)?;
        match (down, up) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            // Nothing is read from the stream any more: this alone tells that the other side is gone.
            (Poll::Ready(()), Poll::Pending) => stream.poll_cut(cx).map_err(Broken::Mesh),
            _ => Poll::Pending,
        }
    }
}

/// One way: at most one chunk is held, so that a reader that stalls stops its writer.
#[derive(Default)]
struct Way {
    held: Bytes,
    moved: u64,
    unflushed: bool,
    ended: bool,
}

impl Way {
    fn inward(
        &mut self,
        stream: &mut MeshStream,
        socket: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        while !self.ended {
            while !self.held.is_empty() {
                let written =
                    ready!(Pin::new(&mut *socket).poll_write(cx, &self.held)).map_err(Broken::Socket)?;
                if written == 0 {
                    return Poll::Ready(Err(Broken::Socket(io::ErrorKind::WriteZero.into())));
                }
                self.held.advance(written);
                self.moved += written as u64;
                self.unflushed = true;
            }
            match stream.poll_chunk(cx).map_err(Broken::Mesh)? {
                Poll::Ready(chunk) if chunk.is_empty() => {
                    ready!(Pin::new(&mut *socket).poll_shutdown(cx)).map_err(Broken::Socket)?;
                    self.ended = true;
                }
                Poll::Ready(chunk) => self.held = chunk,
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *socket).poll_flush(cx)).map_err(Broken::Socket)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn outward(
        &mut self,
        stream: &mut MeshStream,
        socket: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        while !self.ended {
            while !self.held.is_empty() {
                match ready!(stream.poll_send(cx, &mut self.held)) {
                    Ok(sent) => self.moved += sent as u64,
                    Err(_) if matches!(stream.poll_cut(cx), Poll::Ready(Ok(()))) => {
                        // It wants no more, and what it said is still to be delivered.
                        self.held.clear();
                        self.ended = true;
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) => return Poll::Ready(Err(Broken::Mesh(error))),
                }
            }
            let copy = |read: &[u8], _: &mut Context<'_>| Bytes::copy_from_slice(read);
            self.held =
                ready!(scratch::poll_read(socket, scratch::SCRATCH, cx, copy)).map_err(Broken::Socket)?;
            if self.held.is_empty() {
                stream.end().map_err(Broken::Mesh)?;
                self.ended = true;
            }
        }
        Poll::Ready(Ok(()))
    }
}
