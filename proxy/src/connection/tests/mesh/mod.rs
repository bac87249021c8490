//! To workloads over the mesh: a real server of the mesh stands at the other end.

mod changes;
mod faults;
mod flow;
mod http;

use std::sync::Arc;

use rustls::time_provider::TimeProvider;

use super::*;
use crate::{
    identity::Identities,
    mesh::{
        Membership, Vigil,
        tests::world::{Clock, World as Far, id},
    },
    peers::{Peer, Peers},
    settings::Settings,
};

/// Where the workload is, as the application dials it.
const ORDERS: &str = "10.0.0.7:8080";
/// Where its proxy is.
const ORDERS_MESH: &str = "10.0.0.7:15008";

const RULES: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: test }
spec:
  egress:
    - name: orders
      to: [ { workloads: [ "spiffe://example.org/server", "spiffe://example.org/other" ] } ]
      ports: [ 8080 ]
      protocol: tcp
    - name: neighbours
      reason: "not in the mesh yet"
      to: [ { cidrs: [ 10.9.0.0/16 ] } ]
      ports: [ 8080 ]
      protocol: tcp
      tls: { mode: none }
"#;

/// A workload of ours, and a far one with its application.
struct Pair {
    near: World,
    far: Far,
    membership: Membership,
}

impl Pair {
    async fn new() -> Pair {
        Self::with(RULES, Settings::default()).await
    }

    async fn with(rules: &str, settings: Settings) -> Pair {
        let far = Far::new().await;
        let mut identities = Identities::empty(id("x").trust_domain());
        identities.identity = Arc::clone(&far.ours);
        identities.trust = Arc::clone(&far.trust);
        let time: Arc<dyn TimeProvider> = Arc::<Clock>::clone(&far.clock);
        let membership = Membership::at(Arc::new(identities), time);
        let near = World::of_member(rules, ZONE, settings, membership.clone()).await;
        near.net.route(ORDERS_MESH, far.at.socket_addr());
        let pair = Pair { near, far, membership };
        pair.know(&[("server", "10.0.0.7")]);
        pair
    }

    /// Replaces the table of peers.
    fn know(&self, peers: &[(&str, &str)]) {
        let peer = |(name, address): &(&str, &str)| Peer {
            id: id(name),
            addresses: vec![address.parse().unwrap()],
            port: 15008,
            hosts: Vec::new(),
        };
        self.near.worker.gate.policies.replace_peers(Peers::new(peers.iter().map(peer).collect()));
    }

    /// A connection to the workload: the client's end and the application's.
    async fn joined(&self) -> (TcpStream, TcpStream) {
        let (client, app) = tokio::join!(self.near.client(ORDERS), self.far.app.accept());
        (client, app.unwrap().0)
    }

    /// Connects and is told that it comes to nothing.
    async fn refused(&self) -> AccessRecord {
        let mut client = self.near.client(ORDERS).await;
        client.write_all(b"secret words").await.unwrap();
        assert_eq!(read_all(&mut client).await, None);
        self.near.record().await
    }

    fn vigil(&self) -> Vigil {
        Vigil::new(self.membership.clone())
    }
}

/// Whom the record says to be at the far end.
fn peer(record: &AccessRecord) -> (Option<&str>, Option<&str>) {
    let tls = record.tls.as_ref();
    (tls.and_then(|tls| tls.version.as_deref()), tls.and_then(|tls| tls.peer.as_deref()))
}

#[tokio::test]
async fn a_workload_is_reached_over_the_mesh_and_the_record_says_who_it_is() {
    let pair = Pair::new().await;
    let (mut client, mut app) = pair.joined().await;
    exchange(&mut client, &mut app, b"plaintext").await;
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut app).await.as_deref(), Some(&b""[..]));
    app.write_all(b"the end").await.unwrap();
    app.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await.as_deref(), Some(&b"the end"[..]));
    let record = pair.near.record().await;
    assert_eq!(story(&record), ("allowed", "rule-allows", CloseReason::Done));
    assert_eq!(peer(&record), (Some("1.3"), Some("spiffe://example.org/server")));
    assert_eq!(record.upstream.unwrap().to_string(), ORDERS_MESH);
    assert_eq!(record.original_dst.unwrap().to_string(), ORDERS);
    assert_eq!((record.bytes_sent, record.bytes_received, record.rule.as_deref()), (9, 16, Some("orders")));
    let asked = pair.far.behind.asked.lock().unwrap().clone();
    assert_eq!(
        (asked[0].peer.as_str(), asked[0].destination.to_string()),
        ("spiffe://example.org/client", ORDERS.to_owned())
    );
    assert_eq!(pair.near.net.dialled(), [ORDERS_MESH], "nothing else was dialled");
}

#[tokio::test]
async fn connections_share_one_handshake_and_are_told_apart() {
    let pair = Pair::new().await;
    let mut joined = Vec::new();
    for _ in 0..20 {
        joined.push(pair.joined().await);
    }
    for (number, (client, app)) in joined.iter_mut().enumerate() {
        exchange(client, app, format!("number {number}").as_bytes()).await;
    }
    assert_eq!(pair.far.handshakes(), 1);
    let told = pair.near.worker.live.tell();
    assert!(
        told.len() == 20 && told.iter().all(|one| one.peer.as_deref() == Some("spiffe://example.org/server"))
    );
}

#[tokio::test]
async fn an_address_of_nobody_is_none_of_the_rules() {
    let pair = Pair::new().await;
    pair.know(&[]);
    assert_eq!(story(&pair.refused().await), ("denied", "no-rule", CloseReason::Denied));
    assert!(pair.near.net.dialled().is_empty());
}

#[tokio::test]
async fn a_peer_that_no_rule_names_is_not_reached() {
    let pair = Pair::new().await;
    pair.know(&[("stranger", "10.0.0.7")]);
    assert_eq!(story(&pair.refused().await), ("denied", "no-rule", CloseReason::Denied));
    assert!(pair.near.net.dialled().is_empty());
}

#[tokio::test]
async fn a_deny_by_workload_holds_for_the_names_that_lead_to_it() {
    const INSIDE: &str = r#"
    - name: inside
      reason: "by name"
      to: [ { hosts: [ inside.ok.example ], private: true } ]
      ports: [ 443 ]
"#;
    const NEVER: &str = r#"
    - name: never
      action: deny
      to: [ { workloads: [ "spiffe://example.org/*" ] } ]
      ports: [ "1-65535" ]
"#;
    let hello = super::tls::hello_for("inside.ok.example");
    for (denied, reason) in [(false, "rule-allows"), (true, "rule-denies")] {
        let rules = format!("{RULES}{INSIDE}{}", if denied { NEVER } else { "" });
        let pair = Pair::with(&rules, Settings::default()).await;
        // Another address of the name than the one that the application chose.
        pair.know(&[("server", "10.7.7.7")]);
        let origin = pair.near.origin("10.7.7.7:443").await;
        let mut client = pair.near.client("10.0.0.9:443").await;
        client.write_all(&hello).await.unwrap();
        if denied {
            read_all(&mut client).await;
            assert!(pair.near.net.dialled().is_empty());
        } else {
            drop((client, origin.accept().await.unwrap()));
        }
        assert_eq!(pair.near.record().await.reason, reason);
    }
}
