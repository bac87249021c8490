//! Whom to believe: the roots of each trust domain, never mixed. SPIFFE Trust Domain and Bundle, sections 3-4.

mod authorities;
mod jwks;
mod summary;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sidegate_policy::{SpiffeId, TrustDomain};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, anchor_from_trusted_cert};

pub use summary::RootSummary;

use crate::{
    Validity,
    revocation::Revocations,
    svid::{Svid, Violations},
    x509,
};

/// The most roots a bundle may hold: a rotation takes two or three, a verifier pays for each.
pub const MAX_ROOTS: usize = 32;

/// A trust domain's roots.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustBundle {
    domain: TrustDomain,
    roots: Vec<Root>,
    /// What path building goes by: one for each root, in their order.
    anchors: Vec<TrustAnchor<'static>>,
    sequence: Option<u64>,
    refresh_hint: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Root {
    certificate: CertificateDer<'static>,
    validity: Validity,
}

/// Why a bundle is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Not JSON, or not of a JWK set's shape.
    #[error("the bundle is no JWK set: {0}")]
    Json(String),
    /// Not PEM, or not certificates.
    #[error("the bundle is no list of certificates")]
    Pem,
    /// A root of X.509-SVIDs with no certificate or several. Section 4.2.1.
    #[error("key {key} has {count} certificates (x5c); a root has exactly one")]
    Certificates {
        /// Which key of the set, from 1.
        key: usize,
        /// How many there are.
        count: usize,
    },
    /// A certificate that can't be read.
    #[error("root {root} is malformed")]
    Malformed {
        /// Which, from 1.
        root: usize,
    },
    /// A certificate that is no authority's.
    #[error("root {root} is no authority (CA:TRUE, keyCertSign)")]
    NoAuthority {
        /// Which, from 1.
        root: usize,
    },
    /// A root that names another trust domain.
    #[error("root {root} names the trust domain {found}, not {expected}")]
    ForeignRoot {
        /// Which, from 1.
        root: usize,
        /// The bundle's trust domain.
        expected: String,
        /// The root's.
        found: String,
    },
    /// More than [`MAX_ROOTS`].
    #[error("the bundle has more than {MAX_ROOTS} roots")]
    TooMany,
    /// No root: nobody could be believed.
    #[error("the bundle has no root")]
    Empty,
    /// A refresh hint of zero.
    #[error("the bundle's spiffe_refresh_hint is zero")]
    RefreshHint,
}

impl TrustBundle {
    /// Takes roots over, as DER.
    ///
    /// # Errors
    /// None or too many, or one that is malformed, no authority's or of another trust domain.
    pub fn from_roots(
        domain: TrustDomain,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        match certificates.len() {
            0 => return Err(BundleError::Empty),
            1..=MAX_ROOTS => {}
            _ => return Err(BundleError::TooMany),
        }
        let (mut roots, mut anchors): (Vec<Root>, Vec<_>) = Default::default();
        for (index, certificate) in certificates.into_iter().enumerate() {
            let (root, anchor) = Root::parse(certificate, index + 1, &domain)?;
            if !roots.contains(&root) {
                roots.push(root);
                anchors.push(anchor);
            }
        }
        Ok(TrustBundle { domain, roots, anchors, sequence: None, refresh_hint: None })
    }

    /// Reads concatenated PEM certificates.
    ///
    /// # Errors
    /// As [`TrustBundle::from_roots`], or no PEM.
    pub fn from_pem(domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        Self::from_roots(domain, x509::certificates_of_pem(pem).ok_or(BundleError::Pem)?)
    }

    /// Reads certificates in DER, one after the other. SPIFFE Workload API section 5.2.
    ///
    /// # Errors
    /// As [`TrustBundle::from_roots`], or no certificates.
    pub fn from_der(domain: TrustDomain, der: &[u8]) -> Result<Self, BundleError> {
        Self::from_roots(domain, x509::certificates_of_der(der).ok_or(BundleError::Pem)?)
    }

    /// Whose roots they are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The roots, as DER.
    pub fn roots(&self) -> impl ExactSizeIterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(|root| &root.certificate)
    }

    /// The rising number of this bundle, if it has one. Section 4.1.1.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// How often to look for a newer one, if it says. Section 4.1.2.
    pub fn refresh_hint(&self) -> Option<Duration> {
        self.refresh_hint
    }

    /// The same roots under a sequence number and a refresh hint of at least a second.
    #[must_use]
    pub fn numbered(mut self, sequence: u64, refresh_hint: Duration) -> Self {
        self.sequence = Some(sequence);
        self.refresh_hint = Some(refresh_hint.max(Duration::from_secs(1)));
        self
    }

    /// The roots in PEM.
    pub fn to_pem(&self) -> String {
        self.roots().map(|root| x509::to_pem("CERTIFICATE", root)).collect()
    }

    fn root(&self, anchor: &TrustAnchor<'_>) -> Option<&Root> {
        let position = self.anchors.iter().position(|own| own == anchor)?;
        self.roots.get(position)
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("domain", &self.domain.as_str())
            .field("roots", &self.roots.len())
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl Root {
    fn parse(
        certificate: CertificateDer<'static>,
        root: usize,
        domain: &TrustDomain,
    ) -> Result<(Self, TrustAnchor<'static>), BundleError> {
        let parsed = x509::parse(&certificate).ok_or(BundleError::Malformed { root })?;
        if !x509::may_issue(&parsed) {
            return Err(BundleError::NoAuthority { root });
        }
        // Authorities outside SPIFFE (cert-manager's, a company's) name no trust domain: the bundle does.
        if let Some(found) = x509::trust_domain_of_authority(&parsed)
            && found != *domain
        {
            let (expected, found) = (domain.as_str().to_owned(), found.as_str().to_owned());
            return Err(BundleError::ForeignRoot { root, expected, found });
        }
        let validity = x509::validity(&parsed);
        let anchor =
            anchor_from_trusted_cert(&certificate).map_err(|_| BundleError::Malformed { root })?.to_owned();
        Ok((Root { certificate, validity }, anchor))
    }
}

/// In which role a peer presents itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It accepted our connection.
    Server,
    /// It opened a connection to us.
    Client,
}

/// Why a peer is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Its certificates are no X.509-SVID.
    #[error("the peer's certificates are no X.509-SVID: {0}")]
    Form(#[from] Violations),
    /// We have no roots of its trust domain.
    #[error("no bundle for the peer's trust domain {0}")]
    TrustDomain(String),
    /// No valid chain to a root of its trust domain.
    #[error("the peer's certificate is not vouched for by its trust domain: {0}")]
    Chain(#[from] webpki::Error),
    /// It is someone else than was to be reached.
    #[error("the peer is {found}, not {expected}")]
    OtherId {
        /// Who was to be reached.
        expected: String,
        /// Who it is.
        found: String,
    },
}

impl TrustError {
    /// The certificate, or one of those that vouch for it, was revoked.
    pub fn is_revoked(&self) -> bool {
        matches!(self, TrustError::Chain(webpki::Error::CertRevoked))
    }

    /// The ground in an error of rustls that this crate's verifiers caused, where the error itself doesn't say it.
    pub fn of(error: &rustls::Error) -> Option<&TrustError> {
        match error {
            rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
                other.0.downcast_ref()
            }
            _ => None,
        }
    }
}

/// The bundles that we believe in, by trust domain, and what was revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustStore {
    bundles: BTreeMap<TrustDomain, Arc<TrustBundle>>,
    revocations: Arc<Revocations>,
}

impl TrustStore {
    /// Nobody is believed.
    pub fn empty() -> Self {
        TrustStore::default()
    }

    /// With these bundles; of two for one trust domain the later counts alone, they are never merged.
    pub fn new(bundles: impl IntoIterator<Item = TrustBundle>) -> Self {
        let bundles = bundles.into_iter().map(|bundle| (bundle.domain.clone(), Arc::new(bundle))).collect();
        TrustStore { bundles, revocations: Arc::default() }
    }

    /// With what was revoked.
    #[must_use]
    pub fn with_revocations(mut self, revocations: Revocations) -> Self {
        self.revocations = Arc::new(revocations);
        self
    }

    /// The same, but of each issuer whose newest list here is older than that of `before`, what `before` knows: whoever
    /// puts an old list in the place of a new one must not bring back what was revoked. How many those issuers are.
    #[must_use]
    pub fn no_older_than(mut self, before: &TrustStore) -> (Self, usize) {
        let mut revocations = Arc::unwrap_or_clone(self.revocations);
        let kept = revocations.keep_newer(&before.revocations);
        self.revocations = Arc::new(revocations);
        (self, kept)
    }

    /// Whether nobody is believed.
    pub fn is_empty(&self) -> bool {
        self.bundles.is_empty()
    }

    /// The bundle of a trust domain.
    pub fn bundle(&self, domain: &TrustDomain) -> Option<&TrustBundle> {
        self.bundles.get(domain).map(Arc::as_ref)
    }

    /// What was revoked.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// When the next root ends, of those that hold at `now`: whoever it vouches for is believed no longer then.
    pub fn next_end(&self, now: UnixTime) -> Option<UnixTime> {
        let roots = self.bundles.values().flat_map(|bundle| &bundle.roots);
        roots.filter(|root| root.validity.holds(now)).map(|root| root.validity.not_after).min()
    }

    /// Who presents this chain (leaf first) at `now`: judged by form, by a chain to a root of the ID's own trust
    /// domain, and by what was revoked, each certificate of the chain.
    ///
    /// # Errors
    /// The first ground not to believe it.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<SpiffeId, TrustError> {
        let svid =
            Svid::from_chain(chain.iter().map(|certificate| certificate.clone().into_owned()).collect())?;
        let domain = svid.id().trust_domain();
        let bundle =
            self.bundles.get(&domain).ok_or_else(|| TrustError::TrustDomain(domain.as_str().to_owned()))?;
        let Some((leaf, intermediates)) = svid.chain().split_first() else {
            return Err(TrustError::Chain(webpki::Error::UnknownIssuer));
        };
        let leaf = EndEntityCert::try_from(leaf)?;
        let usage = match role {
            Role::Server => KeyUsage::server_auth(),
            Role::Client => KeyUsage::client_auth(),
        };
        let accept = |path: &VerifiedPath<'_>| self.accept(path, bundle, now);
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        leaf.verify_for_usage(algorithms, &bundle.anchors, intermediates, now, usage, None, Some(&accept))?;
        Ok(svid.id().clone())
    }

    /// The same, of somebody who has to be `expected`.
    ///
    /// # Errors
    /// The first ground not to believe it; then that it is somebody else.
    pub fn verify_expected(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
        expected: &SpiffeId,
    ) -> Result<(), TrustError> {
        let found = self.verify(chain, role, now)?;
        if found == *expected {
            return Ok(());
        }
        Err(TrustError::OtherId { expected: expected.as_str().to_owned(), found: found.as_str().to_owned() })
    }

    /// What path building does not look at: the root's own life, and revocation, from the leaf up.
    fn accept(
        &self,
        path: &VerifiedPath<'_>,
        bundle: &TrustBundle,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let root = bundle.root(path.anchor()).ok_or(webpki::Error::UnknownIssuer)?;
        if !root.validity.holds(now) {
            return Err(webpki::Error::CertExpired { time: now, not_after: root.validity.not_after });
        }
        let mut serial = path.end_entity().serial().to_vec();
        for issuer in path.intermediate_certificates() {
            if self.revocations.revoked(&issuer.subject_public_key_info(), &serial) {
                return Err(webpki::Error::CertRevoked);
            }
            serial = issuer.serial().to_vec();
        }
        if self.revocations.revoked(&webpki::spki_for_anchor(path.anchor()), &serial) {
            return Err(webpki::Error::CertRevoked);
        }
        Ok(())
    }
}
