//! Serving TLS 1.3 to clients that prove nothing.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::CertificateDer,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    time_provider::TimeProvider,
};

use super::{SetupError, server, without_resumption};
use crate::{Identity, Validity, inspection::Minted, key::PrivateKey, x509};

/// Why a certificate and key can't be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Not PEM certificates, or none.
    #[error("no certificate chain in PEM")]
    Chain,
    /// The leaf is marked as an authority.
    #[error("the certificate is an authority's (CA:TRUE); serve a leaf")]
    Authority,
    /// The key.
    #[error(transparent)]
    Key(#[from] crate::key::KeyError),
    /// They don't belong together.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
}

/// Any certificate chain with its key: an identity's, or one that an operator gave.
#[derive(Clone)]
pub struct Credential {
    pub(super) certified: Arc<CertifiedKey>,
    validity: Validity,
}

impl Credential {
    /// Reads a PEM chain, leaf first, and its key.
    ///
    /// # Errors
    /// Malformed, an authority's, or not of each other.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CredentialError> {
        let chain = x509::certificates_of_pem(chain).ok_or(CredentialError::Chain)?;
        Self::new(chain, &PrivateKey::from_pem(key)?)
    }

    /// Puts a chain, leaf first, and its key together.
    ///
    /// # Errors
    /// Malformed, an authority's, or not of each other.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKey) -> Result<Self, CredentialError> {
        let leaf = chain.first().and_then(|leaf| x509::parse(leaf)).ok_or(CredentialError::Chain)?;
        if x509::is_authority(&leaf) {
            return Err(CredentialError::Authority);
        }
        if leaf.public_key().raw != key.public().spki() {
            return Err(CredentialError::Mismatch);
        }
        let validity = x509::validity(&leaf);
        Ok(Credential { certified: Arc::new(CertifiedKey::new(chain, key.usable())), validity })
    }

    /// From when until when the leaf holds.
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

impl From<&Identity> for Credential {
    fn from(identity: &Identity) -> Self {
        Credential { certified: Arc::clone(identity.certified()), validity: identity.validity() }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// For accepting clients that know us by a host name. `credential` is read at every handshake; nothing is served
/// once it has expired. `protocols`: what is offered by ALPN, most preferred first; none: no ALPN.
///
/// # Errors
/// This build's cryptography can't do TLS 1.3.
pub fn serve(
    credential: Arc<ArcSwap<Credential>>,
    protocols: &[&[u8]],
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, SetupError> {
    let resolver = Arc::new(Served { credential, time: Arc::clone(&time) });
    let mut config = server(time)?.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(without_resumption(config))
}

/// For accepting a client whose connection is inspected: as the host that was minted for.
///
/// # Errors
/// This build's cryptography can't do TLS 1.3.
pub fn inspect(
    minted: &Minted,
    protocols: &[&[u8]],
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, SetupError> {
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(minted.certified())));
    let mut config = server(time)?.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(without_resumption(config))
}

struct Served {
    credential: Arc<ArcSwap<Credential>>,
    time: Arc<dyn TimeProvider>,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = self.time.current_time()?;
        let credential = self.credential.load();
        (!credential.validity.expired(now)).then(|| Arc::clone(&credential.certified))
    }
}
