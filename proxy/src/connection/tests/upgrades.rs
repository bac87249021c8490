//! WebSockets: by a rule that says so, only once the far end has proven that it switched, and only to that.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, Version, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sidegate_certs::tls::HTTP1;
use tokio::net::TcpListener;

use super::{
    requests::{get, read_answer, read_head, status},
    *,
};

const API: &str = "93.184.216.34:80";

const RULES: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: test }
spec:
  egress:
    - name: live
      reason: "the partner serves plaintext until spring"
      to: [ { hosts: [ www.ok.example ] } ]
      ports: [ 80 ]
      protocol: http
      tls: { mode: none }
      http: [ { upgrade: websocket, paths: [ "/live" ] }, { methods: [ GET ], paths: [ "/**" ] } ]
"#;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const PROOF: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn ask(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: www.ok.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )
}

fn agreement() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n\
         Sec-WebSocket-Accept: {PROOF}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )
}

/// Accepts one connection, reads one head, answers so.
async fn answer(origin: &TcpListener, words: &str) -> (TcpStream, String) {
    let (mut stream, _) = origin.accept().await.unwrap();
    let head = read_head(&mut stream).await.unwrap();
    stream.write_all(words.as_bytes()).await.unwrap();
    (stream, head)
}

/// A WebSocket through the proxy: both its ends, and the heads that each saw.
async fn switched(world: &World, origin: &TcpListener) -> (TcpStream, TcpStream, [String; 2]) {
    let mut client = world.client(API).await;
    client.write_all(ask("/live").as_bytes()).await.unwrap();
    let (server, asked) = answer(origin, &agreement()).await;
    let told = read_head(&mut client).await.unwrap();
    (client, server, [asked, told])
}

#[tokio::test]
async fn bytes_pass_both_ways_once_the_far_end_agreed() {
    let world = World::start(RULES, ZONE).await;
    let origin = world.origin(API).await;
    let (mut client, mut server, [asked, told]) = switched(&world, &origin).await;
    let (asked, told) = (asked.to_lowercase(), told.to_lowercase());
    for field in ["upgrade: websocket\r\n", "connection: upgrade\r\n", "sec-websocket-protocol: chat\r\n"] {
        assert!(asked.contains(field) && told.contains(field), "{field}: {asked}{told}");
    }
    assert!(asked.contains(&KEY.to_lowercase()), "the client's own key: {asked}");
    assert!(told.starts_with("http/1.1 101 "), "{told}");
    exchange(&mut client, &mut server, b"GET /v1/evil HTTP/1.1\r\n\r\n").await;
    exchange(&mut client, &mut server, &[0x81; 100_000]).await;
    // Each side may end alone.
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await.as_deref(), Some(&b""[..]));
    server.write_all(b"goodbye").await.unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).await.as_deref(), Some(&b"goodbye"[..]));
    let record = world.record().await;
    assert_eq!(story(&record), ("allowed", "rule-allows", CloseReason::Done));
    let http = record.http.unwrap();
    assert_eq!((http.method.as_str(), http.path.as_str(), http.status), ("GET", "/live", 101));
    assert_eq!((record.bytes_sent, record.bytes_received), (100_025, 100_032));
}

#[tokio::test]
async fn no_rule_allows_one_that_does_not_say_it() {
    let world = World::start(RULES, ZONE).await;
    let _origin = world.origin(API).await;
    let mut client = world.client(API).await;
    client.write_all(ask("/other").as_bytes()).await.unwrap();
    let answer = read_answer(&mut client).await;
    assert_eq!(status(&answer), "403");
    assert!(answer.1.contains("upgrade-not-allowed"), "{}", answer.1);
    drop(client);
    assert_eq!(world.record().await.reason, "upgrade-not-allowed");
    assert!(world.net.dialled().is_empty());
}

#[tokio::test]
async fn nothing_may_follow_before_the_answer() {
    for early in ["GET /v1/evil HTTP/1.1\r\nHost: evil.example\r\n\r\n", "\u{1}hello", "G"] {
        let world = World::start(RULES, ZONE).await;
        let _origin = world.origin(API).await;
        let mut client = world.client(API).await;
        client.write_all([&ask("/live"), early].concat().as_bytes()).await.unwrap();
        let answer = read_answer(&mut client).await;
        assert_eq!(status(&answer), "400", "{early:?}");
        read_all(&mut client).await;
        assert!(world.net.dialled().is_empty(), "{early:?}");
        assert_eq!(world.record().await.reason, "http-malformed");
    }
}

#[tokio::test]
async fn one_may_be_asked_for_right_behind_another_request() {
    let world = World::start(RULES, ZONE).await;
    let origin = world.origin(API).await;
    let mut client = world.client(API).await;
    client.write_all([get("/plain", "www.ok.example"), ask("/live")].concat().as_bytes()).await.unwrap();
    let (_first, _) = self::answer(&origin, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(status(&read_answer(&mut client).await), "200");
    let agreement = agreement();
    let agreed = async { tokio::join!(self::answer(&origin, &agreement), read_head(&mut client)) };
    let patience = std::time::Duration::from_secs(20);
    let ((mut server, _), told) = tokio::time::timeout(patience, agreed).await.expect("it is asked for");
    assert!(told.unwrap().starts_with("HTTP/1.1 101 "));
    exchange(&mut client, &mut server, b"hello").await;
}

#[tokio::test]
async fn a_far_end_that_does_not_agree_answers_and_the_next_request_follows() {
    let world = World::start(RULES, ZONE).await;
    let origin = world.origin(API).await;
    let mut client = world.client(API).await;
    client.write_all(ask("/live").as_bytes()).await.unwrap();
    let (_server, _) = self::answer(&origin, "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno").await;
    let first = read_answer(&mut client).await;
    assert_eq!((status(&first), first.1.as_str()), ("404", "no"));
    client.write_all(get("/plain", "www.ok.example").as_bytes()).await.unwrap();
    let (_server, head) = self::answer(&origin, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(status(&read_answer(&mut client).await), "200");
    assert!(!head.to_lowercase().contains("upgrade"), "{head}");
    drop(client);
    assert_eq!(world.records(2).await[0].http.as_ref().unwrap().status, 404);
}

#[tokio::test]
async fn nothing_else_is_switched_to() {
    let agreement = agreement();
    for (case, asked, said) in [
        ("unasked", get("/live", "www.ok.example"), agreement.clone()),
        ("another protocol", ask("/live"), agreement.replace("WebSocket\r\n", "h2c\r\n")),
        ("two protocols", ask("/live"), agreement.replace("WebSocket\r\n", "WebSocket, h2c\r\n")),
        ("no proof", ask("/live"), agreement.replace("Accept", "Except")),
        ("another proof", ask("/live"), agreement.replace("s3pP", "AAAA")),
        ("not for this hop", ask("/live"), agreement.replace("keep-alive, upgrade", "keep-alive")),
    ] {
        let world = World::start(RULES, ZONE).await;
        let origin = world.origin(API).await;
        let mut client = world.client(API).await;
        client.write_all(asked.as_bytes()).await.unwrap();
        let (mut server, _) = answer(&origin, &said).await;
        let heard = read_answer(&mut client).await;
        assert_eq!(status(&heard), "502", "{case}: {}", heard.0);
        assert_eq!(read_all(&mut server).await.as_deref(), Some(&b""[..]), "{case}: closed, without a byte");
        drop(client);
        let record = world.record().await;
        assert_eq!(
            (record.verdict.as_str(), record.reason.as_str()),
            ("allowed", "upstream-malformed"),
            "{case}"
        );
    }
}

#[tokio::test]
async fn cleartext_http2_is_never_switched_to() {
    let world = World::start(RULES, ZONE).await;
    let origin = world.origin(API).await;
    let mut client = world.client(API).await;
    let asked = "GET /plain HTTP/1.1\r\nHost: www.ok.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                 HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    client.write_all(asked.as_bytes()).await.unwrap();
    let (_server, head) = answer(&origin, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(status(&read_answer(&mut client).await), "200");
    let head = head.to_lowercase();
    assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
}

#[tokio::test]
async fn it_ends_with_the_policy_that_allowed_it() {
    let world = World::start(RULES, ZONE).await;
    let origin = world.origin(API).await;
    let (mut client, mut server, _) = switched(&world, &origin).await;
    exchange(&mut client, &mut server, b"hello").await;
    world.worker.gate.policies.replace(policies(&RULES.replace("/live", "/dead"), 2));
    assert!(read_all(&mut client).await.is_none_or(|rest| rest.is_empty()));
    assert!(read_all(&mut server).await.is_none_or(|rest| rest.is_empty()));
    let record = world.record().await;
    assert_eq!(story(&record), ("denied", "upgrade-not-allowed", CloseReason::PolicyChanged));
    assert_eq!((record.bytes_sent, record.bytes_received, record.generation), (5, 5, 2));
}

#[tokio::test]
async fn a_stream_of_http2_becomes_one() {
    let world = World::start(RULES, ZONE).await;
    let origin = world.origin(API).await;
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let stream = TokioIo::new(world.client(API).await);
    let (mut sender, connection) = builder.handshake(stream).await.unwrap();
    let _running = tokio::spawn(connection);
    let connect = |path: &str| {
        let uri = format!("http://www.ok.example{path}");
        let request = Request::connect(uri).version(Version::HTTP_2);
        let request =
            request.extension(Protocol::from_static("websocket")).header("sec-websocket-version", "13");
        request.body(Empty::<Bytes>::new()).unwrap()
    };
    let refused = loop {
        // The peer's settings say that it may be asked for; until they came the request is refused here.
        match sender.send_request(connect("/other")).await {
            Ok(refused) => break refused,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(refused.status(), 403);
    let served = async {
        let (mut server, _) = origin.accept().await.unwrap();
        let head = read_head(&mut server).await.unwrap();
        let key = head.to_lowercase();
        assert!(key.starts_with("get /live http/1.1\r\n") && key.contains("host: www.ok.example"), "{head}");
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
        let agreed = agreement().replace(PROOF, &proof_of(key));
        server.write_all(agreed.as_bytes()).await.unwrap();
        server
    };
    let (agreed, mut server) = tokio::join!(sender.send_request(connect("/live")), served);
    let mut agreed = agreed.unwrap();
    assert_eq!(agreed.status(), 200);
    assert!(!agreed.headers().contains_key("sec-websocket-accept"), "{agreed:?}");
    let mut client = TokioIo::new(hyper::upgrade::on(&mut agreed).await.unwrap());
    client.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    server.read_exact(&mut heard).await.unwrap();
    server.write_all(b"there").await.unwrap();
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"there");
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await.as_deref(), Some(&b""[..]));
    drop(server);
    drop(client);
    let records = world.records(2).await;
    let live = records.iter().find(|record| record.verdict == "allowed").unwrap();
    assert_eq!((live.bytes_sent, live.bytes_received, live.close_reason), (5, 5, CloseReason::Done));
    assert_eq!(live.http.as_ref().unwrap().status, 101);
}

/// What a server answers to a key.
fn proof_of(key: &str) -> String {
    let mut fields = hyper::HeaderMap::new();
    fields.insert("sec-websocket-key", key.trim().parse().unwrap());
    crate::http::websocket_proof(&mut fields)
}

/// The far end speaks TLS and would rather speak HTTP/2.
#[tokio::test]
async fn over_tls_http_1_is_asked_for() {
    let rules = RULES.replace("tls: { mode: none }", "tls: { mode: originate }");
    let world = World::start(&rules, ZONE).await;
    let origin = world.origin(API).await;
    let mut client = world.client(API).await;
    client.write_all(ask("/live").as_bytes()).await.unwrap();
    let credential =
        std::sync::Arc::new(arc_swap::ArcSwap::from_pointee(super::super::world::web().1.clone()));
    let clock = sidegate_certs::tls::system_time();
    let config = sidegate_certs::tls::serve(credential, &[sidegate_certs::tls::H2, HTTP1], clock).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let mut server = acceptor.accept(origin.accept().await.unwrap().0).await.unwrap();
    assert_eq!(server.get_ref().1.alpn_protocol(), Some(HTTP1));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(server.read_u8().await.unwrap());
    }
    server.write_all(agreement().as_bytes()).await.unwrap();
    read_head(&mut client).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    drop(client);
    drop(server);
    assert_eq!(world.record().await.tls.unwrap().version.as_deref(), Some("1.3"));
}

/// A slow reader behind a fast writer: what is held between them is bounded.
#[tokio::test]
async fn a_stalled_reader_stops_its_writer() {
    let world = World::start(RULES, ZONE).await;
    let origin = world.origin(API).await;
    let (mut client, mut server, _) = switched(&world, &origin).await;
    let chunk = vec![0; 1 << 20];
    let mut written = 0;
    // Nothing reads: a write that no longer moves anything shows that nothing is buffered without end.
    while let Ok(Ok(more)) =
        tokio::time::timeout(std::time::Duration::from_secs(1), server.write(&chunk)).await
    {
        written += more;
        assert!(written < 64 << 20, "{written} bytes are held somewhere");
    }
    drop(server);
    let mut read = 0;
    let mut into = vec![0; 1 << 20];
    while let Ok(more @ 1..) = client.read(&mut into).await {
        read += more;
    }
    assert_eq!(read, written);
}
