//! Bodies on their way through: streamed frame by frame, counted, and cut off when the policy says so.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use sidegate_api::CloseReason;

use super::{exchange::Exchange, fields::strip_trailers};
use crate::connection::live::Live;

/// Why a body ended early.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The side it comes from broke off.
    Source(hyper::Error),
    /// Policy, idle timeout or drain.
    Closed(CloseReason),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::Source(_) => f.write_str("the body broke off"),
            BodyError::Closed(close) => write!(f, "the request was ended: {close:?}"),
        }
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BodyError::Source(error) => Some(error),
            BodyError::Closed(_) => None,
        }
    }
}

/// How far a request's body got.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes handed on.
    pub(super) sent: AtomicU64,
    /// The client broke off, or said what is not in order.
    pub(super) broken: AtomicBool,
}

/// A request's body on its way to the far end.
pub(super) struct Sent {
    body: Incoming,
    progress: Arc<Progress>,
    live: Arc<Live>,
}

impl Sent {
    pub(super) fn new(body: Incoming, progress: Arc<Progress>, live: Arc<Live>) -> Self {
        Sent { body, progress, live }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Its waker belongs to the answer; here it is enough to see it with each frame.
        if let Some(close) = self.live.told_to_close() {
            return Poll::Ready(Some(Err(BodyError::Closed(close))));
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Err(_)) = &frame {
            self.progress.broken.store(true, Relaxed);
        }
        Poll::Ready(passed(frame, &self.live, |length| {
            self.progress.sent.fetch_add(length, Relaxed);
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body: ours, or the far end's.
pub(super) enum Reply {
    /// A denial or a failure in words.
    Ours(Option<Bytes>),
    /// Streamed; the exchange is recorded when it ends.
    Theirs(Incoming, Box<Exchange>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (body, exchange) = match self.get_mut() {
            Reply::Ours(words) => return Poll::Ready(words.take().map(|words| Ok(Frame::data(words)))),
            Reply::Theirs(body, exchange) => (body, exchange),
        };
        if let Some(close) = exchange.record.entry.closing(cx) {
            exchange.record.closed(close);
            return Poll::Ready(Some(Err(BodyError::Closed(close))));
        }
        let frame = std::task::ready!(Pin::new(&mut *body).poll_frame(cx));
        match &frame {
            None => exchange.record.closed(CloseReason::Done),
            Some(Err(_)) => exchange.record.closed(CloseReason::UpstreamReset),
            Some(Ok(_)) => {}
        }
        let live = exchange.record.entry.live();
        let frame = passed(frame, &live, |length| exchange.record.received += length);
        // Nobody need ask again once the last frame was handed on.
        if body.is_end_stream() && matches!(frame, Some(Ok(_))) {
            exchange.record.closed(CloseReason::Done);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Reply::Ours(words) => words.is_none(),
            Reply::Theirs(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Ours(words) => SizeHint::with_exact(words.as_ref().map_or(0, |words| words.len() as u64)),
            Reply::Theirs(body, _) => body.size_hint(),
        }
    }
}

fn passed(
    frame: Option<Result<Frame<Bytes>, hyper::Error>>,
    live: &Live,
    count: impl FnOnce(u64),
) -> Option<Result<Frame<Bytes>, BodyError>> {
    let mut frame = match frame? {
        Ok(frame) => frame,
        Err(error) => return Some(Err(BodyError::Source(error))),
    };
    live.touch();
    match frame.trailers_mut() {
        Some(trailers) => strip_trailers(trailers),
        None => count(frame.data_ref().map_or(0, |bytes| bytes.len() as u64)),
    }
    Some(Ok(frame))
}
