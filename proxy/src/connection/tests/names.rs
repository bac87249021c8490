use super::{tls::hello_for, *};
use crate::tls::server_gate::ACCESS_DENIED_ALERT;

/// Sends a hello to `destination` and returns what comes back before the proxy closes.
async fn refused(world: &World, destination: &str, host: &str) -> Vec<u8> {
    let mut client = world.client(destination).await;
    client.write_all(&hello_for(host)).await.unwrap();
    read_all(&mut client).await.expect("an alert, not a reset")
}

#[tokio::test]
async fn a_name_is_resolved_here_and_the_clients_address_is_never_dialled() {
    let world = World::start(POLICY, ZONE).await;
    let attacker = world.origin("198.41.0.4:443").await;
    let origin = world.origin("93.184.216.34:443").await;
    let mut client = world.client("198.41.0.4:443").await;
    let hello = hello_for("www.ok.example");
    client.write_all(&hello).await.unwrap();
    let (mut server, _) = origin.accept().await.unwrap();
    let mut heard = vec![0; hello.len()];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, hello, "the very bytes that were judged");
    assert_eq!(world.net.dialled(), ["93.184.216.34:443"]);
    drop((attacker, server, client));
    assert_eq!(world.record().await.upstream.unwrap().to_string(), "93.184.216.34:443");
}

#[tokio::test]
async fn a_name_that_no_rule_allows_is_not_asked_for() {
    let world = World::start(POLICY, ZONE).await;
    assert_eq!(refused(&world, "93.184.216.34:443", "evil.example").await, ACCESS_DENIED_ALERT);
    let record = world.record().await;
    assert_eq!(story(&record), ("denied", "no-rule", CloseReason::Denied));
    assert_eq!((record.host.as_deref(), record.protocol.as_str()), (Some("evil.example"), "tls"));
    assert!(world.net.dialled().is_empty());
    assert!(world.questions.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_allowed_name_at_a_private_address_is_denied() {
    let world = World::start(POLICY, ZONE).await;
    assert_eq!(refused(&world, "10.0.0.9:443", "www.ok.example").await, ACCESS_DENIED_ALERT);
    assert_eq!(story(&world.record().await), ("denied", "address-private", CloseReason::Denied));
    assert!(world.net.dialled().is_empty());
}

#[tokio::test]
async fn an_allowed_name_that_resolves_to_a_private_address_is_denied_unless_it_may() {
    const LEADS_INSIDE: &[(&str, &[&str])] =
        &[("www.ok.example", &["10.7.7.7", "169.254.169.254"]), ("inside.ok.example", &["10.7.7.7"])];
    let world = World::start(POLICY, LEADS_INSIDE).await;
    assert_eq!(refused(&world, "93.184.216.34:443", "www.ok.example").await, ACCESS_DENIED_ALERT);
    let record = world.record().await;
    assert_eq!(story(&record), ("denied", "address-private", CloseReason::Denied));
    assert!(world.net.dialled().is_empty());

    let origin = world.origin("10.7.7.7:443").await;
    let mut client = world.client("10.7.7.7:443").await;
    client.write_all(&hello_for("inside.ok.example")).await.unwrap();
    origin.accept().await.unwrap();
    assert_eq!(world.net.dialled(), ["10.7.7.7:443"]);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_the_resolvers_word() {
    let world = World::start(POLICY, &[]).await;
    let mut client = world.client("93.184.216.34:443").await;
    client.write_all(&hello_for("www.ok.example")).await.unwrap();
    assert_eq!(read_all(&mut client).await, None);
    assert_eq!(story(&world.record().await), ("allowed", "resolve-not-found", CloseReason::ConnectFailed));
}

const DATABASE: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: test }
spec:
  egress:
    - name: named-db
      reason: "a database by name"
      to: [ { hosts: [ db.ok.example ] } ]
      ports: [ 5432 ]
      protocol: tcp
      tls: { mode: none }
"#;

#[tokio::test]
async fn a_synthetic_address_stands_for_its_name() {
    let world = World::start(DATABASE, &[("db.ok.example", &["93.184.216.36"])]).await;
    let host = sidegate_policy::HostName::parse("db.ok.example").unwrap();
    let (v4, _) = world.worker.gate.synthetic.assign(&host).unwrap();
    let origin = world.origin("93.184.216.36:5432").await;
    let mut client = world.client(&format!("{v4}:5432")).await;
    let (mut server, _) = origin.accept().await.unwrap();
    exchange(&mut client, &mut server, b"select 1").await;
    drop((client, server));
    let record = world.record().await;
    assert_eq!(record.host.as_deref(), Some("db.ok.example"));
    assert_eq!(world.net.dialled(), ["93.184.216.36:5432"]);

    // The address that the name has now does not inherit the name's permission.
    let mut client = world.client("93.184.216.36:5432").await;
    assert_eq!(read_all(&mut client).await, None);
    assert_eq!(world.records(2).await[1].verdict, "denied");
}
