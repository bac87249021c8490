//! Streams that stall and streams that don't, through the whole pipeline.

use super::*;

/// Ahead of a reader that stalls: the window of its stream, and what its two sockets hold.
const SOCKETS: usize = 16 << 20;

#[tokio::test]
async fn one_that_stalls_holds_back_nobody_else() {
    let pair = Pair::new().await;
    let (stalled, mut stalled_app) = pair.joined().await;
    let stuck = tokio::spawn(async move {
        let chunk = vec![7; 64 * 1024];
        // Until nothing more fits.
        while stalled_app.write_all(&chunk).await.is_ok() {}
    });
    let (mut fast, mut fast_app) = pair.joined().await;
    let total = 64 << 20;
    let sending = tokio::spawn(async move {
        let chunk = vec![9; 64 * 1024];
        for _ in 0..total / chunk.len() {
            fast_app.write_all(&chunk).await.unwrap();
        }
        fast_app.shutdown().await.unwrap();
    });
    let mut got = 0;
    let mut buffer = vec![0; 64 * 1024];
    while let read @ 1.. = fast.read(&mut buffer).await.unwrap() {
        got += read;
    }
    assert_eq!(got, total);
    sending.await.unwrap();
    assert!(!stuck.is_finished(), "it waits");
    assert_eq!(pair.far.handshakes(), 1, "all on one connection");
    drop(stalled);
    stuck.await.unwrap();
}

#[tokio::test]
async fn a_writer_waits_for_a_reader_that_stalls() {
    let pair = Pair::new().await;
    for downwards in [true, false] {
        let (client, app) = pair.joined().await;
        let (mut from, mut to) = if downwards { (app, client) } else { (client, app) };
        let (count, mut written) = tokio::sync::watch::channel(0);
        let writing = tokio::spawn(async move {
            let chunk = vec![1; 64 * 1024];
            for _ in 0..(64 << 20) / chunk.len() {
                from.write_all(&chunk).await.unwrap();
                count.send_modify(|count| *count += chunk.len());
            }
        });
        written.wait_for(|written| *written >= 1 << 20).await.unwrap();
        let (mut got, mut buffer) = (0, vec![0; 256 * 1024]);
        while got < 64 << 20 {
            got += to.read(&mut buffer).await.unwrap();
            let ahead = (*written.borrow()).saturating_sub(got);
            assert!(ahead < SOCKETS, "{ahead}");
        }
        writing.await.unwrap();
    }
}
