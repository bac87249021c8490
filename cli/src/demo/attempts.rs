//! What the demo's application tries, and what must become of it.

use std::net::SocketAddr;

use super::world::{API, API_V6, ATTACKER, DATABASE, METADATA, OLD};

/// One attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    /// In words.
    pub(super) title: &'static str,
    /// What is done.
    pub(super) act: Act,
    /// The verdict and the reason that the access record must carry; `None`: the kernel refuses before any packet.
    pub(super) expected: Option<(&'static str, &'static str)>,
    /// Whether the application must get its answer.
    pub(super) succeeds: bool,
}

/// What an attempt does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// A TLS handshake by name, and one line each way.
    Tls(SocketAddr, &'static str),
    /// Plaintext HTTP.
    Plain(SocketAddr),
    /// One datagram.
    Datagram(SocketAddr),
    /// A question for an address, to this server.
    Ask(SocketAddr, &'static str),
    /// A connection to whatever address DNS gives for the name, to a server that speaks first.
    ByName(&'static str, u16),
    /// A connection to an address, to a server that speaks first.
    Listen(SocketAddr),
    /// A request by name to the same server, over TLS that the application opens itself or in plaintext.
    Request { method: &'static str, host: &'static str, sealed: bool },
    /// An ICMP socket.
    Icmp,
}

/// A policy that allows two names over TLS 1.3 and one database by name, adds TLS to what is sent to a third name, and reads
/// what is sent to a fourth.
pub(super) const POLICY: &str = "\
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: demo }
spec:
  egress:
    - name: web
      to: [ { hosts: [ api.demo.test, old.demo.test ] } ]
      ports: [ 443 ]
    - name: database
      reason: \"its protocol begins without TLS\"
      to: [ { hosts: [ db.demo.test ] } ]
      ports: [ 5432 ]
      protocol: tcp
      tls: { mode: none }
    - name: sealed
      to: [ { hosts: [ plain.demo.test ] } ]
      ports: [ 443 ]
      protocol: http
      tls: { mode: originate, roots: demo }
    - name: read
      to: [ { hosts: [ seen.demo.test ] } ]
      ports: [ 443 ]
      tls: { mode: inspect, roots: demo }
      http: [ { methods: [ GET ], paths: [ \"/**\" ] } ]
";

/// Every attempt, in order.
pub(super) fn all() -> Vec<Attempt> {
    let api = SocketAddr::from((API, 443));
    let api6 = SocketAddr::from((API_V6, 443));
    let attacker = |port| SocketAddr::from((ATTACKER, port));
    let stub = SocketAddr::from(([127, 0, 0, 1], 53));
    let allowed = Some(("allowed", "rule-allows"));
    let denied = |reason| Some(("denied", reason));
    let attempt = |title, act, expected, succeeds| Attempt { title, act, expected, succeeds };
    vec![
        attempt("an allowed name over TLS 1.3", Act::Tls(api, "api.demo.test"), allowed, true),
        attempt(
            "another name at the same address",
            Act::Tls(api, "evil.demo.test"),
            denied("no-rule"),
            false,
        ),
        attempt(
            "allowed name, but attacker's address",
            Act::Tls(attacker(443), "api.demo.test"),
            allowed,
            true,
        ),
        attempt(
            "a server that selects TLS 1.2",
            Act::Tls((OLD, 443).into(), "old.demo.test"),
            denied("tls-version-server"),
            false,
        ),
        attempt("plaintext HTTP on port 443", Act::Plain(api), denied("tls-required"), false),
        attempt("QUIC (UDP 443)", Act::Datagram(api), denied("udp-refused"), false),
        attempt(
            "another resolver, a forbidden name",
            Act::Ask(attacker(53), "evil.demo.test"),
            denied("name-not-allowed"),
            false,
        ),
        attempt(
            "a secret in the labels of a name",
            Act::Ask(stub, "c2vjcmv0.exfil.evil.test"),
            denied("name-not-allowed"),
            false,
        ),
        attempt("the cloud's metadata", Act::Plain((METADATA, 80).into()), denied("address-metadata"), false),
        attempt("an allowed name over IPv6", Act::Tls(api6, "api.demo.test"), allowed, true),
        attempt("a forbidden name over IPv6", Act::Tls(api6, "evil.demo.test"), denied("no-rule"), false),
        attempt("ICMP, from a socket of its own", Act::Icmp, None, false),
        attempt("a database by name, server first", Act::ByName("db.demo.test", 5432), allowed, true),
        attempt(
            "the same database by address",
            Act::Listen((DATABASE, 5432).into()),
            denied("no-rule"),
            false,
        ),
        attempt(
            "the proxy's own port",
            Act::Listen(([127, 0, 0, 1], 15001).into()),
            denied("address-own-listener"),
            false,
        ),
        attempt(
            "plaintext; the proxy adds TLS 1.3",
            Act::Request { method: "GET", host: "plain.demo.test", sealed: false },
            allowed,
            true,
        ),
        attempt(
            "a GET inside TLS that is inspected",
            Act::Request { method: "GET", host: "seen.demo.test", sealed: true },
            allowed,
            true,
        ),
        attempt(
            "a POST inside the same",
            Act::Request { method: "POST", host: "seen.demo.test", sealed: true },
            denied("http-not-allowed"),
            false,
        ),
    ]
}
