//! `Expect: 100-continue`: the far end is asked first, and no body is sent that it does not want.

use tokio::net::TcpListener;

use super::{
    requests::{API, plain, read_answer, read_head, status},
    *,
};

/// Beside what [`plain`] says.
const MORE: &str = r#"      http: [ { methods: [ POST, GET ], paths: [ "/v1/**" ] } ]
"#;

fn ask(path: &str, expect: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: www.ok.example\r\nContent-Length: 5\r\nExpect: {expect}\r\n\r\n")
}

async fn asked(origin: &TcpListener) -> (TcpStream, String) {
    let (mut server, _) = origin.accept().await.unwrap();
    let head = read_head(&mut server).await.unwrap().to_lowercase();
    (server, head)
}

#[tokio::test]
async fn the_client_goes_on_when_the_far_end_says_so() {
    let world = World::start(&plain(MORE), ZONE).await;
    let origin = world.origin(API).await;
    let mut client = world.client(API).await;
    client.write_all(ask("/v1/a", "100-Continue").as_bytes()).await.unwrap();
    let (mut server, head) = asked(&origin).await;
    assert!(head.contains("expect: 100-continue\r\n") && head.contains("content-length: 5\r\n"), "{head}");
    server.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
    assert_eq!(read_head(&mut client).await.as_deref(), Some("HTTP/1.1 100 Continue\r\n\r\n"));
    client.write_all(b"hello").await.unwrap();
    let mut body = [0; 5];
    server.read_exact(&mut body).await.unwrap();
    server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_answer(&mut client).await), "200");
    drop(client);
    let record = world.record().await;
    assert_eq!((story(&record), record.bytes_sent), (("allowed", "rule-allows", CloseReason::Done), 5));
}

#[tokio::test]
async fn a_body_that_is_not_wanted_is_not_sent() {
    let world = World::start(&plain(MORE), ZONE).await;
    let origin = world.origin(API).await;
    let mut client = world.client(API).await;
    client.write_all(ask("/v1/a", "100-continue").as_bytes()).await.unwrap();
    let (mut server, _) = asked(&origin).await;
    server.write_all(b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
    let answer = read_answer(&mut client).await;
    assert_eq!((status(&answer), answer.1.as_str()), ("417", "no"));
    // What the client says now is neither a body nor a request: no reader may take it for either.
    let _ = client.write_all(b"GET /v1/evil HTTP/1.1\r\nHost: www.ok.example\r\n\r\n").await;
    let rest = read_all(&mut client).await.unwrap_or_default();
    assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(read_all(&mut server).await.unwrap_or_default(), b"", "nothing of it arrives");
    let record = world.record().await;
    assert_eq!((record.http.unwrap().status, record.bytes_sent), (417, 0));
}

#[tokio::test]
async fn a_far_end_that_says_nothing_gets_the_body() {
    let world = World::start(&plain(MORE), ZONE).await;
    let origin = world.origin(API).await;
    let mut client = world.client(API).await;
    client.write_all(ask("/v1/a", "100-continue").as_bytes()).await.unwrap();
    let (mut server, _) = asked(&origin).await;
    assert_eq!(read_head(&mut client).await.as_deref(), Some("HTTP/1.1 100 Continue\r\n\r\n"));
    client.write_all(b"hello").await.unwrap();
    let mut body = [0; 5];
    server.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"hello");
}

#[tokio::test]
async fn a_denied_request_is_told_before_its_body() {
    let world = World::start(&plain(MORE), ZONE).await;
    let mut client = world.client(API).await;
    client.write_all(ask("/v2/a", "100-continue").as_bytes()).await.unwrap();
    assert_eq!(status(&read_answer(&mut client).await), "403");
    assert!(world.net.dialled().is_empty());
}

#[tokio::test]
async fn other_expectations_are_refused() {
    for expect in ["200-ok", "100-continue, x", "100-continue\r\nExpect: 100-continue", "y 100-continue"] {
        let world = World::start(&plain(MORE), ZONE).await;
        let mut client = world.client(API).await;
        client.write_all(ask("/v1/a", expect).as_bytes()).await.unwrap();
        assert_eq!(status(&read_answer(&mut client).await), "400", "{expect}");
        assert!(world.net.dialled().is_empty(), "{expect}");
    }
}

#[tokio::test]
async fn without_a_body_nothing_is_expected() {
    let world = World::start(&plain(MORE), ZONE).await;
    let origin = world.origin(API).await;
    let mut client = world.client(API).await;
    let ask = "GET /v1/a HTTP/1.1\r\nHost: www.ok.example\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(ask.as_bytes()).await.unwrap();
    let (_server, head) = asked(&origin).await;
    assert!(!head.contains("expect"), "{head}");
}
