//! A relay whose far side is a stream of the mesh.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use sidegate_api::CloseReason;

use super::super::{farewell, link::Link};
use crate::mesh::{Broken, MeshStream, Transfer};

/// An established connection to a workload. Polled to its end it closes the client's socket and the stream and writes
/// the record.
pub(crate) struct MeshRelay {
    link: Link,
    /// Reset when dropped before both ways have ended.
    stream: MeshStream,
    transfer: Transfer,
}

impl MeshRelay {
    /// A relay that first delivers the bytes that earlier stages held.
    pub(crate) fn new(link: Link, stream: MeshStream, to_upstream: Vec<u8>) -> Self {
        MeshRelay { link, stream, transfer: Transfer::holding(to_upstream.into()) }
    }

    /// Moves what can be moved now. `Ready`: the connection ends so.
    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let MeshRelay { link, stream, transfer } = self;
        let (record, client) = (&mut link.record, &mut link.client);
        if let Some(close) = record.entry.closing(cx) {
            return Poll::Ready(close);
        }
        let before = record.sent + record.received;
        let moved = transfer.poll_move(stream, client, cx);
        (record.sent, record.received) = (transfer.outward(), transfer.inward());
        if record.sent + record.received != before {
            record.entry.touch();
        }
        Poll::Ready(match ready!(moved) {
            Ok(()) => CloseReason::Done,
            Err(Broken::Socket(_)) => CloseReason::ClientReset,
            Err(broken) if broken.was_dismissed() => CloseReason::PeerUntrusted,
            Err(Broken::Mesh(_)) => CloseReason::UpstreamReset,
        })
    }
}

impl Future for MeshRelay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let close = ready!(self.poll_move(cx));
        self.link.record.closed(close);
        // A side that is cut off must not take the end for an orderly one.
        match close {
            CloseReason::Done | CloseReason::Drained => {}
            CloseReason::ClientReset => self.stream.reset(),
            _ => farewell::reset(&self.link.client),
        }
        Poll::Ready(())
    }
}
