//! One call of `FetchX509SVID`: gRPC over HTTP/2 on a Unix socket.

use std::path::Path;

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, StatusCode, body::Incoming, client::conn::http2, header::CONTENT_TYPE};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::UnixStream, task::AbortHandle};
use zeroize::Zeroizing;

use super::message::{self, Response};

const CALL: &str = "http://localhost/SpiffeWorkloadAPI/FetchX509SVID";
/// The largest message, in bytes.
const LARGEST: usize = 16 * 1024 * 1024;
/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Responses as they come.
pub(super) struct Responses {
    body: Incoming,
    /// What was read and not used yet. It may hold keys.
    unread: Zeroizing<Vec<u8>>,
    connection: AbortHandle,
}

impl Drop for Responses {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Responses {
    /// Calls.
    ///
    /// # Errors
    /// In words: nobody listens, or it is no gRPC, or the answer is a refusal.
    pub(super) async fn open(path: &Path) -> Result<Self, String> {
        let socket =
            UnixStream::connect(path).await.map_err(|error| format!("it can't be reached: {error}"))?;
        let told = |error: hyper::Error| format!("it is no gRPC server: {error}");
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.map_err(told)?;
        let connection = tokio::spawn(async move {
            // What ends it is seen in the answer.
            let _ = connection.await;
        })
        .abort_handle();
        let frame = framed(&message::Request {});
        let request = Request::post(CALL)
            .header(CONTENT_TYPE, "application/grpc")
            .header("te", "trailers")
            // A browser or a confused proxy can't set it. SPIFFE Workload Endpoint section 5.
            .header("workload.spiffe.io", "true")
            .body(Full::new(frame))
            .map_err(|error| error.to_string())?;
        let answered = sender.send_request(request).await;
        let answer = answered.map_err(|error| {
            connection.abort();
            told(error)
        })?;
        let (head, body) = answer.into_parts();
        let responses = Responses { body, unread: Zeroizing::default(), connection };
        let grpc = |value: &hyper::header::HeaderValue| value.as_bytes().starts_with(b"application/grpc");
        if head.status != StatusCode::OK || !head.headers.get(CONTENT_TYPE).is_some_and(grpc) {
            return Err(format!("it is no gRPC server: it answers {}", head.status));
        }
        match refusal(&head.headers) {
            Some(refusal) => Err(refusal),
            None => Ok(responses),
        }
    }

    /// The next response.
    ///
    /// # Errors
    /// In words: the stream ended, or what comes is malformed.
    pub(super) async fn next(&mut self) -> Result<Response, String> {
        loop {
            if let Some(message) = self.whole()? {
                return Ok(message);
            }
            let frame = match self.body.frame().await {
                None => return Err("the stream ended".to_owned()),
                Some(frame) => frame.map_err(|error| format!("the stream broke off: {error}"))?,
            };
            match frame.into_data() {
                Ok(bytes) => self.keep(&bytes)?,
                Err(frame) => {
                    let refusal = frame.trailers_ref().and_then(refusal);
                    return Err(refusal.unwrap_or_else(|| "the stream ended".to_owned()));
                }
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), String> {
        let needed = self.unread.len() + bytes.len();
        if needed > LARGEST + PREFIX {
            return Err(format!("a message is larger than {LARGEST} bytes"));
        }
        if needed > self.unread.capacity() {
            // A buffer that grows by itself would leave copies behind.
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two().max(16 * 1024)));
            larger.extend_from_slice(&self.unread);
            self.unread = larger;
        }
        self.unread.extend_from_slice(bytes);
        Ok(())
    }

    /// A message that is there whole.
    fn whole(&mut self) -> Result<Option<Response>, String> {
        let Some((prefix, rest)) = self.unread.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let [compressed, length @ ..] = *prefix;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if compressed != 0 || length > LARGEST {
            return Err(format!("a message is compressed, or larger than {LARGEST} bytes"));
        }
        let Some(message) = rest.get(..length) else { return Ok(None) };
        let decoded =
            Response::decode(message).map_err(|error| format!("a message is malformed: {error}"))?;
        self.unread = Zeroizing::new(self.unread.get(PREFIX + length..).unwrap_or_default().to_vec());
        Ok(Some(decoded))
    }
}

fn framed(message: &impl Message) -> Bytes {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    Bytes::from(frame).copy_to_bytes(PREFIX + body.len())
}

/// A status other than OK, in words. Its message is the agent's; only printable ASCII of it is repeated.
fn refusal(fields: &HeaderMap) -> Option<String> {
    let code = fields.get("grpc-status")?.to_str().unwrap_or("?");
    let name = match code {
        "0" => return None,
        "3" => "INVALID_ARGUMENT",
        "7" => "PERMISSION_DENIED: no identity is issued to this workload",
        "14" => "UNAVAILABLE",
        "16" => "UNAUTHENTICATED",
        _ => "a failure",
    };
    let said = fields.get("grpc-message").and_then(|said| said.to_str().ok()).unwrap_or_default();
    let said: String = said.chars().filter(|letter| matches!(letter, ' '..='~')).take(200).collect();
    Some(format!("{name} (status {}) {said}", code.get(..3).unwrap_or(code)).trim_end().to_owned())
}
