//! A bundle as a JWK set. SPIFFE Trust Domain and Bundle section 4, SPIFFE X509-SVID section 6, RFC 7517.

use std::time::Duration;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sidegate_policy::TrustDomain;
use x509_parser::public_key::PublicKey as ParsedKey;

use super::{BundleError, TrustBundle};
use crate::x509;

const USE: &str = "x509-svid";

/// Unknown members are left alone, as the specification wants it: other uses, other parameters.
#[derive(Deserialize, Serialize)]
struct Document {
    keys: Vec<Key>,
    #[serde(rename = "spiffe_sequence", default, skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    /// Seconds.
    #[serde(rename = "spiffe_refresh_hint", default, skip_serializing_if = "Option::is_none")]
    refresh_hint: Option<u64>,
}

#[derive(Default, Deserialize, Serialize)]
struct Key {
    kty: String,
    #[serde(rename = "use", default, skip_serializing_if = "String::is_empty")]
    purpose: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    x5c: Vec<String>,
    #[serde(flatten)]
    parameters: Parameters,
}

/// The public key once more, as RFC 7518 section 6 and RFC 8037 write it. Never read: the certificate counts.
#[derive(Default, Deserialize, Serialize)]
struct Parameters {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<String>,
}

impl TrustBundle {
    /// Reads a SPIFFE bundle document; keys of other uses (`jwt-svid`, unknown ones) are skipped.
    ///
    /// # Errors
    /// Not of its shape; a root without exactly one certificate; what [`TrustBundle::from_roots`] refuses.
    pub fn from_jwks(domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        let document: Document =
            serde_json::from_slice(json).map_err(|error| BundleError::Json(error.to_string()))?;
        let mut roots = Vec::new();
        for (index, key) in document.keys.iter().enumerate().filter(|(_, key)| key.purpose == USE) {
            let [certificate] = key.x5c.as_slice() else {
                return Err(BundleError::Certificates { key: index + 1, count: key.x5c.len() });
            };
            let der =
                STANDARD.decode(certificate).map_err(|_| BundleError::Malformed { root: roots.len() + 1 })?;
            roots.push(CertificateDer::from(der));
        }
        let mut bundle = TrustBundle::from_roots(domain, roots)?;
        bundle.sequence = document.sequence;
        bundle.refresh_hint = match document.refresh_hint {
            Some(0) => return Err(BundleError::RefreshHint),
            hint => hint.map(Duration::from_secs),
        };
        Ok(bundle)
    }

    /// Writes it as a SPIFFE bundle document.
    pub fn to_jwks(&self) -> String {
        let document = Document {
            keys: self.roots().map(key).collect(),
            sequence: self.sequence,
            refresh_hint: self.refresh_hint.map(|hint| hint.as_secs()),
        };
        // Strings and numbers alone: serialising them can't fail.
        serde_json::to_string(&document).unwrap_or_default()
    }
}

fn key(root: &CertificateDer<'static>) -> Key {
    let mut key = Key { purpose: USE.to_owned(), x5c: vec![STANDARD.encode(root)], ..Key::default() };
    let Some(certificate) = x509::parse(root) else { return key };
    match certificate.public_key().parsed() {
        Ok(ParsedKey::EC(point)) => {
            "EC".clone_into(&mut key.kty);
            let coordinates = point.data().get(1..).unwrap_or_default();
            let (x, y) = coordinates.split_at(coordinates.len() / 2);
            let curve = if x.len() == 32 { "P-256" } else { "P-384" };
            key.parameters.crv = Some(curve.to_owned());
            key.parameters.x = Some(URL_SAFE_NO_PAD.encode(x));
            key.parameters.y = Some(URL_SAFE_NO_PAD.encode(y));
        }
        Ok(ParsedKey::RSA(rsa)) => {
            "RSA".clone_into(&mut key.kty);
            let zeros = rsa.modulus.iter().take_while(|byte| **byte == 0).count();
            key.parameters.n = Some(URL_SAFE_NO_PAD.encode(rsa.modulus.get(zeros..).unwrap_or_default()));
            key.parameters.e = Some(URL_SAFE_NO_PAD.encode(rsa.exponent));
        }
        _ => {
            "OKP".clone_into(&mut key.kty);
            key.parameters.crv = Some("Ed25519".to_owned());
            key.parameters.x =
                Some(URL_SAFE_NO_PAD.encode(&certificate.public_key().subject_public_key.data));
        }
    }
    key
}
