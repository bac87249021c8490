//! TLS 1.3 to servers outside the mesh, known by their host name.

use std::{cell::Cell, fmt, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime},
    time_provider::TimeProvider,
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::{SetupError, client, mesh::Presented, provider};
use crate::{Identity, x509};

/// A pinned key: the SHA-256 digest of a SubjectPublicKeyInfo. RFC 7469 section 2.4.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

impl Pin {
    /// Of a SubjectPublicKeyInfo, DER.
    pub fn of(spki: &[u8]) -> Self {
        let mut pin = [0; 32];
        pin.copy_from_slice(digest(&SHA256, spki).as_ref());
        Pin(pin)
    }

    /// Reads `sha256/` and 44 characters of Base64, the way curl writes it with `//`; `None`: it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix("sha256//").or_else(|| text.strip_prefix("sha256/"))?;
        Some(Pin(STANDARD.decode(encoded).ok()?.try_into().ok()?))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The server's chain is valid, and none of its keys is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no key of the server's chain is pinned")]
pub struct NotPinned;

impl NotPinned {
    /// Whether this is why a handshake failed.
    pub fn is(error: &Error) -> bool {
        match error {
            Error::InvalidCertificate(CertificateError::Other(other)) => other.0.is::<NotPinned>(),
            _ => false,
        }
    }
}

/// Why a server can't be verified at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// No root: nobody could be believed.
    #[error("no root certificate to verify servers with")]
    NoRoots,
    /// A root that can't be read.
    #[error("root certificate {0} is malformed")]
    Root(usize),
}

/// Whom to believe that a server is the one named.
#[derive(Clone)]
pub struct Origin {
    roots: Arc<[TrustAnchor<'static>]>,
    pins: Vec<Pin>,
}

impl Origin {
    /// Believes these roots, as DER. Those of an operating system may hold ones that can't be read: see
    /// [`Origin::from_readable`].
    ///
    /// # Errors
    /// None, or one that can't be read.
    pub fn from_roots(roots: &[CertificateDer<'_>]) -> Result<Self, OriginError> {
        let mut anchors = Vec::with_capacity(roots.len());
        for (index, root) in roots.iter().enumerate() {
            let anchor = webpki::anchor_from_trusted_cert(root).map_err(|_| OriginError::Root(index + 1))?;
            anchors.push(anchor.to_owned());
        }
        Self::from_anchors(anchors)
    }

    /// The same, passing over what can't be read; how many those were.
    ///
    /// # Errors
    /// None that can be read.
    pub fn from_readable(roots: &[CertificateDer<'_>]) -> Result<(Self, usize), OriginError> {
        let readable = |root| webpki::anchor_from_trusted_cert(root).ok().map(|anchor| anchor.to_owned());
        let anchors: Vec<_> = roots.iter().filter_map(readable).collect();
        let unreadable = roots.len() - anchors.len();
        Ok((Self::from_anchors(anchors)?, unreadable))
    }

    /// Reads the roots of a PEM text.
    ///
    /// # Errors
    /// None, or one that can't be read.
    pub fn from_pem(pem: &[u8]) -> Result<Self, OriginError> {
        Self::from_roots(&x509::certificates_of_pem(pem).ok_or(OriginError::NoRoots)?)
    }

    /// Believes these roots.
    ///
    /// # Errors
    /// None.
    pub fn from_anchors(anchors: Vec<TrustAnchor<'static>>) -> Result<Self, OriginError> {
        if anchors.is_empty() {
            return Err(OriginError::NoRoots);
        }
        Ok(Origin { roots: anchors.into(), pins: Vec::new() })
    }

    /// Demands besides that a key of the verified chain, root included, is among `pins`; none: no demand.
    #[must_use]
    pub fn pinned(mut self, pins: Vec<Pin>) -> Self {
        self.pins = pins;
        self
    }

    /// For connections to servers verified so. `identity`: shown to servers that ask who we are. `protocols`: what is
    /// offered by ALPN, most preferred first; none: no ALPN. An identity is shown until it expires, never after.
    ///
    /// # Errors
    /// This build's cryptography can't do TLS 1.3.
    pub fn client(
        &self,
        identity: Option<&Identity>,
        protocols: &[&[u8]],
        time: Arc<dyn TimeProvider>,
    ) -> Result<ClientConfig, SetupError> {
        let verifier = Arc::new(OriginVerifier {
            origin: self.clone(),
            algorithms: provider().signature_verification_algorithms,
        });
        let builder = client(Arc::clone(&time))?.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match identity {
            Some(identity) => {
                let presented = Presented { identity: identity.clone(), time };
                builder.with_client_cert_resolver(Arc::new(presented))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // Resumed sessions are of this configuration alone, so that they end with its roots and pins.
        config.enable_early_data = false;
        Ok(config)
    }

    /// `unpinned` becomes true where a valid chain lacks a pinned key.
    fn accept(&self, path: &VerifiedPath<'_>, unpinned: &Cell<bool>) -> Result<(), webpki::Error> {
        let pinned = |spki: &[u8]| self.pins.contains(&Pin::of(spki));
        let held = self.pins.is_empty()
            || pinned(&path.end_entity().subject_public_key_info())
            || path.intermediate_certificates().any(|issuer| pinned(&issuer.subject_public_key_info()))
            || pinned(&webpki::spki_for_anchor(path.anchor()));
        // Path building goes on with other chains; if none has the key, this is what it ends with.
        unpinned.set(unpinned.get() || !held);
        if held { Ok(()) } else { Err(webpki::Error::UnknownIssuer) }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("roots", &self.roots.len()).field("pins", &self.pins).finish()
    }
}

#[derive(Debug)]
struct OriginVerifier {
    origin: Origin,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for OriginVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = EndEntityCert::try_from(leaf).map_err(certificate_error)?;
        let named = leaf.verify_is_valid_for_subject_name(name);
        let unpinned = Cell::new(false);
        let accept = |path: &VerifiedPath<'_>| self.origin.accept(path, &unpinned);
        let usage = KeyUsage::server_auth();
        let algorithms = self.algorithms.all;
        leaf.verify_for_usage(algorithms, &self.origin.roots, intermediates, now, usage, None, Some(&accept))
            .map_err(|error| match (&named, unpinned.get()) {
                (Ok(()), true) => {
                    let other = rustls::OtherError(Arc::new(NotPinned));
                    Error::InvalidCertificate(CertificateError::Other(other))
                }
                _ => certificate_error(error),
            })?;
        named.map_err(|_| Error::InvalidCertificate(CertificateError::NotValidForName))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn certificate_error(error: webpki::Error) -> Error {
    let error = match error {
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::BadDer => CertificateError::BadEncoding,
        error => CertificateError::Other(rustls::OtherError(Arc::new(error))),
    };
    Error::InvalidCertificate(error)
}
