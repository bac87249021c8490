//! Whoever is not the workload that was meant gets nothing, and the record says why. None of it falls back to plaintext.

use sidegate_certs::TrustStore;
use tokio::net::TcpListener;

use super::*;
use crate::mesh::{Refusal, tests::world::Domain};

/// Nothing of the client's has left.
async fn nothing_was_said(pair: &Pair) {
    assert!(pair.far.behind.asked.lock().unwrap().is_empty());
    assert!(
        pair.near.net.dialled().iter().all(|dialled| dialled == ORDERS_MESH),
        "{:?}",
        pair.near.net.dialled()
    );
}

#[tokio::test]
async fn another_workload_at_the_address_is_no_peer() {
    let pair = Pair::new().await;
    // The rule allows both; the table says who is there.
    pair.know(&[("other", "10.0.0.7")]);
    let record = pair.refused().await;
    assert_eq!(story(&record), ("allowed", "mesh-peer-mismatch", CloseReason::ConnectFailed));
    assert_eq!(peer(&record), (None, None));
    nothing_was_said(&pair).await;
    // The very same server under its own name.
    pair.know(&[("server", "10.0.0.7")]);
    pair.joined().await;
}

#[tokio::test]
async fn a_peer_of_another_trust_domain_is_not_believed() {
    let pair = Pair::new().await;
    let strange = Domain::new("example.net", pair.far.clock.now());
    pair.far.theirs.replace(strange.identity("server", pair.far.clock.now()));
    let record = pair.refused().await;
    assert_eq!(story(&record), ("allowed", "mesh-peer-untrusted", CloseReason::ConnectFailed));
    nothing_was_said(&pair).await;
}

#[tokio::test]
async fn the_same_path_in_another_trust_domain_is_somebody_else() {
    let pair = Pair::new().await;
    let strange = Domain::new("example.net", pair.far.clock.now());
    // Believed, and still not the one that was meant.
    pair.far.trust.replace(TrustStore::new([pair.far.domain.bundle(), strange.bundle()]));
    pair.far.theirs.replace(strange.identity("server", pair.far.clock.now()));
    assert_eq!(pair.refused().await.reason, "mesh-peer-mismatch");
    nothing_was_said(&pair).await;
}

#[tokio::test]
async fn a_listener_without_tls_hears_nothing_but_a_handshake() {
    for answer in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"220 welcome\r\n", b""] {
        let pair = Pair::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        pair.near.net.route(ORDERS_MESH, listener.local_addr().unwrap());
        let hearing = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; 3];
            stream.read_exact(&mut heard).await.unwrap();
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
            // A reset is an end too.
            let _ = stream.read_to_end(&mut heard).await;
            heard
        });
        let record = pair.refused().await;
        assert_eq!(story(&record), ("allowed", "mesh-handshake", CloseReason::ConnectFailed));
        let heard = hearing.await.unwrap();
        assert_eq!(heard[..2], [0x16, 3], "a ClientHello");
        assert!(!heard.windows(6).any(|window| window == b"secret"));
        nothing_was_said(&pair).await;
    }
}

#[tokio::test]
async fn nobody_there_is_no_reason_for_plaintext() {
    let pair = Pair::new().await;
    // The application itself listens at its port, and would answer.
    let app = pair.near.origin(ORDERS).await;
    pair.near.net.fail(libc::ECONNREFUSED);
    assert_eq!(pair.refused().await.reason, "dial-refused");
    nothing_was_said(&pair).await;
    drop(app);
}

#[tokio::test]
async fn a_revoked_peer_is_not_believed_and_one_that_is_not_is() {
    let pair = Pair::new().await;
    let theirs = pair.far.theirs.current().unwrap().identity.clone();
    let revoked = pair.far.domain.revoked(&[&theirs], pair.far.clock.now());
    pair.far.trust.replace(TrustStore::new([pair.far.domain.bundle()]).with_revocations(revoked));
    assert_eq!(pair.refused().await.reason, "mesh-peer-untrusted");
    nothing_was_said(&pair).await;
    pair.far.theirs.replace(pair.far.domain.identity("server", pair.far.clock.now()));
    pair.joined().await;
}

#[tokio::test]
async fn an_expired_peer_is_not_believed() {
    let pair = Pair::new().await;
    pair.far.clock.advance(3_000);
    pair.far.ours.replace(pair.far.domain.identity("client", pair.far.clock.now()));
    pair.far.clock.advance(1_000);
    let record = pair.refused().await;
    // Its server shows no certificate any more.
    assert!(
        ["mesh-identity-refused", "mesh-handshake", "mesh-peer-untrusted"].contains(&record.reason.as_str()),
        "{}",
        record.reason
    );
    nothing_was_said(&pair).await;
}

#[tokio::test]
async fn a_workload_that_is_not_believed_is_told_so() {
    let pair = Pair::new().await;
    let strange = Domain::new("example.net", pair.far.clock.now());
    pair.far.ours.replace(strange.identity("client", pair.far.clock.now()));
    let record = pair.refused().await;
    assert_eq!(story(&record), ("allowed", "mesh-identity-refused", CloseReason::ConnectFailed));
    nothing_was_said(&pair).await;
}

#[tokio::test]
async fn without_an_identity_nobody_is_called() {
    // None is configured; none has come yet; the one that was there has expired.
    let near = World::start(RULES, ZONE).await;
    let peers = vec![Peer {
        id: id("server"),
        addresses: vec!["10.0.0.7".parse().unwrap()],
        port: 15008,
        hosts: vec![],
    }];
    near.worker.gate.policies.replace_peers(Peers::new(peers));
    let mut client = near.client(ORDERS).await;
    assert_eq!(read_all(&mut client).await, None);
    let record = near.record().await;
    assert_eq!(story(&record), ("denied", "mesh-identity-missing", CloseReason::ConnectFailed));
    assert!(record.explanation.as_deref().is_some_and(|text| text.contains("Configure `identity`")));
    assert!(near.net.dialled().is_empty());

    let pair = Pair::new().await;
    pair.far.clock.advance(3_601);
    assert_eq!(pair.refused().await.reason, "mesh-identity-missing");
    assert!(pair.near.net.dialled().is_empty());
}

#[tokio::test]
async fn what_the_peer_answers_is_told() {
    for (refusal, reason) in [
        (Refusal::Forbidden, "mesh-refused"),
        (Refusal::Unknown, "mesh-unavailable"),
        (Refusal::Unavailable, "mesh-unavailable"),
    ] {
        let pair = Pair::new().await;
        *pair.far.behind.refusal.lock().unwrap() = Some(refusal);
        let record = pair.refused().await;
        assert_eq!(story(&record), ("allowed", reason, CloseReason::ConnectFailed));
        assert_eq!(pair.near.worker.mesh.as_ref().unwrap().connections(), 1, "the connection is as it was");
    }
}
