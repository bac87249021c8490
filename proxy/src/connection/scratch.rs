//! One read buffer a worker thread, lent only while bytes are in flight: an idle connection holds none.

use std::{
    cell::RefCell,
    io,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of one read. A read that fills it shows a bulk transfer.
pub(crate) const SCRATCH: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Reads at most `most` bytes (and never more than [`SCRATCH`]) and hands them to `take`. Zero bytes: end of stream.
/// A read that came up short tells the reactor that the socket is empty, so that no further read only finds that out.
pub(crate) fn poll_read<T>(
    stream: &mut (impl AsyncRead + Unpin),
    most: usize,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8], &mut Context<'_>) -> T,
) -> Poll<io::Result<T>> {
    BUFFER.with_borrow_mut(|buffer| {
        let most = most.min(SCRATCH);
        let mut into = ReadBuf::new(&mut buffer[..most]);
        std::task::ready!(std::pin::Pin::new(stream).poll_read(cx, &mut into))?;
        Poll::Ready(Ok(take(into.filled(), cx)))
    })
}

/// As [`poll_read`], reading again until there is no more for now: for streams whose reads are no system calls.
pub(crate) fn poll_fill<T>(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8], &mut Context<'_>) -> T,
) -> Poll<io::Result<T>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut into = ReadBuf::new(buffer);
        loop {
            let before = into.filled().len();
            match std::pin::Pin::new(&mut *stream).poll_read(cx, &mut into) {
                Poll::Ready(Ok(())) if into.filled().len() > before && into.remaining() > 0 => {}
                Poll::Ready(Ok(())) => break,
                // What was read before goes first; whatever ended it is found again.
                _ if before > 0 => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(take(into.filled(), cx)))
    })
}

/// As [`poll_read`], appending to `bytes`. Returns how many came.
pub(crate) async fn read_more(
    stream: &mut (impl AsyncRead + Unpin),
    most: usize,
    bytes: &mut Vec<u8>,
) -> io::Result<usize> {
    std::future::poll_fn(|cx| {
        poll_read(stream, most, cx, |read, _| {
            bytes.extend_from_slice(read);
            read.len()
        })
    })
    .await
}
