//! Plaintext on the client's side, TLS on the far one.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use rustls::Error as TlsError;
use sidegate_api::CloseReason;
use sidegate_policy::Reason;
use tokio::io::AsyncWrite;

use super::{
    super::{farewell, link::Link},
    copying::Copying,
    flow::Broken,
};
use crate::{connection::explain::in_words, origins::Sealed};

/// An established connection. Polled to its end it closes both sockets and writes the record.
///
/// Half-close is `close_notify` on the far side (RFC 8446 section 6.1). A far side that ends without one was cut off, and
/// so is the client then.
pub(crate) struct SealedRelay {
    link: Link,
    upstream: Box<Sealed>,
    up: Copying,
    down: Copying,
}

impl SealedRelay {
    /// A relay that first delivers the bytes that earlier stages held.
    pub(crate) fn new(link: Link, upstream: Sealed, to_upstream: Vec<u8>) -> Self {
        let (up, down) = (Copying::holding(to_upstream, false), Copying::holding(Vec::new(), true));
        SealedRelay { link, upstream: Box::new(upstream), up, down }
    }

    /// Moves what can be moved now. `Ready`: the connection ends so.
    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let SealedRelay { link, upstream, up, down } = self;
        let (record, client) = (&mut link.record, &mut link.client);
        if let Some(close) = record.entry.closing(cx) {
            return Poll::Ready(close);
        }
        let before = record.sent + record.received;
        let sent = up.poll((client, upstream), down.has_ended(), &mut record.sent, cx);
        let received = down.poll((upstream, client), up.has_ended(), &mut record.received, cx);
        if record.sent + record.received != before {
            record.entry.touch();
        }
        // Records that are written in part, and what TLS answers by itself.
        let flushed = if up.has_ended() { Poll::Ready(Ok(())) } else { Pin::new(upstream).poll_flush(cx) };
        match (sent, received) {
            (Poll::Ready(Err(Broken::Source)), _) | (_, Poll::Ready(Err(Broken::Sink))) => {
                Poll::Ready(CloseReason::ClientReset)
            }
            (Poll::Ready(Err(Broken::Sink)), _) | (_, Poll::Ready(Err(Broken::Source))) => {
                Poll::Ready(CloseReason::UpstreamReset)
            }
            _ if matches!(flushed, Poll::Ready(Err(_))) => Poll::Ready(CloseReason::UpstreamReset),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(CloseReason::Done),
            _ => Poll::Pending,
        }
    }

    /// How it ended. A server's last word on the handshake comes after it: that it wants a certificate, for one.
    fn tell(&mut self, close: CloseReason) {
        let record = &mut self.link.record;
        let alert = self.down.failure.as_ref().and_then(alert);
        match alert.filter(|_| close == CloseReason::UpstreamReset && record.received == 0) {
            Some(alert) => {
                let reason = Reason::UpstreamHandshake;
                record.failed(reason, format!("{} ({alert})", in_words(reason)), close);
            }
            None => record.closed(close),
        }
    }
}

fn alert(error: &io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref::<TlsError>()? {
        error @ TlsError::AlertReceived(_) => Some(error.to_string()),
        _ => None,
    }
}

impl Future for SealedRelay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let close = std::task::ready!(self.poll_move(cx));
        self.tell(close);
        let SealedRelay { link, upstream, .. } = &mut *self;
        match close {
            CloseReason::Done => {}
            CloseReason::Drained => {
                // Said if there is room for it at once; nobody waits.
                let _ = Pin::new(upstream).poll_shutdown(cx);
            }
            CloseReason::ClientReset => farewell::reset(upstream.get_ref().0.socket()),
            CloseReason::UpstreamReset => farewell::reset(&link.client),
            // A side that is cut off must not take the end for an orderly one.
            _ => {
                farewell::reset(upstream.get_ref().0.socket());
                farewell::reset(&link.client);
            }
        }
        Poll::Ready(())
    }
}
