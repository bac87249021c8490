use std::time::Duration;

use super::*;
use crate::{
    Authority, PrivateKey, Profile,
    authority::Revoked,
    lifetime,
    testing::{HOUR, World, after, domain, id, now},
};

fn verified(store: &TrustStore, svid: &Svid) -> Result<SpiffeId, TrustError> {
    store.verify(svid.chain(), Role::Server, now())?;
    store.verify(svid.chain(), Role::Client, now())
}

#[test]
fn a_peer_is_believed_by_its_own_trust_domain_alone() {
    let (ours, theirs) = (World::of("example.org"), World::of("example.com"));
    let key = PrivateKey::generate().unwrap();
    let svid = ours.svid("/a", &key);
    let both = TrustStore::new([ours.bundle(), theirs.bundle()]);
    assert_eq!(verified(&both, &svid).unwrap(), id("spiffe://example.org/a"));
    let refused = verified(&TrustStore::new([theirs.bundle()]), &svid).unwrap_err();
    assert_eq!(refused, TrustError::TrustDomain("example.org".to_owned()));

    // The other domain's authority certifies our names: its own roots don't count for them.
    let impostor = World::of("example.org");
    let refused = verified(&both, &impostor.svid("/a", &key)).unwrap_err();
    assert_eq!(refused, TrustError::Chain(webpki::Error::UnknownIssuer));
    assert!(verified(&TrustStore::empty(), &svid).is_err());
}

#[test]
fn only_the_one_expected_will_do() {
    let world = World::of("example.org");
    let store = TrustStore::new([world.bundle()]);
    let svid = world.svid("/a", &PrivateKey::generate().unwrap());
    let verify = |expected: &str| store.verify_expected(svid.chain(), Role::Server, now(), &id(expected));
    assert_eq!(verify("spiffe://example.org/a"), Ok(()));
    for other in ["spiffe://example.org/b", "spiffe://example.org/a/a", "spiffe://example.com/a"] {
        assert!(matches!(verify(other), Err(TrustError::OtherId { .. })), "{other}");
    }
}

#[test]
fn it_holds_from_its_first_to_its_last_second_and_so_does_the_root() {
    let world = World::of("example.org");
    let store = TrustStore::new([world.bundle()]);
    let svid = world.svid("/a", &PrivateKey::generate().unwrap());
    let at = |time| store.verify(svid.chain(), Role::Client, time).map(|_| ());
    assert_eq!((at(svid.validity().not_before), at(svid.validity().not_after)), (Ok(()), Ok(())));
    assert!(matches!(at(after(3_601)), Err(TrustError::Chain(webpki::Error::CertExpired { .. }))));
    assert!(matches!(
        at(lifetime::at(svid.validity().not_before.as_secs() - 1)),
        Err(TrustError::Chain(webpki::Error::CertNotValidYet { .. }))
    ));

    let root = Authority::root(
        &domain("example.org"),
        PrivateKey::generate().unwrap(),
        now(),
        Duration::from_secs(600),
    );
    let root = root.unwrap();
    let store = TrustStore::new([TrustBundle::from_roots(
        domain("example.org"),
        vec![root.root_certificate().unwrap().clone()],
    )
    .unwrap()]);
    let leaf = PrivateKey::generate().unwrap();
    let profile = Profile::new(id("spiffe://example.org/a"), HOUR).unwrap();
    let svid = root.issue(leaf.public(), &profile, now()).unwrap();
    store.verify(svid.chain(), Role::Client, now()).unwrap();
    // The leaf is cut to its root's life; a root alone must end too.
    assert!(store.verify(svid.chain(), Role::Client, after(601)).is_err());
}

#[test]
fn an_expired_root_vouches_for_nobody() {
    let world = World::of("example.org");
    let svid = world.svid("/a", &PrivateKey::generate().unwrap());
    let mut bundle = world.bundle();
    bundle.roots[0].validity.not_after = lifetime::at(now().as_secs() - 1);
    let refused = TrustStore::new([bundle]).verify(svid.chain(), Role::Client, now()).unwrap_err();
    assert!(matches!(refused, TrustError::Chain(webpki::Error::CertExpired { .. })), "{refused}");
}

#[test]
fn revocation_counts_at_every_link_of_the_chain() {
    let world = World::of("example.org");
    let svid = world.svid("/a", &PrivateKey::generate().unwrap());
    let issuing = x509::parse(&world.issuing.chain()[0]).unwrap().raw_serial().to_vec();
    let list = |by: &Authority, serial: &[u8]| {
        let mut revocations = Revocations::default();
        let revoked = [Revoked { serial: serial.to_vec(), at: now() }];
        let list = by.revocation_list(&revoked, 1, now(), after(60)).unwrap();
        revocations.admit(&list, &[by.chain()[0].clone()]).unwrap();
        TrustStore::new([world.bundle()]).with_revocations(revocations)
    };
    let revoked = Err(TrustError::Chain(webpki::Error::CertRevoked));
    assert_eq!(verified(&list(&world.issuing, svid.serial()), &svid), revoked);
    assert_eq!(verified(&list(&world.root, &issuing), &svid), revoked);
    // Others' numbers, and the same number of another issuer.
    assert!(verified(&list(&world.issuing, &issuing), &svid).is_ok());
    assert!(verified(&list(&world.root, svid.serial()), &svid).is_ok());
    // A list that should have been replaced still says what it says.
    let store = list(&world.issuing, svid.serial());
    assert_eq!(
        store.verify(svid.chain(), Role::Client, after(120)).map(|_| ()),
        revoked.map(|_: SpiffeId| ())
    );
}

#[test]
fn during_a_rotation_both_roots_count_and_afterwards_the_new_one_alone() {
    let (old, new) = (World::of("example.org"), World::of("example.org"));
    let key = PrivateKey::generate().unwrap();
    let both = [&old, &new].map(|world| world.root.root_certificate().unwrap().clone()).to_vec();
    let during = TrustStore::new([TrustBundle::from_roots(domain("example.org"), both).unwrap()]);
    for world in [&old, &new] {
        verified(&during, &world.svid("/a", &key)).unwrap();
    }
    let afterwards = TrustStore::new([new.bundle()]);
    assert!(verified(&afterwards, &old.svid("/a", &key)).is_err());
    verified(&afterwards, &new.svid("/a", &key)).unwrap();
}

#[test]
fn jwks_and_back() {
    let (old, new) = (World::of("example.org"), World::of("example.org"));
    let roots = [&old, &new].map(|world| world.root.root_certificate().unwrap().clone()).to_vec();
    let bundle = TrustBundle::from_roots(domain("example.org"), roots).unwrap().numbered(7, HOUR);
    let json = bundle.to_jwks();
    let read = TrustBundle::from_jwks(domain("example.org"), json.as_bytes()).unwrap();
    assert_eq!(read, bundle);
    assert_eq!((read.sequence(), read.refresh_hint()), (Some(7), Some(HOUR)));
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let key = &value["keys"][0];
    assert_eq!(
        (key["kty"].as_str(), key["crv"].as_str(), key["use"].as_str()),
        (Some("EC"), Some("P-256"), Some("x509-svid"))
    );
    assert_eq!((key["x"].as_str().unwrap().len(), key["y"].as_str().unwrap().len()), (43, 43));
    assert_eq!(
        TrustBundle::from_pem(domain("example.org"), bundle.to_pem().as_bytes()).unwrap().roots,
        bundle.roots
    );
}

#[test]
fn keys_of_other_uses_are_skipped_and_faults_named() {
    let json = World::of("example.org").bundle().to_jwks();
    let read = |json: &str| TrustBundle::from_jwks(domain("example.org"), json.as_bytes());
    let more = json.replace(
        "{\"keys\":[",
        "{\"keys\":[{\"kty\":\"EC\",\"use\":\"jwt-svid\",\"kid\":\"1\"},{\"kty\":\"new\"},",
    );
    assert_eq!(read(&more).unwrap().roots.len(), 1);
    assert_eq!(read("{\"keys\":[]}").unwrap_err(), BundleError::Empty);
    assert!(matches!(read("{}").unwrap_err(), BundleError::Json(_)));
    let none = json.replace("\"x5c\":[", "\"x5c\":[],\"other\":[");
    assert_eq!(read(&none).unwrap_err(), BundleError::Certificates { key: 1, count: 0 });
    let spoilt = json.replace("\"x5c\":[\"", "\"x5c\":[\"!");
    assert_eq!(read(&spoilt).unwrap_err(), BundleError::Malformed { root: 1 });
    let hint = json.replace("]}]}", "]}],\"spiffe_refresh_hint\":0}");
    let hint = if hint == json { json.replacen('{', "{\"spiffe_refresh_hint\":0,", 1) } else { hint };
    assert_eq!(read(&hint).unwrap_err(), BundleError::RefreshHint);
}

#[test]
fn a_root_is_an_authority_of_the_bundles_own_domain() {
    let (ours, theirs) = (World::of("example.org"), World::of("example.com"));
    let foreign = TrustBundle::from_roots(domain("example.org"), theirs.root.chain().to_vec()).unwrap_err();
    assert!(matches!(foreign, BundleError::ForeignRoot { root: 1, .. }), "{foreign}");
    let leaf = ours.svid("/a", &PrivateKey::generate().unwrap()).chain()[0].clone();
    let refused = TrustBundle::from_roots(domain("example.org"), vec![leaf]).unwrap_err();
    assert_eq!(refused, BundleError::NoAuthority { root: 1 });
    let root = ours.root.root_certificate().unwrap().clone();
    let many = vec![root; MAX_ROOTS + 1];
    assert_eq!(TrustBundle::from_roots(domain("example.org"), many).unwrap_err(), BundleError::TooMany);
}
