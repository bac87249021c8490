//! How those who connect from outside are received: what they are shown, and for whom they are taken.

mod given;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use rustls::{Error as TlsError, ServerConfig};
use sidegate_certs::{
    IdentityCell, UnixTime,
    tls::{H2, HTTP1, SetupError, Shown, TrustCell, peer_id, system_time, terminate},
};
use sidegate_policy::{PolicySet, Reason, SpiffeId};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub use self::given::{CertificateFiles, CertificatesFollower, GivenCell};
use crate::{
    inspection::{Refused, Rewound},
    mesh::{MeshServer, Roster, ServeError},
    origins::lacking,
};

/// HTTP/1.1 first: an application that was never asked speaks it, and who wants HTTP/2 alone offers that alone.
const HTTP: &[&[u8]] = &[HTTP1, H2];

/// What those who connect are met with.
pub struct Reception {
    own: End,
    /// By the label that rules name.
    given: BTreeMap<Box<str>, End>,
    pub(crate) mesh: MeshServer,
    local: LocalAddresses,
    /// Ports of the proxy itself, which nobody reaches through it.
    own_ports: Vec<u16>,
}

/// Where TLS ends that is met with one certificate.
pub(crate) struct End {
    shown: Shown,
    /// For clients that offer HTTP.
    http: TlsAcceptor,
    /// For all others: nothing is negotiated.
    opaque: TlsAcceptor,
}

/// The addresses of the workload, as they are now.
pub type LocalAddresses = Arc<dyn Fn() -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// What a reception is made of.
pub struct ReceptionSetup {
    /// The workload's identity; an empty cell: it has none.
    pub identity: Arc<IdentityCell>,
    /// Whom it believes.
    pub trust: Arc<TrustCell>,
    /// Certificates for clients, by the label that rules name. Where they name none the identity is shown.
    pub given: BTreeMap<Box<str>, Arc<GivenCell>>,
    /// Who is connected, so that who must go is gone at once.
    pub roster: Arc<Roster>,
    /// The addresses of the workload.
    pub local: LocalAddresses,
    /// Ports of the proxy itself.
    pub own_ports: Vec<u16>,
    /// How long a handshake may take.
    pub patience: Duration,
}

impl Reception {
    /// Receives from now on.
    ///
    /// # Errors
    /// This build's cryptography can't do TLS 1.3.
    pub fn new(setup: ReceptionSetup) -> Result<Self, SetupError> {
        let ReceptionSetup { identity, trust, given, roster, local, own_ports, patience } = setup;
        let given = given.into_iter().map(|(label, cell)| Ok((label, End::new(Shown::Given(cell), &trust)?)));
        Ok(Reception {
            own: End::new(Shown::Identity(Arc::clone(&identity)), &trust)?,
            given: given.collect::<Result<_, SetupError>>()?,
            mesh: MeshServer::new(identity, Arc::clone(&trust), system_time(), roster, patience)?,
            local,
            own_ports,
        })
    }

    /// Where TLS ends with the certificate of this label; `None`: with the workload's own.
    ///
    /// # Errors
    /// The label is not known: nothing takes its place.
    pub(crate) fn end(&self, certificate: Option<&str>) -> Result<&End, Refused> {
        let Some(label) = certificate else { return Ok(&self.own) };
        let unknown = || format!("the certificate `{label}` is not configured");
        let refused = || Refused { reason: Reason::NotSupported, detail: unknown() };
        self.given.get(label).ok_or_else(refused)
    }

    /// What rules of a set name that is not configured here, one line each: their connections are denied.
    pub(crate) fn wanting(&self, set: &PolicySet) -> Vec<String> {
        wanting(set, &self.given.keys().map(AsRef::as_ref).collect())
    }

    /// Why a connection of the mesh was not taken.
    pub(crate) fn mesh_refusal(&self, error: &ServeError) -> Refused {
        let reason = match error {
            ServeError::Handshake(_) if !self.mesh.has_identity() => Reason::IdentityMissing,
            ServeError::Handshake(error) => handshake_reason(error),
            ServeError::HandshakeTimedOut => Reason::ClassifyTimeout,
            ServeError::Dismissed => Reason::PeerNotAllowed,
            // The TLS was in order, what came in it was not.
            ServeError::NotHttp2 | ServeError::Lost(_) | ServeError::Silent => Reason::PeerHandshake,
        };
        let detail = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        Refused { reason, detail }
    }

    /// Whether a stream of the mesh may lead to this address: one of the workload's, and none that only its own
    /// processes reach.
    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        let inside = match address {
            IpAddr::V4(v4) => {
                v4.is_loopback() || v4.is_unspecified() || v4.is_link_local() || v4.is_multicast()
            }
            IpAddr::V6(v6) => {
                v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast()
            }
        };
        match (self.local)() {
            Ok(local) => !inside && local.contains(&address),
            Err(error) => {
                tracing::error!(%error, "local addresses can't be listed: streams of the mesh are refused");
                false
            }
        }
    }

    /// Whether the proxy itself listens there.
    pub(crate) fn is_own(&self, port: u16) -> bool {
        self.own_ports.contains(&port)
    }
}

impl std::fmt::Debug for Reception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reception").field("given", &self.given.keys()).finish_non_exhaustive()
    }
}

impl End {
    fn new(shown: Shown, trust: &Arc<TrustCell>) -> Result<Self, SetupError> {
        let speaking = |protocols| -> Result<TlsAcceptor, SetupError> {
            let config = terminate(shown.clone(), Arc::clone(trust), protocols, system_time())?;
            Ok(TlsAcceptor::from(Arc::<ServerConfig>::new(config)))
        };
        Ok(End { http: speaking(HTTP)?, opaque: speaking(&[])?, shown })
    }

    /// Ends a client's TLS; `early`: what was read of it already. Who it is, if it has proven that.
    ///
    /// # Errors
    /// There is nothing to show, or the handshake fails.
    pub(crate) async fn accept(
        &self,
        offers: &[Vec<u8>],
        early: Vec<u8>,
        socket: TcpStream,
        patience: Duration,
    ) -> Result<(TlsStream<Rewound>, Option<SpiffeId>), Refused> {
        let holds = self.shown.holds(UnixTime::now());
        let http = offers.iter().any(|offered| HTTP.contains(&offered.as_slice()));
        let acceptor = if http { &self.http } else { &self.opaque };
        match timeout(patience, acceptor.accept(Rewound::new(early, socket))).await {
            Ok(Ok(stream)) => {
                let peer = peer_id(stream.get_ref().1.peer_certificates());
                Ok((stream, peer))
            }
            Ok(Err(error)) => {
                let reason = if holds { handshake_reason(&error) } else { Reason::IdentityMissing };
                Err(Refused { reason, detail: error.to_string() })
            }
            Err(_) => Err(Refused { reason: Reason::ClassifyTimeout, detail: "the handshake".to_owned() }),
        }
    }
}

/// Which certificates rules of a set name and a configuration lacks, one line each.
pub(crate) fn wanting(set: &PolicySet, labels: &BTreeSet<&str>) -> Vec<String> {
    let unknown = set.certificates().filter(|(_, label)| !labels.contains(label));
    unknown
        .map(|(rule, label)| {
            lacking(rule, &format!("names the certificate `{label}`, which is not configured"))
        })
        .collect()
}

/// The reason in a failed handshake: the certificate, the version, or the rest.
fn handshake_reason(error: &io::Error) -> Reason {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        Some(TlsError::NoCertificatesPresented | TlsError::InvalidCertificate(_)) => Reason::PeerCertificate,
        Some(TlsError::PeerIncompatible(why)) if version(why) => Reason::TlsVersionClient,
        _ => Reason::PeerHandshake,
    }
}

fn version(why: &rustls::PeerIncompatible) -> bool {
    use rustls::PeerIncompatible::{
        SupportedVersionsExtensionRequired, Tls12NotOffered, Tls12NotOfferedOrEnabled, Tls13RequiredForQuic,
    };
    matches!(
        why,
        SupportedVersionsExtensionRequired
            | Tls12NotOffered
            | Tls12NotOfferedOrEnabled
            | Tls13RequiredForQuic
    )
}
