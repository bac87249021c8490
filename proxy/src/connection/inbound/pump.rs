//! Moves bytes between two streams of any kind until both ways have ended, with half-close and back-pressure.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use sidegate_api::CloseReason;
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::scratch::{SCRATCH, poll_read};

/// Carries `client` to `upstream` and back. `moved`: bytes each way so far.
pub(super) async fn pump(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    upstream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    moved: (&AtomicU64, &AtomicU64),
) -> CloseReason {
    let (mut up, mut down) = (Way::default(), Way::default());
    poll_fn(|cx| {
        let sent = up.poll(client, upstream, moved.0, cx);
        let received = down.poll(upstream, client, moved.1, cx);
        match (sent, received) {
            (Poll::Ready(Err(Broken::Source)), _) | (_, Poll::Ready(Err(Broken::Sink))) => {
                Poll::Ready(CloseReason::ClientReset)
            }
            (Poll::Ready(Err(Broken::Sink)), _) | (_, Poll::Ready(Err(Broken::Source))) => {
                Poll::Ready(CloseReason::UpstreamReset)
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(CloseReason::Done),
            _ => Poll::Pending,
        }
    })
    .await
}

/// The side that failed.
enum Broken {
    Source,
    Sink,
}

/// One way. What the sink has no room for is all that is held.
#[derive(Default)]
struct Way {
    held: Vec<u8>,
    gone: usize,
    unflushed: bool,
    ended: bool,
}

impl Way {
    fn poll(
        &mut self,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
        moved: &AtomicU64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        while !self.ended {
            while let Some(rest) = self.held.get(self.gone..).filter(|rest| !rest.is_empty()) {
                let written = ready!(Pin::new(&mut *sink).poll_write(cx, rest)).map_err(|_| Broken::Sink)?;
                if written == 0 {
                    return Poll::Ready(Err(Broken::Sink));
                }
                self.count(written, moved);
            }
            (self.held, self.gone) = (Vec::new(), 0);
            match self.read(source, sink, moved, cx) {
                Poll::Ready(Ok(true)) => {
                    ready!(Pin::new(&mut *sink).poll_shutdown(cx)).map_err(|_| Broken::Sink)?;
                    self.ended = true;
                }
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken)),
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *sink).poll_flush(cx)).map_err(|_| Broken::Sink)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn count(&mut self, written: usize, moved: &AtomicU64) {
        self.gone += written;
        self.unflushed = true;
        moved.fetch_add(written as u64, Relaxed);
    }

    /// One read, and the write of what it brought. True: the source has ended.
    fn read(
        &mut self,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
        moved: &AtomicU64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Broken>> {
        let read = poll_read(source, SCRATCH, cx, |bytes, cx| {
            if bytes.is_empty() {
                return Ok((true, 0, Vec::new()));
            }
            let written = match Pin::new(sink).poll_write(cx, bytes) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            Ok::<_, io::Error>((false, written, bytes.get(written..).unwrap_or_default().to_vec()))
        });
        let (ended, written, rest) = ready!(read).map_err(|_| Broken::Source)?.map_err(|_| Broken::Sink)?;
        if written > 0 {
            self.count(written, moved);
        }
        (self.held, self.gone) = (rest, 0);
        Poll::Ready(Ok(ended))
    }
}
