//! Bodies on their way through: streamed frame by frame, counted, and cut off when the policy says so.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use pingora_timeout::timeout;
use sidegate_api::CloseReason;
use tokio::sync::watch;

use super::{exchange::Exchange, fields::strip_trailers};
use crate::connection::live::Live;

/// Why a body ended early.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The side it comes from broke off.
    Source(hyper::Error),
    /// Policy, idle timeout or drain.
    Closed(CloseReason),
    /// The far end answered without it.
    Unwanted,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::Source(_) => f.write_str("the body broke off"),
            BodyError::Unwanted => f.write_str("the body is not wanted"),
            BodyError::Closed(close) => write!(f, "the request was ended: {close:?}"),
        }
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BodyError::Source(error) => Some(error),
            BodyError::Closed(_) | BodyError::Unwanted => None,
        }
    }
}

/// How far a request's body got.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes handed on.
    pub(super) sent: AtomicU64,
    /// Bytes that came back of what is no HTTP any more.
    pub(super) received: AtomicU64,
    /// The client broke off, or said what is not in order.
    pub(super) broken: AtomicBool,
    /// Whether the far end wants the body, where the client asked it first.
    expected: OnceLock<Continued>,
}

impl Progress {
    /// Nothing more is forwarded: a body that the far end did not want is let go.
    pub(super) fn over(&self) {
        if let Some(expected) = self.expected.get() {
            expected.0.send_if_modified(|wanted| wanted.is_none().then(|| *wanted = Some(false)).is_some());
        }
    }
}

/// Whether the far end wants a body; `None`: it has not said so yet.
#[derive(Clone, Debug)]
pub(super) struct Continued(watch::Sender<Option<bool>>);

impl Continued {
    /// It does, or is to get it unasked.
    pub(super) fn go_on(&self) {
        self.0.send_replace(Some(true));
    }
}

/// How long a client's `Expect: 100-continue` waits for a far end that says nothing: RFC 9110 section 10.1.1 warns of those.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

async fn wanted(mut said: watch::Receiver<Option<bool>>) -> bool {
    match timeout(CONTINUE_PATIENCE, said.wait_for(Option::is_some)).await {
        Ok(Ok(said)) => *said != Some(false),
        Ok(Err(_)) => false,
        Err(_) => true,
    }
}

/// A request's body on its way to the far end.
pub(super) struct Sent {
    body: Incoming,
    progress: Arc<Progress>,
    live: Arc<Live>,
    /// Until then the client is not told to go on.
    waiting: Option<Pin<Box<dyn Future<Output = bool> + Send + Sync>>>,
}

impl Sent {
    pub(super) fn new(body: Incoming, progress: Arc<Progress>, live: Arc<Live>) -> Self {
        Sent { body, progress, live, waiting: None }
    }

    /// Nothing is read of it before the far end says that it wants it. Reading it is what tells the client to go on.
    pub(super) fn wait_for_continue(&mut self) {
        let (sender, said) = watch::channel(None);
        let _ = self.progress.expected.set(Continued(sender));
        self.waiting = Some(Box::pin(wanted(said)));
    }

    /// What it waits for, if it does.
    pub(super) fn continued(&self) -> Option<Continued> {
        self.waiting.as_ref().and_then(|_| self.progress.expected.get()).cloned()
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
        if let Some(waiting) = &mut self.waiting {
            let wanted = std::task::ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
            if !wanted {
                return Poll::Ready(Some(Err(BodyError::Unwanted)));
            }
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
