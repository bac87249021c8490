use super::*;
use crate::testing::{after, now};

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

#[test]
fn what_is_minted_is_a_leaf_for_one_host_and_an_hour() {
    let authority = InspectionAuthority::new(now()).unwrap();
    let minted = authority.mint(&host("api.example.test"), now()).unwrap();
    let leaf = x509::parse(&minted.certified().cert[0]).unwrap();
    assert!(!x509::is_authority(&leaf) && !x509::may_issue(&leaf));
    let names = leaf.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(format!("{:?}", names.general_names), r#"[DNSName("api.example.test")]"#);
    assert_eq!(minted.validity().not_after, after(3_600));
    assert_eq!(x509::uris(&leaf), [""; 0], "no identity");
}

#[test]
fn each_authority_is_another_and_none_is_shown() {
    let (one, other) = (InspectionAuthority::new(now()).unwrap(), InspectionAuthority::new(now()).unwrap());
    assert_ne!(one.certificate(), other.certificate());
    assert!(one.to_pem().starts_with("-----BEGIN CERTIFICATE-----") && !one.to_pem().contains("PRIVATE"));
    assert!(format!("{one:?}").contains("PrivateKey(P256)"));
}

#[test]
fn an_expired_authority_mints_nothing() {
    let authority = InspectionAuthority::new(now()).unwrap();
    let last = authority.mint(&host("a.test"), after(AUTHORITY.as_secs())).unwrap();
    assert_eq!(last.validity().not_after, after(AUTHORITY.as_secs()));
    assert!(authority.mint(&host("a.test"), after(AUTHORITY.as_secs() + 1)).is_err());
}
