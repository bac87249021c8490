//! Certificate signing requests: only their public key is used. RFC 2986.

use rcgen::{CertificateParams, DistinguishedName};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use crate::key::{KeyError, PrivateKey, PublicKey};

/// The largest request read, in bytes: an RSA-4096 request with a few names is below 2 KiB.
pub const MAX_REQUEST: usize = 8 * 1024;

/// A request that proved its key. The names and usages that it asks for are not even read: what is issued is the
/// [`Profile`](crate::Profile) of the identity that was attested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    key: PublicKey,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// More than [`MAX_REQUEST`] bytes.
    #[error("the certificate request is larger than {MAX_REQUEST} bytes")]
    TooLarge,
    /// Not DER, or followed by more bytes.
    #[error("the certificate request is malformed")]
    Malformed,
    /// Signed by another key than the one it asks to certify.
    #[error("the certificate request is not signed by the key that it asks to certify")]
    Signature,
    /// The key.
    #[error("the certificate request's key: {0}")]
    Key(#[from] KeyError),
}

impl CertificateRequest {
    /// Parses a DER request, checks that it is signed by its own key, and that the key is strong enough.
    ///
    /// # Errors
    /// Too large, malformed, badly signed, or a weak key.
    pub fn parse(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > MAX_REQUEST {
            return Err(RequestError::TooLarge);
        }
        let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
            return Err(RequestError::Malformed);
        };
        let key = PublicKey::from_spki(request.certification_request_info.subject_pki.raw)?;
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        Ok(CertificateRequest { key })
    }

    /// A request for `key`, as DER. It asks for nothing: the issuer knows who we are.
    ///
    /// # Errors
    /// The key can't sign.
    pub fn make(key: &PrivateKey) -> Result<Vec<u8>, RequestError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(key).map_err(|error| KeyError::Unusable(error.to_string()))?;
        Ok(request.der().to_vec())
    }

    /// The key to certify.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }
}
