//! Both sides of a TLS handshake, and the first bytes of anything.

use sidegate_proxy::{
    connection::classify::{Classifier, FirstBytes, NoMore, Progress},
    tls::{
        client_hello::{ClientHello, HelloReader, ServerName},
        server_gate::{HELD_BYTES, ServerGate, Shown},
    },
};
use tls_parser::{SNIType, TlsExtension, TlsMessage, TlsMessageHandshake};

use super::pieces;

const BUDGET: usize = 64 * 1024;
const HELLO: &[u8] = include_bytes!("../../../proxy/tests/fixtures/hello/openssl_s_client.bin");
const BEFORE_RETRY: &[u8] =
    include_bytes!("../../../proxy/tests/fixtures/server_hello/openssl_retry.1_client.bin");
const RETRY: &[u8] = include_bytes!("../../../proxy/tests/fixtures/server_hello/openssl_retry.2_server.bin");

/// One verdict however the hello is split; what is accepted, another parser reads alike.
pub fn client_hello(bytes: &[u8]) {
    let mut reader = HelloReader::new(BUDGET);
    let whole = reader.push(bytes);
    let mut split = HelloReader::new(BUDGET);
    let settled = pieces(bytes).map(|piece| split.push(piece)).find(|verdict| *verdict != Ok(None));
    assert_eq!(settled.unwrap_or(Ok(None)), whole, "the splitting makes no difference");
    assert!(reader.taken() <= bytes.len().min(BUDGET));
    if let Ok(Some(hello)) = whole {
        assert_eq!(split.taken(), reader.taken(), "the hello ends at the same byte");
        compare(&hello, &bytes[..reader.taken()]);
    }
}

/// `tls-parser` must accept what we accept and find the same name.
fn compare(hello: &ClientHello, stream: &[u8]) {
    let message = content(stream);
    let (rest, parsed) = tls_parser::parse_tls_message_handshake(&message).expect("a second opinion");
    assert!(rest.is_empty());
    let TlsMessage::Handshake(TlsMessageHandshake::ClientHello(theirs)) = parsed else {
        panic!("a ClientHello")
    };
    assert_eq!(theirs.session_id.unwrap_or_default(), hello.session_id);
    let extensions = theirs.ext.map(|list| tls_parser::parse_tls_client_hello_extensions(list));
    let names: Vec<_> = match &extensions {
        // It stops without a word at an extension whose body it dislikes.
        Some(Ok(([], extensions))) => extensions
            .iter()
            .filter_map(|extension| match extension {
                TlsExtension::SNI(names) => Some(names),
                _ => None,
            })
            .flatten()
            .collect(),
        _ => return,
    };
    match (&hello.server_name, names.as_slice()) {
        (ServerName::Host(host), [(SNIType::HostName, name)]) => {
            assert_eq!(name.to_ascii_lowercase(), host.as_str().as_bytes());
        }
        (ServerName::Absent, []) | (ServerName::Address | ServerName::Invalid, [_]) => {}
        (ours, theirs) => panic!("{ours:?} here, {theirs:?} there"),
    }
}

/// The content of the records that make up `stream`.
fn content(stream: &[u8]) -> Vec<u8> {
    let (mut message, mut rest) = (Vec::new(), stream);
    while let [_, _, _, high, low, after @ ..] = rest {
        let (this, next) = after.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        message.extend_from_slice(this);
        rest = next;
    }
    message
}

/// One verdict however the server's bytes are split; nothing is released that was not shown to be harmless.
pub fn server_gate(bytes: &[u8]) {
    let hello = HelloReader::new(BUDGET).push(HELLO).ok().flatten().expect("a captured hello");
    let mut whole = ServerGate::new(hello.clone());
    let verdict = whole.push_server(bytes);
    let mut split = ServerGate::new(hello);
    let (mut last, mut retried) = (Shown::Undecided, false);
    for piece in pieces(bytes) {
        last = split.push_server(piece);
        retried |= last == Shown::Retry;
    }
    match verdict {
        Shown::Retry => assert!(retried && matches!(last, Shown::Retry | Shown::Undecided)),
        verdict => assert_eq!(last, verdict, "the splitting makes no difference"),
    }
    assert_eq!(split.releasable(), whole.releasable());
    match verdict {
        Shown::Undecided | Shown::Malformed => assert_eq!(whole.releasable(), 0),
        Shown::Tls13 | Shown::Tls12 | Shown::Older => assert_eq!(whole.releasable(), bytes.len()),
        Shown::Retry | Shown::Alert => assert!((1..=bytes.len()).contains(&whole.releasable())),
    }
    assert!(verdict != Shown::Undecided || bytes.len() < HELD_BYTES, "nothing is held for ever");
}

/// One verdict however the second hello is split.
pub fn second_hello(bytes: &[u8]) {
    let first = HelloReader::new(BUDGET).push(BEFORE_RETRY).ok().flatten().expect("a captured hello");
    let gate = || {
        // Early data may come before the second hello.
        let mut gate = ServerGate::new(ClientHello { early_data: true, ..first.clone() });
        assert_eq!(gate.push_server(RETRY), Shown::Retry);
        gate
    };
    let whole = gate().push_client(bytes);
    let mut split = gate();
    let last = pieces(bytes).map(|piece| split.push_client(piece)).last();
    assert_eq!(last.unwrap_or(Ok(false)), whole, "the splitting makes no difference");
    assert!(whole != Ok(false) || bytes.len() <= 2 * HELD_BYTES, "nothing is held for ever");
}

/// One verdict however the first bytes are split, and a last word for every beginning.
pub fn classify(bytes: &[u8]) {
    let mut whole = Classifier::new(BUDGET);
    let verdict = whole.push(bytes);
    let mut split = Classifier::new(BUDGET);
    let mut last = Progress::NeedMore;
    for piece in pieces(bytes) {
        last = split.push(piece);
    }
    assert_eq!(last, verdict, "the splitting makes no difference");
    assert!(whole.taken() <= bytes.len());
    if bytes.len() >= BUDGET {
        assert_ne!(verdict, Progress::NeedMore, "no beginning is waited for beyond the budget");
    }
    let finished = whole.finish(NoMore::Eof);
    assert_eq!(split.finish(NoMore::Eof), finished);
    match verdict {
        Progress::Done(first) => assert_eq!(finished, Ok(first)),
        Progress::Refused(reason) => assert_eq!(finished, Err(reason)),
        Progress::NeedMore => assert!(!matches!(finished, Ok(FirstBytes::Tls(_) | FirstBytes::Http(_)))),
    }
}
