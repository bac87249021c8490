//! One verdict, however the client cuts its first message.

use super::{super::world::Zone, *};
use crate::tls::testing::{HelloBuilder, re_recorded};

const DUAL: Zone = &[("www.ok.example", &["93.184.216.34", "2606:2800:21f:cb07::34"])];
const FAMILIES: [&str; 2] = ["93.184.216.34:443", "[2606:2800:21f:cb07::34]:443"];

/// Lets the proxy take what was written before more is.
async fn let_it_read() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

/// The records of one connection per split of `hello`, in two pieces at every byte.
async fn at_every_split(destination: &str, hello: &[u8], server_hears: bool) -> Vec<AccessRecord> {
    let world = World::start(POLICY, DUAL).await;
    let origin = world.origin("[2606:2800:21f:cb07::34]:443").await;
    for at in 1..hello.len() {
        let (front, back) = hello.split_at(at);
        let mut client = world.client(destination).await;
        client.write_all(front).await.unwrap();
        let_it_read().await;
        client.write_all(back).await.unwrap();
        if server_hears {
            let (mut server, _) = origin.accept().await.unwrap();
            let mut heard = vec![0; hello.len()];
            server.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, hello, "split at {at}");
        } else {
            read_all(&mut client).await.expect("an alert, not a reset");
        }
    }
    assert!(server_hears || world.net.dialled().is_empty());
    world.records(hello.len() - 1).await
}

#[tokio::test]
async fn an_allowed_hello_is_allowed_at_every_split() {
    let hello = HelloBuilder::new("www.ok.example").record();
    for destination in FAMILIES {
        for stream in [hello.clone(), re_recorded(&hello, 1)] {
            let records = at_every_split(destination, &stream, true).await;
            for record in records {
                assert_eq!((record.verdict.as_str(), record.rule.as_deref()), ("allowed", Some("site")));
                assert_eq!(record.host.as_deref(), Some("www.ok.example"));
            }
        }
    }
}

#[tokio::test]
async fn a_denied_hello_is_denied_at_every_split() {
    let hello = HelloBuilder::new("www.evil.example").record();
    for destination in FAMILIES {
        for stream in [hello.clone(), re_recorded(&hello, 1)] {
            for record in at_every_split(destination, &stream, false).await {
                assert_eq!(story(&record), ("denied", "no-rule", CloseReason::Denied));
                assert_eq!(record.host.as_deref(), Some("www.evil.example"));
            }
        }
    }
}
