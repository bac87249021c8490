use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    super::{
        record::Record,
        tests::{POLICY, ZONE},
        world::World,
    },
    *,
};
use crate::addrs::ClientAddr;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// A relay and the far ends of its two sockets.
async fn relay() -> (World, Relay, TcpStream, TcpStream) {
    let world = World::start(POLICY, ZONE).await;
    let (client, client_side) = pair().await;
    let (server, upstream) = pair().await;
    let source = ClientAddr::new(client.local_addr().unwrap());
    let link = Link {
        record: Record::open(&world.worker, source, sidegate_policy::Direction::Egress),
        client: client_side,
        slot: world.worker.limits.connection(source.ip()).unwrap(),
        worker: world.worker.clone(),
    };
    (world, Relay::new(link, upstream, Vec::new(), Vec::new()), client, server)
}

/// Polls the relay beside `other` until that is done.
async fn while_doing<T>(relay: &mut Relay, other: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        done = other => done,
        () = relay => panic!("the relay ended"),
    }
}

#[tokio::test]
async fn an_idle_connection_holds_neither_buffer_nor_pipe() {
    let (_world, mut relay, mut client, mut server) = relay().await;
    let bulk = vec![1; 3_000_000];
    let mut heard = vec![0; bulk.len()];
    while_doing(&mut relay, async {
        tokio::join!(async { server.write_all(&bulk).await.unwrap() }, async {
            client.read_exact(&mut heard).await.unwrap()
        })
    })
    .await;
    while_doing(&mut relay, async {
        client.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
    })
    .await;
    assert!(relay.up.is_idle() && relay.down.is_idle());
}

#[tokio::test]
async fn bulk_is_spliced() {
    let (_world, mut relay, mut client, mut server) = relay().await;
    let bulk = vec![1; 8_000_000];
    let mut heard = vec![0; bulk.len()];
    while_doing(&mut relay, async {
        tokio::join!(async { server.write_all(&bulk).await.unwrap() }, async {
            client.read_exact(&mut heard).await.unwrap()
        })
    })
    .await;
    assert!(pipe::kept() > 0, "no pipe was used");
}

#[test]
fn a_relay_is_small() {
    // Lives as long as its connection: its size is memory per idle connection.
    let size = size_of::<Relay>();
    println!("relay: {size} bytes");
    assert!(size <= 640, "{size}");
}
