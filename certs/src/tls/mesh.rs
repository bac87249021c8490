//! Mutual TLS between workloads: both prove a SPIFFE ID.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    time_provider::TimeProvider,
};
use sidegate_policy::SpiffeId;

use super::{H2, SetupError, client, provider, server, without_client_resumption, without_resumption};
use crate::{
    Identity, IdentityCell, TrustStore,
    bundle::{Role, TrustError},
    svid, x509,
};

/// The trust of the moment. Every handshake reads it anew; readers never wait.
#[derive(Debug, Default)]
pub struct TrustCell(ArcSwap<TrustStore>);

impl TrustCell {
    /// With this trust.
    pub fn new(store: TrustStore) -> Self {
        TrustCell(ArcSwap::from_pointee(store))
    }

    /// The trust of the moment.
    pub fn current(&self) -> Arc<TrustStore> {
        self.0.load_full()
    }

    /// Replaces it for every handshake from now on.
    pub fn replace(&self, store: TrustStore) {
        self.0.store(Arc::new(store));
    }
}

/// For accepting connections of the mesh: the identity of the moment is served, a peer must prove an ID of a trust
/// domain we know; whether that ID may come in is the policy's to say. Nothing is served once it has expired.
///
/// # Errors
/// This build's cryptography can't do TLS 1.3.
pub fn mesh_server(
    identity: Arc<IdentityCell>,
    trust: Arc<TrustCell>,
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, SetupError> {
    let verifier = Arc::new(PeerVerifier::new(trust, None));
    let resolver = Arc::new(Served { identity, time: Arc::clone(&time) });
    let mut config = server(time)?.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(without_resumption(config))
}

/// For connections to `expected` and nobody else, as `identity`.
///
/// # Errors
/// This build's cryptography can't do TLS 1.3.
pub fn mesh_client(
    identity: &Identity,
    trust: Arc<TrustCell>,
    expected: SpiffeId,
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, SetupError> {
    let verifier = Arc::new(PeerVerifier::new(trust, Some(expected)));
    let resolver = Arc::new(Presented { identity: identity.clone(), time: Arc::clone(&time) });
    let mut config = client(time)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(resolver);
    config.alpn_protocols = vec![H2.to_vec()];
    // The ID is what is verified; a name in clear would only tell others whom we call.
    config.enable_sni = false;
    Ok(without_client_resumption(config))
}

/// The ID that the peer of a finished handshake of the mesh has proven; `None`: it is no handshake of the mesh.
pub fn peer_id(certificates: Option<&[CertificateDer<'_>]>) -> Option<SpiffeId> {
    svid::id_of(&x509::parse(certificates?.first()?)?)
}

/// The identity of the moment, for a server.
#[derive(Debug)]
struct Served {
    identity: Arc<IdentityCell>,
    time: Arc<dyn TimeProvider>,
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        usable(&self.identity.current()?.identity, self.time.as_ref())
    }
}

/// One identity, for a client.
#[derive(Debug)]
pub(super) struct Presented {
    pub(super) identity: Identity,
    pub(super) time: Arc<dyn TimeProvider>,
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        usable(&self.identity, self.time.as_ref())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// An identity is shown until it expires, never after.
pub(super) fn usable(identity: &Identity, time: &dyn TimeProvider) -> Option<Arc<CertifiedKey>> {
    let now = time.current_time()?;
    (!identity.validity().expired(now)).then(|| Arc::clone(identity.certified()))
}

/// Believes those whom the trust of the moment vouches for; of a server also that it is the one expected.
pub(super) struct PeerVerifier {
    trust: Arc<TrustCell>,
    expected: Option<SpiffeId>,
    /// Clients may also prove nothing.
    optional: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    fn new(trust: Arc<TrustCell>, expected: Option<SpiffeId>) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        PeerVerifier { trust, expected, optional: false, algorithms }
    }

    /// Of clients that need not prove who they are, and are believed if they do.
    pub(super) fn optional(trust: Arc<TrustCell>) -> Self {
        PeerVerifier { optional: true, ..PeerVerifier::new(trust, None) }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<(), Error> {
        let mut chain = Vec::with_capacity(1 + intermediates.len());
        chain.push(leaf.clone());
        chain.extend_from_slice(intermediates);
        let trust = self.trust.current();
        let verdict = match &self.expected {
            Some(expected) => trust.verify_expected(&chain, role, now, expected),
            None => trust.verify(&chain, role, now).map(|_| ()),
        };
        verdict.map_err(|error| Error::InvalidCertificate(certificate_error(error)))
    }
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Without somebody to expect, anybody of the trust domain would pass for the server.
        if self.expected.is_none() {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        self.verify(leaf, intermediates, Role::Server, now).map(|()| ServerCertVerified::assertion())
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

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        !(self.optional && self.trust.current().is_empty())
    }

    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Workloads have one identity each: there is nothing to choose by.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, intermediates, Role::Client, now).map(|()| ClientCertVerified::assertion())
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

/// As an error of rustls: the alert that the peer gets depends on it. The cause stays in it.
fn certificate_error(error: TrustError) -> CertificateError {
    match error {
        TrustError::Chain(webpki::Error::CertExpired { time, not_after }) => {
            CertificateError::ExpiredContext { time, not_after }
        }
        TrustError::Chain(webpki::Error::CertNotValidYet { time, not_before }) => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        TrustError::Chain(webpki::Error::CertRevoked) => CertificateError::Revoked,
        TrustError::Chain(webpki::Error::UnknownIssuer) | TrustError::TrustDomain(_) => {
            CertificateError::UnknownIssuer
        }
        error => CertificateError::Other(OtherError(Arc::new(error))),
    }
}
