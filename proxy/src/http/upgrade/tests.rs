use hyper::Request;

use super::*;

/// The head of a request for a WebSocket that is in order, then changed.
fn ask_with(change: impl FnOnce(&mut request::Parts)) -> Result<Option<Upgrade>, Reason> {
    let request = Request::get("/live")
        .header("host", "a.example")
        .header("upgrade", "websocket")
        .header("connection", "keep-alive, Upgrade")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let (mut head, ()) = request.body(()).unwrap().into_parts();
    change(&mut head);
    asked(&head)
}

fn with(name: &'static str, value: &'static str) -> impl FnOnce(&mut request::Parts) {
    move |head| {
        head.headers.insert(name, HeaderValue::from_static(value));
    }
}

fn and(name: &'static str, value: &'static str) -> impl FnOnce(&mut request::Parts) {
    move |head| {
        head.headers.append(name, HeaderValue::from_static(value));
    }
}

#[test]
fn a_websocket_is_asked_for_in_one_way() {
    let websocket = Ok(Some(Upgrade::WebSocket));
    assert_eq!(ask_with(|_| {}), websocket);
    assert_eq!(ask_with(with("upgrade", "WebSocket, h2c")), websocket, "the other is left out");
    assert_eq!(ask_with(with("content-length", "0")), websocket);
    for (case, found) in [
        ("post", ask_with(|head| head.method = Method::POST)),
        ("version", ask_with(with("sec-websocket-version", "12"))),
        ("versions", ask_with(and("sec-websocket-version", "13"))),
        ("short key", ask_with(with("sec-websocket-key", "dGhl"))),
        ("no base64", ask_with(with("sec-websocket-key", "dGhlIHNhbXBsZSBub25j!!=="))),
        ("two keys", ask_with(and("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="))),
        ("no key", ask_with(|head| drop(head.headers.remove("sec-websocket-key")))),
        ("a body", ask_with(with("content-length", "5"))),
        ("chunks", ask_with(with("transfer-encoding", "chunked"))),
        ("a tunnel", ask_with(|head| head.method = Method::CONNECT)),
    ] {
        assert_eq!(found, Err(Reason::HttpMalformed), "{case}");
    }
}

#[test]
fn other_protocols_are_not_asked_for() {
    assert_eq!(ask_with(with("upgrade", "h2c")), Ok(None));
    assert_eq!(ask_with(with("upgrade", "websocket2")), Ok(None));
    assert_eq!(ask_with(with("connection", "keep-alive")), Ok(None), "it is not for this hop");
    assert_eq!(ask_with(|head| head.version = Version::HTTP_10), Ok(None));
    assert_eq!(ask_with(|head| head.version = Version::HTTP_2), Ok(None));
}

#[test]
fn whatever_may_be_asked_for_is_waited_for() {
    for value in ["websocket", "h2c, WebSocket", " websocket ,x"] {
        assert!(may_ask(value.as_bytes()), "{value}");
    }
    assert!(!may_ask(b"h2c") && !may_ask(b"") && !may_ask(b"websocket/13"));
}

#[test]
fn the_far_end_proves_that_it_understood() {
    // The key and the answer of RFC 6455 section 1.3.
    let mut fields = HeaderMap::new();
    fields.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
    let proof = ask(&mut fields).unwrap();
    assert_eq!(proof, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let answer = |change: &dyn Fn(&mut HeaderMap)| {
        let mut answer = HeaderMap::new();
        agree(&mut answer);
        answer.insert(SEC_WEBSOCKET_ACCEPT, proof.clone());
        change(&mut answer);
        agreed(StatusCode::SWITCHING_PROTOCOLS, &answer, &proof)
    };
    assert!(answer(&|_| {}));
    assert!(answer(&|fields| drop(fields.insert(UPGRADE, HeaderValue::from_static("WebSocket")))));
    assert!(!answer(&|fields| drop(fields.insert(UPGRADE, HeaderValue::from_static("h2c")))));
    assert!(!answer(&|fields| assert!(fields.append(UPGRADE, HeaderValue::from_static("h2c")))));
    assert!(!answer(&|fields| drop(fields.insert(CONNECTION, HeaderValue::from_static("close")))));
    assert!(!answer(&|fields| drop(fields.remove(SEC_WEBSOCKET_ACCEPT))));
    let other = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    assert!(!answer(&|fields| drop(fields.insert(SEC_WEBSOCKET_ACCEPT, other.clone()))));
    assert!(!agreed(StatusCode::OK, &fields, &proof));
}

#[test]
fn a_client_that_sends_no_key_gets_one_of_ours() {
    let keys = [(); 2].map(|()| {
        let mut fields = HeaderMap::new();
        ask(&mut fields).unwrap();
        fields[SEC_WEBSOCKET_KEY].clone()
    });
    assert_ne!(keys[0], keys[1]);
    assert_eq!(keys[0].len(), 24);
}
