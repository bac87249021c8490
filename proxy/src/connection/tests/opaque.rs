use std::time::Duration;

use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn an_allowed_connection_passes_and_leaves_one_record() {
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(DB).await;
    let (mut client, mut server) = joined(&world, &origin).await;
    exchange(&mut client, &mut server, b"hello").await;
    let source = client.local_addr().unwrap();
    drop(client);
    drop(server);
    let record = world.record().await;
    assert_eq!(story(&record), ("allowed", "rule-allows", CloseReason::Done));
    assert_eq!((record.bytes_sent, record.bytes_received), (5, 5));
    assert_eq!((record.policy.as_deref(), record.rule.as_deref()), (Some("test"), Some("db")));
    assert_eq!(record.source, Some(source));
    assert_eq!(record.original_dst.unwrap().to_string(), DB);
    assert_eq!(record.upstream.unwrap().to_string(), DB);
    assert_eq!((record.protocol.as_str(), record.generation), ("tcp", 1));
    assert_eq!(record.workload.as_deref(), Some("spiffe://example.org/ns/test/sa/app"));
    assert_eq!(record.explanation, None);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_first_is_not_waited_for() {
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(DB).await;
    let began = Instant::now();
    let (mut client, mut server) = joined(&world, &origin).await;
    server.write_all(b"I speak first").await.unwrap();
    let mut heard = [0; 13];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"I speak first");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn what_no_rule_allows_is_reset_before_any_packet_leaves() {
    let world = World::start(POLICY, ZONE).await;
    let _origin = world.origin("10.1.2.3:25").await;
    let mut client = world.client("10.1.2.3:25").await;
    assert_eq!(read_all(&mut client).await, None);
    let record = world.record().await;
    assert_eq!(story(&record), ("denied", "no-rule", CloseReason::Denied));
    assert!(record.explanation.unwrap().contains("db"), "the nearest rule is named");
    assert!(world.net.dialled().is_empty());
    assert!(world.questions.lock().unwrap().is_empty());
}

#[tokio::test]
async fn where_no_rule_could_allow_it_a_brief_look_names_the_host_for_the_record() {
    let world = World::start(POLICY, ZONE).await;
    let mut client = world.client("93.184.216.34:8443").await;
    client.write_all(&super::tls::hello_for("www.ok.example")).await.unwrap();
    let heard = read_all(&mut client).await.unwrap();
    assert_eq!(heard, crate::tls::server_gate::ACCESS_DENIED_ALERT);
    let record = world.record().await;
    assert_eq!(story(&record), ("denied", "no-rule", CloseReason::Denied));
    assert_eq!((record.protocol.as_str(), record.host.as_deref()), ("tls", Some("www.ok.example")));
    assert!(world.net.dialled().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_brief_look_waits_for_nobody() {
    let world = World::start(POLICY, ZONE).await;
    let began = Instant::now();
    let mut client = world.client("93.184.216.34:8443").await;
    assert_eq!(read_all(&mut client).await, None);
    assert!(began.elapsed() < Duration::from_millis(200));
    assert_eq!(story(&world.record().await), ("denied", "no-rule", CloseReason::Denied));
}

#[tokio::test]
async fn a_connection_that_was_not_redirected_is_refused() {
    let world = World::start(POLICY, ZONE).await;
    let mut client = world.client_to(None).await;
    assert_eq!(read_all(&mut client).await, None);
    let record = world.record().await;
    assert_eq!(story(&record), ("denied", "not-redirected", CloseReason::Denied));
    assert_eq!(record.original_dst, None);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_refused_at_the_deadline() {
    let world = World::start(POLICY, ZONE).await;
    let began = Instant::now();
    let mut client = world.client("93.184.216.34:443").await;
    client.write_all(&[0x16, 3, 1, 2]).await.unwrap();
    let heard = read_all(&mut client).await.unwrap();
    assert_eq!(heard, crate::tls::server_gate::ACCESS_DENIED_ALERT);
    assert!(began.elapsed() >= Duration::from_secs(5) && began.elapsed() < Duration::from_secs(6));
    assert_eq!(story(&world.record().await), ("denied", "classify-timeout", CloseReason::Denied));
    assert!(world.net.dialled().is_empty());
}

#[tokio::test]
async fn a_client_that_closes_early_is_recorded() {
    let world = World::start(POLICY, ZONE).await;
    drop(world.client("93.184.216.34:443").await);
    assert_eq!(story(&world.record().await), ("denied", "classify-eof", CloseReason::Denied));
}

#[tokio::test]
async fn audit_passes_to_the_original_destination() {
    let audit = POLICY.replace("spec:\n", "spec:\n  mode: audit\n  auditUntil: 9999-12-31\n");
    let world = World::start(&audit, ZONE).await;
    let origin = world.origin("203.0.114.9:25").await;
    let mut client = world.client("203.0.114.9:25").await;
    let (mut server, _) = origin.accept().await.unwrap();
    exchange(&mut client, &mut server, b"HELO").await;
    drop((client, server));
    let record = world.record().await;
    assert_eq!(story(&record), ("would-deny", "no-rule", CloseReason::Done));
    assert!(record.explanation.is_some());
}
