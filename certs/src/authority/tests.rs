use super::*;
use crate::{
    request::{CertificateRequest, RequestError},
    testing::{HOUR, World, after, domain, id, now},
};

fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

#[test]
fn a_leaf_is_what_the_profile_says_whatever_the_request_asks_for() {
    let world = World::of("example.org");
    let key = key();
    // Everything that a greedy workload might ask for.
    let mut greedy = CertificateParams::default();
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    greedy.subject_alt_names = vec![uri("spiffe://example.org/ns/kube-system/sa/admin").unwrap()];
    let request = greedy.serialize_request(&key).unwrap();
    let request = CertificateRequest::parse(request.der()).unwrap();

    let profile = Profile::new(id("spiffe://example.org/ns/pay/sa/api"), HOUR).unwrap();
    let svid = world.issuing.issue(request.key(), &profile, now()).unwrap();
    assert_eq!(svid.id(), profile.id());
    assert_eq!(svid.key(), key.public());
    assert_eq!(svid.validity().not_after, after(3_600));
    assert_eq!(svid.chain().len(), 2, "the leaf and its issuer, not the root");
    let leaf = x509::parse(&svid.chain()[0]).unwrap();
    assert!(!x509::is_authority(&leaf) && !x509::may_issue(&leaf));
    assert_eq!(leaf.subject().as_raw(), [0x30, 0], "no name beside the ID");
}

#[test]
fn serial_numbers_are_random_and_positive() {
    let world = World::of("example.org");
    let key = key();
    let serials: std::collections::HashSet<Vec<u8>> =
        (0..64).map(|_| world.svid("/a", &key).serial().to_vec()).collect();
    assert_eq!(serials.len(), 64, "although the key is the same");
    assert!(serials.iter().all(|serial| serial.len() == 16 && serial[0] < 0x80));
}

#[test]
fn a_request_must_be_whole_and_signed_by_its_key() {
    let request = CertificateRequest::make(&key()).unwrap();
    CertificateRequest::parse(&request).unwrap();
    let refused = |bytes: &[u8]| CertificateRequest::parse(bytes).unwrap_err();
    assert_eq!(refused(&[request.as_slice(), &[0]].concat()), RequestError::Malformed);
    assert_eq!(refused(&request[..request.len() - 1]), RequestError::Malformed);
    assert_eq!(refused(&vec![0x30; 9_000]), RequestError::TooLarge);

    // The other key's request with our public key in it: the signature is not ours.
    let mut foreign = CertificateRequest::make(&key()).unwrap();
    let own = key();
    let (own, offset) = (own.public().spki(), foreign.len());
    let theirs = CertificateRequest::parse(&foreign).unwrap();
    let at =
        foreign.windows(theirs.key().spki().len()).position(|window| window == theirs.key().spki()).unwrap();
    foreign.splice(at..at + own.len(), own.iter().copied());
    assert_eq!(foreign.len(), offset);
    assert_eq!(refused(&foreign), RequestError::Signature);
}

#[test]
fn a_request_with_a_weak_key_is_refused() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let request = CertificateParams::default().serialize_request(&pair).unwrap();
    let refused = CertificateRequest::parse(request.der()).unwrap_err();
    assert_eq!(refused, RequestError::Key(KeyError::Algorithm));
}

#[test]
fn nobody_certifies_for_another_trust_domain() {
    let world = World::of("example.org");
    let profile = Profile::new(id("spiffe://example.com/ns/pay/sa/api"), HOUR).unwrap();
    let refused = world.issuing.issue(key().public(), &profile, now()).unwrap_err();
    assert!(matches!(refused, AuthorityError::ForeignId { .. }), "{refused}");
}

#[test]
fn a_profile_has_a_path_and_a_bounded_life() {
    let path = |text: &str, seconds| Profile::new(id(text), Duration::from_secs(seconds));
    assert!(matches!(path("spiffe://example.org", 3_600), Err(AuthorityError::PathMissing(_))));
    for seconds in [0, 299, 86_401] {
        assert!(
            matches!(path("spiffe://example.org/a", seconds), Err(AuthorityError::Lifetime(_))),
            "{seconds}"
        );
    }
    for seconds in [300, 86_400] {
        path("spiffe://example.org/a", seconds).unwrap();
    }
}

#[test]
fn no_leaf_outlives_its_authority_and_none_is_issued_at_its_end() {
    let world = World::of("example.org");
    let end = world.issuing.validity().not_after;
    let profile = Profile::new(id("spiffe://example.org/a"), HOUR).unwrap();
    let late = lifetime::at(end.as_secs() - 600);
    assert_eq!(world.issuing.issue(key().public(), &profile, late).unwrap().validity().not_after, end);
    let too_late = lifetime::at(end.as_secs() - 299);
    let refused = world.issuing.issue(key().public(), &profile, too_late).unwrap_err();
    assert!(matches!(refused, AuthorityError::Expiring { left: 299 }), "{refused}");
}

#[test]
fn an_intermediate_certifies_leaves_alone() {
    let world = World::of("example.org");
    let refused = world.issuing.intermediate(key(), now(), HOUR).unwrap_err();
    assert!(matches!(refused, AuthorityError::PathLength), "{refused}");
}

#[test]
fn an_authority_is_stored_and_loaded_again() {
    let world = World::of("example.org");
    let stored = PrivateKey::from_pem(world.issuing.key().to_pem().as_bytes()).unwrap();
    let loaded = Authority::load(world.issuing.chain().to_vec(), stored).unwrap();
    assert_eq!(loaded.trust_domain(), &domain("example.org"));
    assert_eq!(loaded.validity(), world.issuing.validity());
    let refused = Authority::load(world.issuing.chain().to_vec(), key()).unwrap_err();
    assert!(matches!(refused, AuthorityError::KeyMismatch), "{refused}");
    let leaf = key();
    let svid = world.svid("/a", &leaf);
    let refused = Authority::load(svid.chain().to_vec(), leaf).unwrap_err();
    assert!(matches!(refused, AuthorityError::NoAuthority), "{refused}");
}
