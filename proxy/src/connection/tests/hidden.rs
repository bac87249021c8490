//! A deny by host beside an address rule: hiding the host must not walk round it.

use super::{tls::hello_for, *};
use crate::tls::testing::HelloBuilder;

const SITE: &str = "93.184.216.34:443";
const ALLOW: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: test }
spec:
  egress:
    - name: net
      reason: "whatever they speak"
      to: [ { cidrs: [ 93.0.0.0/8 ] } ]
      ports: [ 443 ]
      protocol: tcp
      tls: { mode: none }
"#;
const DENY: &str = r#"
    - name: no-evil
      action: deny
      to: [ { hosts: [ evil.example ] } ]
      ports: [ 443 ]
"#;

const DENY_HTTP: &str = "
    - name: no-plaintext
      action: deny
      to: [ { cidrs: [ 93.184.0.0/16 ] } ]
      ports: [ 443 ]
      protocol: http
";

/// What the client sends first, and the reason that it is refused for.
fn attacks() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let hello = hello_for("evil.example");
    let http = |head: &str| head.as_bytes().to_vec();
    vec![
        ("the name itself", hello.clone(), "rule-denies"),
        ("a trailing dot", HelloBuilder::new("evil.example.").record(), "host-invalid"),
        ("a NUL", HelloBuilder::new("evil.example\0").record(), "host-invalid"),
        ("half a hello", hello.get(..100).unwrap().to_vec(), "classify-timeout"),
        ("silence", Vec::new(), "classify-timeout"),
        ("a bare LF", http("GET / HTTP/1.1\nHost: evil.example\n\n"), "http-malformed"),
        ("an empty line first", http("\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"), "http-malformed"),
        (
            "two hosts",
            http("GET / HTTP/1.1\r\nHost: a.example\r\nHost: evil.example\r\n\r\n"),
            "http-malformed",
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn no_hidden_host_passes_by_an_address_rule() {
    for (name, bytes, reason) in attacks() {
        let world = World::start(&format!("{ALLOW}{DENY}"), ZONE).await;
        let _origin = world.origin(SITE).await;
        let mut client = world.client(SITE).await;
        client.write_all(&bytes).await.unwrap();
        read_all(&mut client).await;
        let record = world.record().await;
        assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("denied", reason), "{name}");
        assert_eq!(record.rule.as_deref(), Some("no-evil"), "{name}");
        assert!(world.net.dialled().is_empty(), "{name}");
    }
}

/// The negative control: where no host is denied, each of them passes to the same address.
#[tokio::test(start_paused = true)]
async fn without_a_deny_by_host_the_same_bytes_pass() {
    for (name, bytes, _) in attacks() {
        let world = World::start(ALLOW, ZONE).await;
        let origin = world.origin(SITE).await;
        let mut client = world.client(SITE).await;
        client.write_all(&bytes).await.unwrap();
        origin.accept().await.unwrap();
        assert_eq!(world.net.dialled(), [SITE], "{name}");
    }
}

#[tokio::test]
async fn what_shows_another_host_or_names_none_still_passes() {
    let other = hello_for("fine.example");
    for bytes in [other.as_slice(), b"\x00\x01opaque"] {
        let world = World::start(&format!("{ALLOW}{DENY}"), ZONE).await;
        let origin = world.origin(SITE).await;
        let mut client = world.client(SITE).await;
        client.write_all(bytes).await.unwrap();
        origin.accept().await.unwrap();
        assert_eq!(world.net.dialled(), [SITE]);
    }
}

/// A connection that nobody looked at, since no rule asked for it: a deny by host that comes later can't be told not to
/// mean it.
#[tokio::test]
async fn a_deny_by_host_closes_what_was_never_looked_at() {
    let with_deny = format!("{ALLOW}{DENY}");
    for (later, ends) in [(with_deny.as_str(), true), (ALLOW, false)] {
        let world = World::start(ALLOW, ZONE).await;
        let origin = world.origin(SITE).await;
        let mut client = world.client(SITE).await;
        client.write_all(&hello_for("evil.example")).await.unwrap();
        let (mut server, _) = origin.accept().await.unwrap();
        world.worker.gate.policies.replace(policies(later, 2));
        if ends {
            assert_eq!(read_all(&mut client).await, None);
            let record = world.record().await;
            assert_eq!(story(&record), ("denied", "host-hidden", CloseReason::PolicyChanged));
            assert_eq!(record.rule.as_deref(), Some("no-evil"));
        } else {
            server.write_all(b"goes on").await.unwrap();
            client.read_exact(&mut [0; 7]).await.unwrap();
        }
    }
}

/// Opaque by name, to wherever the name leads; a deny there of one protocol alone.
const NAMED: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: test }
spec:
  egress:
    - name: inside
      reason: "speaks first"
      to: [ { hosts: [ inside.ok.example ], private: true } ]
      ports: [ 5432 ]
      protocol: tcp
      tls: { mode: none }
    - name: no-plaintext
      action: deny
      to: [ { cidrs: [ 10.7.0.0/16 ] } ]
      ports: [ PORT ]
      protocol: http
"#;

/// Nobody looks at what goes to a synthetic address: it may be what is denied where the name leads.
#[tokio::test]
async fn a_deny_of_a_protocol_holds_where_nobody_looked() {
    for (port, passes) in [("5432", false), ("80", true)] {
        let world = World::start(&NAMED.replace("PORT", port), ZONE).await;
        let origin = world.origin("10.7.7.7:5432").await;
        let host = sidegate_policy::HostName::parse("inside.ok.example").unwrap();
        let (v4, _) = world.worker.gate.synthetic.assign(&host).unwrap();
        let mut client = world.client(&format!("{v4}:5432")).await;
        if passes {
            origin.accept().await.unwrap();
            continue;
        }
        client.write_all(b"GET / HTTP/1.1\r\nHost: inside.ok.example\r\n\r\n").await.unwrap();
        let heard = read_all(&mut client).await.unwrap();
        assert!(heard.starts_with(b"HTTP/1.1 403 "));
        let record = world.record().await;
        assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("denied", "rule-denies"));
        assert!(world.net.dialled().is_empty());
    }
}

/// Waiting out the look, or hiding the request behind an empty line, makes no other protocol of it.
#[tokio::test(start_paused = true)]
async fn a_deny_of_http_is_not_waited_out() {
    for (bytes, reason) in [(&b""[..], "classify-timeout"), (b"\r\nGET / HTTP/1.1\r\n", "http-malformed")] {
        for (policy, denied) in [(format!("{ALLOW}{DENY_HTTP}"), true), (ALLOW.to_owned(), false)] {
            let world = World::start(&policy, ZONE).await;
            let origin = world.origin(SITE).await;
            let mut client = world.client(SITE).await;
            client.write_all(bytes).await.unwrap();
            if denied {
                read_all(&mut client).await;
                let record = world.record().await;
                assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("denied", reason));
                assert_eq!(record.rule.as_deref(), Some("no-plaintext"));
            } else {
                origin.accept().await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_later_deny_of_a_protocol_closes_what_was_never_looked_at() {
    let world = World::start(ALLOW, ZONE).await;
    let origin = world.origin(SITE).await;
    let mut client = world.client(SITE).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    let (_server, _) = origin.accept().await.unwrap();
    world.worker.gate.policies.replace(policies(&format!("{ALLOW}{DENY_HTTP}"), 2));
    assert_eq!(read_all(&mut client).await, None);
    assert_eq!(story(&world.record().await), ("denied", "rule-denies", CloseReason::PolicyChanged));
}
