//! WebSocket, the one protocol that a request may switch to: how it is asked for, and whether the far end agreed.
//! RFC 6455 section 4, RFC 8441, RFC 9110 section 7.8.

#[cfg(test)]
mod tests;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::{
    HeaderMap, Method, StatusCode, Version,
    ext::Protocol,
    header::{
        CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
    },
    http::request,
};
use sidegate_policy::{Reason, Upgrade};

const WEBSOCKET: &str = "websocket";
/// What every accepting server mixes into the key. RFC 6455 section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 16;

/// The upgrade that a request asks for. Other protocols are never switched to: asking for them is left out.
///
/// # Errors
/// It asks for a WebSocket in a way that no server has to understand, or for a tunnel.
pub(super) fn asked(head: &request::Parts) -> Result<Option<Upgrade>, Reason> {
    if head.method == Method::CONNECT {
        // Plain CONNECT would make a tunnel of what was judged as a request.
        let protocol = head.extensions.get::<Protocol>().map(Protocol::as_str);
        let websocket = head.version == Version::HTTP_2 && protocol == Some(WEBSOCKET);
        return if websocket { Ok(Some(Upgrade::WebSocket)) } else { Err(Reason::HttpMalformed) };
    }
    let fields = &head.headers;
    let asks = has_token(fields, UPGRADE, WEBSOCKET) && has_token(fields, CONNECTION, "upgrade");
    if head.version != Version::HTTP_11 || !asks {
        return Ok(None);
    }
    let bodiless = !fields.contains_key(TRANSFER_ENCODING)
        && fields.get(CONTENT_LENGTH).is_none_or(|length| length.as_bytes() == b"0");
    let known = single(fields, SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    let keyed = single(fields, SEC_WEBSOCKET_KEY).is_some_and(|key| {
        let key = BASE64_STANDARD.decode(key.as_bytes());
        key.is_ok_and(|key| key.len() == KEY_BYTES)
    });
    if head.method == Method::GET && bodiless && known && keyed {
        Ok(Some(Upgrade::WebSocket))
    } else {
        Err(Reason::HttpMalformed)
    }
}

/// A field value that [`asked`] may take for a WebSocket: nothing may follow its head until it is answered.
pub(super) fn may_ask(value: &[u8]) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
}

/// Asks the far end in HTTP/1.1, with the client's key or one of our own. Returns what it has to answer with.
pub(super) fn ask(fields: &mut HeaderMap) -> Option<HeaderValue> {
    fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
    fields.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    if !fields.contains_key(SEC_WEBSOCKET_KEY) {
        let key = BASE64_STANDARD.encode(rand::random::<[u8; KEY_BYTES]>());
        fields.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).ok()?);
    }
    single(fields, SEC_WEBSOCKET_KEY).and_then(proof)
}

/// `Sec-WebSocket-Accept` for a key. RFC 6455 section 4.2.2.
fn proof(key: &HeaderValue) -> Option<HeaderValue> {
    let mixed = [key.as_bytes(), GUID.as_bytes()].concat();
    let proof = BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &mixed));
    HeaderValue::from_str(&proof).ok()
}

/// Whether an answer switches to a WebSocket and to nothing else, for whom asked so that it must say `proof`.
pub(super) fn agreed(status: StatusCode, fields: &HeaderMap, proof: &HeaderValue) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS
        && single(fields, UPGRADE)
            .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
        && has_token(fields, CONNECTION, "upgrade")
        && single(fields, SEC_WEBSOCKET_ACCEPT) == Some(proof)
}

/// Says to an HTTP/1.1 client that it is so.
pub(super) fn agree(fields: &mut HeaderMap) {
    fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
}

fn single(fields: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = fields.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn has_token(fields: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let tokens = fields.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    { tokens }.any(|found| found.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}
