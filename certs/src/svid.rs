//! X.509-SVIDs: a certificate chain that names one SPIFFE ID. SPIFFE X509-SVID, sections 2-5.

#[cfg(test)]
mod tests;

use std::fmt;

use rustls::pki_types::{CertificateDer, UnixTime};
use sidegate_policy::{SpiffeId, spiffe::SpiffeError};
use x509_parser::{certificate::X509Certificate, extensions::KeyUsage, x509::X509Version};

use crate::{
    key::{KeyError, PublicKey},
    lifetime::Validity,
    x509,
};

/// The longest chain taken, leaf and intermediates; what is longer costs the verifier too much.
pub const MAX_CHAIN: usize = 6;

/// A chain that keeps every rule of an X.509-SVID by its form. Whether anybody vouches for it is
/// [`crate::TrustStore`]'s to say.
#[derive(Clone, PartialEq, Eq)]
pub struct Svid {
    id: SpiffeId,
    chain: Vec<CertificateDer<'static>>,
    serial: Vec<u8>,
    validity: Validity,
    key: PublicKey,
}

/// A rule that a chain violates. The section is that of SPIFFE X509-SVID unless another source is named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// No certificate.
    #[error("the chain is empty")]
    Empty,
    /// More than [`MAX_CHAIN`] certificates.
    #[error("the chain has more than {MAX_CHAIN} certificates")]
    TooLong,
    /// Not DER, or followed by more bytes.
    #[error("certificate {position} of the chain is malformed")]
    Malformed {
        /// Which, from 1 for the leaf.
        position: usize,
    },
    /// Not X.509 version 3, which alone has extensions. Section 4.
    #[error("the leaf is not of X.509 version 3")]
    Version,
    /// Section 2: exactly one URI SAN.
    #[error("the leaf has no URI among its alternative names (it takes exactly one, the SPIFFE ID)")]
    UriMissing,
    /// Section 2: exactly one URI SAN.
    #[error("the leaf has {0} URIs among its alternative names (it takes exactly one, the SPIFFE ID)")]
    SeveralUris(usize),
    /// SPIFFE-ID section 2.
    #[error("the leaf's URI is no SPIFFE ID: {0}")]
    Id(#[from] SpiffeError),
    /// Section 5.2: a leaf's ID has a path.
    #[error("the leaf names the trust domain itself; a workload's ID has a path")]
    PathMissing,
    /// Section 4.1: a leaf is no authority.
    #[error("the leaf is marked as an authority (CA:TRUE)")]
    LeafIsAuthority,
    /// Section 4.3: present, critical, digitalSignature.
    #[error("the leaf has no key usage, or one that is not critical")]
    KeyUsageMissing,
    /// Section 4.3.
    #[error("the leaf's key usage lacks digitalSignature")]
    DigitalSignatureMissing,
    /// Section 4.3.
    #[error("the leaf's key usage has keyCertSign or cRLSign, which are for authorities")]
    LeafMaySign,
    /// Section 4.4; we demand what the section recommends.
    #[error("the leaf's extended key usage lacks serverAuth or clientAuth")]
    ExtendedKeyUsage,
    /// A key that is too weak or of a kind that we don't take.
    #[error("the leaf's key: {0}")]
    Key(#[from] KeyError),
    /// Section 4.1 and 4.3: a signing certificate is an authority with keyCertSign.
    #[error("certificate {position} of the chain is no authority (CA:TRUE, keyCertSign)")]
    NoAuthority {
        /// Which, from 1 for the leaf.
        position: usize,
    },
    /// Section 5.1: a signing certificate's ID, if any, is that of the leaf's trust domain, without a path.
    #[error("certificate {position} of the chain names another ID than the leaf's trust domain")]
    SignerId {
        /// Which, from 1 for the leaf.
        position: usize,
    },
}

/// Every rule that a chain violates, in the order of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.0.iter().enumerate() {
            write!(f, "{}{violation}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

impl Svid {
    /// Judges a chain, leaf first, by its form.
    ///
    /// # Errors
    /// Every rule that it violates.
    pub fn from_chain(chain: Vec<CertificateDer<'static>>) -> Result<Self, Violations> {
        let mut violations = Vec::new();
        let svid = judge(chain, &mut violations);
        match svid {
            Some(svid) if violations.is_empty() => Ok(svid),
            _ => Err(Violations(violations)),
        }
    }

    /// Reads a PEM chain, leaf first.
    ///
    /// # Errors
    /// Every rule that it violates.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Violations> {
        let chain = x509::certificates_of_pem(pem)
            .ok_or_else(|| Violations(vec![Violation::Malformed { position: 1 }]))?;
        Self::from_chain(chain)
    }

    /// Reads certificates in DER, leaf first, one after the other. SPIFFE Workload API section 5.2.
    ///
    /// # Errors
    /// Every rule that it violates.
    pub fn from_der(der: &[u8]) -> Result<Self, Violations> {
        let chain = x509::certificates_of_der(der)
            .ok_or_else(|| Violations(vec![Violation::Malformed { position: 1 }]))?;
        Self::from_chain(chain)
    }

    /// Whom it names.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf's serial number, big-endian.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// From when until when the leaf holds.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// When the first certificate of the chain ends. One that no path needs counts too: look again then.
    pub fn first_end(&self) -> UnixTime {
        let end =
            |certificate: &CertificateDer<'_>| Some(x509::validity(&x509::parse(certificate)?).not_after);
        self.chain.iter().filter_map(end).min().unwrap_or(self.validity.not_after)
    }

    /// The leaf's public key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The chain in PEM.
    pub fn to_pem(&self) -> String {
        self.chain.iter().map(|certificate| x509::to_pem("CERTIFICATE", certificate)).collect()
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id.as_str())
            .field("validity", &self.validity)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

fn judge(chain: Vec<CertificateDer<'static>>, violations: &mut Vec<Violation>) -> Option<Svid> {
    if chain.len() > MAX_CHAIN {
        violations.push(Violation::TooLong);
        return None;
    }
    let Some(first) = chain.first() else {
        violations.push(Violation::Empty);
        return None;
    };
    let Some(leaf) = x509::parse(first) else {
        violations.push(Violation::Malformed { position: 1 });
        return None;
    };
    let id = judge_id(&leaf).map_err(|violation| violations.push(violation)).ok();
    judge_usage(&leaf, violations);
    let key = PublicKey::from_spki(leaf.public_key().raw).map_err(|error| violations.push(error.into())).ok();
    let serial = leaf.raw_serial().to_vec();
    let validity = x509::validity(&leaf);
    for (index, certificate) in chain.iter().enumerate().skip(1) {
        judge_signer(certificate, index + 1, id.as_ref(), violations);
    }
    Some(Svid { id: id?, key: key?, serial, validity, chain })
}

fn judge_id(leaf: &X509Certificate<'_>) -> Result<SpiffeId, Violation> {
    let uris = x509::uris(leaf);
    match uris.as_slice() {
        [] => Err(Violation::UriMissing),
        [uri] => {
            let id = SpiffeId::parse(uri)?;
            if id.path().is_empty() { Err(Violation::PathMissing) } else { Ok(id) }
        }
        several => Err(Violation::SeveralUris(several.len())),
    }
}

/// The SPIFFE ID of a leaf that was verified; `None`: not exactly one.
pub(crate) fn id_of(leaf: &X509Certificate<'_>) -> Option<SpiffeId> {
    judge_id(leaf).ok()
}

fn judge_usage(leaf: &X509Certificate<'_>, violations: &mut Vec<Violation>) {
    if leaf.version() != X509Version::V3 {
        violations.push(Violation::Version);
    }
    if x509::is_authority(leaf) {
        violations.push(Violation::LeafIsAuthority);
    }
    match leaf.key_usage() {
        Ok(Some(usage)) if usage.critical => judge_key_usage(usage.value, violations),
        _ => violations.push(Violation::KeyUsageMissing),
    }
    match leaf.extended_key_usage() {
        Ok(Some(usage)) if usage.value.server_auth && usage.value.client_auth => {}
        _ => violations.push(Violation::ExtendedKeyUsage),
    }
}

fn judge_key_usage(usage: &KeyUsage, violations: &mut Vec<Violation>) {
    if !usage.digital_signature() {
        violations.push(Violation::DigitalSignatureMissing);
    }
    if usage.key_cert_sign() || usage.crl_sign() {
        violations.push(Violation::LeafMaySign);
    }
}

fn judge_signer(der: &[u8], position: usize, id: Option<&SpiffeId>, violations: &mut Vec<Violation>) {
    let Some(signer) = x509::parse(der) else {
        return violations.push(Violation::Malformed { position });
    };
    if !x509::may_issue(&signer) {
        violations.push(Violation::NoAuthority { position });
    }
    let Some(id) = id else { return };
    let domain = format!("spiffe://{}", id.trust_domain().as_str());
    // Authorities outside SPIFFE name no URI at all, or URIs of another kind.
    if x509::uris(&signer).iter().any(|uri| uri.starts_with("spiffe:") && **uri != domain) {
        violations.push(Violation::SignerId { position });
    }
}
