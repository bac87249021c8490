use rustls::pki_types::PrivatePkcs8KeyDer;

use super::*;

fn generated(algorithm: &'static rcgen::SignatureAlgorithm) -> Result<PrivateKey, KeyError> {
    let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
    PrivateKey::from_der(PrivatePkcs8KeyDer::from(pair.serialize_der()).into())
}

#[test]
fn what_is_generated_is_p256_and_survives_pem() {
    let key = PrivateKey::generate().unwrap();
    assert_eq!(key.public().kind(), KeyKind::P256);
    let pem = key.to_pem();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert!(pem.lines().all(|line| line.len() <= 64));
    assert_eq!(PrivateKey::from_pem(pem.as_bytes()).unwrap().public(), key.public());
}

#[test]
fn neither_debug_nor_errors_show_a_secret() {
    let key = PrivateKey::generate().unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(P256)");
    let mut broken = key.der.secret_der().to_vec();
    broken.truncate(40);
    let error = PrivateKey::from_der(PrivatePkcs8KeyDer::from(broken.clone()).into()).unwrap_err();
    let shown = format!("{error:?} {error}");
    for window in broken.windows(4) {
        let hex: String = window.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!shown.contains(&hex) && !shown.contains(&format!("{window:?}")), "{shown}");
    }
}

#[test]
fn kinds_that_are_taken() {
    assert_eq!(generated(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().public().kind(), KeyKind::P384);
    assert_eq!(generated(&rcgen::PKCS_ED25519).unwrap().public().kind(), KeyKind::Ed25519);
    assert_eq!(generated(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap_err(), KeyError::Algorithm);
}

/// An RSA SubjectPublicKeyInfo around a modulus of ones.
fn rsa(bits: usize, exponent: u32) -> Vec<u8> {
    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], length.as_slice(), content].concat()
    }
    let modulus = [&[0][..], &vec![0xff; bits / 8]].concat();
    let exponent = exponent.to_be_bytes();
    let exponent: Vec<u8> = exponent.iter().copied().skip_while(|byte| *byte == 0).collect();
    let key = tlv(0x30, &[tlv(2, &modulus), tlv(2, &exponent)].concat());
    let algorithm = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];
    tlv(0x30, &[algorithm.as_slice(), &tlv(3, &[&[0], key.as_slice()].concat())].concat())
}

#[test]
fn weak_rsa_keys_are_refused() {
    // DER wants the shortest form of lengths, which these have from 128 bytes on.
    assert_eq!(PublicKey::from_spki(&rsa(2048, 65537)).unwrap().kind(), KeyKind::Rsa(2048));
    assert_eq!(PublicKey::from_spki(&rsa(1024, 65537)).unwrap_err(), KeyError::RsaBits(1024));
    assert_eq!(PublicKey::from_spki(&rsa(8192, 65537)).unwrap_err(), KeyError::RsaBits(8192));
    assert_eq!(PublicKey::from_spki(&rsa(2048, 3)).unwrap_err(), KeyError::RsaExponent);
    assert_eq!(PublicKey::from_spki(&rsa(2048, 65538)).unwrap_err(), KeyError::RsaExponent);
}

#[test]
fn a_key_followed_by_more_is_malformed() {
    let mut spki = PrivateKey::generate().unwrap().public().spki().to_vec();
    spki.push(0);
    assert_eq!(PublicKey::from_spki(&spki).unwrap_err(), KeyError::Malformed);
    assert_eq!(PrivateKey::from_pem(b"hello").unwrap_err(), KeyError::NotPem);
}
