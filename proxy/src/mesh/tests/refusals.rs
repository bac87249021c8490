//! What gets no stream.

use std::sync::Arc;

use hyper::{Method, Request, StatusCode};
use sidegate_certs::tls::{H2, mesh_client};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::world::{Clock, World, id};
use crate::mesh::{OpenError, Refusal, ServeError};

/// A connection as `/client`, with nothing said on it.
async fn sealed(world: &World, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
    let current = world.ours.current().unwrap();
    let (trust, time) = (Arc::clone(&world.trust), Arc::<Clock>::clone(&world.clock));
    let mut config = mesh_client(&current.identity, trust, id("server"), time).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let socket = TcpStream::connect(world.at.socket_addr()).await.unwrap();
    let name = "unsent.invalid".try_into().unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

/// A client that speaks HTTP/2 as it likes, as `/client`.
async fn raw(world: &World) -> h2::client::SendRequest<bytes::Bytes> {
    let (sender, connection) = h2::client::handshake(sealed(world, &[H2]).await).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn the_judge_decides() {
    let world = World::new().await;
    for (refusal, status) in [(Refusal::Forbidden, 403), (Refusal::Unknown, 404), (Refusal::Unavailable, 503)]
    {
        *world.behind.refusal.lock().unwrap() = Some(refusal);
        let refused = world.open().await;
        assert!(matches!(refused, Err(OpenError::Refused(found)) if found.as_u16() == status), "{refused:?}");
    }
    *world.behind.refusal.lock().unwrap() = None;
    let (_stream, _app) = world.pair().await;
    assert_eq!(world.handshakes(), 1, "a refusal costs no connection");
}

#[tokio::test]
async fn anything_but_connect_to_an_address_is_refused_unjudged() {
    let world = World::new().await;
    let mut sender = raw(&world).await;
    for (method, uri, expected) in [
        (Method::GET, "https://10.0.0.7:8080/", StatusCode::METHOD_NOT_ALLOWED),
        (Method::OPTIONS, "https://10.0.0.7:8080/", StatusCode::METHOD_NOT_ALLOWED),
        (Method::CONNECT, "app.example:8080", StatusCode::BAD_REQUEST),
        (Method::CONNECT, "10.0.0.7", StatusCode::BAD_REQUEST),
        (Method::CONNECT, "user@10.0.0.7:8080", StatusCode::BAD_REQUEST),
    ] {
        let request = Request::builder().method(&method).uri(uri).body(()).unwrap();
        let (response, _send) = sender.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), expected, "{method} {uri}");
        assert_eq!(response.headers().contains_key("allow"), expected == StatusCode::METHOD_NOT_ALLOWED);
    }
    assert!(world.behind.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn fields_of_others_are_read_over_unless_there_are_too_many() {
    let world = World::new().await;
    let mut sender = raw(&world).await;
    let ask = |baggage: String| {
        let uri = "10.0.0.7:8080";
        let request = Request::builder().method(Method::CONNECT).uri(uri).header("baggage", baggage);
        let request = request
            .header("forwarded", "for=spiffe://example.org/admin;;=")
            .header("x-forwarded-for", "10.9.9.9,,");
        request.header("x-forwarded-client-cert", "By=spiffe://example.org/admin").body(()).unwrap()
    };
    let (response, _send) = sender.send_request(ask("k8s.namespace.name=%zz,,;=".to_owned()), false).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    assert_eq!(world.behind.asked.lock().unwrap()[0].peer, id("client"), "whoever the fields say it is");
    let (response, _send) = sender.send_request(ask("x".repeat(20_000)), false).unwrap();
    match response.await {
        Ok(response) => assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
    }
    assert_eq!(world.behind.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn streams_that_are_taken_back_dial_no_more() {
    let mut world = World::new().await;
    world.behind.held.send_replace(true);
    let mut sender = raw(&world).await;
    let mut dialling = world.behind.dialling.subscribe();
    let mut most = 0;
    for _ in 0..500 {
        sender = sender.ready().await.unwrap();
        let request = Request::builder().method(Method::CONNECT).uri("10.0.0.7:8080").body(()).unwrap();
        let (response, mut send) = sender.send_request(request, false).unwrap();
        dialling.wait_for(|dialling| *dialling > 0).await.unwrap();
        most = most.max(*dialling.borrow());
        send.send_reset(h2::Reason::CANCEL);
        drop(response);
        dialling.wait_for(|dialling| *dialling == 0).await.unwrap();
    }
    assert_eq!(most, 1);
    assert_eq!(world.behind.asked.lock().unwrap().len(), 500);
    drop(sender);
    assert!(matches!(world.served.recv().await, Some(Ok(()))));
}

#[tokio::test]
async fn a_flood_of_resets_ends_the_connection() {
    let mut world = World::new().await;
    let mut stream = sealed(&world, &[H2]).await;
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut wire, (4, 0), 0, b"");
    // RFC 7541: literals without indexing, of the static names `:method` and `:authority`.
    let request = b"\x02\x07CONNECT\x01\x0d10.0.0.7:8080";
    let cancel = h2::Reason::CANCEL;
    for stream in 0..200 {
        frame(&mut wire, (1, 4), 2 * stream + 1, request);
        frame(&mut wire, (3, 0), 2 * stream + 1, &u32::from(cancel).to_be_bytes());
    }
    stream.write_all(&wire).await.unwrap();
    let ended = world.served.recv().await.unwrap();
    let Err(ServeError::Lost(error)) = ended else { panic!("{ended:?}") };
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
}

/// RFC 9113 section 4.1.
fn frame(wire: &mut Vec<u8>, (kind, flags): (u8, u8), stream: u32, payload: &[u8]) {
    wire.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
    wire.extend_from_slice(&[kind, flags]);
    wire.extend_from_slice(&stream.to_be_bytes());
    wire.extend_from_slice(payload);
}

#[tokio::test]
async fn a_client_that_does_not_speak_http2_is_refused() {
    let mut world = World::new().await;
    let _stream = sealed(&world, &[]).await;
    assert!(matches!(world.served.recv().await, Some(Err(ServeError::NotHttp2))));
}
