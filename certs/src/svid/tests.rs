use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose,
    SanType,
};
use sidegate_policy::spiffe::SpiffeError;

use super::*;
use crate::{PrivateKey, testing::World};

/// A leaf that keeps every rule, then changed; signed by somebody.
fn leaf(change: impl FnOnce(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
    let world = World::of("example.org");
    let key = PrivateKey::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri("spiffe://example.org/ns/pay/sa/api")];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let issuer = Issuer::from_ca_cert_der(&world.issuing.chain()[0], world.issuing.key()).unwrap();
    let leaf = params.signed_by(&key.public().certifiable().unwrap(), &issuer).unwrap();
    vec![leaf.der().clone(), world.issuing.chain()[0].clone()]
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn violations(change: impl FnOnce(&mut CertificateParams)) -> Vec<Violation> {
    Svid::from_chain(leaf(change)).map_or_else(|violations| violations.0, |_| Vec::new())
}

#[test]
fn a_leaf_that_keeps_every_rule_is_taken() {
    assert_eq!(violations(|_| {}), []);
    let names = |params: &mut CertificateParams| {
        params.subject_alt_names.push(SanType::DnsName("api.pay.svc".try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, "api");
    };
    assert_eq!(violations(names), [], "other names beside the one URI");
}

#[test]
fn exactly_one_uri_that_is_a_workloads_id() {
    let with = |names: &[&str]| {
        violations(|params| params.subject_alt_names = names.iter().map(|n| uri(n)).collect())
    };
    assert_eq!(violations(|params| params.subject_alt_names.clear()), [Violation::UriMissing]);
    assert_eq!(with(&["spiffe://example.org/a", "https://example.org/"]), [Violation::SeveralUris(2)]);
    assert_eq!(with(&["https://example.org/a"]), [Violation::Id(SpiffeError::Scheme)]);
    assert_eq!(with(&["spiffe://example.org/a/../b"]), [Violation::Id(SpiffeError::DotSegment)]);
    assert_eq!(with(&["spiffe://example.org"]), [Violation::PathMissing]);
}

#[test]
fn no_leaf_is_an_authority_or_signs_like_one() {
    let authority = violations(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    assert_eq!(authority, [Violation::LeafIsAuthority]);
    let signs = |usage| violations(|params| params.key_usages.push(usage));
    assert_eq!(signs(KeyUsagePurpose::KeyCertSign), [Violation::LeafMaySign]);
    assert_eq!(signs(KeyUsagePurpose::CrlSign), [Violation::LeafMaySign]);
}

#[test]
fn usages_are_named() {
    assert_eq!(violations(|params| params.key_usages.clear()), [Violation::KeyUsageMissing]);
    let agreement = |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    assert_eq!(violations(agreement), [Violation::DigitalSignatureMissing]);
    for kept in [vec![], vec![ExtendedKeyUsagePurpose::ServerAuth], vec![ExtendedKeyUsagePurpose::ClientAuth]]
    {
        assert_eq!(violations(|params| params.extended_key_usages = kept), [Violation::ExtendedKeyUsage]);
    }
}

#[test]
fn every_violation_is_told_at_once() {
    let all = violations(|params| {
        params.subject_alt_names.clear();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages.clear();
    });
    let expected = [
        Violation::UriMissing,
        Violation::LeafIsAuthority,
        Violation::DigitalSignatureMissing,
        Violation::LeafMaySign,
        Violation::ExtendedKeyUsage,
    ];
    assert_eq!(all, expected);
    assert_eq!(Violations(all).to_string().matches("; ").count(), 4);
}

#[test]
fn who_signed_is_an_authority_of_the_same_trust_domain() {
    let refused = |chain| Svid::from_chain(chain).unwrap_err().0;
    let mut chain = leaf(|_| {});
    chain[1] = World::of("example.com").issuing.chain()[0].clone();
    assert_eq!(refused(chain), [Violation::SignerId { position: 2 }]);
    let mut chain = leaf(|_| {});
    chain[1] = leaf(|_| {})[0].clone();
    assert_eq!(refused(chain), [Violation::NoAuthority { position: 2 }, Violation::SignerId { position: 2 }]);
}

#[test]
fn chains_are_whole_and_bounded() {
    let refused = |chain| Svid::from_chain(chain).unwrap_err().0;
    assert_eq!(refused(vec![]), [Violation::Empty]);
    let chain = leaf(|_| {});
    assert_eq!(refused(vec![chain[1].clone(); MAX_CHAIN + 1]), [Violation::TooLong]);
    let mut long = chain[0].to_vec();
    long.push(0);
    assert_eq!(refused(vec![long.into()]), [Violation::Malformed { position: 1 }]);
    assert_eq!(refused(vec![chain[0].clone(), b"x".to_vec().into()]), [Violation::Malformed { position: 2 }]);
}

#[test]
fn pem_and_back() {
    let svid = Svid::from_chain(leaf(|_| {})).unwrap();
    assert_eq!(Svid::from_pem(svid.to_pem().as_bytes()).unwrap(), svid);
    assert_eq!(Svid::from_pem(b"no pem").unwrap_err().0, [Violation::Empty]);
}
