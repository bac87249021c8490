//! TLS that is opened: the server is verified first, the client is answered in its name, each request is judged.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use sidegate_certs::tls::{HTTP1, Origin, system_time};
use sidegate_policy::{CanonicalPath, HostEvidence, HostName, Observed, Reason, decision::TlsMode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{
    super::decide::{Facts, Requested, decide},
    requests::{get, sealed_origin},
    *,
};
use crate::addrs::OriginalDst;

const SITE: &str = "93.184.216.34:443";

const RULES: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: test }
spec:
  egress:
    - name: seen
      to: [ { hosts: [ www.ok.example, old.ok.example ] } ]
      ports: [ 443 ]
      tls: { mode: inspect }
      http: [ { methods: [ GET ], paths: [ "/v1/**" ] } ]
"#;

/// A client's TLS over a captured connection, believing `pem` alone.
pub(super) async fn sealed(
    world: &World,
    address: &str,
    host: &str,
    pem: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let origin = Origin::from_pem(pem.as_bytes()).unwrap();
    let config = origin.client(None, &[HTTP1], system_time()).unwrap();
    let socket = world.client(address).await;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host.to_owned()).unwrap(), socket).await
}

async fn asked(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str, host: &str) -> (u16, String) {
    stream.write_all(get(path, host).as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    (head[9..12].parse().unwrap(), String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn each_request_inside_is_judged() {
    let world = World::start(RULES, ZONE).await;
    let seen = sealed_origin(world.origin("93.184.216.34:443").await, &[HTTP1]);
    let pem = world.worker.gate.inspection.authority_pem().unwrap();
    let mut client = sealed(&world, SITE, "www.ok.example", &pem).await.unwrap();
    assert_eq!(asked(&mut client, "/v1/a", "www.ok.example").await, (200, "sealed".to_owned()));
    assert_eq!(asked(&mut client, "/v2/a", "www.ok.example").await.0, 403);
    // Another name inside than the one that was verified and minted for.
    assert_eq!(asked(&mut client, "/v1/a", "old.ok.example").await.0, 403);
    assert_eq!(asked(&mut client, "/v1/b", "www.ok.example").await.0, 200);
    client.shutdown().await.unwrap();
    let records = world.records(4).await;
    let told: Vec<&str> = records.iter().map(|record| record.reason.as_str()).collect();
    assert_eq!(told, ["rule-allows", "http-not-allowed", "host-mismatch", "rule-allows"]);
    assert!(records.iter().all(|record| record.host.as_deref() == Some("www.ok.example")));
    assert_eq!(records[0].tls.as_ref().unwrap().version.as_deref(), Some("1.3"));
    assert_eq!(*seen.lock().unwrap(), ["HTTP/1.1 GET /v1/a", "HTTP/1.1 GET /v1/b"]);
    assert_eq!(world.net.dialled().len(), 1, "the connection that was verified serves the first request");
}

#[tokio::test]
async fn nothing_is_minted_for_a_server_that_cannot_be_verified() {
    let world = World::start(RULES, ZONE).await;
    // It serves the certificate of another name.
    let seen = sealed_origin(world.origin("93.184.216.35:443").await, &[HTTP1]);
    let pem = world.worker.gate.inspection.authority_pem().unwrap();
    let refused = sealed(&world, SITE, "old.ok.example", &pem).await.unwrap_err();
    let record = world.record().await;
    assert_eq!(
        (record.reason.as_str(), record.close_reason),
        ("upstream-certificate", CloseReason::ConnectFailed)
    );
    assert!(seen.lock().unwrap().is_empty(), "{refused}");
}

#[tokio::test]
async fn a_client_that_pins_its_server_fails_closed() {
    let world = World::start(RULES, ZONE).await;
    let seen = sealed_origin(world.origin("93.184.216.34:443").await, &[HTTP1]);
    let stranger = crate::inspection::Inspection::new().authority_pem().unwrap();
    sealed(&world, SITE, "www.ok.example", &stranger).await.unwrap_err();
    let record = world.record().await;
    assert_eq!(
        (record.reason.as_str(), record.close_reason),
        ("inspection-refused", CloseReason::TlsRefused)
    );
    assert!(seen.lock().unwrap().is_empty());
}

/// Any bytes to the same address, by its own exemption.
const PLAIN: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: test }
spec:
  egress:
    - name: anything
      reason: "bytes pass as they are"
      to: [ { cidrs: [ 93.184.216.0/24 ] } ]
      ports: [ 443 ]
      protocol: tcp
      tls: { mode: none }
"#;

#[tokio::test]
async fn what_was_opened_is_closed_when_the_policy_would_carry_it_otherwise() {
    for rules in [PLAIN.to_owned(), RULES.replace("tls: { mode: inspect }", "").replace("http: [", "#")] {
        let world = World::start(RULES, ZONE).await;
        let seen = sealed_origin(world.origin("93.184.216.34:443").await, &[HTTP1]);
        let pem = world.worker.gate.inspection.authority_pem().unwrap();
        let mut client = sealed(&world, SITE, "www.ok.example", &pem).await.unwrap();
        assert_eq!(asked(&mut client, "/v1/a", "www.ok.example").await.0, 200);
        world.worker.gate.policies.replace(policies(&rules, 2));
        let mut rest = Vec::new();
        assert!(client.read_to_end(&mut rest).await.is_err() && rest.is_empty(), "{rules}");
        assert_eq!(world.record().await.reason, "rule-allows", "its one request");
        assert_eq!(seen.lock().unwrap().len(), 1);
    }
}

#[test]
fn what_was_opened_never_goes_on_as_it_is() {
    let opened = |yaml: &str, http: bool| {
        let requested = Requested {
            upgrade: None,
            bare: true,
            session: false,
            method: "GET".into(),
            path: CanonicalPath::parse("/v2/a").unwrap(),
        };
        let facts = Facts {
            client: None,
            peer: None,
            arrival: sidegate_policy::Arrival::Plain,
            host: Some((HostEvidence::Sni, HostName::parse("www.ok.example").unwrap())),
            original: OriginalDst::new("93.184.216.34:443".parse().unwrap()),
            synthetic: false,
            observed: Observed::Tls { offers_tls13: true, ech: false },
            flaw: None,
            http: http.then_some(requested),
            certificate: None,
            unseen: false,
        };
        decide(&policies(yaml, 1), Arc::new(facts))
    };
    // The naive reading: the rule allows these bytes in plaintext.
    assert_eq!(opened(PLAIN, false).unwrap().treatment().tls, TlsMode::None);
    assert_eq!(opened(PLAIN, true).unwrap_err().decision.reason, Reason::CarriedOtherwise);
    let audit = "spec: { mode: audit, auditUntil: 2999-12-31 }";
    let audit = RULES.split("spec:").next().unwrap().to_owned() + audit;
    assert_eq!(opened(&audit, false).unwrap().treatment().tls, TlsMode::None);
    assert_eq!(opened(&audit, true).unwrap().treatment().tls, TlsMode::Inspect);
}
