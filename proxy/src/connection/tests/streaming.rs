//! Bodies as they come: what is held of them is bounded, in both directions.

use super::{
    requests::{API, get, plain, read_head},
    *,
};

/// More than sockets and engines may hold together.
const HELD: usize = 32 << 20;

/// Writes until nobody takes more, or everything is written.
async fn fill(stream: &mut TcpStream, most: usize) -> usize {
    let chunk = vec![b'x'; 1 << 20];
    let mut written = 0;
    let patience = std::time::Duration::from_secs(1);
    while written < most {
        let rest = chunk.len().min(most - written);
        match tokio::time::timeout(patience, stream.write(&chunk[..rest])).await {
            Ok(Ok(more)) => written += more,
            _ => break,
        }
    }
    written
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_back_its_answer() {
    let world = World::start(&plain(""), ZONE).await;
    let origin = world.origin(API).await;
    let mut client = world.client(API).await;
    client.write_all(get("/", "www.ok.example").as_bytes()).await.unwrap();
    let (mut server, _) = origin.accept().await.unwrap();
    read_head(&mut server).await.unwrap();
    let whole = 4 * HELD;
    server.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {whole}\r\n\r\n").as_bytes()).await.unwrap();
    let taken = fill(&mut server, whole).await;
    assert!(taken < HELD, "{taken} bytes are held");
    let rest = tokio::spawn(async move { fill(&mut server, whole - taken).await });
    read_head(&mut client).await.unwrap();
    let mut body = vec![0; whole];
    client.read_exact(&mut body).await.unwrap();
    assert_eq!(taken + rest.await.unwrap(), whole);
    drop(client);
    assert_eq!(world.record().await.bytes_received, whole as u64);
}

#[tokio::test]
async fn a_far_end_that_reads_nothing_holds_back_its_request() {
    let world = World::start(&plain(""), ZONE).await;
    let origin = world.origin(API).await;
    let mut client = world.client(API).await;
    let whole = 4 * HELD;
    let head = format!("PUT / HTTP/1.1\r\nHost: www.ok.example\r\nContent-Length: {whole}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let (_server, _) = origin.accept().await.unwrap();
    let taken = fill(&mut client, whole).await;
    assert!(taken < HELD, "{taken} bytes are held");
}
