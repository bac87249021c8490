//! Plaintext HTTP, request by request: what the far end got, what the client got, one record each.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use super::super::world::web;

use super::*;

pub(super) const API: &str = "93.184.216.34:80";

/// A policy that lets `www.ok.example` be asked in plaintext, with more lines in its rule.
pub(super) fn plain(more: &str) -> String {
    format!(
        "apiVersion: sidegate.dev/v1
kind: Policy
metadata: {{ name: test }}
spec:
  egress:
    - name: api
      reason: the partner serves plaintext until spring
      to: [ {{ hosts: [ www.ok.example ] }} ]
      ports: [ 80 ]
      protocol: http
      tls: {{ mode: none }}
{more}"
    )
}

const RULES: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: test }
spec:
  egress:
    - name: api
      reason: "the partner serves plaintext until spring"
      to: [ { hosts: [ www.ok.example, old.ok.example ] } ]
      ports: [ 80 ]
      protocol: http
      tls: { mode: none }
      http: [ { methods: [ GET, POST ], paths: [ "/v1/**" ] } ]
"#;

async fn world() -> World {
    World::start(RULES, ZONE).await
}

/// An HTTP/1.1 origin that answers every request with `ok`, and the heads that it saw.
pub(super) fn plain_origin(listener: TcpListener) -> Arc<Mutex<Vec<String>>> {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let heads = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let heads = Arc::clone(&heads);
            tokio::spawn(async move {
                while let Some(head) = read_head(&mut stream).await {
                    heads.lock().unwrap().push(head);
                    let answer =
                        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\nok";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    seen
}

/// Up to the empty line; `None`: the connection ended.
pub(super) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// One answer with a content-length: its head and its body.
pub(super) async fn read_answer(stream: &mut TcpStream) -> (String, String) {
    let head = read_head(stream).await.expect("an answer");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

pub(super) fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

pub(super) fn status(answer: &(String, String)) -> &str {
    &answer.0[9..12]
}

#[tokio::test]
async fn an_allowed_request_is_forwarded_with_a_head_of_our_own() {
    let world = world().await;
    let heads = plain_origin(world.origin(API).await);
    let mut client = world.client(API).await;
    let request = "GET /v1/a/../b/%63?q=1 HTTP/1.1\r\nHost: WWW.ok.example\r\nConnection: x-mine\r\nX-Mine: 1\r\n\
                   Proxy-Authorization: Basic c2VjcmV0\r\nX-Forwarded-Client-Cert: By=me\r\nAccept: */*\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let answer = read_answer(&mut client).await;
    assert_eq!((status(&answer), answer.1.as_str()), ("200", "ok"));
    assert!(!answer.0.contains("x-hop"), "{}", answer.0);
    let head = heads.lock().unwrap()[0].to_lowercase();
    assert!(head.starts_with("get /v1/b/c?q=1 http/1.1\r\n"), "{head}");
    let mut fields: Vec<&str> = head.lines().skip(1).filter(|line| !line.is_empty()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["accept: */*", "host: www.ok.example"]);
    drop(client);
    let record = world.record().await;
    assert_eq!(story(&record), ("allowed", "rule-allows", CloseReason::Done));
    assert_eq!((record.host.as_deref(), record.bytes_received), (Some("www.ok.example"), 2));
    let http = record.http.unwrap();
    assert_eq!((http.method.as_str(), http.path.as_str(), http.status), ("GET", "/v1/b/c", 200));
    assert_eq!(world.net.dialled(), [API]);
}

#[tokio::test]
async fn each_request_of_a_connection_is_judged() {
    let world = world().await;
    let heads = plain_origin(world.origin(API).await);
    let mut client = world.client(API).await;
    let requests = [
        (get("/v1/a", "www.ok.example"), "200", "rule-allows"),
        (get("/v2/a", "www.ok.example"), "403", "http-not-allowed"),
        (get("/v1/../v2/a", "www.ok.example"), "403", "http-not-allowed"),
        (get("/v1/a", "evil.example"), "403", "no-rule"),
        ("DELETE /v1/a HTTP/1.1\r\nHost: www.ok.example\r\n\r\n".to_owned(), "403", "http-not-allowed"),
        ("get /v1/a HTTP/1.1\r\nHost: www.ok.example\r\n\r\n".to_owned(), "403", "http-not-allowed"),
        (get("/v1/b", "www.ok.example"), "200", "rule-allows"),
    ];
    for (request, expected, reason) in &requests {
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = read_answer(&mut client).await;
        assert_eq!(status(&answer), *expected, "{request}");
        if *expected == "403" {
            let body: serde_json::Value = serde_json::from_str(&answer.1).unwrap();
            assert_eq!(body["reason"].as_str(), Some(*reason));
        }
    }
    drop(client);
    let records = world.records(requests.len()).await;
    let reasons: Vec<&str> = records.iter().map(|record| record.reason.as_str()).collect();
    assert_eq!(reasons, requests.each_ref().map(|(_, _, reason)| *reason));
    assert_eq!(heads.lock().unwrap().len(), 2, "only what is allowed arrives");
    assert_eq!(world.net.dialled(), [API], "and over one connection");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let world = world().await;
    let heads = plain_origin(world.origin(API).await);
    let mut client = world.client(API).await;
    let both =
        [get("/v1/a", "www.ok.example"), get("/v2/a", "www.ok.example"), get("/v1/c", "www.ok.example")]
            .concat();
    client.write_all(both.as_bytes()).await.unwrap();
    for expected in ["200", "403", "200"] {
        assert_eq!(status(&read_answer(&mut client).await), expected);
    }
    drop(client);
    world.records(3).await;
    assert_eq!(heads.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_later_request_that_readers_could_take_differently_ends_the_connection() {
    for bad in [
        "POST /v1/a HTTP/1.1\r\nHost: www.ok.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/a HTTP/1.1\r\nHost: www.ok.example\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n0\r\n\r\n",
        "GET /v1/a HTTP/1.1\nHost: www.ok.example\n\n",
        "GET /v1/a HTTP/1.1\r\nHost: www.ok.example\r\nHost: evil.example\r\n\r\n",
        "GET http://evil.example/ HTTP/1.1\r\nHost: www.ok.example\r\n\r\n",
    ] {
        let world = world().await;
        let heads = plain_origin(world.origin(API).await);
        let mut client = world.client(API).await;
        client.write_all([&get("/v1/a", "www.ok.example"), bad].concat().as_bytes()).await.unwrap();
        assert_eq!(status(&read_answer(&mut client).await), "200");
        let rest = read_all(&mut client).await.expect("words, not a reset");
        let rest = String::from_utf8(rest).unwrap();
        assert!(rest.starts_with("HTTP/1.1 4") && rest.contains("connection: close"), "{bad:?}: {rest}");
        assert!(heads.lock().unwrap().iter().all(|head| !head.contains("evil")), "{bad:?}");
        let denied = loop {
            if let Some(record) = world.denied().pop() {
                break record;
            }
            tokio::task::yield_now().await;
        };
        assert!(
            ["http-malformed", "host-mismatch"].contains(&denied.reason.as_str()),
            "{bad:?}: {}",
            denied.reason
        );
    }
}

#[tokio::test]
async fn a_path_that_servers_read_differently_is_refused() {
    let world = world().await;
    let heads = plain_origin(world.origin(API).await);
    let paths = ["/v1/%2e%2e%2fv2", "/v1/..%5cv2", "/v1/%252e%252e/v2", "/v1/a%00", "/v1/..;/v2", "/v1/%zz"];
    for path in paths {
        let mut client = world.client(API).await;
        client.write_all(get(path, "www.ok.example").as_bytes()).await.unwrap();
        let answer = read_answer(&mut client).await;
        assert_eq!(status(&answer), "400", "{path}");
    }
    let records = world.records(paths.len()).await;
    assert!(records.iter().all(|record| record.reason == "http-malformed"));
    assert!(heads.lock().unwrap().is_empty() && world.net.dialled().is_empty());
}

#[tokio::test]
async fn idle_connections_serve_the_same_destination_alone() {
    let world = world().await;
    let heads = plain_origin(world.origin(API).await);
    let _other = plain_origin(world.origin("93.184.216.35:80").await);
    for (host, dialled) in
        [("www.ok.example", 1), ("www.ok.example", 1), ("old.ok.example", 2), ("www.ok.example", 2)]
    {
        let mut client = world.client(API).await;
        client.write_all(get("/v1/a", host).as_bytes()).await.unwrap();
        assert_eq!(status(&read_answer(&mut client).await), "200");
        assert_eq!(read_until_closed(client).await, 0);
        assert_eq!(world.net.dialled().len(), dialled, "{host}");
    }
    // Another generation: nothing that an older policy let us open.
    world.worker.gate.policies.replace(policies(RULES, 2));
    let mut client = world.client(API).await;
    client.write_all(get("/v1/a", "www.ok.example").as_bytes()).await.unwrap();
    assert_eq!(status(&read_answer(&mut client).await), "200");
    assert_eq!(world.net.dialled().len(), 3);
    assert_eq!(heads.lock().unwrap().len(), 4);
}

/// Closes our side and waits until the proxy has closed too.
async fn read_until_closed(mut client: TcpStream) -> usize {
    client.shutdown().await.unwrap();
    read_all(&mut client).await.map_or(0, |bytes| bytes.len())
}

#[tokio::test]
async fn a_far_end_that_fails_is_named() {
    let world = world().await;
    let origin = world.origin(API).await;
    tokio::spawn(async move {
        // It takes the request and says nothing.
        let (mut stream, _) = origin.accept().await.unwrap();
        read_head(&mut stream).await;
    });
    let mut client = world.client(API).await;
    client.write_all(get("/v1/a", "www.ok.example").as_bytes()).await.unwrap();
    let answer = read_answer(&mut client).await;
    assert_eq!(status(&answer), "502");
    drop(client);
    let record = world.record().await;
    assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("allowed", "upstream-closed"));
    assert_eq!(record.http.unwrap().status, 502);
}

#[tokio::test]
async fn an_answer_under_way_ends_with_the_policy_that_allowed_it() {
    let world = world().await;
    let origin = world.origin(API).await;
    tokio::spawn(async move {
        let (mut stream, _) = origin.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await.unwrap();
        read_head(&mut stream).await;
    });
    let mut client = world.client(API).await;
    client.write_all(get("/v1/a", "www.ok.example").as_bytes()).await.unwrap();
    let mut head = read_head(&mut client).await.unwrap();
    let mut half = [0; 4];
    client.read_exact(&mut half).await.unwrap();
    head.push_str(std::str::from_utf8(&half).unwrap());
    world.worker.gate.policies.replace(policies(&RULES.replace("/v1/**", "/v9/**"), 2));
    assert!(read_all(&mut client).await.is_none_or(|rest| rest.is_empty()), "{head}");
    let record = world.record().await;
    assert_eq!(story(&record), ("denied", "http-not-allowed", CloseReason::PolicyChanged));
    assert_eq!(record.generation, 2);
}

/// An HTTP/2 origin over plaintext; it echoes bodies, with a trailer.
pub(super) fn http2_origin(listener: TcpListener) {
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut trailers = hyper::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let frames = [
                    Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(body)),
                    Ok(hyper::body::Frame::trailers(trailers)),
                ];
                let body = StreamBody::new(futures_of(frames));
                Ok::<_, std::convert::Infallible>(
                    Response::builder().header("x-path", path).body(body).unwrap(),
                )
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
}

/// A stream that yields these.
fn futures_of<T: Unpin>(items: impl IntoIterator<Item = T>) -> impl futures_core::Stream<Item = T> {
    struct Items<T>(std::collections::VecDeque<T>);
    impl<T: Unpin> futures_core::Stream for Items<T> {
        type Item = T;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<T>> {
            std::task::Poll::Ready(self.0.pop_front())
        }
    }
    Items(items.into_iter().collect())
}

#[tokio::test]
async fn streams_of_http2_are_judged_each_and_trailers_pass() {
    let world = world().await;
    http2_origin(world.origin(API).await);
    let stream = world.client(API).await;
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    let running = tokio::spawn(connection);
    let ask = |path: &str, host: &str| {
        let uri = format!("http://{host}{path}");
        let request = Request::post(uri).body(Full::new(Bytes::from_static(b"hello"))).unwrap();
        let mut sender = sender.clone();
        async move { sender.send_request(request).await.unwrap() }
    };
    let (allowed, denied, foreign) = tokio::join!(
        ask("/v1/a", "www.ok.example"),
        ask("/v2/a", "www.ok.example"),
        ask("/v1/a", "evil.example")
    );
    assert_eq!(
        [allowed.status(), denied.status(), foreign.status()].map(|status| status.as_u16()),
        [200, 403, 403]
    );
    assert_eq!(allowed.headers()["x-path"], "/v1/a");
    let body = allowed.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "hello");
    let denied = denied.into_body().collect().await.unwrap().to_bytes();
    let denied: serde_json::Value = serde_json::from_slice(&denied).unwrap();
    assert_eq!(denied["reason"], "http-not-allowed");
    drop(foreign);
    drop(sender);
    running.await.unwrap().unwrap();
    let mut reasons: Vec<String> = world.records(3).await.into_iter().map(|record| record.reason).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["http-not-allowed", "no-rule", "rule-allows"]);
}

#[tokio::test]
async fn a_connection_without_a_request_has_its_own_record() {
    let world = world().await;
    let mut client = world.client(API).await;
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    client.shutdown().await.unwrap();
    read_all(&mut client).await;
    let record = world.record().await;
    assert_eq!((record.verdict.as_str(), record.http.is_some()), ("denied", false));
}

/// An opaque address rule beside a deny by host: HTTP shows the host of each request, so each is judged.
const BESIDE: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: test }
spec:
  egress:
    - name: net
      reason: "whatever they speak"
      to: [ { cidrs: [ 93.0.0.0/8 ] } ]
      ports: [ 80 ]
      protocol: tcp
      tls: { mode: none }
    - name: no-evil
      action: deny
      to: [ { hosts: [ evil.example ] } ]
      ports: [ 80 ]
"#;

#[tokio::test]
async fn a_denied_host_is_found_in_every_request_by_an_address_rule() {
    let world = World::start(BESIDE, ZONE).await;
    let heads = plain_origin(world.origin(API).await);
    let mut client = world.client(API).await;
    for (host, expected) in [("fine.example", "200"), ("evil.example", "403"), ("fine.example", "200")] {
        client.write_all(get("/", host).as_bytes()).await.unwrap();
        assert_eq!(status(&read_answer(&mut client).await), expected, "{host}");
    }
    drop(client);
    let records = world.records(3).await;
    assert_eq!(records[1].rule.as_deref(), Some("no-evil"));
    assert_eq!(
        world.net.dialled(),
        [API],
        "the address that the client chose, since an address rule allows it"
    );
    assert!(heads.lock().unwrap().iter().all(|head| !head.contains("evil")));
}

/// Serves TLS 1.3 as `www.ok.example`, with these protocols; what it saw of each request.
pub(super) fn sealed_origin(
    listener: TcpListener,
    protocols: &'static [&'static [u8]],
) -> Arc<Mutex<Vec<String>>> {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let requests = Arc::clone(&seen);
    let credential = Arc::new(arc_swap::ArcSwap::from_pointee(web().1.clone()));
    let config =
        sidegate_certs::tls::serve(credential, protocols, sidegate_certs::tls::system_time()).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, requests) = (acceptor.clone(), Arc::clone(&requests));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let service = service_fn(move |request: Request<Incoming>| {
                    let line = format!("{:?} {} {}", request.version(), request.method(), request.uri());
                    requests.lock().unwrap().push(line);
                    async {
                        Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(
                            b"sealed",
                        ))))
                    }
                });
                let http2 = stream.get_ref().1.alpn_protocol() == Some(sidegate_certs::tls::H2);
                let stream = TokioIo::new(stream);
                if http2 {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(stream, service).await;
                } else {
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
                }
            });
        }
    });
    seen
}

fn sealed_rules() -> String {
    RULES.replace("tls: { mode: none }", "tls: { mode: originate }")
}

#[tokio::test]
async fn plaintext_becomes_tls_1_3_on_its_way() {
    use sidegate_certs::tls::{H2, HTTP1};
    for (protocols, version) in
        [(&[HTTP1][..], "HTTP/1.1 GET /v1/a"), (&[H2], "HTTP/2.0 GET https://www.ok.example/v1/a")]
    {
        let protocols: &'static [&'static [u8]] = Box::leak(protocols.to_vec().into_boxed_slice());
        let world = World::start(&sealed_rules(), ZONE).await;
        let seen = sealed_origin(world.origin(API).await, protocols);
        let mut client = world.client(API).await;
        for _ in 0..2 {
            client.write_all(get("/v1/a", "www.ok.example").as_bytes()).await.unwrap();
            let answer = read_answer(&mut client).await;
            assert_eq!((status(&answer), answer.1.as_str()), ("200", "sealed"), "{version}");
        }
        drop(client);
        let records = world.records(2).await;
        assert_eq!(records[0].tls.as_ref().and_then(|tls| tls.version.as_deref()), Some("1.3"));
        assert_eq!(*seen.lock().unwrap(), [version, version]);
        assert_eq!(world.net.dialled().len(), 1, "one handshake serves both");
    }
}

#[tokio::test]
async fn a_server_that_is_not_the_one_named_gets_no_request() {
    let world = World::start(&sealed_rules(), ZONE).await;
    let seen = sealed_origin(world.origin("93.184.216.35:80").await, &[sidegate_certs::tls::HTTP1]);
    let mut client = world.client(API).await;
    client.write_all(get("/v1/a", "old.ok.example").as_bytes()).await.unwrap();
    let answer = read_answer(&mut client).await;
    assert_eq!(status(&answer), "502");
    drop(client);
    assert_eq!(world.record().await.reason, "upstream-certificate");
    assert!(seen.lock().unwrap().is_empty());
}
