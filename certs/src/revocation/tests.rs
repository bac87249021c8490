use super::*;
use crate::{
    PrivateKey,
    authority::Revoked,
    testing::{World, after, now},
};

fn revoked(serial: &[u8]) -> Revoked {
    Revoked { serial: serial.to_vec(), at: now() }
}

#[test]
fn lists_of_one_issuer_add_up() {
    let world = World::of("example.org");
    let key = PrivateKey::generate().unwrap();
    let (first, second) = (world.svid("/a", &key), world.svid("/b", &key));
    let issuers = [world.issuing.chain()[0].clone()];
    let spki = world.issuing.key().public().spki();
    let mut revocations = Revocations::default();
    for (number, svid) in [(1, &first), (2, &second)] {
        let list = world
            .issuing
            .revocation_list(&[revoked(svid.serial())], number, now(), after(number * 100))
            .unwrap();
        revocations.admit(&list, &issuers).unwrap();
    }
    assert!(revocations.revoked(spki, first.serial()) && revocations.revoked(spki, second.serial()));
    assert!(!revocations.revoked(spki, world.svid("/c", &key).serial()));
    assert!(
        !revocations.revoked(world.root.key().public().spki(), first.serial()),
        "another issuer's numbers"
    );
    assert_eq!((revocations.len(), revocations.stale(after(200)), revocations.stale(after(201))), (2, 0, 1));
}

#[test]
fn a_list_counts_only_when_its_issuer_signed_it() {
    let (world, other) = (World::of("example.org"), World::of("example.org"));
    let list = world.issuing.revocation_list(&[revoked(&[7])], 1, now(), after(60)).unwrap();
    let mut revocations = Revocations::default();
    let mut admit =
        |list: &[u8], issuer: &World| revocations.admit(list, &[issuer.issuing.chain()[0].clone()]);
    assert_eq!(admit(&list, &other), Err(ListError::UnknownIssuer));
    let mut forged = list.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(admit(&forged, &world), Err(ListError::Signature | ListError::Malformed)));
    assert_eq!(admit(&[list.as_ref(), &[0]].concat(), &world), Err(ListError::Malformed));
    assert_eq!(admit(b"", &world), Err(ListError::Malformed));
    assert_eq!(admit(&vec![0x30; MAX_LIST + 1], &world), Err(ListError::TooLarge));
    assert!(admit(&list, &world).is_ok());
    assert!(!revocations.is_empty());
}

#[test]
fn a_partial_list_is_not_understood() {
    let world = World::of("example.org");
    let issuer = rcgen::Issuer::from_ca_cert_der(&world.issuing.chain()[0], world.issuing.key()).unwrap();
    let params = rcgen::CertificateRevocationListParams {
        this_update: time::OffsetDateTime::UNIX_EPOCH,
        next_update: time::OffsetDateTime::UNIX_EPOCH + time::Duration::days(1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: Some(rcgen::CrlIssuingDistributionPoint {
            distribution_point: rcgen::CrlDistributionPoint { uris: vec!["http://crl.test/".to_owned()] },
            scope: None,
        }),
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = params.signed_by(&issuer).unwrap();
    let mut revocations = Revocations::default();
    assert_eq!(revocations.admit(list.der(), &[world.issuing.chain()[0].clone()]), Err(ListError::Critical));
    assert_eq!(revocations, Revocations::default());
}

#[test]
fn zeros_before_a_number_do_not_hide_it() {
    let world = World::of("example.org");
    let list = world.issuing.revocation_list(&[revoked(&[0x80, 1])], 1, now(), after(60)).unwrap();
    let mut revocations = Revocations::default();
    revocations.admit(&list, &[world.issuing.chain()[0].clone()]).unwrap();
    let spki = world.issuing.key().public().spki();
    assert!(revocations.revoked(spki, &[0x80, 1]) && revocations.revoked(spki, &[0, 0x80, 1]));
}

#[test]
fn an_older_list_does_not_take_the_place_of_a_newer_one() {
    let (world, other) = (World::of("example.org"), World::of("other.test"));
    let known = |world: &World, number: u64, serial: u8| {
        let list = world.issuing.revocation_list(&[revoked(&[serial])], number, now(), after(60)).unwrap();
        let mut revocations = Revocations::default();
        revocations.admit(&list, &[world.issuing.chain()[0].clone()]).unwrap();
        revocations
    };
    let spki = world.issuing.key().public().spki();
    let newer = known(&world, 300, 7);
    let mut old = known(&world, 299, 8);
    assert!(!old.revoked(spki, &[7]), "the naive reading forgets it");
    assert_eq!((old.keep_newer(&newer), &old), (1, &newer));
    // As new, or newer: what it says counts.
    for number in [300, 301, 1 << 40] {
        let mut next = known(&world, number, 9);
        assert_eq!(next.keep_newer(&newer), 0);
        assert!(next.revoked(spki, &[9]) && !next.revoked(spki, &[7]));
    }
    // Another issuer's numbers are nothing to it.
    let mut foreign = known(&other, 1, 5);
    assert_eq!((foreign.keep_newer(&newer), foreign.len()), (0, 1));
}
