//! Bytes: both ways, half-closed, held back, and many at once.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

use super::world::World;
use crate::mesh::h2_settings::{STREAM_WINDOW, STREAMS};

#[tokio::test]
async fn each_way_ends_by_itself() {
    let mut world = World::new().await;
    for client_first in [true, false] {
        let (mut stream, mut app) = world.pair().await;
        let (mut got, mut from_app) = (Vec::new(), Vec::new());
        if client_first {
            stream.write_all(b"question").await.unwrap();
            stream.shutdown().await.unwrap();
            app.read_to_end(&mut got).await.unwrap();
            app.write_all(b"answer").await.unwrap();
            app.shutdown().await.unwrap();
            stream.read_to_end(&mut from_app).await.unwrap();
        } else {
            app.write_all(b"answer").await.unwrap();
            app.shutdown().await.unwrap();
            stream.read_to_end(&mut from_app).await.unwrap();
            stream.write_all(b"question").await.unwrap();
            stream.shutdown().await.unwrap();
            app.read_to_end(&mut got).await.unwrap();
        }
        assert_eq!((got.as_slice(), from_app.as_slice()), (&b"question"[..], &b"answer"[..]));
        let ended = world.ended.recv().await.unwrap();
        assert!(ended.broken.is_none(), "{ended:?}");
        assert_eq!((ended.inward, ended.outward), (8, 6));
    }
    assert_eq!(world.handshakes(), 1);
}

#[tokio::test]
async fn what_is_cut_off_never_looks_complete() {
    let mut world = World::new().await;
    // The client's side goes without an end.
    let (mut stream, mut app) = world.pair().await;
    stream.write_all(b"half").await.unwrap();
    let mut got = [0; 4];
    app.read_exact(&mut got).await.unwrap();
    drop(stream);
    assert_eq!(app.read(&mut got).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!(world.ended.recv().await.unwrap().broken.is_some());

    // So does one that had ended its way, while the application thinks about the answer.
    let (mut stream, mut app) = world.pair().await;
    stream.shutdown().await.unwrap();
    assert_eq!(app.read(&mut got).await.unwrap(), 0);
    drop(stream);
    assert!(world.ended.recv().await.unwrap().broken.is_some());

    // The application's does.
    let (mut stream, app) = world.pair().await;
    app.set_zero_linger().unwrap();
    drop(app);
    assert_eq!(stream.read(&mut got).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!(world.ended.recv().await.unwrap().broken.is_some());
    assert_eq!(world.handshakes(), 1, "the connection is as it was");
}

#[tokio::test]
async fn readers_that_stall_hold_back_their_own_stream_alone() {
    let world = World::new().await;
    // As many as a connection carries, but one: with a window that they shared, a few would stop all.
    let mut stalled = Vec::new();
    for _ in 0..40 {
        let (mut stream, app) = world.pair().await;
        let writing = tokio::spawn(async move {
            let chunk = vec![7; 64 * 1024];
            // Until nothing more fits: the window, and what sockets hold.
            while stream.write_all(&chunk).await.is_ok() {}
        });
        stalled.push((writing, app));
    }
    let (mut stream, mut app) = world.pair().await;
    let fast = 16 * STREAM_WINDOW as usize;
    let writing = tokio::spawn(async move {
        let chunk = vec![9; 64 * 1024];
        for _ in 0..fast / chunk.len() {
            stream.write_all(&chunk).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        stream
    });
    let mut got = 0;
    let mut buffer = vec![0; 64 * 1024];
    while let read @ 1.. = app.read(&mut buffer).await.unwrap() {
        got += read;
    }
    assert_eq!(got, fast);
    writing.await.unwrap();
    assert_eq!(world.handshakes(), 1);
    assert!(stalled.iter().all(|(writing, _)| !writing.is_finished()), "they wait");
    stalled.iter().for_each(|(writing, _)| writing.abort());
}

#[tokio::test]
async fn one_connection_carries_200_streams() {
    let world = World::new().await;
    let mut streams = JoinSet::new();
    let mut apps = JoinSet::new();
    for number in 0..200_u32 {
        let (mut stream, mut app) = world.pair().await;
        apps.spawn(async move {
            let (mut reads, mut writes) = app.split();
            tokio::io::copy(&mut reads, &mut writes).await.unwrap();
            writes.shutdown().await.unwrap();
        });
        streams.spawn(async move {
            let sent = number.to_be_bytes().repeat(4_000);
            let mut got = vec![0; sent.len()];
            stream.write_all(&sent).await.unwrap();
            stream.read_exact(&mut got).await.unwrap();
            assert!(got == sent, "stream {number}");
            // Kept: all are open at the same time.
            stream
        });
    }
    let open: Vec<_> = streams.join_all().await;
    assert_eq!((open.len(), world.handshakes(), world.mesh.connections()), (200, 1, 1));
    let mut got = Vec::new();
    for mut stream in open {
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut got).await.unwrap();
    }
    apps.join_all().await;
}

#[tokio::test]
async fn more_streams_than_one_connection_carries_open_another() {
    let world = World::new().await;
    let mut kept = Vec::new();
    for _ in 0..=STREAMS {
        kept.push(world.pair().await);
    }
    assert_eq!((world.handshakes(), world.mesh.connections()), (2, 2));
}

#[tokio::test]
async fn those_who_come_together_wait_for_one_handshake() {
    let world = World::new().await;
    let mut opening = JoinSet::new();
    for _ in 0..50 {
        let (mesh, at) = (world.mesh.clone(), world.at);
        opening.spawn(async move {
            mesh.open(&super::world::id("server"), at, super::world::destination()).await
        });
    }
    let streams = opening.join_all().await;
    assert!(streams.iter().all(Result::is_ok));
    assert_eq!(world.handshakes(), 1);
}

#[tokio::test]
async fn a_writer_waits_for_its_reader() {
    let world = World::new().await;
    let (mut stream, mut app) = world.pair().await;
    let total = 64 * STREAM_WINDOW as usize;
    let (count, mut written) = tokio::sync::watch::channel(0);
    let writing = tokio::spawn(async move {
        let chunk = vec![1; 64 * 1024];
        for _ in 0..total / chunk.len() {
            stream.write_all(&chunk).await.unwrap();
            count.send_modify(|count| *count += chunk.len());
        }
        stream.shutdown().await.unwrap();
        stream
    });
    // It comes as far as the windows and the sockets reach, then stands.
    written.wait_for(|written| *written >= STREAM_WINDOW as usize).await.unwrap();
    let mut got = 0;
    let mut buffer = vec![0; 256 * 1024];
    while let read @ 1.. = app.read(&mut buffer).await.unwrap() {
        got += read;
        // Never further ahead than what is held on the way: two queues, the window, the sockets of the kernel.
        let ahead = *written.borrow() - (*written.borrow()).min(got);
        assert!(ahead < 32 << 20, "{ahead}");
    }
    assert_eq!(got, total);
    writing.await.unwrap();
}
