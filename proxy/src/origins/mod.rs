//! TLS 1.3 towards servers outside the mesh: whom to believe, what to show them, and the configurations made of it.

mod roots;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use pingora_memory_cache::MemoryCache;
use pingora_timeout::timeout;
use rustls::{ClientConfig, Error as TlsError, pki_types::ServerName};
use sidegate_certs::{
    IdentityCell, UnixTime,
    identity::Current,
    tls::{H2, HTTP1, NotPinned, Origin, Pin, system_time},
};
use sidegate_policy::{HostName, PolicySet, Reason, RuleFacts, demands::OriginTls};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use self::roots::RootsCell;
pub use self::roots::RootsFollower;
use crate::{connection::connect::ConnectError, tls::read_ahead::ReadAhead};

/// A verified server's stream.
pub(crate) type Sealed = TlsStream<ReadAhead<TcpStream>>;

/// Configurations kept.
const CONFIGS: usize = 256;
/// For how long: a server's session that is resumed was verified no longer ago.
const KEPT: Duration = Duration::from_secs(60 * 60);

/// What servers are verified with, and what they are shown.
pub struct Origins {
    /// Made when the first rule needs them: reading a system's roots takes longer than starting.
    public: OnceLock<Option<Origin>>,
    labelled: BTreeMap<Box<str>, Arc<RootsCell>>,
    identity: Option<Arc<IdentityCell>>,
    /// Beside each its key: the cache goes by hashes alone.
    configs: MemoryCache<(Verification, Speaks), (Verification, Speaks, Arc<ClientConfig>)>,
}

/// How a server is verified and what it is shown: connections that differ in it are never shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Verification {
    /// Label and epoch; `None`: the system's.
    roots: Option<(Box<str>, u64)>,
    pins: Vec<String>,
    /// The epoch of the identity that is shown.
    identity: Option<u64>,
}

/// The same with what it stands for at the moment.
pub(crate) struct Trusted {
    pub(crate) verification: Verification,
    origin: Origin,
    identity: Option<Arc<Current>>,
}

/// What is negotiated by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Speaks {
    /// HTTP/2 or HTTP/1.1.
    Http,
    /// HTTP/1.1, which alone can be switched to another protocol.
    Http1,
    /// Whatever the application does.
    Anything,
}

impl Origins {
    /// Believes the roots of the operating system, or where it has none those of Mozilla that this build carries.
    pub fn of_system() -> Self {
        Origins {
            public: OnceLock::new(),
            labelled: BTreeMap::new(),
            identity: None,
            configs: MemoryCache::new(CONFIGS),
        }
    }

    /// Believes what `origin` does.
    pub fn new(origin: Origin) -> Self {
        Origins { public: OnceLock::from(Some(origin)), ..Self::of_system() }
    }

    /// With roots for rules that name a label.
    #[must_use]
    pub fn with_roots(mut self, follower: &RootsFollower) -> Self {
        self.labelled = follower.cells();
        self
    }

    /// With the identity that rules may have shown to servers.
    #[must_use]
    pub fn with_identity(mut self, identity: Arc<IdentityCell>) -> Self {
        self.identity = Some(identity);
        self
    }

    /// What rules of a set demand that is not configured here, one line each: their connections are denied.
    pub fn wanting(&self, set: &PolicySet) -> Vec<String> {
        let labels = self.labelled.keys().map(AsRef::as_ref).collect();
        wanting(set, &labels, self.identity.is_some())
    }

    /// How a server is to be verified by what a rule demands.
    ///
    /// # Errors
    /// The label is not known or its file was never good, or there is no identity to show: nothing takes their place.
    pub(crate) fn trusted(&self, demanded: &OriginTls) -> Result<Trusted, ConnectError> {
        let absent = |what: String| ConnectError::new(Reason::NotSupported, what);
        let OriginTls { roots, pins, client_identity } = demanded;
        let (origin, roots) = match roots {
            None => (self.public().ok_or_else(|| absent("no roots to verify servers with".into()))?, None),
            Some(label) => {
                let cell = self.labelled.get(label);
                let cell = cell.ok_or_else(|| absent(format!("the roots `{label}` are not configured")))?;
                let known = cell.load();
                let known =
                    known.as_ref().ok_or_else(|| absent(format!("the roots `{label}` can't be read")))?;
                (known.origin.clone(), Some((label.clone(), known.epoch)))
            }
        };
        let parsed: Option<Vec<Pin>> = pins.iter().map(|pin| Pin::parse(pin)).collect();
        let origin = origin.pinned(parsed.ok_or_else(|| absent("a pin can't be read".into()))?);
        let identity = client_identity.then(|| self.shown()).transpose()?;
        let epoch = identity.as_ref().map(|current| current.epoch);
        let verification = Verification { roots, pins: pins.clone(), identity: epoch };
        Ok(Trusted { verification, origin, identity })
    }

    fn public(&self) -> Option<Origin> {
        self.public.get_or_init(system_roots).clone()
    }

    fn shown(&self) -> Result<Arc<Current>, ConnectError> {
        let current = self.identity.as_ref().and_then(|cell| cell.current());
        let usable = current.filter(|current| current.identity.validity().holds(UnixTime::now()));
        usable.ok_or_else(|| ConnectError::new(Reason::NotSupported, "there is no certificate to show"))
    }

    fn config(&self, trusted: &Trusted, speaks: Speaks) -> Result<Arc<ClientConfig>, ConnectError> {
        let key = (trusted.verification.clone(), speaks);
        if let (Some((verification, spoken, config)), _) = self.configs.get(&key)
            && verification == key.0
            && spoken == speaks
        {
            return Ok(config);
        }
        let protocols: &[&[u8]] = match speaks {
            Speaks::Http => &[H2, HTTP1],
            Speaks::Http1 => &[HTTP1],
            Speaks::Anything => &[],
        };
        let identity = trusted.identity.as_ref().map(|current| &current.identity);
        let config = trusted.origin.client(identity, protocols, system_time());
        let config = config.map_err(|error| ConnectError::new(Reason::NotSupported, error.to_string()))?;
        let config = Arc::new(config);
        self.configs.put(&key, (key.0.clone(), speaks, Arc::clone(&config)), Some(KEPT));
        Ok(config)
    }

    /// Speaks TLS 1.3 with the server that a connection leads to, which has to be `host`.
    pub(crate) async fn originate(
        &self,
        socket: TcpStream,
        host: &HostName,
        (trusted, speaks): (&Trusted, Speaks),
        patience: Duration,
    ) -> Result<Sealed, ConnectError> {
        let name = ServerName::try_from(host.as_str().to_owned())
            .map_err(|error| ConnectError::new(Reason::HostInvalid, error.to_string()))?;
        let connector = TlsConnector::from(self.config(trusted, speaks)?);
        match timeout(patience, connector.connect(name, ReadAhead::new(socket))).await {
            Ok(shaken) => shaken.map_err(|error| handshake_error(&error)),
            Err(_) => Err(ConnectError::new(Reason::UpstreamHandshake, "no answer in time")),
        }
    }
}

/// What rules of a set demand and a configuration lacks, one line each. `identity`: there is one.
pub fn wanting(set: &PolicySet, labels: &BTreeSet<&str>, identity: bool) -> Vec<String> {
    let mut said = Vec::new();
    for (rule, origin) in set.origins() {
        let mut say = |what: String| said.push(lacking(rule, &what));
        if let Some(label) = origin.roots.as_deref().filter(|label| !labels.contains(label)) {
            say(format!("names the roots `{label}`, which are not configured"));
        }
        if origin.client_identity && !identity {
            say("shows the workload's certificate, and no identity is configured".to_owned());
        }
    }
    said
}

/// A rule that demands what a configuration lacks.
pub(crate) fn lacking(rule: &RuleFacts, what: &str) -> String {
    let (file, line) = &rule.place;
    let denied = "what it matches is denied (not-supported), never weakened";
    format!("rule `{}` of policy `{}` ({file}:{line}) {what}: {denied}", rule.name, rule.policy)
}

/// The roots of the operating system, in PEM; where it has none those of Mozilla that this build carries.
pub fn public_roots_pem() -> String {
    let found = rustls_native_certs::load_native_certs().certs;
    let roots = if found.is_empty() { webpki_root_certs::TLS_SERVER_ROOT_CERTS } else { &found };
    roots.iter().map(|root| sidegate_certs::certificate_to_pem(root)).collect()
}

fn system_roots() -> Option<Origin> {
    let found = rustls_native_certs::load_native_certs().certs;
    let of = |roots| Origin::from_readable(roots).map(|(origin, _)| origin);
    of(&found).or_else(|_| of(webpki_root_certs::TLS_SERVER_ROOT_CERTS)).ok()
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
        Some(error) if NotPinned::is(error) => Reason::UpstreamPin,
        Some(TlsError::InvalidCertificate(_)) => Reason::UpstreamCertificate,
        Some(TlsError::PeerIncompatible(_) | TlsError::AlertReceived(ProtocolVersion)) => {
            Reason::TlsVersionServer
        }
        Some(_) => Reason::UpstreamHandshake,
        None => Reason::UpstreamClosed,
    };
    ConnectError::new(reason, error.to_string())
}
