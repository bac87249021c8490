//! TLS 1.3 towards servers outside the mesh: whom to believe, and the configurations made of it.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use rustls::{ClientConfig, Error as TlsError, pki_types::ServerName};
use sidegate_certs::tls::{H2, HTTP1, Origin, OriginError, system_time};
use sidegate_policy::{HostName, Reason};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::connection::connect::ConnectError;

/// What servers are verified with.
pub struct Origins {
    /// Made when the first rule needs it: reading a system's roots takes longer than starting.
    http: OnceLock<Option<Arc<ClientConfig>>>,
    given: Option<Origin>,
}

/// Why servers can't be verified.
#[derive(Debug, thiserror::Error)]
pub enum OriginsError {
    /// The roots.
    #[error("{path}: {error}")]
    Roots {
        /// The file they were to come from.
        path: String,
        /// What is wrong.
        error: OriginError,
    },
    /// The file of roots can't be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// Its path.
        path: String,
        /// Why not.
        error: io::Error,
    },
}

impl Origins {
    /// Believes the roots of the operating system, or where it has none those of Mozilla that this build carries.
    pub fn of_system() -> Self {
        Origins { http: OnceLock::new(), given: None }
    }

    /// Believes the roots of a PEM file alone.
    ///
    /// # Errors
    /// It can't be read, or holds no roots.
    pub fn of_file(path: &str) -> Result<Self, OriginsError> {
        let named = || path.to_owned();
        let pem = std::fs::read(path).map_err(|error| OriginsError::Unreadable { path: named(), error })?;
        let origin = Origin::from_pem(&pem).map_err(|error| OriginsError::Roots { path: named(), error })?;
        Ok(Self::new(origin))
    }

    /// Believes what `origin` does.
    pub fn new(origin: Origin) -> Self {
        Origins { http: OnceLock::new(), given: Some(origin) }
    }

    fn http(&self) -> Option<Arc<ClientConfig>> {
        let make = || {
            let origin = self.given.clone().or_else(system_roots)?;
            match origin.client(None, &[H2, HTTP1], system_time()) {
                Ok(config) => Some(Arc::new(config)),
                Err(error) => {
                    tracing::error!(%error, "no TLS can be originated");
                    None
                }
            }
        };
        self.http.get_or_init(make).clone()
    }

    /// Speaks TLS 1.3 with the server that a connection leads to, which has to be `host`.
    pub(crate) async fn originate(
        &self,
        socket: TcpStream,
        host: &HostName,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        let name = ServerName::try_from(host.as_str().to_owned())
            .map_err(|error| ConnectError::new(Reason::HostInvalid, error.to_string()))?;
        let config = self.http().ok_or_else(|| ConnectError::new(Reason::NotSupported, "no TLS here"))?;
        TlsConnector::from(config).connect(name, socket).await.map_err(|error| handshake_error(&error))
    }
}

/// The roots of the operating system, in PEM; empty where it has none.
pub fn system_roots_pem() -> String {
    let found = rustls_native_certs::load_native_certs().certs;
    found.iter().map(|root| sidegate_certs::certificate_to_pem(root)).collect()
}

fn system_roots() -> Option<Origin> {
    let found = rustls_native_certs::load_native_certs().certs;
    let own = || Origin::from_anchors(webpki_roots::TLS_SERVER_ROOTS.to_vec());
    Origin::from_readable(&found).map(|(origin, _)| origin).or_else(|_| own()).ok()
}

impl std::fmt::Debug for Origins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origins").finish_non_exhaustive()
    }
}

/// The reason in a failed handshake: the certificate, the version, or the rest.
fn handshake_error(error: &io::Error) -> ConnectError {
    use rustls::AlertDescription::ProtocolVersion;
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    let reason = match tls {
        Some(TlsError::InvalidCertificate(_)) => Reason::UpstreamCertificate,
        Some(TlsError::PeerIncompatible(_) | TlsError::AlertReceived(ProtocolVersion)) => {
            Reason::TlsVersionServer
        }
        Some(_) => Reason::UpstreamHandshake,
        None => Reason::UpstreamClosed,
    };
    ConnectError::new(reason, error.to_string())
}
