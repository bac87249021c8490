//! Reads ciphertext in large pieces: a TLS library asks for a few KiB at a time, and each question would be a system call.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one read.
const PIECE: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into_boxed_slice());
}

/// A socket of which more may have been read than was asked for. Holds a buffer only while there is something in it.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    socket: S,
    ahead: Vec<u8>,
    taken: usize,
}

impl<S> ReadAhead<S> {
    /// Nothing was read yet.
    pub(crate) fn new(socket: S) -> Self {
        ReadAhead { socket, ahead: Vec::new(), taken: 0 }
    }

    /// The socket itself.
    pub(crate) fn socket(&self) -> &S {
        &self.socket
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ReadAhead { socket, ahead, taken } = self.get_mut();
        let rest = ahead.get(*taken..).unwrap_or_default();
        if !rest.is_empty() {
            let now = rest.len().min(buf.remaining());
            buf.put_slice(rest.get(..now).unwrap_or_default());
            *taken += now;
            if *taken == ahead.len() {
                (*ahead, *taken) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() >= PIECE {
            return Pin::new(socket).poll_read(cx, buf);
        }
        BUFFER.with_borrow_mut(|buffer| {
            let mut piece = ReadBuf::new(buffer);
            ready!(Pin::new(socket).poll_read(cx, &mut piece))?;
            let read = piece.filled();
            let (now, later) = read.split_at(read.len().min(buf.remaining()));
            buf.put_slice(now);
            if !later.is_empty() {
                (*ahead, *taken) = (later.to_vec(), 0);
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bytes)
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_come_in_order_whatever_is_asked_for_and_no_buffer_stays() {
        let sent: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
        let (mut from, to) = tokio::io::duplex(300_000);
        from.write_all(&sent).await.unwrap();
        drop(from);
        let (mut ahead, mut heard) = (ReadAhead::new(to), Vec::new());
        for most in [1, 5, 4096, 100, 70_000].into_iter().cycle() {
            let mut piece = vec![0; most];
            match ahead.read(&mut piece).await.unwrap() {
                0 => break,
                read => heard.extend_from_slice(&piece[..read]),
            }
        }
        assert!(heard == sent && ahead.ahead.capacity() == 0);
    }
}
