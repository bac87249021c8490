//! Attacks beside a naive proxy that falls for them, so that their failure here means something.

use super::{
    super::classify::{Classifier, FirstBytes, Progress},
    tls::hello_for,
    *,
};
use crate::{
    addrs::UpstreamAddr,
    tls::{
        client_hello::ClientHello,
        server_gate::{ACCESS_DENIED_ALERT, PROTOCOL_VERSION_ALERT},
        testing::{HelloBuilder, server_hello},
    },
};

const SITE: &str = "93.184.216.34:443";
const ATTACKER: &str = "198.41.0.4:443";
/// RFC 8446 section 4.1.3: the random of a HelloRetryRequest.
const RETRY: [u8; 32] = [
    0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91, 0xC2,
    0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
];

/// All that a proxy knows which looks at the client's first message alone.
fn offered(hello: &[u8]) -> ClientHello {
    match Classifier::new(64 * 1024).push(hello) {
        Progress::Done(FirstBytes::Tls(hello)) => hello,
        other => panic!("{other:?}"),
    }
}

/// An allowed name, sent to an address of the client's choice.
#[tokio::test]
async fn a_borrowed_name_reaches_its_own_server() {
    let world = World::start(POLICY, ZONE).await;
    let (attacker, origin) = (world.origin(ATTACKER).await, world.origin(SITE).await);
    let hello = hello_for("www.ok.example");

    // Naive: the name is allowed, so dial what the client dialled.
    let naive = (world.worker.dial)(UpstreamAddr::new(ATTACKER.parse().unwrap()));
    let (joined, caught) = tokio::join!(naive, attacker.accept());
    joined.unwrap().write_all(&hello).await.unwrap();
    assert_eq!(
        read_all(&mut caught.unwrap().0).await.unwrap(),
        hello,
        "the attack works where nothing stops it"
    );

    let mut client = world.client(ATTACKER).await;
    client.write_all(&hello).await.unwrap();
    origin.accept().await.unwrap();
    assert_eq!(world.net.dialled(), [ATTACKER, SITE], "the naive dial, then the name's own address");
}

/// A client that offers TLS 1.3 to a server that won't have it.
#[tokio::test]
async fn an_offer_is_no_proof_of_the_version() {
    let hello = HelloBuilder::new("www.ok.example").record();
    assert!(offered(&hello).offers_tls13, "naive: TLS 1.3 is offered, so let it pass");

    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(SITE).await;
    let mut client = world.client(SITE).await;
    client.write_all(&hello).await.unwrap();
    let (mut server, _) = origin.accept().await.unwrap();
    server.write_all(&server_hello((0x0303, None), [9; 32], &[])).await.unwrap();
    assert_eq!(read_all(&mut client).await.unwrap(), PROTOCOL_VERSION_ALERT);
    assert_eq!(story(&world.record().await), ("denied", "tls-version-server", CloseReason::TlsRefused));
}

/// The server asks again, and the second hello names somebody else. What the server saw, and the client.
async fn asked_again(world: &World, site: &str, second: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let origin = world.origin(site).await;
    let first = HelloBuilder::new("www.ok.example").record();
    let retry = server_hello((0x0303, Some(0x0304)), RETRY, &[7; 32]);
    let mut client = world.client(site).await;
    client.write_all(&first).await.unwrap();
    let (mut server, _) = origin.accept().await.unwrap();
    let mut heard = vec![0; first.len()];
    server.read_exact(&mut heard).await.unwrap();
    server.write_all(&retry).await.unwrap();
    let mut asked = vec![0; retry.len()];
    client.read_exact(&mut asked).await.unwrap();
    assert_eq!(asked, retry);
    client.write_all(second).await.unwrap();
    let mut then = vec![0; 7];
    server.read_exact(&mut then).await.unwrap();
    server.shutdown().await.unwrap();
    let told = read_all(&mut client).await.unwrap_or_default();
    (then, told)
}

#[tokio::test]
async fn a_second_hello_with_another_name_goes_nowhere() {
    let second = HelloBuilder::new("www.evil.example").record();

    // Naive: only the first hello counts. Here, a rule that does not look.
    let world = World::start(POLICY, ZONE).await;
    let (server_saw, _) = asked_again(&world, DB, &second).await;
    assert_eq!(server_saw, second[..7], "the attack works where nothing stops it");

    let world = World::start(POLICY, ZONE).await;
    let (server_saw, client_saw) = asked_again(&world, SITE, &second).await;
    assert_eq!(server_saw, ACCESS_DENIED_ALERT);
    assert_eq!(client_saw, ACCESS_DENIED_ALERT);
    let record = world.record().await;
    assert_eq!(story(&record), ("denied", "tls-second-hello", CloseReason::TlsRefused));
    assert_eq!(record.host.as_deref(), Some("www.ok.example"));
}

#[tokio::test]
async fn a_second_hello_with_the_same_name_passes() {
    let second = HelloBuilder::new("www.ok.example").record();
    let world = World::start(POLICY, ZONE).await;
    let (server_saw, _) = asked_again(&world, SITE, &second).await;
    assert_eq!(server_saw, second[..7]);
}
