//! Bytes that nobody looks at, put into TLS: who is verified how, who may speak when, and how it ends.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use sidegate_certs::{
    Authority, Identity, IdentityCell, PrivateKey, Profile, TrustBundle, TrustStore, UnixTime, lifetime,
    tls::{HTTP1, Origin, TrustCell, mesh_server, serve, system_time},
};
use sidegate_policy::{HostName, SpiffeId, TrustDomain};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    super::world::web,
    requests::{get, read_answer, sealed_origin, status},
    *,
};
use crate::{
    origins::{Origins, RootsFollower},
    settings::Settings,
};

/// How long a connection that must come may take: a fault then says what became of it.
const PATIENCE: Duration = Duration::from_secs(60);

const SERVER: &str = "93.184.216.34:5432";

/// One rule that puts bytes to `www.ok.example` and `old.ok.example` into TLS, with more in its `tls`.
fn rules(more: &str) -> String {
    format!(
        "apiVersion: sidegate.dev/v1
kind: Policy
metadata: {{ name: test }}
spec:
  egress:
    - name: sealed
      to: [ {{ hosts: [ www.ok.example, old.ok.example ] }} ]
      ports: [ 5432 ]
      protocol: tcp
      tls: {{ mode: originate{more} }}
"
    )
}

/// A client on its way to the synthetic address of `host`.
async fn client_to(world: &World, host: &str) -> TcpStream {
    let (v4, _) = world.worker.gate.synthetic.assign(&HostName::parse(host).unwrap()).unwrap();
    world.client(&format!("{v4}:5432")).await
}

fn of_web() -> Arc<ServerConfig> {
    let credential = Arc::new(ArcSwap::from_pointee(web().1.clone()));
    Arc::new(serve(credential, &[], system_time()).unwrap())
}

async fn accept(listener: &TcpListener, config: &Arc<ServerConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let (socket, _) = listener.accept().await.unwrap();
    TlsAcceptor::from(Arc::clone(config)).accept(socket).await
}

/// Both ends of a connection that is established.
async fn joined(world: &World) -> (TcpStream, TlsStream<TcpStream>) {
    let listener = world.origin(SERVER).await;
    let client = client_to(world, "www.ok.example").await;
    let came = tokio::time::timeout(PATIENCE, accept(&listener, &of_web())).await;
    let came = came.unwrap_or_else(|_| panic!("nobody came: {:#?}", world.so_far()));
    (client, came.unwrap())
}

#[tokio::test]
async fn a_server_may_speak_first_and_each_side_ends_by_itself() {
    let world = World::start(&rules(""), ZONE).await;
    let (mut client, mut server) = joined(&world).await;
    server.write_all(b"I speak first").await.unwrap();
    server.flush().await.unwrap();
    let mut heard = [0; 13];
    client.read_exact(&mut heard).await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut asked = Vec::new();
    server.read_to_end(&mut asked).await.unwrap();
    assert_eq!(asked, b"question");
    server.write_all(b"the answer comes after the end").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await.unwrap(), b"the answer comes after the end");
    let record = world.record().await;
    assert_eq!(story(&record), ("allowed", "rule-allows", CloseReason::Done));
    assert_eq!((record.bytes_sent, record.bytes_received), (8, 43));
    assert_eq!(record.tls.unwrap().version.as_deref(), Some("1.3"));
    assert_eq!((record.protocol.as_str(), record.host.as_deref()), ("tcp", Some("www.ok.example")));
}

#[tokio::test]
async fn bulk_passes_both_ways_and_waits_for_a_slow_reader() {
    const BULK: usize = 48 << 20;
    let world = World::start(&rules(""), ZONE).await;
    let (mut client, mut server) = joined(&world).await;
    let bytes: Vec<u8> = (0..BULK).map(|number| (number % 251) as u8).collect();
    let (mut from, mut to) = client.split();
    let (mut served, mut serving) = tokio::io::split(&mut server);
    let mut got = (Vec::new(), Vec::new());
    // Nobody reads until everybody is stuck.
    let stuck = async {
        let _ = tokio::join!(to.write_all(&bytes), serving.write_all(&bytes));
    };
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), stuck).await.is_err());
    let live = world.worker.live.tell();
    assert_eq!(live.len(), 1, "it waits, it is not closed");
    tokio::join!(
        async {
            // What was written before is not known: a marker ends it.
            to.write_all(&[255; 4]).await.unwrap();
            to.shutdown().await.unwrap();
        },
        async {
            serving.write_all(&[255; 4]).await.unwrap();
            serving.shutdown().await.unwrap()
        },
        async { from.read_to_end(&mut got.0).await.unwrap() },
        async { served.read_to_end(&mut got.1).await.unwrap() },
    );
    for got in [&got.0, &got.1] {
        let (body, marker) = got.split_at(got.len() - 4);
        assert!(body.len() > 256 * 1024 && body == &bytes[..body.len()] && marker == [255; 4]);
    }
}

#[tokio::test]
async fn an_end_without_close_notify_is_a_cut() {
    let world = World::start(&rules(""), ZONE).await;
    let (mut client, mut server) = joined(&world).await;
    server.write_all(b"half an ans").await.unwrap();
    server.flush().await.unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).await, None, "a reset, which no reader takes for the end");
    assert_eq!(story(&world.record().await), ("allowed", "rule-allows", CloseReason::UpstreamReset));
}

#[tokio::test]
async fn what_is_cut_off_here_ends_without_close_notify_there() {
    let world = World::start(&rules(""), ZONE).await;
    let (mut client, mut server) = joined(&world).await;
    client.write_all(b"half").await.unwrap();
    server.read_exact(&mut [0; 4]).await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    server.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(world.record().await.close_reason, CloseReason::ClientReset);
}

/// The reason of a connection to `host` whose server is `config`, after which nothing of the client's arrived.
async fn refused(world: &World, host: &str, config: &Arc<ServerConfig>) -> String {
    let listener = world.origin(SERVER).await;
    world.net.route("93.184.216.35:5432", listener.local_addr().unwrap());
    let mut client = client_to(world, host).await;
    client.write_all(b"secret").await.unwrap();
    let mut heard = Vec::new();
    let served = async {
        if let Ok(mut stream) = accept(&listener, config).await {
            let _ = stream.read_to_end(&mut heard).await;
        }
    };
    tokio::select! {
        () = served => {}
        // Where nothing is dialled.
        _ = read_all(&mut client) => {}
    }
    assert!(heard.is_empty(), "the client's bytes came to a server that is not believed");
    let record = world.record().await;
    assert_eq!(record.bytes_received, 0);
    record.reason
}

#[tokio::test]
async fn a_server_that_is_not_the_one_named_gets_nothing() {
    let world = World::start(&rules(""), ZONE).await;
    assert_eq!(refused(&world, "old.ok.example", &of_web()).await, "upstream-certificate");
    let world = World::with_origins(&rules(""), ZONE, Settings::default(), Origins::of_system()).await;
    assert_eq!(refused(&world, "www.ok.example", &of_web()).await, "upstream-certificate");
}

#[tokio::test]
async fn a_pin_has_to_be_in_the_verified_chain() {
    let key = |spki: &[u8]| format!(", pins: [ \"{}\" ]", sidegate_certs::tls::Pin::of(spki));
    let world = World::start(&rules(&key(b"another key")), ZONE).await;
    assert_eq!(refused(&world, "www.ok.example", &of_web()).await, "upstream-pin");
    let world = World::start(&rules(&key(&super::super::world::web_spki())), ZONE).await;
    let (mut client, mut server) = joined(&world).await;
    client.write_all(b"pinned").await.unwrap();
    server.read_exact(&mut [0; 6]).await.unwrap();
    // A rule that pins another key closes what was let through.
    world.worker.gate.policies.replace(policies(&rules(&key(b"another key")), 2));
    assert_eq!(read_all(&mut client).await, None);
    assert_eq!(story(&world.record().await), ("denied", "carried-otherwise", CloseReason::PolicyChanged));
}

/// Roots of the test's web under the label `web`.
fn labelled(folder: &tempfile::TempDir) -> (Origins, RootsFollower) {
    let path = folder.path().join("web.pem");
    let files = BTreeMap::from([("web".to_owned(), path)]);
    let mut follower = RootsFollower::new(&files);
    follower.look(UnixTime::now());
    (Origins::of_system().with_roots(&follower), follower)
}

#[tokio::test]
async fn labelled_roots_take_the_place_of_the_systems_and_an_unknown_label_denies() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("web.pem"), super::super::world::web_root_pem()).unwrap();
    for (label, expected) in [("web", None), ("other", Some("not-supported"))] {
        let rules = rules(&format!(", roots: {label}"));
        let (origins, _) = labelled(&folder);
        assert_eq!(origins.wanting(&policies(&rules, 1)).len(), usize::from(expected.is_some()));
        let world = World::with_origins(&rules, ZONE, Settings::default(), origins).await;
        match expected {
            None => {
                joined(&world).await;
            }
            Some(reason) => {
                assert_eq!(refused(&world, "www.ok.example", &of_web()).await, reason);
                assert!(world.net.dialled().is_empty(), "nothing is dialled for it");
            }
        }
    }
}

#[tokio::test]
async fn connections_verified_by_other_roots_are_not_shared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.pem");
    std::fs::write(&path, super::super::world::web_root_pem()).unwrap();
    let (origins, mut follower) = labelled(&folder);
    let rules = rules(", roots: web").replace("protocol: tcp", "protocol: http").replace("5432", "80");
    let world = World::with_origins(&rules, ZONE, Settings::default(), origins).await;
    let _seen = sealed_origin(world.origin("93.184.216.34:80").await, &[HTTP1]);
    let mut client = world.client("93.184.216.34:80").await;
    let mut ask = async || {
        client.write_all(get("/", "www.ok.example").as_bytes()).await.unwrap();
        let answer = read_answer(&mut client).await;
        (status(&answer).to_owned(), world.net.dialled().len())
    };
    assert_eq!((ask().await, ask().await), (("200".into(), 1), ("200".into(), 1)));
    // A second root beside the first.
    let more = super::super::world::web_root_pem()
        + &Authority::root(
            &TrustDomain::parse("more.test").unwrap(),
            PrivateKey::generate().unwrap(),
            UnixTime::now(),
            lifetime::ROOT,
        )
        .unwrap()
        .root_certificate()
        .map(|root| sidegate_certs::certificate_to_pem(root))
        .unwrap();
    std::fs::write(&path, more).unwrap();
    follower.look(UnixTime::now());
    assert_eq!(ask().await, ("200".into(), 2));
    // A file that is none leaves in force what was there.
    std::fs::write(&path, "nonsense").unwrap();
    follower.look(UnixTime::now());
    follower.look(UnixTime::now());
    assert_eq!(ask().await, ("200".into(), 2));
}

/// An authority whose servers want a certificate, and an identity of it.
fn demanding() -> (Origin, Arc<ServerConfig>, Identity) {
    let (domain, now) = (TrustDomain::parse("example.org").unwrap(), UnixTime::now());
    let root = Authority::root(&domain, PrivateKey::generate().unwrap(), now, lifetime::ROOT).unwrap();
    let identity = |path: &str, names: Vec<HostName>| {
        let id = SpiffeId::parse(&format!("spiffe://example.org/{path}")).unwrap();
        let key = PrivateKey::generate().unwrap();
        let profile = Profile::new(id, lifetime::LEAF).unwrap().with_names(names);
        Identity::new(root.issue(key.public(), &profile, now).unwrap(), &key).unwrap()
    };
    let cell = IdentityCell::empty();
    cell.replace(identity("server", vec![HostName::parse("www.ok.example").unwrap()]));
    let bundle = TrustBundle::from_roots(domain, root.chain().to_vec()).unwrap();
    let trust = Arc::new(TrustCell::new(TrustStore::new([bundle])));
    let config = mesh_server(Arc::new(cell), trust, system_time()).unwrap();
    (Origin::from_roots(root.chain()).unwrap(), Arc::new(config), identity("client", Vec::new()))
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_gets_the_workloads_own_where_the_rule_says_so() {
    let (origin, config, identity) = demanding();
    let cell = Arc::new(IdentityCell::empty());
    let made = |rules: String, cell: &Arc<IdentityCell>| {
        let origins = Origins::new(origin.clone()).with_identity(Arc::clone(cell));
        async move { World::with_origins(&rules, ZONE, Settings::default(), origins).await }
    };
    let shown = rules(", clientIdentity: true");
    // Nobody yet: refused before anything is dialled.
    let world = made(shown.clone(), &cell).await;
    assert_eq!(refused(&world, "www.ok.example", &config).await, "not-supported");
    assert!(world.net.dialled().is_empty());
    cell.replace(identity);
    let world = made(rules(""), &cell).await;
    assert_eq!(refused(&world, "www.ok.example", &config).await, "upstream-handshake");
    let world = made(shown, &cell).await;
    let listener = world.origin(SERVER).await;
    let mut client = client_to(&world, "www.ok.example").await;
    let mut server = accept(&listener, &config).await.unwrap();
    let peer = sidegate_certs::tls::peer_id(server.get_ref().1.peer_certificates()).unwrap();
    assert_eq!(peer.as_str(), "spiffe://example.org/client");
    client.write_all(b"x").await.unwrap();
    server.read_exact(&mut [0; 1]).await.unwrap();
}

#[tokio::test]
async fn plaintext_that_has_to_be_tls_now_is_closed_and_the_reverse_may_go_on() {
    let plain = rules("")
        .replace("mode: originate", "mode: none")
        .replace("name: sealed", "name: sealed\n      reason: x");
    let world = World::start(&plain, ZONE).await;
    let listener = world.origin(SERVER).await;
    let mut client = client_to(&world, "www.ok.example").await;
    let (mut server, _) = listener.accept().await.unwrap();
    exchange(&mut client, &mut server, b"in the clear").await;
    world.worker.gate.policies.replace(policies(&rules(""), 2));
    assert_eq!(read_all(&mut client).await, None);
    assert_eq!(story(&world.record().await), ("denied", "tls-required", CloseReason::PolicyChanged));

    let world = World::start(&rules(""), ZONE).await;
    let (mut client, mut server) = joined(&world).await;
    world.worker.gate.policies.replace(policies(&plain, 2));
    client.write_all(b"still sealed").await.unwrap();
    server.read_exact(&mut [0; 12]).await.unwrap();
}
