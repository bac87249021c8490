use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::task::yield_now;

use super::*;

#[tokio::test]
async fn each_side_may_finish_first() {
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(DB).await;
    for client_first in [true, false] {
        let (client, server) = joined(&world, &origin).await;
        let (mut first, mut second) = if client_first { (client, server) } else { (server, client) };
        first.write_all(b"my last words").await.unwrap();
        first.shutdown().await.unwrap();
        assert_eq!(read_all(&mut second).await.unwrap(), b"my last words");
        second.write_all(b"and an answer to them").await.unwrap();
        drop(second);
        assert_eq!(read_all(&mut first).await.unwrap(), b"and an answer to them");
    }
    let records = world.records(2).await;
    assert!(records.iter().all(|record| story(record) == ("allowed", "rule-allows", CloseReason::Done)));
}

/// A stream of bytes that shows any loss, doubling or reordering.
struct Pattern(u64);

impl Pattern {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = (self.0 ^ (self.0 >> 8) ^ (self.0 >> 16)) as u8;
            self.0 += 1;
        }
    }
}

#[tokio::test]
async fn bulk_arrives_whole_whatever_its_pieces() {
    const TOTAL: usize = 48 * 1024 * 1024;
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(DB).await;
    let (mut client, mut server) = joined(&world, &origin).await;
    let sending = tokio::spawn(async move {
        let mut random = SmallRng::seed_from_u64(7);
        let (mut pattern, mut left, mut chunk) = (Pattern(0), TOTAL, vec![0; 400_000]);
        while left > 0 {
            let most = if random.random_bool(0.2) { 100 } else { chunk.len() };
            let length = random.random_range(1..=most).min(left);
            pattern.fill(&mut chunk[..length]);
            server.write_all(&chunk[..length]).await.unwrap();
            left -= length;
        }
    });
    let mut random = SmallRng::seed_from_u64(8);
    let (mut pattern, mut total, mut buffer, mut expected) =
        (Pattern(0), 0, vec![0; 300_000], vec![0; 300_000]);
    loop {
        let most = random.random_range(1..=buffer.len());
        let count = client.read(&mut buffer[..most]).await.unwrap();
        if count == 0 {
            break;
        }
        pattern.fill(&mut expected[..count]);
        assert!(buffer[..count] == expected[..count], "damaged after {total} bytes");
        total += count;
    }
    sending.await.unwrap();
    assert_eq!(total, TOTAL);
    drop(client);
    let record = world.record().await;
    assert_eq!(record.bytes_received, TOTAL as u64);
    assert_eq!(story(&record).2, CloseReason::Done);
}

#[tokio::test]
async fn a_slow_reader_holds_back_a_fast_origin() {
    const BOUND: usize = 32 * 1024 * 1024;
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(DB).await;
    let (mut client, server) = joined(&world, &origin).await;
    let (chunk, mut sent, mut quiet) = (vec![7; 256 * 1024], 0, 0);
    while quiet < 200 {
        match server.try_write(&chunk) {
            Ok(count) => (sent, quiet) = (sent + count, 0),
            Err(_) => quiet += 1,
        }
        assert!(sent < BOUND, "nothing holds the origin back");
        yield_now().await;
    }
    drop(server);
    assert_eq!(read_all(&mut client).await.unwrap().len(), sent);
}

#[tokio::test]
async fn a_fast_stream_does_not_starve_its_neighbours() {
    const TOTAL: usize = 512 * 1024 * 1024;
    const EXCHANGES: usize = 50;
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(DB).await;
    let (fast_client, fast_server) = joined(&world, &origin).await;
    let (mut client, mut server) = joined(&world, &origin).await;
    let [mut sink, mut source] = [fast_client, fast_server].map(|stream| {
        let stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream
    });
    // Threads of their own, so that the source is never empty and the sink never full for long.
    let sending = std::thread::spawn(move || {
        let chunk = vec![7; 1024 * 1024];
        (0..TOTAL / chunk.len()).for_each(|_| std::io::Write::write_all(&mut source, &chunk).unwrap());
    });
    let receiving = std::thread::spawn(move || std::io::copy(&mut sink, &mut std::io::sink()).unwrap());
    for _ in 0..EXCHANGES {
        exchange(&mut client, &mut server, b"a word in between").await;
    }
    assert!(!receiving.is_finished(), "the neighbour had to wait for the end of the fast stream");
    while !receiving.is_finished() {
        yield_now().await;
    }
    sending.join().unwrap();
    assert_eq!(receiving.join().unwrap(), TOTAL as u64);
}
