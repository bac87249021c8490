use std::io::{Read, Write};

use arc_swap::ArcSwap;
use rustls::{
    AlertDescription, ClientConnection, Error, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::*;
use crate::{
    Identity, IdentityCell, PrivateKey, Profile, Revocations, TrustStore,
    authority::Revoked,
    bundle::TrustError,
    testing::{HOUR, World, after, clock, id, now},
};

/// Both ends of a handshake without a network between them.
struct Ends {
    client: ClientConnection,
    server: ServerConnection,
}

impl Ends {
    fn new(client: ClientConfig, server: ServerConfig, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let client = ClientConnection::new(Arc::new(client), name).unwrap();
        Ends { client, server: ServerConnection::new(Arc::new(server)).unwrap() }
    }

    /// Carries records until nobody has more; the first error on each side.
    fn shake(&mut self) -> (Result<(), Error>, Result<(), Error>) {
        let (mut at_client, mut at_server) = (Ok(()), Ok(()));
        for _ in 0..8 {
            let mut wire = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut wire).unwrap();
            }
            take(&mut wire.as_slice(), |wire| self.server.read_tls(wire));
            at_server = at_server.and(self.server.process_new_packets().map(|_| ()));
            let mut wire = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut wire).unwrap();
            }
            take(&mut wire.as_slice(), |wire| self.client.read_tls(wire));
            at_client = at_client.and(self.client.process_new_packets().map(|_| ()));
        }
        (at_client, at_server)
    }
}

fn take(wire: &mut &[u8], mut read: impl FnMut(&mut &[u8]) -> std::io::Result<usize>) {
    while !wire.is_empty() && read(wire).is_ok_and(|read| read > 0) {}
}

fn cell(identity: Identity) -> Arc<IdentityCell> {
    let cell = Arc::new(IdentityCell::empty());
    cell.replace(identity);
    cell
}

/// A pair of workloads that trust what `world` vouches for; the client expects `/server`.
struct Pair {
    world: World,
    served: Arc<IdentityCell>,
    trust: Arc<TrustCell>,
    client: Identity,
    time: UnixTime,
}

impl Pair {
    fn new() -> Self {
        let world = World::of("example.org");
        let served = cell(world.identity("/server"));
        let trust = Arc::new(TrustCell::new(TrustStore::new([world.bundle()])));
        let client = world.identity("/client");
        Pair { world, served, trust, client, time: now() }
    }

    fn ends(&self) -> Ends {
        let server =
            mesh_server(Arc::clone(&self.served), Arc::clone(&self.trust), clock(self.time)).unwrap();
        let expected = id("spiffe://example.org/server");
        let client = mesh_client(&self.client, Arc::clone(&self.trust), expected, clock(self.time)).unwrap();
        Ends::new(client, server, "anything.invalid")
    }
}

#[test]
fn both_ends_prove_an_id_over_tls_1_3_and_post_quantum_keys() {
    let pair = Pair::new();
    let mut ends = pair.ends();
    assert_eq!(ends.shake(), (Ok(()), Ok(())));
    assert_eq!(ends.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = ends.client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    assert_eq!(ends.client.alpn_protocol(), Some(H2));
    assert_eq!(ends.server.server_name(), None, "no name in clear");
    assert_eq!(peer_id(ends.server.peer_certificates()), Some(id("spiffe://example.org/client")));
    assert_eq!(peer_id(ends.client.peer_certificates()), Some(id("spiffe://example.org/server")));
    ends.client.writer().write_all(b"hello").unwrap();
    assert_eq!(ends.shake(), (Ok(()), Ok(())));
    let mut got = [0; 5];
    ends.server.reader().read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
}

#[test]
fn nothing_is_resumed_between_workloads() {
    let pair = Pair::new();
    let server = mesh_server(Arc::clone(&pair.served), Arc::clone(&pair.trust), clock(now())).unwrap();
    let expected = id("spiffe://example.org/server");
    let client = mesh_client(&pair.client, Arc::clone(&pair.trust), expected, clock(now())).unwrap();
    for _ in 0..3 {
        let mut ends = Ends::new(client.clone(), server.clone(), "anything.invalid");
        assert_eq!(ends.shake(), (Ok(()), Ok(())));
        assert_eq!(ends.client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(ends.client.tls13_tickets_received(), 0);
    }
}

#[test]
fn a_server_that_is_somebody_else_is_not_spoken_to() {
    let pair = Pair::new();
    pair.served.replace(pair.world.identity("/other"));
    let (at_client, at_server) = pair.ends().shake();
    let cause = TrustError::of(&at_client.unwrap_err()).map(ToString::to_string).unwrap();
    assert_eq!(cause, "the peer is spiffe://example.org/other, not spiffe://example.org/server");
    assert!(at_server.is_err());
}

#[test]
fn a_peer_of_a_foreign_authority_or_without_a_certificate_is_refused() {
    let mut pair = Pair::new();
    pair.client = World::of("example.org").identity("/client");
    let (at_client, at_server) = pair.ends().shake();
    assert!(matches!(at_server, Err(Error::InvalidCertificate(_))), "{at_server:?}");
    assert_eq!(at_client, Err(Error::AlertReceived(AlertDescription::UnknownCA)));

    let pair = Pair::new();
    let key = PrivateKey::generate().unwrap();
    let names = vec![sidegate_policy::HostName::parse("server.test").unwrap()];
    let profile = Profile::new(id("spiffe://example.org/server"), HOUR).unwrap().with_names(names);
    let svid = pair.world.issuing.issue(key.public(), &profile, now()).unwrap();
    pair.served.replace(Identity::new(svid, &key).unwrap());
    let server = mesh_server(Arc::clone(&pair.served), Arc::clone(&pair.trust), clock(now())).unwrap();
    let root = pair.world.root.root_certificate().unwrap().clone();
    let nobody = Origin::from_roots(&[root]).unwrap().client(None, &[H2], clock(now())).unwrap();
    let (_, at_server) = Ends::new(nobody, server, "server.test").shake();
    assert_eq!(at_server, Err(Error::NoCertificatesPresented));
}

#[test]
fn what_is_revoked_or_no_longer_trusted_counts_at_the_next_handshake() {
    let pair = Pair::new();
    assert_eq!(pair.ends().shake(), (Ok(()), Ok(())));
    let revoked = Revoked { serial: pair.client.svid().serial().to_vec(), at: now() };
    let list = pair.world.issuing.revocation_list(&[revoked], 1, now(), after(60)).unwrap();
    let mut revocations = Revocations::default();
    revocations.admit(&list, pair.world.issuing.chain()).unwrap();
    pair.trust.replace(TrustStore::new([pair.world.bundle()]).with_revocations(revocations));
    let (at_client, _) = pair.ends().shake();
    assert_eq!(at_client, Err(Error::AlertReceived(AlertDescription::CertificateRevoked)));
    pair.trust.replace(TrustStore::empty());
    assert!(pair.ends().shake().0.is_err());
}

#[test]
fn an_expired_certificate_is_neither_served_nor_shown() {
    let mut pair = Pair::new();
    pair.time = pair.client.validity().not_after;
    assert_eq!(pair.ends().shake(), (Ok(()), Ok(())), "its last second");
    pair.time = after(3_601);
    let (_, at_server) = pair.ends().shake();
    assert_eq!(at_server, Err(Error::General("no server certificate chain resolved".into())));

    // The server has a fresh one, the client not: nothing is shown.
    let key = PrivateKey::generate().unwrap();
    let profile = Profile::new(id("spiffe://example.org/server"), HOUR).unwrap();
    let fresh = pair.world.issuing.issue(key.public(), &profile, pair.time).unwrap();
    pair.served.replace(Identity::new(fresh, &key).unwrap());
    let (_, at_server) = pair.ends().shake();
    assert_eq!(at_server, Err(Error::NoCertificatesPresented));
}

#[test]
fn a_replaced_identity_is_served_from_the_next_handshake_on() {
    let pair = Pair::new();
    let server = mesh_server(Arc::clone(&pair.served), Arc::clone(&pair.trust), clock(now())).unwrap();
    let expected = id("spiffe://example.org/server");
    let client = mesh_client(&pair.client, Arc::clone(&pair.trust), expected, clock(now())).unwrap();
    let serial = || {
        let mut ends = Ends::new(client.clone(), server.clone(), "anything.invalid");
        assert_eq!(ends.shake(), (Ok(()), Ok(())));
        let leaf = ends.client.peer_certificates().unwrap()[0].clone();
        crate::x509::parse(&leaf).unwrap().raw_serial().to_vec()
    };
    assert_eq!(pair.served.current().unwrap().epoch, 1);
    assert_eq!(serial(), pair.served.current().unwrap().identity.svid().serial());
    assert_eq!(pair.served.replace(pair.world.identity("/server")), 2);
    assert_eq!(serial(), pair.served.current().unwrap().identity.svid().serial());
}

#[test]
fn without_an_identity_nothing_is_served() {
    let mut pair = Pair::new();
    pair.served = Arc::new(IdentityCell::empty());
    assert!(pair.ends().shake().1.is_err());
}

/// A web server's certificate for `name` below a root of its own: root, chain and key.
fn web(name: &str) -> (CertificateDer<'static>, Credential, crate::PublicKey) {
    let world = World::of("web.test");
    let key = PrivateKey::generate().unwrap();
    let names = vec![sidegate_policy::HostName::parse(name).unwrap()];
    let profile = Profile::new(id("spiffe://web.test/server"), HOUR).unwrap().with_names(names);
    let svid = world.issuing.issue(key.public(), &profile, now()).unwrap();
    let root = world.root.root_certificate().unwrap().clone();
    (
        root,
        Credential::from_pem(svid.to_pem().as_bytes(), key.to_pem().as_bytes()).unwrap(),
        key.public().clone(),
    )
}

#[test]
fn an_origin_is_verified_by_roots_name_and_pins() {
    let (root, credential, key) = web("api.example.test");
    let cell = Arc::new(ArcSwap::from_pointee(credential));
    let shake = |origin: &Origin, name: &str, time| {
        let server = serve(Arc::clone(&cell), &[HTTP1], clock(now())).unwrap();
        let client = origin.client(None, &[H2, HTTP1], clock(time)).unwrap();
        let mut ends = Ends::new(client, server, name);
        let (at_client, _) = ends.shake();
        at_client.map(|()| ends.client.alpn_protocol().map(<[u8]>::to_vec))
    };
    let origin = Origin::from_roots(std::slice::from_ref(&root)).unwrap();
    assert_eq!(shake(&origin, "api.example.test", now()), Ok(Some(HTTP1.to_vec())));
    for (name, time) in [("other.example.test", now()), ("api.example.test", after(4_000))] {
        assert!(matches!(shake(&origin, name, time), Err(Error::InvalidCertificate(_))), "{name}");
    }
    let (stranger, _, other) = web("api.example.test");
    let strange = Origin::from_roots(&[stranger]).unwrap();
    assert!(shake(&strange, "api.example.test", now()).is_err());

    let root_key = Pin::of(crate::x509::parse(&root).unwrap().public_key().raw);
    for pin in [Pin::of(key.spki()), root_key] {
        assert!(
            shake(&origin.clone().pinned(vec![Pin::of(other.spki()), pin]), "api.example.test", now())
                .is_ok()
        );
    }
    let misled = origin.clone().pinned(vec![Pin::of(other.spki())]);
    let refused = |name, time| shake(&misled, name, time).unwrap_err();
    assert!(NotPinned::is(&refused("api.example.test", now())));
    // What else is wrong is not the pin's.
    for (name, time) in [("other.example.test", now()), ("api.example.test", after(400 * 24 * 3600))] {
        assert!(!NotPinned::is(&refused(name, time)), "{name}");
    }
}

#[test]
fn pins_are_read_as_they_are_written() {
    let pin = Pin::of(b"key");
    let text = pin.to_string();
    assert!(text.starts_with("sha256/") && text.len() == 51);
    assert_eq!(Pin::parse(&text), Some(pin));
    assert_eq!(Pin::parse(&text.replace('/', "//")).is_some(), !text[7..].contains('/'));
    assert_eq!((Pin::parse("sha256/AAAA"), Pin::parse("md5/x")), (None, None));
}

#[test]
fn roots_are_demanded() {
    assert_eq!(Origin::from_roots(&[]).unwrap_err(), OriginError::NoRoots);
    assert_eq!(Origin::from_pem(b"").unwrap_err(), OriginError::NoRoots);
    let junk = CertificateDer::from(b"junk".to_vec());
    assert_eq!(Origin::from_roots(std::slice::from_ref(&junk)).unwrap_err(), OriginError::Root(1));
    let root = World::of("example.org").root.root_certificate().unwrap().clone();
    let (_, unreadable) = Origin::from_readable(&[root, junk]).unwrap();
    assert_eq!(unreadable, 1);
}

#[test]
fn an_inspected_client_believes_the_workloads_own_authority_alone() {
    let authority = crate::InspectionAuthority::new(now()).unwrap();
    let minted =
        authority.mint(&sidegate_policy::HostName::parse("api.example.test").unwrap(), now()).unwrap();
    let shake = |root: &CertificateDer<'static>, name: &str| {
        let client =
            Origin::from_roots(std::slice::from_ref(root)).unwrap().client(None, &[HTTP1], clock(now()));
        let server = inspect(&minted, &[HTTP1], clock(now())).unwrap();
        Ends::new(client.unwrap(), server, name).shake().0
    };
    assert_eq!(shake(authority.certificate(), "api.example.test"), Ok(()));
    assert!(shake(authority.certificate(), "other.example.test").is_err());
    let other = crate::InspectionAuthority::new(now()).unwrap();
    assert!(shake(other.certificate(), "api.example.test").is_err());
}

/// Of a build with the feature `fips` alone: nothing in it may go by cryptography that was not validated.
#[cfg(feature = "fips")]
#[test]
fn every_configuration_is_of_the_validated_module() {
    assert!(provider().fips());
    let world = World::of("example.org");
    let root = world.root.root_certificate().unwrap().clone();
    let origin = Origin::from_roots(&[root]).unwrap();
    assert!(origin.client(None, &[H2], system_time()).unwrap().fips());
    let (identity, trust) = (Arc::new(IdentityCell::empty()), Arc::new(TrustCell::default()));
    assert!(mesh_server(identity, trust, system_time()).unwrap().fips());
}
