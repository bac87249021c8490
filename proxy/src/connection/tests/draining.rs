//! A worker that is to end: answers under way are the last of their connections and say so, and none is lost.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{
    requests::{API, get, http2_origin, plain, plain_origin, read_answer, read_head, status},
    *,
};

#[tokio::test]
async fn the_answer_under_way_is_the_last_and_says_so() {
    let world = World::start(&plain(""), ZONE).await;
    let origin = world.origin(API).await;
    let mut client = world.client(API).await;
    client.write_all(get("/", "www.ok.example").as_bytes()).await.unwrap();
    let (mut server, _) = origin.accept().await.unwrap();
    read_head(&mut server).await.unwrap();
    world.worker.live.drain();
    server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let answer = read_answer(&mut client).await;
    assert_eq!((status(&answer), answer.1.as_str()), ("200", "ok"));
    assert!(answer.0.contains("connection: close\r\n"), "{}", answer.0);
    assert_eq!(read_all(&mut client).await.as_deref(), Some(&b""[..]));
    assert_eq!(story(&world.record().await), ("allowed", "rule-allows", CloseReason::Done));
    world.worker.live.empty().await;
}

#[tokio::test]
async fn idle_connections_end_at_once() {
    let world = World::start(&plain(""), ZONE).await;
    let _heads = plain_origin(world.origin(API).await);
    let mut client = world.client(API).await;
    client.write_all(get("/", "www.ok.example").as_bytes()).await.unwrap();
    let answer = read_answer(&mut client).await;
    assert!(!answer.0.contains("connection: close"), "{}", answer.0);
    world.worker.live.drain();
    assert_eq!(read_all(&mut client).await.as_deref(), Some(&b""[..]));
    world.worker.live.empty().await;
}

#[tokio::test]
async fn http2_clients_are_told_to_go_away_once_their_streams_end() {
    let world = World::start(&plain(""), ZONE).await;
    http2_origin(world.origin(API).await);
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let stream = TokioIo::new(world.client(API).await);
    let (mut sender, connection) = builder.handshake(stream).await.unwrap();
    let running = tokio::spawn(connection);
    let ask = || Request::get("http://www.ok.example/").body(Empty::<Bytes>::new()).unwrap();
    let under_way = sender.send_request(ask()).await.unwrap();
    world.worker.live.drain();
    let body = under_way.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    running.await.unwrap().unwrap();
    sender.send_request(ask()).await.unwrap_err();
    assert_eq!(story(&world.record().await), ("allowed", "rule-allows", CloseReason::Done));
    world.worker.live.empty().await;
}
