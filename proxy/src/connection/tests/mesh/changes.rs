//! What was allowed and no longer is, is closed; so is whoever no longer holds.

use std::time::Duration;

use sidegate_certs::TrustStore;

use super::*;

#[tokio::test]
async fn a_rule_that_goes_closes_its_connections() {
    let pair = Pair::new().await;
    let (mut client, mut app) = pair.joined().await;
    exchange(&mut client, &mut app, b"before").await;
    pair.near.worker.gate.policies.replace(policies(&RULES.replace("/server\"", "/nobody\""), 2));
    assert_eq!((read_all(&mut client).await, read_all(&mut app).await), (None, None));
    let record = pair.near.record().await;
    assert_eq!(story(&record), ("denied", "no-rule", CloseReason::PolicyChanged));
    assert_eq!((record.generation, peer(&record).1), (2, Some("spiffe://example.org/server")));
}

#[tokio::test]
async fn an_address_that_moves_to_another_workload_takes_its_connections_along() {
    for (now, reason) in [(vec![("other", "10.0.0.7")], "mesh-peer-moved"), (vec![], "mesh-peer-moved")] {
        let pair = Pair::new().await;
        let (mut client, mut app) = pair.joined().await;
        exchange(&mut client, &mut app, b"before").await;
        // A table that says the same of it changes nothing.
        pair.know(&[("server", "10.0.0.7"), ("other", "10.0.0.8")]);
        exchange(&mut client, &mut app, b"between").await;
        pair.know(&now);
        assert_eq!((read_all(&mut client).await, read_all(&mut app).await), (None, None));
        assert_eq!(story(&pair.near.record().await), ("denied", reason, CloseReason::PolicyChanged));
    }
}

/// The rule for the workload is the more specific one: what was opened before in the clear must not go on so.
#[tokio::test]
async fn plaintext_to_what_turns_out_to_be_a_workload_is_closed() {
    let pair = Pair::new().await;
    let origin = pair.near.origin("10.9.0.1:8080").await;
    let (mut client, server) = tokio::join!(pair.near.client("10.9.0.1:8080"), origin.accept());
    let mut server = server.unwrap().0;
    exchange(&mut client, &mut server, b"before").await;
    pair.know(&[("server", "10.9.0.1")]);
    assert_eq!((read_all(&mut client).await, read_all(&mut server).await), (None, None));
    let record = pair.near.record().await;
    assert_eq!(story(&record), ("denied", "tls-required", CloseReason::PolicyChanged));
    // One that nothing is known of goes on.
    let (mut client, server) = tokio::join!(pair.near.client("10.9.0.1:8080"), async {
        pair.know(&[]);
        origin.accept().await
    });
    exchange(&mut client, &mut server.unwrap().0, b"still").await;
}

#[tokio::test]
async fn a_peer_that_is_revoked_loses_its_connections() {
    let pair = Pair::new().await;
    let mut vigil = pair.vigil();
    vigil.look();
    let (mut client, mut app) = pair.joined().await;
    exchange(&mut client, &mut app, b"before").await;
    vigil.look();
    exchange(&mut client, &mut app, b"looked at").await;
    let theirs = pair.far.theirs.current().unwrap().identity.clone();
    let revoked = pair.far.domain.revoked(&[&theirs], pair.far.clock.now());
    pair.far.trust.replace(TrustStore::new([pair.far.domain.bundle()]).with_revocations(revoked));
    vigil.look();
    assert_eq!((read_all(&mut client).await, read_all(&mut app).await), (None, None));
    let record = pair.near.record().await;
    assert_eq!(story(&record), ("allowed", "rule-allows", CloseReason::PeerUntrusted));
}

#[tokio::test]
async fn what_has_expired_is_closed() {
    let pair = Pair::new().await;
    let mut vigil = pair.vigil();
    let (mut client, mut app) = pair.joined().await;
    exchange(&mut client, &mut app, b"before").await;
    pair.far.clock.advance(3_600);
    vigil.look();
    exchange(&mut client, &mut app, b"its last second").await;
    pair.far.clock.advance(1);
    vigil.look();
    assert_eq!((read_all(&mut client).await, read_all(&mut app).await), (None, None));
    assert_eq!(pair.near.record().await.close_reason, CloseReason::PeerUntrusted);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_by_new_connections_and_old_ones_go_on() {
    let pair = Pair::new().await;
    let (mut client, mut app) = pair.joined().await;
    pair.far.ours.replace(pair.far.domain.identity("client", pair.far.clock.now()));
    let (mut other, mut other_app) = pair.joined().await;
    assert_eq!(pair.far.handshakes(), 2);
    exchange(&mut client, &mut app, b"old").await;
    exchange(&mut other, &mut other_app, b"new").await;
}

#[tokio::test]
async fn what_does_not_move_is_closed() {
    let settings = Settings { idle_timeout: Duration::from_millis(80), ..Settings::default() };
    let pair = Pair::with(RULES, settings).await;
    let (mut client, mut app) = pair.joined().await;
    assert_eq!((read_all(&mut client).await, read_all(&mut app).await), (None, None));
    assert_eq!(pair.near.record().await.close_reason, CloseReason::IdleTimeout);
}

#[tokio::test]
async fn a_drain_ends_what_is_left() {
    let pair = Pair::new().await;
    let (mut client, mut app) = pair.joined().await;
    exchange(&mut client, &mut app, b"before").await;
    pair.near.worker.live.close_all(CloseReason::Drained);
    read_all(&mut client).await;
    assert_eq!(read_all(&mut app).await, None, "never an orderly end");
    assert_eq!(pair.near.record().await.close_reason, CloseReason::Drained);
}

#[tokio::test]
async fn whichever_side_breaks_the_other_sees_it() {
    for client_breaks in [true, false] {
        let pair = Pair::new().await;
        let (mut client, mut app) = pair.joined().await;
        exchange(&mut client, &mut app, b"before").await;
        let (broken, mut whole) = if client_breaks { (client, app) } else { (app, client) };
        broken.set_zero_linger().unwrap();
        drop(broken);
        assert_eq!(read_all(&mut whole).await, None);
        let expected = if client_breaks { CloseReason::ClientReset } else { CloseReason::UpstreamReset };
        assert_eq!(pair.near.record().await.close_reason, expected);
    }
}
