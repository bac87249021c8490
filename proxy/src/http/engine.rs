//! Serves a client that speaks plaintext HTTP: hyper reads and writes, every request is judged by itself.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use hyper::{
    Version,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sidegate_api::CloseReason;
use sidegate_policy::Reason;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    denial::Denial,
    exchange::answer,
    preface::PrefaceError,
    stream::{ClientStream, Watched},
    tunnel::Switched,
};
use crate::{
    addrs::{ClientAddr, OriginalDst},
    connection::{Worker, decide::Facts, farewell, link::Link, live::Judgement, record::Record},
    limits::ConnectionSlot,
};

/// The most streams of one HTTP/2 client at a time.
const STREAMS: u32 = 128;
/// The most bytes of fields of one HTTP/2 request.
const FIELDS: u32 = 32 * 1024;
/// The most fields of one HTTP/1 head.
const HEADERS: usize = 100;
/// Windows of HTTP/2, in bytes: of a stream, and of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// How long the rest of a head may take once it has begun.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// What the requests of one connection share.
pub(super) struct Client {
    pub(super) worker: Arc<Worker>,
    pub(super) source: ClientAddr,
    pub(super) original: Option<OriginalDst>,
    pub(super) facts: Arc<Facts>,
    /// Where an HTTP/1 client is; none in HTTP/2.
    watched: Option<Watched>,
    requests: Arc<AtomicUsize>,
    /// A request's answer and record tell why no more is taken.
    told: AtomicBool,
    /// Another protocol took over: HTTP/1 alone, where that ends the requests.
    switched: Mutex<Option<Switched>>,
}

impl Client {
    /// A request came.
    pub(super) fn requested(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Why no more of what the client says is taken.
    pub(super) fn refused(&self) -> Option<Reason> {
        self.watched.as_ref().and_then(|watched| watched.lock().refused()).map(Reason::from)
    }

    /// The same, for a request that tells of it.
    pub(super) fn tells_refusal(&self) -> Option<Reason> {
        self.refused().inspect(|_| self.told.store(true, Relaxed))
    }

    /// The far end agreed to an upgrade. False: something came before it did.
    pub(super) fn upgraded(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.lock().upgraded())
    }

    /// Goes on with another protocol once the answer is written.
    pub(super) fn switch(&self, switched: Switched) {
        *self.switched.lock().unwrap_or_else(PoisonError::into_inner) = Some(switched);
    }

    fn switched(&self) -> Option<Switched> {
        self.switched.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A request was answered; the next may follow.
    fn answered(&self) {
        if let Some(watched) = &self.watched {
            watched.lock().answered(self.requests.load(Relaxed));
        }
    }

    /// In plaintext the far end is spoken to as the client speaks: nothing is negotiated.
    pub(super) fn upstream_version(&self) -> Version {
        if self.watched.is_none() { Version::HTTP_2 } else { Version::HTTP_11 }
    }
}

/// Serves a connection whose first bytes, `early`, were recognised as HTTP, until either side is done.
pub(crate) async fn serve(link: Link, facts: Arc<Facts>, early: Vec<u8>) {
    let Link { record, client, slot, worker } = link;
    let http2 = early.starts_with(b"PRI * HTTP/2.0");
    serve_stream(Opened { record, slot, worker, facts, http2 }, client, early).await;
}

/// A connection whose client speaks HTTP on a stream of its own.
pub(crate) struct Opened {
    pub(crate) record: Record,
    pub(crate) slot: ConnectionSlot,
    pub(crate) worker: Arc<Worker>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) http2: bool,
}

/// Serves it until either side is done.
pub(crate) async fn serve_stream<S>(opened: Opened, stream: S, early: Vec<u8>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Opened { mut record, slot, worker, facts, http2 } = opened;
    let watched = (!http2).then(|| Watched::new(worker.gate.settings.classify_bytes));
    let stream = ClientStream::new(stream, early, watched.clone(), record.entry.live());
    let client = Arc::new(Client {
        source: record.source(),
        original: record.original,
        facts,
        watched,
        requests: Arc::default(),
        told: AtomicBool::new(false),
        switched: Mutex::default(),
        worker,
    });
    record.told_by_requests(Arc::clone(&client.requests));
    let (close, stream) = if http2 {
        (serve_http2(&client, &record, stream).await, None)
    } else {
        let (close, stream) = serve_http1(&client, &record, stream).await;
        (close, Some(stream.socket))
    };
    record.closed(close);
    let broken = client.refused();
    let refused = broken.filter(|_| !client.told.load(Relaxed));
    // Each request has its own record; only a connection without one is told of by itself.
    match refused {
        Some(reason) => record.told_by_itself(Judgement::refused(reason)),
        None if close == CloseReason::Done && client.requests.load(Relaxed) == 0 => {
            record.denied(Judgement::refused(Reason::ClassifyEof))
        }
        None => {}
    }
    drop(record);
    // An orderly end is told; what was cut off must not pass for one.
    if let Some(mut stream) = stream.filter(|_| broken.is_some() || close == CloseReason::Done) {
        let denial = refused
            .map(|reason| Denial { reason, rule: None, host: None, explanation: None, head: false }.http1());
        farewell::said(&mut stream, &denial.unwrap_or_default()).await;
    }
    drop(slot);
}

async fn serve_http1<S>(
    client: &Arc<Client>,
    record: &Record,
    stream: ClientStream<S>,
) -> (CloseReason, ClientStream<S>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shared = Arc::clone(client);
    let service = service_fn(move |request| {
        let client = Arc::clone(&shared);
        Box::pin(async move {
            let response = answer(Arc::clone(&client), request).await;
            client.answered();
            Ok::<_, Infallible>(response)
        })
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .half_close(true)
        .max_headers(HEADERS)
        .max_header_size(client.worker.gate.settings.classify_bytes);
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut draining = false;
    let close = poll_fn(|cx| {
        if let Some(close) = record.entry.closing(cx) {
            return Poll::Ready(close);
        }
        if !std::mem::replace(&mut draining, record.entry.draining()) && draining {
            // The answer under way, or the next, is the last and says so.
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(cx).map(|served| ended(served.is_ok()))
    })
    .await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    match client.switched() {
        // Agreed to, but the client was not told: what follows would answer something else.
        Some(_) if stream.stalled => (CloseReason::ClientReset, stream),
        Some(switched) if close == CloseReason::Done => {
            let close = switched.relay(&mut stream, parts.read_buf, Some(&record.entry)).await;
            (close, stream)
        }
        _ => (close, stream),
    }
}

async fn serve_http2<S>(client: &Arc<Client>, record: &Record, stream: ClientStream<S>) -> CloseReason
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shared = Arc::clone(client);
    let service = service_fn(move |request| {
        let client = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(client, request).await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(FIELDS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .enable_connect_protocol();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut draining = false;
    poll_fn(|cx| {
        if let Some(close) = record.entry.closing(cx) {
            return Poll::Ready(close);
        }
        if !std::mem::replace(&mut draining, record.entry.draining()) && draining {
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx).map(|served| ended(served.is_ok()))
    })
    .await
}

fn ended(well: bool) -> CloseReason {
    if well { CloseReason::Done } else { CloseReason::ClientReset }
}

impl From<PrefaceError> for Reason {
    fn from(error: PrefaceError) -> Reason {
        match error {
            PrefaceError::Malformed => Reason::HttpMalformed,
            PrefaceError::HostMismatch => Reason::HostMismatch,
            PrefaceError::HostInvalid => Reason::HostInvalid,
            PrefaceError::TooLarge => Reason::ClassifyTooLarge,
        }
    }
}
