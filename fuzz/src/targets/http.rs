//! The HTTP head, and the answer to a denied client.

use sidegate_policy::Reason;
use sidegate_proxy::http::{
    denial::Denial,
    framing::Framing,
    preface::{Preface, PrefaceProgress, PrefaceReader},
};

use super::{pieces, text};

const BUDGET: usize = 64 * 1024;

/// One verdict however the head is split; what is accepted, `httparse` reads alike.
pub fn http_preface(bytes: &[u8]) {
    let mut reader = PrefaceReader::new(BUDGET);
    let whole = reader.push(bytes);
    let mut split = PrefaceReader::new(BUDGET);
    let last = pieces(bytes).map(|piece| split.push(piece)).last();
    assert_eq!(last.unwrap_or(PrefaceProgress::NeedMore), whole, "the splitting makes no difference");
    assert_eq!(split.taken(), reader.taken());
    let PrefaceProgress::Done(Preface::Http1 { method, target, host, host_address, .. }) = whole else {
        return;
    };
    assert!(host.is_none() || host_address.is_none());
    assert!(!target.contains('?') && target.bytes().all(|byte| byte.is_ascii_graphic()));
    let mut headers = vec![httparse::EMPTY_HEADER; 20_000];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        other => panic!("{other:?} there"),
    };
    assert_eq!(length, reader.taken(), "the head ends at the same byte");
    assert_eq!(request.method, Some(&*method));
    let hosts: Vec<_> =
        request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host")).collect();
    if let ([header], Some(host)) = (hosts.as_slice(), &host) {
        let claimed = header.value.to_ascii_lowercase();
        assert!(claimed.starts_with(host.as_str().as_bytes()), "{claimed:?} {host}");
    }
    assert!(hosts.len() <= 1);
}

/// One verdict however the bytes of a connection are split, and what is let through, `httparse` divides into the same
/// requests: a plain one never begins where another is not over.
pub fn http_framing(bytes: &[u8]) {
    let mut whole = Framing::new(BUDGET);
    let taken = whole.push(bytes);
    assert_eq!(taken == bytes.len(), whole.refused().is_none());
    let mut split = Framing::new(BUDGET);
    let mut passed = 0;
    for piece in pieces(bytes) {
        let more = split.push(piece);
        passed += more;
        if more < piece.len() {
            break;
        }
    }
    assert_eq!(split.refused(), whole.refused(), "the splitting makes no difference");
    // Of a head that is refused the beginning may have passed before that showed; never all of it.
    let more = bytes.get(taken..passed).expect("no fewer bytes pass in pieces");
    assert!(whole.refused().is_some() || more.is_empty(), "all of them pass either way");
    let mut headers = vec![httparse::EMPTY_HEADER; 20_000];
    let whole_head =
        matches!(httparse::Request::new(&mut headers).parse(more), Ok(httparse::Status::Complete(_)));
    assert!(!whole_head, "no reader takes what is left of it for a request");
    assert_eq!(split.between_requests(), whole.between_requests());
    let ended = divided(bytes.get(..taken).unwrap_or_default());
    assert!(!whole.between_requests() || ended, "the last request is over, for another reader too");
    assert!(!whole.upgraded() || ended, "and so is one that asks for another protocol");
}

/// Whether the bytes end with a whole request. Panics where a reader would refuse one before that.
fn divided(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let mut headers = vec![httparse::EMPTY_HEADER; 20_000];
        let mut request = httparse::Request::new(&mut headers);
        let head = match request.parse(bytes) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) | Err(_) => return false,
        };
        let field = |name: &str| request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        let chunked = field("transfer-encoding").is_some();
        let length = field("content-length")
            .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
        let Some(rest) = bytes.get(head..) else { return false };
        let over = if chunked { behind_chunks(rest) } else { rest.get(length.unwrap_or(0)..) };
        let Some(rest) = over else { return false };
        bytes = rest;
    }
    true
}

fn behind_chunks(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let Ok(httparse::Status::Complete((at, size))) = httparse::parse_chunk_size(rest) else {
            return None;
        };
        rest = rest.get(at..)?;
        if size == 0 {
            let mut trailers = vec![httparse::EMPTY_HEADER; 20_000];
            return match httparse::parse_headers(rest, &mut trailers) {
                Ok(httparse::Status::Complete((end, _))) => rest.get(end..),
                _ => None,
            };
        }
        rest = rest.get(usize::try_from(size).ok()?.checked_add(2)?..)?;
    }
}

/// Whatever stands in the fields, the answer stays one head and one JSON body.
pub fn http_denial(bytes: &[u8]) {
    let (selector, bytes) = bytes.split_first().unwrap_or((&0, bytes));
    let (Some(reason), Some(words)) = (Reason::ALL.get(usize::from(*selector)), text(bytes)) else { return };
    let denial =
        Denial { reason: *reason, rule: Some(words), host: None, explanation: Some(words), head: false };
    let response = denial.http1();
    let mut headers = [httparse::EMPTY_HEADER; 8];
    let mut parsed = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = parsed.parse(&response) else { panic!("a whole head") };
    let body = &response[length..];
    let said = parsed.headers.iter().find(|header| header.name == "content-length").expect("a length");
    assert_eq!(said.value, body.len().to_string().as_bytes());
    let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(body["explanation"], words);
}
