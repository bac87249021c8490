//! Bytes both ways once the far end has switched protocols: counted, with half-close and back-pressure, for as long as the
//! policy allows the request that began it.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sidegate_api::CloseReason;
use tokio::io::{AsyncRead, AsyncWrite};

use super::exchange::Exchange;
use crate::connection::{live::Live, scratch};

/// A request whose far end has switched.
pub(super) struct Switched {
    pub(super) exchange: Box<Exchange>,
    pub(super) upstream: OnUpgrade,
}

impl Switched {
    /// Relays until both sides are done, or either must end. `early`: what was read of the client already. `around`: the
    /// connection that it all goes over, where that is its own.
    pub(super) async fn relay<C>(mut self, client: &mut C, early: Bytes, around: Option<&Live>) -> CloseReason
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let close = self.relayed(client, early, around).await;
        self.exchange.record.closed(close);
        close
    }

    async fn relayed<C>(&mut self, client: &mut C, early: Bytes, around: Option<&Live>) -> CloseReason
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let (record, progress) = self.exchange.counted();
        let closing = |cx: &Context<'_>| {
            record.entry.closing(cx).or_else(|| around.and_then(|around| around.closing(cx)))
        };
        let upstream = poll_fn(|cx| match closing(cx) {
            Some(close) => Poll::Ready(Err(close)),
            None => Pin::new(&mut self.upstream).poll(cx).map_err(|_| CloseReason::UpstreamReset),
        });
        let mut upstream = match upstream.await {
            Ok(upstream) => TokioIo::new(upstream),
            Err(close) => return close,
        };
        let (mut up, mut down) = (Way { held: early, ..Way::default() }, Way::default());
        poll_fn(|cx| {
            if let Some(close) = closing(cx) {
                return Poll::Ready(close);
            }
            let before = up.moved + down.moved;
            let sent = up.poll(client, &mut upstream, cx);
            let received = down.poll(&mut upstream, client, cx);
            if up.moved + down.moved != before {
                record.entry.touch();
            }
            progress.sent.store(up.moved, Relaxed);
            progress.received.store(down.moved, Relaxed);
            ended(sent, received)
        })
        .await
    }
}

fn ended(sent: Poll<Result<(), Broken>>, received: Poll<Result<(), Broken>>) -> Poll<CloseReason> {
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
}

/// The side that failed.
#[derive(Debug, PartialEq, Eq)]
enum Broken {
    /// Where the bytes come from.
    Source,
    /// Where they go.
    Sink,
}

/// One direction: at most one chunk is held, so that a reader that stalls stops its writer; none while it is idle.
#[derive(Debug, Default)]
struct Way {
    held: Bytes,
    moved: u64,
    unflushed: bool,
    ended: bool,
}

impl Way {
    fn poll(
        &mut self,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        while !self.ended {
            while !self.held.is_empty() {
                let written = ready!(Pin::new(&mut *sink).poll_write(cx, &self.held));
                let written = written.ok().filter(|written| *written > 0).ok_or(Broken::Sink)?;
                self.held.advance(written);
                self.moved += written as u64;
                self.unflushed = true;
            }
            let copy = |read: &[u8], _: &mut Context<'_>| Bytes::copy_from_slice(read);
            match scratch::poll_read(source, scratch::SCRATCH, cx, copy) {
                Poll::Ready(Ok(read)) if read.is_empty() => {
                    ready!(Pin::new(&mut *sink).poll_shutdown(cx)).map_err(|_| Broken::Sink)?;
                    self.ended = true;
                }
                Poll::Ready(read) => self.held = read.map_err(|_| Broken::Source)?,
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
}
