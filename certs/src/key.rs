//! Keys: private ones that can't be printed and are wiped, public ones that were found strong enough.

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use rustls::{
    SignatureScheme,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    sign,
};
use x509_parser::{prelude::FromDer, public_key::PublicKey as ParsedKey, x509};
use zeroize::{Zeroize, Zeroizing};

use crate::tls::provider;

/// RSA moduli below this are weak, in bits. NIST SP 800-57 part 1.
const MIN_RSA_BITS: usize = 2048;
/// RSA moduli above this cost a verifier too much, in bits.
const MAX_RSA_BITS: usize = 4096;

/// What kind a key is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA over NIST P-256: what we generate.
    P256,
    /// ECDSA over NIST P-384.
    P384,
    /// Ed25519.
    Ed25519,
    /// RSA of so many bits.
    Rsa(usize),
}

/// Why a key is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a private key in PEM.
    #[error("it is no private key in PEM (PKCS #8, SEC 1 or PKCS #1)")]
    NotPem,
    /// Bytes that the cryptographic provider does not take.
    #[error("the private key can't be used: {0}")]
    Unusable(String),
    /// A public key that is not what X.509 says.
    #[error("the public key is malformed")]
    Malformed,
    /// Neither ECDSA over P-256 or P-384, Ed25519, nor RSA.
    #[error("the key's algorithm is none of P-256, P-384, Ed25519 and RSA")]
    Algorithm,
    /// An RSA key outside 2048-4096 bits.
    #[error("an RSA key of {0} bits; it takes {MIN_RSA_BITS} to {MAX_RSA_BITS}")]
    RsaBits(usize),
    /// An RSA exponent that is even or below 65537.
    #[error("an RSA key with a weak public exponent; it takes an odd one of at least 65537")]
    RsaExponent,
}

/// A public key, strong enough to be certified.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// SubjectPublicKeyInfo, DER. RFC 5280 section 4.1.2.7.
    spki: Vec<u8>,
    kind: KeyKind,
}

impl PublicKey {
    /// Parses a DER SubjectPublicKeyInfo and judges its strength.
    ///
    /// # Errors
    /// Malformed, an algorithm that is not taken, or too weak.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        match x509::SubjectPublicKeyInfo::from_der(der) {
            Ok(([], parsed)) => Ok(PublicKey { spki: der.to_vec(), kind: kind_of(&parsed)? }),
            _ => Err(KeyError::Malformed),
        }
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Its kind.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The form in which rcgen certifies it.
    pub(crate) fn certifiable(&self) -> Result<SubjectPublicKeyInfo, KeyError> {
        SubjectPublicKeyInfo::from_der(&self.spki).map_err(|_| KeyError::Malformed)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?})", self.kind)
    }
}

/// A private key. It is wiped when dropped, and neither `Debug` nor an error shows it.
pub struct PrivateKey {
    der: PrivateKeyDer<'static>,
    usable: Arc<dyn sign::SigningKey>,
    public: PublicKey,
    certifiable: SubjectPublicKeyInfo,
}

impl PrivateKey {
    /// A fresh P-256 key.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let mut pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|error| KeyError::Unusable(error.to_string()))?;
        let der = pair.serialize_der();
        pair.zeroize();
        Self::from_der(PrivatePkcs8KeyDer::from(der).into())
    }

    /// Reads the first private key of a PEM text (PKCS #8, SEC 1 or PKCS #1).
    ///
    /// # Errors
    /// No key, or one that is unusable or weak.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        Self::from_der(PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::NotPem)?)
    }

    /// Takes a DER key over.
    ///
    /// # Errors
    /// Unusable or weak.
    pub fn from_der(mut der: PrivateKeyDer<'static>) -> Result<Self, KeyError> {
        match usable(&der) {
            Ok((usable, public, certifiable)) => Ok(PrivateKey { der, usable, public, certifiable }),
            Err(error) => {
                der.zeroize();
                Err(error)
            }
        }
    }

    /// The key in PEM, for a file that only its owner may read.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let label = match self.der {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        Zeroizing::new(crate::x509::to_pem(label, self.der.secret_der()))
    }

    /// Its public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// For rustls.
    pub(crate) fn usable(&self) -> Arc<dyn sign::SigningKey> {
        Arc::clone(&self.usable)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?})", self.public.kind)
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.der.zeroize();
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.certifiable.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.public.kind {
            KeyKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
            KeyKind::Rsa(_) => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signer = self.usable.choose_scheme(&[self.public.kind.scheme()]);
        signer.and_then(|signer| signer.sign(message).ok()).ok_or(rcgen::Error::RemoteKeyError)
    }
}

impl KeyKind {
    /// The TLS scheme whose signatures are those of X.509.
    fn scheme(self) -> SignatureScheme {
        match self {
            KeyKind::P256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            KeyKind::P384 => SignatureScheme::ECDSA_NISTP384_SHA384,
            KeyKind::Ed25519 => SignatureScheme::ED25519,
            KeyKind::Rsa(_) => SignatureScheme::RSA_PKCS1_SHA256,
        }
    }
}

type Usable = (Arc<dyn sign::SigningKey>, PublicKey, SubjectPublicKeyInfo);

fn usable(der: &PrivateKeyDer<'static>) -> Result<Usable, KeyError> {
    let loader = provider().key_provider;
    let usable =
        loader.load_private_key(der.clone_key()).map_err(|error| KeyError::Unusable(error.to_string()))?;
    let public = PublicKey::from_spki(&usable.public_key().ok_or(KeyError::Malformed)?)?;
    let certifiable = public.certifiable()?;
    Ok((usable, public, certifiable))
}

fn kind_of(key: &x509::SubjectPublicKeyInfo<'_>) -> Result<KeyKind, KeyError> {
    use x509_parser::oid_registry as oid;
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == oid::OID_SIG_ED25519 {
        return if key.subject_public_key.data.len() == 32 {
            Ok(KeyKind::Ed25519)
        } else {
            Err(KeyError::Malformed)
        };
    }
    if *algorithm == oid::OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
        return match curve {
            Some(curve) if curve == oid::OID_EC_P256 => Ok(KeyKind::P256),
            Some(curve) if curve == oid::OID_NIST_EC_P384 => Ok(KeyKind::P384),
            _ => Err(KeyError::Algorithm),
        };
    }
    match key.parsed() {
        Ok(ParsedKey::RSA(rsa)) if *algorithm == oid::OID_PKCS1_RSAENCRYPTION => rsa_kind(&rsa),
        Ok(_) => Err(KeyError::Algorithm),
        Err(_) => Err(KeyError::Malformed),
    }
}

fn rsa_kind(rsa: &x509_parser::public_key::RSAPublicKey<'_>) -> Result<KeyKind, KeyError> {
    let modulus = rsa.modulus.iter().skip_while(|byte| **byte == 0);
    let leading = modulus.clone().next().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = (modulus.count() * 8).saturating_sub(leading);
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(KeyError::RsaBits(bits));
    }
    match rsa.try_exponent() {
        Ok(exponent) if exponent >= 65537 && exponent % 2 == 1 => Ok(KeyKind::Rsa(bits)),
        _ => Err(KeyError::RsaExponent),
    }
}
