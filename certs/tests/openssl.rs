//! What is issued, judged by somebody else's X.509: openssl.

#![allow(clippy::unwrap_used, reason = "a test may panic, its small functions too")]

use std::{path::Path, process::Command, time::Duration};

use sidegate_certs::{
    Authority, CertificateRequest, PrivateKey, Profile, Svid, TrustBundle, UnixTime, authority::Revoked,
    lifetime,
};
use sidegate_policy::{HostName, SpiffeId, TrustDomain};

fn openssl(folder: &Path, arguments: &str) -> (bool, String) {
    let done = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    let text = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// A folder with root.pem, issuing.pem, leaf.pem, leaf.key and list.pem, which revokes the second of two leaves.
fn issued() -> (tempfile::TempDir, Svid) {
    let (now, domain) = (UnixTime::now(), TrustDomain::parse("example.org").unwrap());
    let key = || PrivateKey::generate().unwrap();
    let root = Authority::root(&domain, key(), now, lifetime::ROOT).unwrap();
    let issuing = root.intermediate(key(), now, lifetime::INTERMEDIATE).unwrap();
    let profile =
        Profile::new(SpiffeId::parse("spiffe://example.org/ns/pay/sa/api").unwrap(), lifetime::LEAF)
            .unwrap()
            .with_names(vec![HostName::parse("api.pay.svc").unwrap()]);
    let leaf_key = key();
    let leaf = issuing.issue(leaf_key.public(), &profile, now).unwrap();
    let revoked = issuing.issue(key().public(), &profile, now).unwrap();
    let next = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 3_600));
    let entry = Revoked { serial: revoked.serial().to_vec(), at: now };
    let list = issuing.revocation_list(&[entry], 1, now, next).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let bundle = TrustBundle::from_roots(domain, vec![root.root_certificate().unwrap().clone()]).unwrap();
    write("root.pem", bundle.to_pem().as_bytes());
    write("issuing.der", &issuing.chain()[0]);
    write("leaf.pem", leaf.to_pem().as_bytes());
    write("revoked.pem", revoked.to_pem().as_bytes());
    write("leaf.key", leaf_key.to_pem().as_bytes());
    write("list.der", &list);
    assert!(openssl(folder.path(), "x509 -inform DER -in issuing.der -out issuing.pem").0);
    assert!(openssl(folder.path(), "crl -inform DER -in list.der -out list.pem").0);
    (folder, leaf)
}

#[test]
fn it_verifies_for_both_roles_and_says_who_it_is() {
    let (folder, leaf) = issued();
    let verify = |more: &str| {
        let arguments =
            format!("verify -x509_strict -CAfile root.pem -untrusted issuing.pem {more} leaf.pem");
        openssl(folder.path(), &arguments)
    };
    for role in ["-purpose sslserver", "-purpose sslclient", "-verify_hostname api.pay.svc"] {
        let (good, text) = verify(role);
        assert!(good, "{role}: {text}");
    }
    assert!(!verify("-verify_hostname other.svc").0);
    let (_, text) = openssl(folder.path(), "x509 -in leaf.pem -noout -text");
    for part in [
        "URI:spiffe://example.org/ns/pay/sa/api",
        "X509v3 Key Usage: critical\n                Digital Signature",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "CA:FALSE",
        "NIST CURVE: P-256",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(leaf.chain().len(), 2);
}

#[test]
fn its_revocation_list_counts() {
    let (folder, _) = issued();
    let verify = |leaf: &str| {
        let arguments =
            format!("verify -crl_check -CRLfile list.pem -CAfile root.pem -untrusted issuing.pem {leaf}");
        openssl(folder.path(), &arguments)
    };
    assert!(verify("leaf.pem").0);
    let (good, text) = verify("revoked.pem");
    assert!(!good && text.contains("revoked"), "{text}");
}

#[test]
fn requests_of_others_are_read_and_keys_too() {
    let (folder, _) = issued();
    for kind in
        ["EC -pkeyopt ec_paramgen_curve:P-256", "EC -pkeyopt ec_paramgen_curve:P-384", "ED25519", "RSA"]
    {
        assert!(openssl(folder.path(), &format!("genpkey -algorithm {kind} -out key.pem")).0, "{kind}");
        let request = "req -new -key key.pem -subj /CN=whoever -addext basicConstraints=CA:TRUE -outform DER -out r.der";
        assert!(openssl(folder.path(), request).0, "{kind}");
        let request =
            CertificateRequest::parse(&std::fs::read(folder.path().join("r.der")).unwrap()).unwrap();
        let key = PrivateKey::from_pem(&std::fs::read(folder.path().join("key.pem")).unwrap()).unwrap();
        assert_eq!(request.key(), key.public(), "{kind}");
    }
    assert!(openssl(folder.path(), "genrsa -out key.pem 1024").0);
    assert!(PrivateKey::from_pem(&std::fs::read(folder.path().join("key.pem")).unwrap()).is_err());
    assert!(openssl(folder.path(), "ecparam -name prime256v1 -genkey -noout -out key.pem").0, "SEC 1");
    PrivateKey::from_pem(&std::fs::read(folder.path().join("key.pem")).unwrap()).unwrap();
    let (good, text) = openssl(folder.path(), "pkey -in leaf.key -noout -text");
    assert!(good && text.contains("prime256v1"), "{text}");
}
