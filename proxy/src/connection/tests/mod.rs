//! The whole pipeline over loopback: what the client sees, what the far end sees, what the record says.

use sidegate_api::{AccessRecord, CloseReason};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::world::{World, policies};

mod continues;
mod draining;
mod endings;
mod floods;
mod given;
mod hidden;
mod http;
mod inbound;
mod inspected;
mod limits;
mod mesh;
mod metadata;
mod naive;
mod names;
mod opaque;
mod originated;
mod policy_changes;
mod rates;
mod relaying;
mod requests;
mod smuggling;
mod splits;
mod streaming;
mod tls;
mod upgrades;

/// One database by address, one site by name, one old site.
pub(super) const POLICY: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: test }
spec:
  egress:
    - name: db
      reason: "a database that speaks first"
      to: [ { cidrs: [ 10.0.0.0/8 ] } ]
      ports: [ 5432 ]
      protocol: tcp
      tls: { mode: none }
    - name: site
      to: [ { hosts: [ www.ok.example ] } ]
      ports: [ 443 ]
    - name: old
      reason: "not upgraded yet"
      to: [ { hosts: [ old.ok.example ] } ]
      ports: [ 443 ]
      tls: { mode: passthrough, min: "1.2" }
    - name: inside
      to: [ { hosts: [ inside.ok.example ], private: true } ]
      ports: [ 443 ]
"#;

/// Names of the tests' resolver.
pub(super) const ZONE: &[(&str, &[&str])] = &[
    ("www.ok.example", &["93.184.216.34"]),
    ("old.ok.example", &["93.184.216.35"]),
    ("inside.ok.example", &["10.7.7.7"]),
];

pub(super) const DB: &str = "10.1.2.3:5432";

/// The fields that say how it went.
pub(super) fn story(record: &AccessRecord) -> (&str, &str, CloseReason) {
    (&record.verdict, &record.reason, record.close_reason)
}

/// Reads until the end; `None`: a reset.
pub(super) async fn read_all(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes).await {
        Ok(_) => Some(bytes),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            None
        }
    }
}

/// A connection through the proxy: both its ends.
pub(super) async fn joined(world: &World, origin: &tokio::net::TcpListener) -> (TcpStream, TcpStream) {
    let client = world.client(DB).await;
    let (server, _) = origin.accept().await.unwrap();
    (client, server)
}

/// The same words there and back.
pub(super) async fn exchange(client: &mut TcpStream, server: &mut TcpStream, words: &[u8]) {
    say(client, server, words).await;
    say(server, client, words).await;
}

async fn say(from: &mut TcpStream, to: &mut TcpStream, words: &[u8]) {
    from.write_all(words).await.unwrap();
    let mut heard = vec![0; words.len()];
    to.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, words);
}
