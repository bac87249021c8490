//! Floods of HTTP/2 frames: the client that sends them is cut off, or is held back; others are not.

use super::{
    requests::{API, plain},
    *,
};

/// Beside what [`plain`] says.
const MORE: &str = r#"      http: [ { methods: [ GET ], paths: [ "/v1/**" ] } ]
"#;

/// RFC 9113 section 6.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET /v2/denied`, as literals without indexing (RFC 7541 section 6.2.2).
fn fields() -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(4, "/v2/denied"), (1, "www.ok.example")] {
        block.push(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.bytes());
    }
    block
}

/// A client that said hello.
async fn greeted(world: &World) -> TcpStream {
    let mut client = world.client(API).await;
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    client.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    client
}

/// Sends a frame again and again until the proxy says goodbye or breaks off; what it said last.
async fn flood(mut client: TcpStream, mut next: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
    let (mut reading, mut writing) = client.split();
    let sending = async {
        for number in 0..1_000_000 {
            if writing.write_all(&next(number)).await.is_err() {
                return;
            }
        }
        panic!("a million frames, and nobody minds");
    };
    let hearing = async {
        let mut heard = Vec::new();
        let _ = reading.read_to_end(&mut heard).await;
        goodbye(&heard)
    };
    tokio::pin!(sending, hearing);
    tokio::select! {
        said = &mut hearing => said,
        () = &mut sending => hearing.await,
    }
}

/// The error code of a GOAWAY.
fn goodbye(mut bytes: &[u8]) -> Option<u32> {
    while let [a, b, c, kind, _flags, _, _, _, _, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let payload = rest.get(..length)?;
        if *kind == GOAWAY {
            return Some(u32::from_be_bytes(payload.get(4..8)?.try_into().ok()?));
        }
        bytes = rest.get(length..)?;
    }
    None
}

const ENHANCE_YOUR_CALM: u32 = 11;

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let world = World::start(&plain(MORE), ZONE).await;
    let client = greeted(&world).await;
    let said = flood(client, |number| {
        let stream = 2 * number + 1;
        let mut frames = frame(HEADERS, 0x5, stream, &fields());
        frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        frames
    });
    assert_eq!(said.await, Some(ENHANCE_YOUR_CALM));
    assert!(world.net.dialled().is_empty());
}

#[tokio::test]
async fn a_head_without_end_ends_the_connection() {
    let world = World::start(&plain(MORE), ZONE).await;
    let mut client = greeted(&world).await;
    client.write_all(&frame(HEADERS, 0x1, 1, &fields())).await.unwrap();
    let mut field = vec![0, 1, b'x', 100];
    field.extend([b'y'; 100]);
    let said = flood(client, |_| frame(CONTINUATION, 0, 1, &field)).await;
    assert!(said.is_none_or(|code| code != 0), "{said:?}");
    assert_eq!(world.record().await.verdict, "denied");
}

/// They are answered one by one: a client that does not read its answers is not read from.
#[tokio::test]
async fn pings_that_nobody_reads_the_answers_of_hold_back_their_sender() {
    for (kind, payload) in [(PING, &[0; 8][..]), (SETTINGS, &[])] {
        let world = World::start(&plain(MORE), ZONE).await;
        let mut client = greeted(&world).await;
        let frames: Vec<u8> = (0..10_000).flat_map(|_| frame(kind, 0, 0, payload)).collect();
        let mut written = 0;
        let patience = std::time::Duration::from_secs(1);
        while let Ok(Ok(more)) =
            tokio::time::timeout(patience, client.write(&frames[written % frames.len()..])).await
        {
            written += more;
            assert!(written < 256 << 20, "{written} bytes of frames {kind} are taken");
        }
    }
}

#[tokio::test]
async fn an_authority_and_a_host_that_differ_are_refused() {
    let world = World::start(&plain(MORE), ZONE).await;
    let mut client = greeted(&world).await;
    let mut block = fields();
    // A `host` beside `:authority`, by its name in the static table.
    block.extend([0x0f, 38 - 15, 12]);
    block.extend(b"evil.example");
    client.write_all(&frame(HEADERS, 0x5, 1, &block)).await.unwrap();
    client.shutdown().await.unwrap();
    let _ = read_all(&mut client).await;
    assert_eq!(world.record().await.reason, "host-mismatch");
    assert!(world.net.dialled().is_empty());
}
