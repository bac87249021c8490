//! TLS towards the workload that ends with a certificate of the operator's own.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use sidegate_api::CloseReason;
use sidegate_certs::{
    Authority, Identity, PrivateKey, Profile, UnixTime, lifetime,
    tls::{Origin, system_time},
};
use sidegate_policy::{HostName, SpiffeId, TrustDomain};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    super::world::{World, policies},
    inbound::{APP, Domain, answered, ingress, receiving, rest},
};
use crate::{
    reception::{CertificateFiles, CertificatesFollower},
    settings::Settings,
};

const GIVEN: &str = "    - { name: tls, from: [ { cidrs: [ 127.0.0.0/8 ] } ], ports: [ 8080 ], tls: { mode: terminate, certificate: shop } }\n";

/// Who vouches for the names of a test.
struct Web(Authority);

impl Web {
    fn since(now: UnixTime) -> Self {
        let domain = TrustDomain::parse("web.test").unwrap();
        Web(Authority::root(&domain, PrivateKey::generate().unwrap(), now, lifetime::ROOT).unwrap())
    }

    /// Chain and key for `app.example`, in PEM.
    fn pair(&self, now: UnixTime) -> [String; 2] {
        let id = SpiffeId::parse("spiffe://web.test/shop").unwrap();
        let names = vec![HostName::parse("app.example").unwrap()];
        let profile = Profile::new(id, lifetime::LEAF).unwrap().with_names(names);
        let key = PrivateKey::generate().unwrap();
        let svid = self.0.issue(key.public(), &profile, now).unwrap();
        let chain = svid.chain().iter().map(|one| sidegate_certs::certificate_to_pem(one)).collect();
        [chain, key.to_pem().to_string()]
    }

    /// A client that believes this web alone.
    fn client(&self, identity: Option<&Identity>) -> ClientConfig {
        let root = self.0.root_certificate().unwrap();
        let origin = Origin::from_roots(std::slice::from_ref(root)).unwrap();
        origin.client(identity, &[], system_time()).unwrap()
    }
}

/// The files of the label `shop`, and who follows them.
struct Shop {
    folder: tempfile::TempDir,
    follower: CertificatesFollower,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| -> PathBuf { folder.path().join(name) };
        let files = CertificateFiles { certificate: path("tls.crt"), key: path("tls.key") };
        let follower = CertificatesFollower::new(&BTreeMap::from([("shop".to_owned(), files)]));
        Shop { folder, follower }
    }

    fn write(&self, [chain, key]: &[String; 2]) {
        std::fs::write(self.folder.path().join("tls.crt"), chain).unwrap();
        std::fs::write(self.folder.path().join("tls.key"), key).unwrap();
    }

    /// A fault counts when two looks find it.
    fn look(&mut self, now: UnixTime) {
        self.follower.look(now);
        self.follower.look(now);
    }

    async fn world(&self, rules: &str) -> (World, Domain) {
        let domain = Domain::new("example.org");
        let reception = receiving(domain.cell("app"), domain.trust(), self.follower.cells());
        (World::with_reception(&ingress(rules), &[], Settings::default(), reception).await, domain)
    }
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

async fn connect(world: &World, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let socket = world.visitor(APP).await;
    let name = ServerName::try_from("app.example").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

fn leaf(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn clients_outside_the_mesh_are_shown_the_named_certificate_alone() {
    let (web, mut shop) = (Web::since(UnixTime::now()), Shop::new());
    shop.write(&web.pair(UnixTime::now()));
    shop.look(UnixTime::now());
    for (rules, shown) in [(GIVEN.to_owned(), true), (GIVEN.replace(", certificate: shop", ""), false)] {
        let (world, _) = shop.world(&rules).await;
        let listener = world.origin(APP).await;
        let connected = connect(&world, web.client(None)).await;
        assert_eq!(connected.is_ok(), shown, "{rules}");
        let Ok(mut client) = connected else {
            assert_eq!(world.record().await.reason, "peer-handshake");
            assert_eq!(world.net.dialled(), [""; 0]);
            continue;
        };
        client.write_all(b"\x01ping").await.unwrap();
        let (app, asked) = answered(&listener).await;
        assert_eq!(asked, b"\x01ping");
        drop((app, client));
        let record = world.record().await;
        let tls = record.tls.expect("it was TLS");
        assert_eq!((record.verdict.as_str(), tls.version.as_deref()), ("allowed", Some("1.3")));
        assert_eq!(tls.peer, None, "who shows nothing is nobody");
    }
}

#[tokio::test]
async fn a_client_may_prove_who_it_is_beside() {
    let (web, mut shop) = (Web::since(UnixTime::now()), Shop::new());
    shop.write(&web.pair(UnixTime::now()));
    shop.look(UnixTime::now());
    let (world, domain) = shop.world(GIVEN).await;
    let listener = world.origin(APP).await;
    let mut client = connect(&world, web.client(Some(&domain.identity("caller")))).await.unwrap();
    client.write_all(b"\x01").await.unwrap();
    answered(&listener).await;
    drop(client);
    let record = world.record().await;
    assert_eq!(record.tls.and_then(|tls| tls.peer).as_deref(), Some("spiffe://example.org/caller"));
    // One of another trust domain proves nothing and does not pass for nobody.
    let stranger = Domain::new("other.example").identity("caller");
    if let Ok(mut client) = connect(&world, web.client(Some(&stranger))).await {
        rest(&mut client).await;
    }
    assert_eq!(world.records(2).await[1].verdict, "denied");
}

#[tokio::test]
async fn renewed_files_count_for_the_next_handshake_and_whole_pairs_alone() {
    let now = UnixTime::now();
    let (web, mut shop) = (Web::since(now), Shop::new());
    let (first, second) = (web.pair(now), web.pair(now));
    shop.write(&first);
    shop.look(now);
    let (world, _) = shop.world(GIVEN).await;
    let before = leaf(&connect(&world, web.client(None)).await.unwrap());
    for bad in [[second[0].clone(), first[1].clone()], ["nonsense".to_owned(), second[1].clone()]] {
        shop.write(&bad);
        shop.look(now);
        assert_eq!(leaf(&connect(&world, web.client(None)).await.unwrap()), before, "the old pair serves on");
    }
    shop.write(&second);
    shop.look(now);
    assert_ne!(leaf(&connect(&world, web.client(None)).await.unwrap()), before);
}

#[tokio::test]
async fn what_is_unknown_absent_or_expired_is_refused_with_a_record() {
    let past = at(UnixTime::now().as_secs() - 2 * lifetime::LEAF.as_secs());
    let web = Web::since(past);
    let (absent, mut expired) = (Shop::new(), Shop::new());
    expired.write(&web.pair(past));
    expired.look(past);
    assert!(expired.follower.cells()["shop"].load().is_some(), "it was good then");
    let other = GIVEN.replace("certificate: shop", "certificate: other");
    for (shop, rules, reason) in [
        (&absent, other.as_str(), "not-supported"),
        (&absent, GIVEN, "identity-missing"),
        (&expired, GIVEN, "identity-missing"),
    ] {
        let (world, _) = shop.world(rules).await;
        connect(&world, web.client(None)).await.unwrap_err();
        let record = world.record().await;
        assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("denied", reason));
        assert_eq!(world.net.dialled(), [""; 0]);
        let reception = world.worker.gate.reception.as_ref().unwrap();
        let told = reception.wanting(&policies(&ingress(rules), 1));
        assert_eq!(told.len(), usize::from(reason == "not-supported"), "{told:?}");
    }
    // Nor is an expired pair ever taken.
    let mut late = Shop::new();
    late.write(&web.pair(past));
    late.look(UnixTime::now());
    assert!(late.follower.cells()["shop"].load().is_none());
    late.write(&web.pair(at(UnixTime::now().as_secs() + 7200)));
    late.look(UnixTime::now());
    assert!(late.follower.cells()["shop"].load().is_none(), "it has not begun");
}

#[tokio::test]
async fn no_rule_lets_pass_what_was_shown_another_certificate() {
    let (web, mut shop) = (Web::since(UnixTime::now()), Shop::new());
    shop.write(&web.pair(UnixTime::now()));
    shop.look(UnixTime::now());
    let near =
        GIVEN.replace("127.0.0.0/8", "127.0.0.1/32").replace("tls, from", "near, protocol: http, from");
    let (world, _) = shop.world(&format!("{near}{}", GIVEN.replace(", certificate: shop", ""))).await;
    let mut client = connect(&world, web.client(None)).await.unwrap();
    client.write_all(b"\x01ping").await.unwrap();
    assert_eq!(rest(&mut client).await, "");
    let record = world.record().await;
    assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("denied", "carried-otherwise"));
    assert_eq!(world.net.dialled(), [""; 0]);
}

#[tokio::test]
async fn a_connection_ends_when_its_rule_names_another_certificate() {
    let (web, mut shop) = (Web::since(UnixTime::now()), Shop::new());
    shop.write(&web.pair(UnixTime::now()));
    shop.look(UnixTime::now());
    let (world, _) = shop.world(GIVEN).await;
    let listener = world.origin(APP).await;
    let mut client = connect(&world, web.client(None)).await.unwrap();
    client.write_all(b"\x01ping").await.unwrap();
    let (_app, _) = answered(&listener).await;
    let other = GIVEN.replace("certificate: shop", "certificate: other");
    world.worker.gate.policies.replace(policies(&ingress(&other), 2));
    assert_eq!(rest(&mut client).await, "");
    let record = world.record().await;
    assert_eq!(
        (record.reason.as_str(), record.close_reason),
        ("carried-otherwise", CloseReason::PolicyChanged)
    );
}
