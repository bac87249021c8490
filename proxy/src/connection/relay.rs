//! Moves bytes both ways until both sides are done, with half-close and back-pressure.
//!
//! Driven by readiness: an idle connection holds neither a buffer nor a pipe.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use sidegate_api::CloseReason;
use tokio::net::TcpStream;

use super::{farewell, link::Link};

mod copying;
mod flow;
mod mesh;
mod pipe;
mod sealed;
#[cfg(test)]
mod tests;

pub(super) use copying::Copying;
pub(super) use flow::Broken;
use flow::Flow;
pub(crate) use mesh::MeshRelay;
pub(crate) use sealed::SealedRelay;

/// An established connection. Polled to its end it closes both sockets and writes the record.
pub(crate) struct Relay {
    link: Link,
    upstream: TcpStream,
    up: Flow,
    down: Flow,
}

impl Relay {
    /// A relay that first delivers the bytes that earlier stages held.
    pub(crate) fn new(link: Link, upstream: TcpStream, to_upstream: Vec<u8>, to_client: Vec<u8>) -> Self {
        Relay { link, upstream, up: Flow::holding(to_upstream), down: Flow::holding(to_client) }
    }

    /// Moves what can be moved now. `Ready`: the connection ends so.
    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let Relay { link, upstream, up, down } = self;
        let (record, client) = (&mut link.record, &mut link.client);
        if let Some(close) = record.entry.closing(cx) {
            return Poll::Ready(close);
        }
        let before = record.sent + record.received;
        let limits = &link.worker.limits;
        let sent = up.poll((client, upstream), down.has_ended(), (limits, &mut record.sent), cx);
        let received = down.poll((upstream, client), up.has_ended(), (limits, &mut record.received), cx);
        if record.sent + record.received != before {
            record.entry.touch();
        }
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
}

impl Future for Relay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let close = std::task::ready!(self.poll_move(cx));
        self.link.record.closed(close);
        // A side that is cut off must not take the end for an orderly one.
        match close {
            CloseReason::Done | CloseReason::Drained => {}
            CloseReason::ClientReset => farewell::reset(&self.upstream),
            CloseReason::UpstreamReset => farewell::reset(&self.link.client),
            _ => {
                farewell::reset(&self.upstream);
                farewell::reset(&self.link.client);
            }
        }
        Poll::Ready(())
    }
}
