//! The shape of Istio's HBONE, by another implementation of HTTP/2's upper half: hyper, as ends of their own.

use std::{convert::Infallible, future::poll_fn, sync::Arc};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Method, Request, Response, Uri, Version, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sidegate_certs::tls::{mesh_client, mesh_server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::world::{Clock, World, destination, id};
use crate::{addrs::UpstreamAddr, mesh::relay};

#[tokio::test]
async fn a_client_of_istios_shape_is_served() {
    let world = World::new().await;
    let current = world.ours.current().unwrap();
    let (trust, time) = (Arc::clone(&world.trust), Arc::<Clock>::clone(&world.clock));
    let config = mesh_client(&current.identity, trust, id("server"), time).unwrap();
    let socket = TcpStream::connect(world.at.socket_addr()).await.unwrap();
    let name = "unsent.invalid".try_into().unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);

    // As ztunnel asks: the authority alone, and what it says of its workload.
    let request = Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri(Uri::builder().authority("10.0.0.7:8080").build().unwrap())
        .header("baggage", "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,service.name=shell")
        .header("forwarded", "for=10.0.0.3")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let (mut app, _) = world.app.accept().await.unwrap();
    let mut got = [0; 4];
    stream.write_all(b"ping").await.unwrap();
    app.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ping");
    app.write_all(b"pong").await.unwrap();
    app.shutdown().await.unwrap();
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"pong");
    assert_eq!(stream.read(&mut got).await.unwrap(), 0);
    stream.write_all(b"late").await.unwrap();
    stream.shutdown().await.unwrap();
    app.read_exact(&mut got).await.unwrap();
    assert_eq!((&got, app.read(&mut [0; 1]).await.unwrap()), (b"late", 0));
}

#[tokio::test]
async fn a_server_of_istios_shape_is_spoken_to() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = UpstreamAddr::new(listener.local_addr().unwrap());
    let (trust, time) = (Arc::clone(&world.trust), Arc::<Clock>::clone(&world.clock));
    let config = mesh_server(Arc::clone(&world.theirs), trust, time).unwrap();
    let (tell, mut asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let stream = TlsAcceptor::from(Arc::new(config)).accept(socket).await.unwrap();
        let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
            let uri = request.uri().clone();
            let fields = request.headers().len();
            tell.send((request.method().clone(), uri, fields)).unwrap();
            tokio::spawn(async move {
                let stream = hyper::upgrade::on(&mut request).await.unwrap();
                let (mut reads, mut writes) = tokio::io::split(TokioIo::new(stream));
                tokio::io::copy(&mut reads, &mut writes).await.unwrap();
                writes.shutdown().await.unwrap();
            });
            async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(TokioIo::new(stream), service).await
    });

    let mut stream = world.mesh.open(&id("server"), at, destination()).await.unwrap();
    let (method, uri, fields) = asked.recv().await.unwrap();
    assert_eq!((method, uri.authority().unwrap().as_str()), (Method::CONNECT, "10.0.0.7:8080"));
    assert_eq!((uri.scheme(), uri.path(), fields), (None, "", 0), "the authority alone");
    // More than its windows hold at once.
    let sent: Vec<u8> = (0..3_000_000_u32).map(|byte| (byte % 251) as u8).collect();
    let mut got = Vec::new();
    let (mut reads, mut writes) = tokio::io::split(&mut stream);
    let write = async {
        writes.write_all(&sent).await.unwrap();
        writes.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(write, reads.read_to_end(&mut got));
    read.unwrap();
    assert!(got == sent);
}

/// A server that says its last word at once, and takes what it is sent no more. RFC 9113 section 8.1.
#[tokio::test]
async fn a_server_that_has_said_all_ends_both_ways_in_order() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = UpstreamAddr::new(listener.local_addr().unwrap());
    let (trust, time) = (Arc::clone(&world.trust), Arc::<Clock>::clone(&world.clock));
    let config = mesh_server(Arc::clone(&world.theirs), trust, time).unwrap();
    let arrived = Arc::new(Notify::new());
    let told = Arc::clone(&arrived);
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let stream = TlsAcceptor::from(Arc::new(config)).accept(socket).await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut complete = [true, true, false].into_iter();
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            let complete = complete.next().unwrap();
            send.send_data("bye".into(), complete).unwrap();
            let arrived = Arc::clone(&told);
            tokio::spawn(async move {
                if !complete {
                    arrived.notified().await;
                    send.send_reset(h2::Reason::NO_ERROR);
                }
            });
        }
    });
    let mut stream = world.mesh.open(&id("server"), at, destination()).await.unwrap();
    // Both are there before anything is read: its last word, and that it wants no more.
    poll_fn(|cx| stream.poll_cut(cx)).await.unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "bye");

    // Over a socket whose application never ends its way.
    let mut stream = world.mesh.open(&id("server"), at, destination()).await.unwrap();
    let (mut socket, mut app) = tokio::io::duplex(64);
    let ended = relay(&mut stream, &mut socket).await;
    assert!(ended.broken.is_none(), "{ended:?}");
    drop(socket);
    got.clear();
    app.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "bye");

    // The same words without the end before them are no end.
    let mut stream = world.mesh.open(&id("server"), at, destination()).await.unwrap();
    let mut word = [0; 3];
    stream.read_exact(&mut word).await.unwrap();
    arrived.notify_one();
    assert!(stream.read_to_string(&mut got).await.is_err());
}
