//! The files of an identity.

use std::path::PathBuf;

use serde::Serialize;
use sidegate_policy::{SpiffeId, TrustDomain};

/// Where an identity and the trust in others stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityFiles {
    /// The certificate chain, PEM, leaf first.
    pub certificate: PathBuf,
    /// The leaf's private key, PEM; may be the same file.
    pub key: PathBuf,
    /// The roots of the trust domain: PEM certificates, or a SPIFFE bundle (a JWK set).
    pub bundle: PathBuf,
    /// Whose roots the bundle holds, and whose ID the certificate has.
    #[serde(serialize_with = "shown")]
    pub trust_domain: TrustDomain,
    /// Revocation lists: one in DER, or any number in PEM, beside the certificates of issuers that are no roots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revocations: Vec<PathBuf>,
    /// The ID that the certificate has to have; `None`: any of the trust domain.
    #[serde(skip)]
    pub workload: Option<SpiffeId>,
}

impl IdentityFiles {
    /// What the identity is made of.
    pub(super) fn of_identity(&self) -> Vec<PathBuf> {
        vec![self.certificate.clone(), self.key.clone()]
    }

    /// What trust is made of.
    pub(super) fn of_trust(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.bundle.clone()];
        paths.extend_from_slice(&self.revocations);
        paths
    }
}

fn shown<S: serde::Serializer>(domain: &TrustDomain, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(domain.as_str())
}
