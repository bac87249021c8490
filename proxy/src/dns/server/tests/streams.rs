//! DNS over TCP: several questions, big answers, slow and rude clients.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut framed = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    framed
}

async fn receive(stream: &mut TcpStream) -> Message {
    let length = stream.read_u16().await.unwrap();
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}

#[tokio::test]
async fn questions_sent_at_once_are_each_judged_and_answered_in_order() {
    let world = World::start(good).await;
    let mut stream = TcpStream::connect(world.tcp).await.unwrap();
    let names = ["api.shop.test", "evil.test", "a.pages.test"];
    let all: Vec<u8> = names.iter().flat_map(|name| framed(&question(name, RecordType::A))).collect();
    stream.write_all(&all).await.unwrap();
    let mut codes = Vec::new();
    for name in names {
        let answer = receive(&mut stream).await;
        assert_eq!(answer.queries[0].name().to_ascii(), format!("{name}."));
        codes.push(answer.metadata.response_code);
    }
    assert_eq!(codes, [ResponseCode::NoError, ResponseCode::Refused, ResponseCode::NoError]);
    assert_eq!(world.asked(), ["api.shop.test", "a.pages.test"]);
    assert_eq!(world.records().len(), 3);
}

#[tokio::test]
async fn an_answer_too_large_for_a_datagram_comes_whole_over_tcp() {
    let world = World::start(|seen| {
        let all: Vec<String> = (1..=64).map(|last| format!("9.9.9.{last}")).collect();
        vec![seen.addresses(300, &all.iter().map(String::as_str).collect::<Vec<_>>())]
    })
    .await;
    let datagram = world.ask("api.shop.test", RecordType::A).await;
    assert!(datagram.metadata.truncation && datagram.answers.is_empty());
    let mut stream = TcpStream::connect(world.tcp).await.unwrap();
    stream.write_all(&framed(&question("api.shop.test", RecordType::A))).await.unwrap();
    let whole = receive(&mut stream).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 64);
}

#[tokio::test]
async fn a_question_in_single_bytes_is_one_question() {
    let world = World::start(good).await;
    let mut stream = TcpStream::connect(world.tcp).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in framed(&question("api.shop.test", RecordType::A)) {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(receive(&mut stream).await.answers.len(), 1);
    assert_eq!(world.record().verdict, "allowed");
}

#[tokio::test]
async fn an_overlong_message_ends_the_stream() {
    let world = World::start(good).await;
    let mut stream = TcpStream::connect(world.tcp).await.unwrap();
    stream.write_all(&[0xff, 0xff]).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn an_idle_stream_is_closed() {
    let world = World::start(good).await;
    let mut stream = TcpStream::connect(world.tcp).await.unwrap();
    stream.write_all(&framed(&question("api.shop.test", RecordType::A))[..5]).await.unwrap();
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    // The wait began just before the clock was stopped, or just after.
    assert!((9..=10).contains(&start.elapsed().as_secs()));
}

/// Connections hold every descriptor that is not reserved; of the reserve, streams get a part.
#[tokio::test]
async fn streams_leave_most_of_the_reserve_to_others() {
    let settings = Settings { descriptor_reserve: 8, ..Settings::default() };
    let world = World::with(settings, policy(POLICY, 1), good).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(world.tcp).await.unwrap();
        stream.write_all(&framed(&question("api.shop.test", RecordType::A))).await.unwrap();
        assert_eq!(receive(&mut stream).await.answers.len(), 1);
        streams.push(stream);
    }
    let mut third = TcpStream::connect(world.tcp).await.unwrap();
    assert_eq!(third.read(&mut [0]).await.unwrap(), 0, "closed at once");
    assert_eq!(world.ask("api.shop.test", RecordType::A).await.answers.len(), 1);
}
