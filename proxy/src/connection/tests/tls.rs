use std::sync::Arc;

use rustls::{
    AlertDescription, ClientConfig, ClientConnection, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{PrivateKeyDer, ServerName},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::tls::{
    server_gate::{ACCESS_DENIED_ALERT, PROTOCOL_VERSION_ALERT},
    testing::{HelloBuilder, RETRY, ZERO_RTT, record, server_hello},
};

const SITE: &str = "93.184.216.34:443";
const OLD_SITE: &str = "93.184.216.35:443";

/// Client and server configurations that trust each other.
fn configs(server_groups: Option<&str>) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let signed =
        rcgen::generate_simple_self_signed(["www.ok.example".into(), "old.ok.example".into()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(signed.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut provider: CryptoProvider = aws_lc_rs::default_provider();
    if let Some(name) = server_groups {
        provider.kx_groups.retain(|group| format!("{:?}", group.name()) == name);
        assert_eq!(provider.kx_groups.len(), 1);
    }
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    (Arc::new(client), Arc::new(server))
}

/// A ClientHello as rustls writes it.
pub(super) fn hello_for(host: &str) -> Vec<u8> {
    let (config, _) = configs(None);
    let mut connection =
        ClientConnection::new(config, ServerName::try_from(host.to_owned()).unwrap()).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// The first flight of a server that selects TLS 1.2, and bytes that must not pass.
fn tls12_server_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0xc0, 0x2f, 0, 0, 0]);
    let mut bytes = vec![0x16, 3, 3, 0, body.len() as u8 + 4, 2, 0, 0, body.len() as u8];
    bytes.extend(body);
    bytes
}

async fn whole_handshake(server_groups: Option<&str>) -> (AccessRecord, Vec<u8>) {
    let (client_config, server_config) = configs(server_groups);
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(SITE).await;
    let serving = tokio::spawn(async move {
        let (stream, _) = origin.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(server_config).accept(stream).await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        stream.write_all(&heard).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let stream = world.client(SITE).await;
    let name = ServerName::try_from("www.ok.example").unwrap();
    let mut stream = TlsConnector::from(client_config).connect(name, stream).await.unwrap();
    stream.write_all(b"secret words").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    serving.await.unwrap();
    drop(stream);
    (world.record().await, heard)
}

#[tokio::test]
async fn tls13_passes_end_to_end() {
    let (record, heard) = whole_handshake(None).await;
    assert_eq!(heard, b"secret words");
    assert_eq!(story(&record), ("allowed", "rule-allows", CloseReason::Done));
    assert_eq!((record.protocol.as_str(), record.host.as_deref()), ("tls", Some("www.ok.example")));
    assert_eq!(record.tls.unwrap().version.as_deref(), Some("1.3"));
    assert!(record.bytes_received > 500 && record.bytes_sent > 500);
}

#[tokio::test]
async fn a_server_that_asks_again_passes() {
    // The client's first guess is another group.
    let (record, heard) = whole_handshake(Some("secp384r1")).await;
    assert_eq!(heard, b"secret words");
    assert_eq!(record.tls.unwrap().version.as_deref(), Some("1.3"));
}

#[tokio::test]
async fn a_denied_client_learns_of_it_in_its_own_protocol() {
    let (client_config, _) = configs(None);
    let world = World::start(POLICY, ZONE).await;
    let stream = world.client(SITE).await;
    let name = ServerName::try_from("evil.example").unwrap();
    let error = TlsConnector::from(client_config).connect(name, stream).await.unwrap_err();
    let alert = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned();
    assert_eq!(alert, Some(rustls::Error::AlertReceived(AlertDescription::AccessDenied)));
}

#[tokio::test]
async fn one_verdict_however_the_hello_is_split() {
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(SITE).await;
    let hello = hello_for("www.ok.example");
    let pieces: [Vec<&[u8]>; 3] = [
        hello.chunks(1).collect(),
        vec![&hello[..5], &hello[5..]],
        vec![&hello[..hello.len() - 1], &hello[hello.len() - 1..]],
    ];
    for split in pieces {
        let mut client = world.client(SITE).await;
        for piece in split {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let (mut server, _) = origin.accept().await.unwrap();
        let mut heard = vec![0; hello.len()];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, hello);
    }
    assert!(world.records(3).await.iter().all(|record| record.rule.as_deref() == Some("site")));
}

/// What both ends see when the server answers with `answer`.
async fn answered(host: &str, site: &str, answer: &[u8]) -> (AccessRecord, Vec<u8>, Option<Vec<u8>>) {
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(site).await;
    let hello = hello_for(host);
    let mut client = world.client(site).await;
    client.write_all(&hello).await.unwrap();
    let (mut server, _) = origin.accept().await.unwrap();
    let mut heard = vec![0; hello.len()];
    server.read_exact(&mut heard).await.unwrap();
    // Split, so that holding back is put to the test.
    for piece in answer.chunks(7) {
        server.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    server.shutdown().await.unwrap();
    let client_saw = read_all(&mut client).await.unwrap_or_default();
    drop(client);
    let server_saw = read_all(&mut server).await;
    (world.record().await, client_saw, server_saw)
}

#[tokio::test]
async fn a_server_that_selects_tls12_is_cut_off_before_anything_passes() {
    let mut answer = tls12_server_hello();
    answer.extend(b"\x17\x03\x03\x00\x04data");
    let (record, client_saw, server_saw) = answered("www.ok.example", SITE, &answer).await;
    assert_eq!(client_saw, PROTOCOL_VERSION_ALERT);
    assert_eq!(server_saw.as_deref(), Some(&PROTOCOL_VERSION_ALERT[..]));
    assert_eq!(story(&record), ("denied", "tls-version-server", CloseReason::TlsRefused));
    assert_eq!((record.rule.as_deref(), record.bytes_received), (Some("site"), 0));
}

#[tokio::test]
async fn the_same_server_passes_where_a_rule_exempts_it() {
    let answer = tls12_server_hello();
    let (record, client_saw, _) = answered("old.ok.example", OLD_SITE, &answer).await;
    assert_eq!(client_saw, answer);
    assert_eq!(record.verdict, "allowed");
    assert_eq!(record.tls.unwrap().version.as_deref(), Some("1.2"));
}

#[tokio::test]
async fn a_servers_own_alert_reaches_the_client_and_nothing_after_it() {
    let mut answer = ACCESS_DENIED_ALERT.to_vec();
    answer.extend(b"smuggled");
    let (record, client_saw, _) = answered("www.ok.example", SITE, &answer).await;
    assert_eq!(client_saw, ACCESS_DENIED_ALERT);
    assert_eq!((record.verdict.as_str(), record.bytes_received), ("allowed", 7));
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_cut_off() {
    let (record, client_saw, _) = answered("www.ok.example", SITE, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert_eq!(client_saw, PROTOCOL_VERSION_ALERT);
    assert_eq!(story(&record), ("allowed", "upstream-malformed", CloseReason::TlsRefused));
}

#[tokio::test]
async fn audit_records_an_old_server_and_lets_it_pass() {
    let audit = POLICY.replace("name: site\n", "name: site\n      auditUntil: 9999-12-31\n");
    let world = World::start(&audit, ZONE).await;
    let origin = world.origin(SITE).await;
    let mut client = world.client(SITE).await;
    client.write_all(&hello_for("www.ok.example")).await.unwrap();
    let (mut server, _) = origin.accept().await.unwrap();
    server.write_all(&tls12_server_hello()).await.unwrap();
    let mut heard = vec![0; tls12_server_hello().len()];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, tls12_server_hello());
    drop((client, server));
    let record = world.record().await;
    assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("would-deny", "tls-version-server"));
}

#[tokio::test]
async fn what_audit_alone_lets_pass_tells_its_version_and_passes_whatever_it_is() {
    let audit = POLICY.replace("spec:\n", "spec:\n  mode: audit\n  auditUntil: 9999-12-31\n");
    let tls12 = tls12_server_hello();
    for (answer, version) in [(&tls12[..], Some("1.2")), (b"220 no TLS here\r\n", None)] {
        let world = World::start(&audit, ZONE).await;
        let origin = world.origin(SITE).await;
        let mut client = world.client(SITE).await;
        client.write_all(&hello_for("unknown.example")).await.unwrap();
        let (mut server, _) = origin.accept().await.unwrap();
        server.write_all(answer).await.unwrap();
        let mut heard = vec![0; answer.len()];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, answer);
        drop((client, server));
        let record = world.record().await;
        assert_eq!(record.verdict, "would-deny");
        assert_eq!(record.tls.unwrap_or_default().version.as_deref(), version);
    }
}

#[tokio::test]
async fn early_bytes_are_held_until_the_version_is_known() {
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(SITE).await;
    let hello = hello_for("www.ok.example");
    let mut client = world.client(SITE).await;
    client.write_all(&[&hello[..], b"\x17\x03\x03\x00\x05early"].concat()).await.unwrap();
    let (mut server, _) = origin.accept().await.unwrap();
    let mut heard = vec![0; hello.len()];
    server.read_exact(&mut heard).await.unwrap();
    server.write_all(&tls12_server_hello()).await.unwrap();
    assert_eq!(
        read_all(&mut server).await.as_deref(),
        Some(&PROTOCOL_VERSION_ALERT[..]),
        "and no early data"
    );
}

/// What a client sends behind its second hello is held as well: nothing shows yet that a key will cover it.
#[tokio::test]
async fn bytes_behind_the_second_hello_are_held_until_the_version_is_known() {
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(SITE).await;
    let first = HelloBuilder::new("www.ok.example").with(ZERO_RTT, &[]).record();
    let second = HelloBuilder::new("www.ok.example").record();
    let early = record(23, b"early");
    let mut client = world.client(SITE).await;
    client.write_all(&[&first[..], &early].concat()).await.unwrap();
    let (mut server, _) = origin.accept().await.unwrap();
    server.read_exact(&mut vec![0; first.len()]).await.unwrap();
    let answer = |random| server_hello((0x0303, Some(0x0304)), random, &[7; 32]);
    server.write_all(&answer(RETRY)).await.unwrap();
    client.read_exact(&mut vec![0; answer(RETRY).len()]).await.unwrap();
    client.write_all(&[&second[..], b"plain"].concat()).await.unwrap();
    let mut heard = vec![0; early.len() + second.len()];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, [&early[..], &second].concat());
    server.write_all(b"no TLS").await.unwrap();
    assert_eq!(read_all(&mut server).await.as_deref(), Some(&PROTOCOL_VERSION_ALERT[..]), "and not `plain`");
}

#[tokio::test]
async fn plaintext_where_tls_is_demanded_is_reset() {
    let world = World::start(POLICY, ZONE).await;
    let mut client = world.client(SITE).await;
    client.write_all(b"\x00\x01binary\r\n\r\n").await.unwrap();
    assert_eq!(read_all(&mut client).await, None);
    let record = world.record().await;
    assert_eq!((record.verdict.as_str(), record.protocol.as_str()), ("denied", "tcp"));
    assert!(world.net.dialled().is_empty());
}

#[tokio::test]
async fn a_client_that_gives_up_during_the_handshake_frees_the_server() {
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(SITE).await;
    let hello = hello_for("www.ok.example");
    let mut client = world.client(SITE).await;
    client.write_all(&hello).await.unwrap();
    let (mut server, _) = origin.accept().await.unwrap();
    drop(client);
    let mut heard = Vec::new();
    let _ = server.read_to_end(&mut heard).await;
    assert_eq!(story(&world.record().await), ("allowed", "rule-allows", CloseReason::ClientReset));
}
