//! How those who connect from outside are received: what they are shown, and for whom they are taken.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use rustls::{Error as TlsError, ServerConfig};
use sidegate_certs::{
    IdentityCell, UnixTime,
    tls::{H2, HTTP1, SetupError, Shown, TrustCell, peer_id, system_time, terminate},
};
use sidegate_policy::{Reason, SpiffeId};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    inspection::{Refused, Rewound},
    mesh::{MeshServer, Roster, ServeError},
};

/// HTTP/1.1 first: an application that was never asked speaks it, and who wants HTTP/2 alone offers that alone.
const HTTP: &[&[u8]] = &[HTTP1, H2];

/// What those who connect are met with.
pub struct Reception {
    shown: Shown,
    /// For clients that offer HTTP.
    http: TlsAcceptor,
    /// For all others: nothing is negotiated.
    opaque: TlsAcceptor,
    pub(crate) mesh: MeshServer,
    local: LocalAddresses,
    /// Ports of the proxy itself, which nobody reaches through it.
    own_ports: Vec<u16>,
}

/// The addresses of the workload, as they are now.
pub type LocalAddresses = Arc<dyn Fn() -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// What a reception is made of.
pub struct ReceptionSetup {
    /// The workload's identity; an empty cell: it has none.
    pub identity: Arc<IdentityCell>,
    /// Whom it believes.
    pub trust: Arc<TrustCell>,
    /// What clients outside the mesh are shown.
    pub shown: Shown,
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
        let ReceptionSetup { identity, trust, shown, roster, local, own_ports, patience } = setup;
        let ends = |protocols| -> Result<TlsAcceptor, SetupError> {
            let config = terminate(shown.clone(), Arc::clone(&trust), protocols, system_time())?;
            Ok(TlsAcceptor::from(Arc::<ServerConfig>::new(config)))
        };
        Ok(Reception {
            http: ends(HTTP)?,
            opaque: ends(&[])?,
            mesh: MeshServer::new(identity, Arc::clone(&trust), system_time(), roster, patience)?,
            shown,
            local,
            own_ports,
        })
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

    /// Why a connection of the mesh was not taken; `None`: it was, and ended later.
    pub(crate) fn mesh_refusal(&self, error: &ServeError) -> Option<Refused> {
        let reason = match error {
            ServeError::Handshake(_) if !self.mesh.has_identity() => Reason::IdentityMissing,
            ServeError::Handshake(error) => handshake_reason(error),
            ServeError::HandshakeTimedOut => Reason::ClassifyTimeout,
            ServeError::NotHttp2 => Reason::PeerHandshake,
            ServeError::Dismissed => Reason::PeerNotAllowed,
            ServeError::Silent | ServeError::Lost(_) => return None,
        };
        let detail = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        Some(Refused { reason, detail })
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
        f.debug_struct("Reception").field("shown", &self.shown).finish_non_exhaustive()
    }
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
