//! Connections towards the workload: captured, ended, or of the mesh.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use sidegate_certs::{
    Authority, Identity, IdentityCell, PrivateKey, Profile, TrustBundle, TrustStore, UnixTime, lifetime,
    tls::{TrustCell, mesh_client, system_time},
};
use sidegate_policy::{SpiffeId, TrustDomain};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::super::{
    connect::dial,
    world::{World, policies},
};
use crate::{
    addrs::{OriginalDst, UpstreamAddr},
    mesh::{Mesh, MeshSetup, MeshStream, OpenError, Roster},
    reception::{GivenCell, Reception, ReceptionSetup},
    settings::Settings,
};

pub(super) const APP: &str = "10.9.0.2:8080";
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn ingress(rules: &str) -> String {
    format!(
        "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: {{ name: p }}\nspec:\n  \
         probes: [ {{ port: 8080, path: /healthz }} ]\n  ingress:\n{rules}"
    )
}

const PLAIN: &str = "    - { name: near, from: [ { cidrs: [ 127.0.0.0/8 ] } ], ports: [ 8080 ], protocol: tcp, tls: { mode: none }, reason: test }\n";
const FAR: &str = "    - { name: far, from: [ { cidrs: [ 192.0.2.0/24 ] } ], ports: [ 8080 ], protocol: tcp, tls: { mode: none }, reason: test }\n";
const MESH: &str = "    - { name: web, from: [ { workloads: [ \"spiffe://example.org/web\" ] } ], ports: [ 8080 ], protocol: tcp }\n";
const MESH_HTTP: &str = "    - { name: web, from: [ { workloads: [ \"spiffe://example.org/web\" ] } ], ports: [ 8080 ], protocol: http, \
    forwarded: true, http: [ { methods: [ GET ] } ] }\n";
const TERMINATE: &str = "    - { name: tls, from: [ { cidrs: [ 127.0.0.0/8 ] } ], ports: [ 8080 ], proxyProtocol: true, tls: { mode: terminate } }\n";
const HTTP: &str = "    - { name: web, from: [ { cidrs: [ 127.0.0.0/8 ] } ], ports: [ 8080 ], protocol: http, forwarded: true, \
    tls: { mode: none }, reason: test, http: [ { methods: [ GET ] } ] }\n";

/// Who vouches for the workloads of a test.
pub(super) struct Domain(pub(super) Authority);

impl Domain {
    pub(super) fn new(name: &str) -> Self {
        let domain = TrustDomain::parse(name).unwrap();
        let now = UnixTime::now();
        Domain(Authority::root(&domain, PrivateKey::generate().unwrap(), now, lifetime::ROOT).unwrap())
    }

    pub(super) fn trust(&self) -> Arc<TrustCell> {
        let root = self.0.root_certificate().unwrap().clone();
        let bundle = TrustBundle::from_roots(self.0.trust_domain().clone(), vec![root]).unwrap();
        Arc::new(TrustCell::new(TrustStore::new([bundle])))
    }

    pub(super) fn cell(&self, path: &str) -> Arc<IdentityCell> {
        let cell = IdentityCell::empty();
        cell.replace(self.identity(path));
        Arc::new(cell)
    }

    pub(super) fn identity(&self, path: &str) -> Identity {
        let key = PrivateKey::generate().unwrap();
        let id = SpiffeId::parse(&format!("spiffe://{}/{path}", self.0.trust_domain().as_str())).unwrap();
        let profile = Profile::new(id, lifetime::LEAF).unwrap();
        Identity::new(self.0.issue(key.public(), &profile, UnixTime::now()).unwrap(), &key).unwrap()
    }
}

fn app() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/app").unwrap()
}

fn reception(identity: Arc<IdentityCell>, trust: Arc<TrustCell>) -> Reception {
    receiving(identity, trust, BTreeMap::new())
}

/// With certificates by label.
pub(super) fn receiving(
    identity: Arc<IdentityCell>,
    trust: Arc<TrustCell>,
    given: BTreeMap<Box<str>, Arc<GivenCell>>,
) -> Reception {
    let setup = ReceptionSetup {
        identity,
        trust,
        given,
        roster: Arc::new(Roster::new()),
        local: Arc::new(|| Ok(vec![IpAddr::from([10, 9, 0, 2]), IpAddr::from([127, 0, 0, 1])])),
        own_ports: vec![15001, 15020],
        patience: PATIENCE,
    };
    Reception::new(setup).unwrap()
}

/// A world whose proxy has the identity `app`.
async fn world(rules: &str) -> (World, Domain) {
    let domain = Domain::new("example.org");
    let reception = reception(domain.cell("app"), domain.trust());
    (World::with_reception(&ingress(rules), &[], Settings::default(), reception).await, domain)
}

pub(super) async fn answered(listener: &TcpListener) -> (TcpStream, Vec<u8>) {
    let (mut app, _) = listener.accept().await.unwrap();
    let mut asked = vec![0; 4096];
    let length = app.read(&mut asked).await.unwrap();
    asked.truncate(length);
    (app, asked)
}

pub(super) async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = Vec::new();
    // What was cut off may end in a reset.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn an_allowed_client_reaches_the_application() {
    let (world, _) = world(PLAIN).await;
    let listener = world.origin(APP).await;
    let mut client = world.visitor(APP).await;
    client.write_all(b"ping").await.unwrap();
    let (mut app, asked) = answered(&listener).await;
    assert_eq!(asked, b"ping");
    app.write_all(b"answer").await.unwrap();
    drop(app);
    assert_eq!(rest(&mut client).await, "answer");
    let source = client.local_addr().unwrap();
    drop(client);
    let record = world.record().await;
    assert_eq!((record.direction.as_str(), record.verdict.as_str()), ("ingress", "allowed"));
    assert_eq!((record.source, record.original_dst), (Some(source), Some(APP.parse().unwrap())));
    assert_eq!((record.bytes_sent, record.bytes_received), (4, 6));
}

#[tokio::test]
async fn what_no_rule_allows_never_reaches_the_application() {
    for (rules, reason) in [(FAR, "peer-not-allowed"), (MESH, "mesh-required"), (TERMINATE, "tls-required")] {
        let (world, _) = world(rules).await;
        let mut client = world.visitor(APP).await;
        client.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        assert_eq!(rest(&mut client).await, "");
        let record = world.record().await;
        assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("denied", reason));
        assert_eq!(world.net.dialled(), [""; 0], "{reason}");
    }
}

#[tokio::test]
async fn the_proxys_own_ports_and_direct_connections_are_refused() {
    let (world, _) = world(&PLAIN.replace("8080", "\"1-65535\"")).await;
    let mut own = world.visitor("10.9.0.2:15020").await;
    assert_eq!(rest(&mut own).await, "");
    let mut direct = TcpStream::connect(world.inbound).await.unwrap();
    assert_eq!(rest(&mut direct).await, "");
    let records = world.records(2).await;
    let mut reasons: Vec<&str> = records.iter().map(|record| record.reason.as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["address-own-listener", "not-redirected"]);
    assert!(records.iter().all(|record| record.direction == "ingress"));
    assert_eq!(world.net.dialled(), [""; 0]);
}

async fn tls(world: &World, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = world.visitor(APP).await;
    let name = ServerName::try_from("app.example").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

#[tokio::test]
async fn tls_ends_at_the_proxy_and_the_application_learns_who_called() {
    let (world, domain) = world(TERMINATE).await;
    let listener = world.origin(APP).await;
    let config = mesh_client(&domain.identity("caller"), domain.trust(), app(), system_time()).unwrap();
    let mut client = tls(&world, config).await.unwrap();
    let source = client.get_ref().0.local_addr().unwrap();
    client.write_all(b"\x01ping").await.unwrap();
    let (mut app, mut asked) = answered(&listener).await;
    while asked.len() < 28 + 5 {
        let mut more = [0; 64];
        let length = app.read(&mut more).await.unwrap();
        asked.extend_from_slice(&more[..length]);
    }
    assert_eq!(asked[..14], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11");
    assert_eq!(asked[24..26], source.port().to_be_bytes());
    assert_eq!(asked[28..], *b"\x01ping");
    app.write_all(b"answer").await.unwrap();
    drop(app);
    assert_eq!(rest(&mut client).await, "answer");
    client.shutdown().await.unwrap();
    drop(client);
    let record = world.record().await;
    let tls = record.tls.expect("it was TLS");
    assert_eq!(
        (tls.version.as_deref(), tls.peer.as_deref()),
        (Some("1.3"), Some("spiffe://example.org/caller"))
    );
    assert_eq!((record.verdict.as_str(), record.bytes_sent, record.bytes_received), ("allowed", 5, 6));
}

#[tokio::test]
async fn without_an_identity_nothing_is_shown() {
    let domain = Domain::new("example.org");
    let reception = reception(Arc::new(IdentityCell::empty()), domain.trust());
    let world = World::with_reception(&ingress(TERMINATE), &[], Settings::default(), reception).await;
    let config = || mesh_client(&domain.identity("caller"), domain.trust(), app(), system_time()).unwrap();
    tls(&world, config()).await.unwrap_err();
    assert_eq!(world.record().await.reason, "identity-missing");
    assert!(matches!(open(&world, &domain, "web", APP).await, Err(OpenError::Handshake(_))));
    assert_eq!(world.records(2).await[1].reason, "identity-missing");
}

async fn open(world: &World, domain: &Domain, path: &str, to: &str) -> Result<MeshStream, OpenError> {
    let setup = MeshSetup {
        identity: domain.cell(path),
        trust: domain.trust(),
        time: system_time(),
        roster: Arc::new(Roster::new()),
        dial: Arc::new(dial),
        limits: None,
        patience: PATIENCE,
    };
    let mesh = Mesh::new(setup);
    mesh.open(&app(), UpstreamAddr::new(world.mesh), OriginalDst::new(to.parse().unwrap())).await
}

#[tokio::test]
async fn a_stream_of_the_mesh_is_judged_by_its_peer() {
    let (world, domain) = world(MESH).await;
    let listener = world.origin(APP).await;
    let mut stream = open(&world, &domain, "web", APP).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let (mut app, asked) = answered(&listener).await;
    assert_eq!(asked, b"ping");
    app.write_all(b"answer").await.unwrap();
    drop(app);
    assert_eq!(rest(&mut stream).await, "answer");
    stream.shutdown().await.unwrap();
    let record = world.record().await;
    assert_eq!((record.direction.as_str(), record.verdict.as_str()), ("ingress", "allowed"));
    assert_eq!(record.original_dst, Some(APP.parse().unwrap()));
    assert_eq!(record.tls.and_then(|tls| tls.peer).as_deref(), Some("spiffe://example.org/web"));
    assert_eq!((record.bytes_sent, record.bytes_received), (4, 6));
}

#[tokio::test]
async fn streams_that_may_not_be_are_refused_with_a_record_each() {
    for (path, to, status, reason) in [
        ("other", APP, 403, "peer-not-allowed"),
        ("web", "10.9.0.3:8080", 404, "destination-foreign"),
        ("web", "127.0.0.1:8080", 404, "destination-foreign"),
        ("web", "10.9.0.2:15020", 403, "address-own-listener"),
        ("web", "10.9.0.2:8081", 403, "no-rule"),
    ] {
        let (world, domain) = world(MESH).await;
        let refused = open(&world, &domain, path, to).await.unwrap_err();
        assert!(matches!(&refused, OpenError::Refused(found) if found.as_u16() == status), "{refused:?}");
        let record = world.record().await;
        assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("denied", reason), "{to}");
        assert_eq!(world.net.dialled(), [""; 0]);
    }
}

#[tokio::test]
async fn a_stranger_to_the_mesh_is_recorded() {
    let (world, _) = world(MESH).await;
    let stranger = Domain::new("other.example");
    open(&world, &stranger, "web", APP).await.unwrap_err();
    let mut plain = TcpStream::connect(world.mesh).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    rest(&mut plain).await;
    let records = world.records(2).await;
    let reasons: Vec<&str> = records.iter().map(|record| record.reason.as_str()).collect();
    assert_eq!(reasons, ["peer-handshake", "peer-handshake"]);
    assert!(records.iter().all(|record| record.verdict == "denied" && record.source.is_some()));
}

/// Sockets that say nothing, of one source, keep neither another port's clients nor the workload's own connections out.
#[tokio::test]
async fn silent_strangers_are_few() {
    let domain = Domain::new("example.org");
    let settings = Settings { connections: 64, ..Settings::default() };
    let receiving = reception(domain.cell("app"), domain.trust());
    let world = World::with_reception(&ingress(MESH), &[], settings, receiving).await;
    let silent =
        [TcpStream::connect(world.mesh).await.unwrap(), TcpStream::connect(world.mesh).await.unwrap()];
    let mut third = TcpStream::connect(world.mesh).await.unwrap();
    assert_eq!(rest(&mut third).await, "");
    let record = world.record().await;
    assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("denied", "limit-source"));
    let mut own = world.client(APP).await;
    assert_eq!(rest(&mut own).await, "", "judged: no rule allows it");
    assert_eq!(world.records(2).await[1].reason, "no-rule");
    drop(silent);
    let listener = world.origin(APP).await;
    // Their room comes back when the proxy has seen that they are gone.
    let mut stream = None;
    for _ in 0..1000 {
        stream = stream.or(open(&world, &domain, "web", APP).await.ok());
        if stream.is_some() {
            break;
        }
    }
    let mut stream = stream.expect("room again");
    stream.write_all(b"ping").await.unwrap();
    assert_eq!(answered(&listener).await.1, b"ping");
}

/// Who has proven himself and then speaks no HTTP/2 is at fault, not the proxy.
#[tokio::test]
async fn a_proven_peer_that_speaks_something_else_is_recorded_as_such() {
    for words in [&b""[..], b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"] {
        let (world, domain) = world(MESH).await;
        let identity = domain.cell("web").current().unwrap().identity.clone();
        let config = mesh_client(&identity, domain.trust(), app(), system_time()).unwrap();
        let socket = TcpStream::connect(world.mesh).await.unwrap();
        let name = world.mesh.ip().into();
        let mut stream =
            tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
        stream.write_all(words).await.unwrap();
        stream.shutdown().await.unwrap();
        rest(&mut stream).await;
        let record = world.record().await;
        assert_eq!(
            (record.verdict.as_str(), record.reason.as_str()),
            ("denied", "peer-handshake"),
            "{words:?}"
        );
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_rule_that_allowed_it() {
    let (world, domain) = world(MESH).await;
    let listener = world.origin(APP).await;
    let mut stream = open(&world, &domain, "web", APP).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let (mut app, _) = answered(&listener).await;
    world.worker.gate.policies.replace(policies(&ingress(FAR), 2));
    assert_eq!(rest(&mut stream).await, "");
    assert!(app.read(&mut [0; 1]).await.is_err(), "reset, not ended");
    let record = world.record().await;
    assert_eq!((record.close_reason, record.bytes_sent), (sidegate_api::CloseReason::PolicyChanged, 4));
}

#[tokio::test]
async fn requests_inside_the_mesh_are_judged_one_by_one() {
    let (world, domain) = world(MESH_HTTP).await;
    let listener = world.origin(APP).await;
    let mut stream = open(&world, &domain, "web", APP).await.unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: app:80\r\nX-Forwarded-For: 1.2.3.4\r\nX_Forwarded_For: 1.2.3.4\r\nTrue-Client-IP: 1.2.3.4\r\n\r\n").await.unwrap();
    let (mut app, asked) = answered(&listener).await;
    let asked = String::from_utf8(asked).unwrap();
    assert!(asked.starts_with("GET /a HTTP/1.1\r\n") && !asked.contains("1.2.3.4"), "{asked}");
    assert!(asked.contains("forwarded: for=\"127.0.0.1:") && asked.contains(";proto=https"), "{asked}");
    app.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let mut answer = vec![0; 4096];
    let mut length = 0;
    while !answer[..length].ends_with(b"ok") {
        length += stream.read(&mut answer[length..]).await.unwrap();
    }
    stream
        .write_all(b"POST /a HTTP/1.1\r\nHost: app\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let refused = rest(&mut stream).await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused:?}");
    let records = world.records(2).await;
    let told: Vec<_> = records.iter().map(|r| (r.verdict.as_str(), r.reason.as_str())).collect();
    assert_eq!(told, [("allowed", "rule-allows"), ("denied", "http-not-allowed")]);
    let peer = |r: &sidegate_api::AccessRecord| r.tls.as_ref().and_then(|tls| tls.peer.clone());
    assert!(records.iter().all(|r| peer(r).as_deref() == Some("spiffe://example.org/web")));
}

#[tokio::test]
async fn a_declared_probe_passes_and_nothing_else_does() {
    let (world, _) = world(MESH).await;
    let listener = world.origin(APP).await;
    let serving = tokio::spawn(async move {
        let (mut app, asked) = answered(&listener).await;
        app.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await.unwrap();
        asked
    });
    for (line, more, status) in [
        ("GET /healthz?x HTTP/1.1", "", "403"),
        ("GET /healthz HTTP/1.1", "content-length: 1\r\n\r\nx", "403"),
        ("GET /healthz/ HTTP/1.1", "", "403"),
        ("POST /healthz HTTP/1.1", "content-length: 0\r\n", "403"),
        ("GET /healthz HTTP/1.1", "User-Agent: kube-probe/1.34\r\nX-HTTP-Method-Override: DELETE\r\n", "200"),
    ] {
        let mut client = world.visitor(APP).await;
        let end = if more.contains("\r\n\r\n") { "" } else { "\r\n" };
        let request = format!("{line}\r\nHost: 10.9.0.2:8080\r\nconnection: close\r\n{more}{end}");
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line} {more}: {answer}");
    }
    let asked = String::from_utf8(serving.await.unwrap()).unwrap();
    assert!(
        asked.starts_with("GET /healthz HTTP/1.1\r\n") && asked.contains("user-agent: kube-probe/1.34\r\n"),
        "{asked}"
    );
    assert!(!asked.contains("override"), "what anybody may ask says nothing more: {asked}");
    let records = world.records(5).await;
    assert_eq!((records[4].reason.as_str(), records[4].rule.as_deref()), ("probe-allows", None));
    assert!(records[..4].iter().all(|record| record.verdict == "denied"), "{records:#?}");
}

#[tokio::test]
async fn plaintext_requests_are_judged_where_a_rule_allows_them() {
    let (world, _) = world(HTTP).await;
    let listener = world.origin(APP).await;
    let mut client = world.visitor(APP).await;
    client.write_all(b"GET /a HTTP/1.1\r\nHost: service:80\r\nForwarded: for=6.6.6.6\r\n\r\n").await.unwrap();
    let (mut app, asked) = answered(&listener).await;
    let asked = String::from_utf8(asked).unwrap();
    assert!(asked.contains("host: service:80\r\n") && !asked.contains("6.6.6.6"), "{asked}");
    let expected = format!("forwarded: for=\"{}\";proto=http\r\n", client.local_addr().unwrap());
    assert!(asked.contains(&expected), "{asked}");
    app.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 204");
    drop(client);
    let record = world.record().await;
    assert_eq!((record.direction.as_str(), record.http.map(|http| http.status)), ("ingress", Some(204)));
}
