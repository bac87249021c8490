//! Moves bytes between a client whose TLS has ended here and the application, until both ways have ended.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::Poll,
};

use sidegate_api::CloseReason;
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::relay::{Broken, Copying};

/// Carries `client`, whose reads are no system calls, to `upstream` and back. `moved`: bytes each way so far.
pub(super) async fn pump(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    upstream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    moved: (&AtomicU64, &AtomicU64),
) -> CloseReason {
    let (mut up, mut down) = (Copying::holding(Vec::new(), true), Copying::holding(Vec::new(), false));
    let (mut sent, mut received) = (0, 0);
    poll_fn(|cx| {
        let upwards = up.poll((&mut *client, &mut *upstream), down.has_ended(), &mut sent, cx);
        let downwards = down.poll((&mut *upstream, &mut *client), up.has_ended(), &mut received, cx);
        moved.0.store(sent, Relaxed);
        moved.1.store(received, Relaxed);
        // Records that are written in part, and what TLS answers by itself.
        let flushed =
            if down.has_ended() { Poll::Ready(Ok(())) } else { Pin::new(&mut *client).poll_flush(cx) };
        match (upwards, downwards) {
            (Poll::Ready(Err(Broken::Source)), _) | (_, Poll::Ready(Err(Broken::Sink))) => {
                Poll::Ready(CloseReason::ClientReset)
            }
            (Poll::Ready(Err(Broken::Sink)), _) | (_, Poll::Ready(Err(Broken::Source))) => {
                Poll::Ready(CloseReason::UpstreamReset)
            }
            _ if matches!(flushed, Poll::Ready(Err(_))) => Poll::Ready(CloseReason::ClientReset),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(CloseReason::Done),
            _ => Poll::Pending,
        }
    })
    .await
}
