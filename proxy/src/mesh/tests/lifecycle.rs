//! Connections come and go; streams notice only what they must.

use std::{
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use sidegate_certs::TrustStore;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use super::world::{World, destination, id};
use crate::mesh::{Mesh, OpenError, ServeError};

/// Answers every byte with itself.
fn echo(listener: TcpListener) {
    tokio::spawn(async move {
        while let Ok((mut app, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = app.split();
                tokio::io::copy(&mut reads, &mut writes).await?;
                writes.shutdown().await
            });
        }
    });
}

#[tokio::test]
async fn a_new_certificate_is_shown_by_new_streams_and_old_ones_end_in_peace() {
    let mut world = World::new().await;
    let (mut old, mut old_app) = world.pair().await;
    world.ours.replace(world.domain.identity("client", world.clock.now()));
    let (_new, _app) = world.pair().await;
    assert_eq!((world.handshakes(), world.mesh.connections()), (2, 1), "the old one takes no more");

    old.write_all(b"still here").await.unwrap();
    let mut got = [0; 10];
    old_app.read_exact(&mut got).await.unwrap();
    old.shutdown().await.unwrap();
    drop(old_app);
    assert_eq!(old.read(&mut got).await.unwrap(), 0);
    drop(old);
    assert!(matches!(world.served.recv().await, Some(Ok(()))), "it closes when its last stream has ended");
    assert_eq!(world.server_roster.len(), 1);
}

#[tokio::test]
async fn rotation_on_both_sides_under_load_loses_nothing() {
    let mut world = World::new().await;
    let listener = std::mem::replace(&mut world.app, TcpListener::bind("127.0.0.1:0").await.unwrap());
    echo(listener);
    let over = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for seed in 0..8_u8 {
        let (mesh, at, over) = (Arc::clone(&world.mesh), world.at, Arc::clone(&over));
        load.spawn(async move {
            let mut exchanges = 0;
            while !over.load(SeqCst) {
                exchange(&mesh, at, &vec![seed; 20_000]).await;
                exchanges += 1;
            }
            exchanges
        });
    }
    for round in 0..20 {
        let connected = world.handshakes();
        let (cell, name) = if round % 2 == 0 { (&world.ours, "client") } else { (&world.theirs, "server") };
        cell.replace(world.domain.identity(name, world.clock.now()));
        if round % 2 == 0 {
            world.accepted.wait_for(|accepted| *accepted > connected).await.unwrap();
        }
    }
    over.store(true, SeqCst);
    let exchanges: usize = load.join_all().await.into_iter().sum();
    assert!(exchanges >= 8);
    assert!(world.handshakes() <= 11, "{} handshakes", world.handshakes());
}

async fn exchange(mesh: &Mesh, at: crate::addrs::UpstreamAddr, sent: &[u8]) {
    let mut stream = mesh.open(&id("server"), at, destination()).await.unwrap();
    stream.write_all(sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert!(got == sent);
}

#[tokio::test]
async fn draining_servers_are_left_without_loss() {
    let mut world = World::new().await;
    let (mut stream, mut app) = world.pair().await;
    world.server.drain();
    stream.write_all(b"last").await.unwrap();
    let mut got = [0; 4];
    app.read_exact(&mut got).await.unwrap();
    app.write_all(b"word").await.unwrap();
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"word");
    drop((stream, app));
    assert!(matches!(world.served.recv().await, Some(Ok(()))));
    // Only who is connected is asked to leave.
    let (_stream, _app) = world.pair().await;
    assert_eq!(world.handshakes(), 2);
}

#[tokio::test]
async fn a_peer_opens_nothing_more_once_its_certificate_has_ended() {
    let mut world = World::new().await;
    // Its last second begins.
    world.clock.advance(3_600);
    let (stream, app) = world.pair().await;
    drop((stream, app));
    // It is asked to leave, and does, long before it would be idle for too long.
    let served = world.served.recv().await.unwrap();
    assert!(served.is_ok(), "{served:?}");
    world.clock.advance(1);
    assert!(matches!(world.open().await, Err(OpenError::NoIdentity)));
}

#[tokio::test]
async fn a_dismissed_peer_loses_its_streams_at_once() {
    for at_client in [true, false] {
        let mut world = World::new().await;
        let (mut stream, mut app) = world.pair().await;
        stream.write_all(b"x").await.unwrap();
        let mut got = [0; 1];
        app.read_exact(&mut got).await.unwrap();
        let other = world.mesh_of(world.domain.identity("other", world.clock.now()));
        let (mut kept, mut kept_app) = world.pair_of(&other, "server").await;

        let closed = if at_client {
            world.mesh.close_peer(&id("server"))
        } else {
            world.server_roster.close_peer(&id("client"))
        };
        assert_eq!(closed, 1);
        let error = stream.read(&mut got).await.unwrap_err();
        if at_client {
            assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        }
        assert_eq!(app.read(&mut got).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(world.ended.recv().await.unwrap().broken.is_some());
        let served = world.served.recv().await.unwrap();
        assert_eq!(matches!(served, Err(ServeError::Dismissed)), !at_client, "{served:?}");

        kept.write_all(b"y").await.unwrap();
        kept_app.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"y", "others stay");
        // Nothing forbids it to come again.
        let (_again, _app) = world.pair().await;
    }
}

#[tokio::test]
async fn streams_on_connections_that_were_left_are_dismissed_too() {
    let world = World::new().await;
    let (mut old, _app) = world.pair().await;
    world.ours.replace(world.domain.identity("client", world.clock.now()));
    world.mesh.retire_outdated();
    assert_eq!(world.mesh.connections(), 0);
    assert_eq!(world.mesh.close_peer(&id("server")), 1);
    assert_eq!(old.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn a_peer_that_is_trusted_no_longer_does_not_come_back() {
    let world = World::new().await;
    let (_stream, _app) = world.pair().await;
    world.trust.replace(TrustStore::empty());
    world.mesh.close_peer(&id("server"));
    assert!(matches!(world.open().await, Err(OpenError::Handshake(_) | OpenError::Lost(_))));
}

#[tokio::test]
async fn a_server_that_went_away_is_dialled_anew() {
    let world = World::new().await;
    let (stream, _app) = world.pair().await;
    drop(stream);
    // From the far end, as when its process ends.
    world.server_roster.close_peer(&id("client"));
    let (_stream, _app) = world.pair().await;
    assert_eq!(world.handshakes(), 2);
}

#[tokio::test]
async fn a_peer_that_hangs_up_in_the_handshake_is_an_error_and_no_wait() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = crate::addrs::UpstreamAddr::new(listener.local_addr().unwrap());
    let hang_up = async { drop(listener.accept().await.unwrap()) };
    let server = id("server");
    let (opened, ()) = tokio::join!(world.mesh.open(&server, at, destination()), hang_up);
    assert!(matches!(opened, Err(OpenError::Handshake(_))));
    drop(listener);
    let opened = world.mesh.open(&id("server"), at, destination()).await;
    assert!(matches!(opened, Err(OpenError::Dial(_))));
}
