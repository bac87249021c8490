//! The small HTTP/1 servers of probes, scrapes and the admin socket: GET only, one answer a connection, bounded in
//! connections, time and size.

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    time::timeout,
};

use super::guests::Guests;
use crate::back_off;

/// Longest wait for a request's head.
const HEAD: Duration = Duration::from_secs(2);
/// Longest life of a connection, whatever it does.
const LIFE: Duration = Duration::from_secs(10);
/// Largest request head, in bytes.
const LARGEST: usize = 8192;

/// What a server answers by.
pub(super) type Answer = Arc<dyn Fn(&Asked<'_>) -> Reply + Send + Sync>;

/// A GET request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The target's path.
    pub(super) path: &'a str,
    /// Its query, without `?`.
    pub(super) query: &'a str,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) body: String,
}

impl Reply {
    /// A JSON document that ends with a newline.
    pub(super) fn json(status: u16, value: &impl Serialize) -> Reply {
        match serde_json::to_string_pretty(value) {
            Ok(body) => Reply { status, kind: "application/json", body: body + "\n" },
            Err(error) => Reply::text(500, format!("{error}\n")),
        }
    }

    /// Plain text.
    pub(super) fn text(status: u16, body: impl Into<String>) -> Reply {
        Reply { status, kind: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// Where a server listens.
pub(super) enum Door {
    /// An address.
    Tcp(TcpListener),
    /// A socket file.
    Unix(UnixListener),
}

/// Serves for as long as it is polled.
pub(super) async fn serve(door: Door, answer: Answer) {
    let guests = Arc::new(Mutex::new(Guests::default()));
    loop {
        match door.accept().await {
            Ok((stream, source)) => {
                // Without room the connection is closed at once: whoever waits would only be told later.
                let Some(guest) = Guests::admit(&guests, source) else { continue };
                let answer = Arc::clone(&answer);
                drop(tokio::spawn(async move {
                    // How a probe's connection ends is of no interest.
                    let _ = timeout(LIFE, converse(stream, answer)).await;
                    drop(guest);
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "a probe or admin connection can't be accepted");
                back_off::after(&error).await;
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Door {
    /// A connection, and where it comes from if not from a socket file.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Option<IpAddr>)> {
        Ok(match self {
            Door::Tcp(listener) => {
                let (stream, source) = listener.accept().await?;
                (Box::new(stream), Some(source.ip()))
            }
            Door::Unix(listener) => (Box::new(listener.accept().await?.0), None),
        })
    }
}

async fn converse(stream: Box<dyn Stream>, answer: Answer) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, &answer);
        async move { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(LARGEST)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn respond(request: &Request<Incoming>, answer: &Answer) -> Response<Full<Bytes>> {
    let readable = matches!(*request.method(), Method::GET | Method::HEAD);
    let asked = Asked { path: request.uri().path(), query: request.uri().query().unwrap_or_default() };
    let reply = if readable { answer(&asked) } else { Reply::text(405, "only GET is answered here\n") };
    let mut response = Response::new(Full::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !readable {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
