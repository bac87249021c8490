//! Opening streams to workloads.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use hyper::{Method, Request, StatusCode, Uri, http::uri};
use rustls::{
    pki_types::{ServerName, UnixTime},
    time_provider::TimeProvider,
};
use sidegate_certs::{
    IdentityCell, Svid,
    bundle::Role,
    identity::Current,
    tls::{H2, SetupError, TrustCell, mesh_client},
};
use sidegate_policy::SpiffeId;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    alive::{ASKED_EVERY, until_silent},
    h2_settings,
    pool::{Key, Lease, Leased, Load, Pool},
    roster::{Arrival, Entry, Roster},
    stream::{MeshStream, Side},
};
use crate::{
    addrs::{OriginalDst, UpstreamAddr},
    connection::connect::Dialler,
    limits::{DescriptorSlot, Limits},
    tls::read_ahead::ReadAhead,
};

/// How often a connection is asked for room before the stream is given up: one may end just as it is asked.
const ATTEMPTS: usize = 3;
/// How long a connection without streams is kept warm. An own certificate lives longer, a NAT's memory hardly.
const WARM: Duration = Duration::from_secs(5 * 60);

/// What a [`Mesh`] is made of.
pub struct MeshSetup {
    /// Who we are.
    pub identity: Arc<IdentityCell>,
    /// Whom we believe.
    pub trust: Arc<TrustCell>,
    /// When it is.
    pub time: Arc<dyn TimeProvider>,
    /// Where connections are entered; shared by all that close together.
    pub roster: Arc<Roster>,
    /// Opens sockets.
    pub dial: Arc<Dialler>,
    /// How many descriptors there may be; `None`: any number.
    pub limits: Option<Arc<Limits>>,
    /// How long opening a stream may take, handshake and all.
    pub patience: Duration,
}

/// Opens streams, on connections that it keeps. Of one worker: connections live on the event loop that made them.
pub struct Mesh {
    setup: MeshSetup,
    pool: Arc<Pool>,
    /// The epoch of our certificate when a stream was last opened.
    epoch: AtomicU64,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// We have no identity yet, or none any more.
    #[error("this workload has no valid identity")]
    NoIdentity,
    /// TLS can't be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Too few descriptors are left for another connection.
    #[error("too few descriptors are left")]
    NoDescriptors,
    /// No TCP connection.
    #[error("dialling: {0}")]
    Dial(#[source] io::Error),
    /// The peer did not prove to be the one expected, or we did not to it.
    #[error("handshake: {0}")]
    Handshake(#[source] io::Error),
    /// The peer speaks no HTTP/2.
    #[error("the peer does not speak HTTP/2")]
    NotHttp2,
    /// The peer had to go while the handshake ran.
    #[error("the peer was dismissed")]
    Dismissed,
    /// The peer's answer was no: 403 its policy, 404 nobody is there, 503 the application can't be reached.
    #[error("the peer answered {0}")]
    Refused(StatusCode),
    /// The connection ended before the peer answered.
    #[error("connection lost: {0}")]
    Lost(#[source] h2::Error),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
}

impl Mesh {
    /// Without connections.
    pub fn new(setup: MeshSetup) -> Self {
        Mesh { setup, pool: Arc::new(Pool::default()), epoch: AtomicU64::new(0) }
    }

    /// A stream to `destination` through the proxy of `peer` at `address`, on a connection over which `peer` and our
    /// identity of the moment have been proven.
    ///
    /// # Errors
    /// The peer can't be reached, is not `peer`, or refuses.
    pub async fn open(
        &self,
        peer: &SpiffeId,
        address: UpstreamAddr,
        destination: OriginalDst,
    ) -> Result<MeshStream, OpenError> {
        let opened = timeout(self.setup.patience, self.open_patiently(peer, address, destination)).await;
        opened.unwrap_or(Err(OpenError::TimedOut))
    }

    /// Where its connections are entered.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.setup.roster
    }

    /// Ends every connection with `peer` at once, its streams with it. See [`Roster::close_peer`].
    pub fn close_peer(&self, peer: &SpiffeId) -> usize {
        self.setup.roster.close_peer(peer)
    }

    /// Lets connections that show an earlier certificate of ours take no more streams. They end with their last one.
    /// Opening a stream does so too, and connections look for themselves every few seconds.
    pub fn retire_outdated(&self) {
        let epoch = self.setup.identity.current().map_or(0, |current| current.epoch);
        self.pool.retire_other_epochs(epoch);
    }

    /// Which of our certificates is shown to peers now; 0: none.
    pub(crate) fn epoch(&self) -> u64 {
        self.setup.identity.current().map_or(0, |current| current.epoch)
    }

    /// How many connections take streams.
    pub fn connections(&self) -> usize {
        self.pool.len()
    }

    async fn open_patiently(
        &self,
        peer: &SpiffeId,
        address: UpstreamAddr,
        destination: OriginalDst,
    ) -> Result<MeshStream, OpenError> {
        let mut attempts = 0;
        loop {
            let current = self.setup.identity.current().ok_or(OpenError::NoIdentity)?;
            if self.setup.roster.is_disowned() {
                return Err(OpenError::NoIdentity);
            }
            if self.epoch.swap(current.epoch, Relaxed) != current.epoch {
                self.pool.retire_other_epochs(current.epoch);
            }
            let key = Key { epoch: current.epoch, peer: peer.clone(), address };
            let leased = self.leased(&key, &current).await?;
            let load = Arc::clone(leased.lease.load());
            attempts += 1;
            match ask(leased, destination).await {
                // Nothing of the application was sent: asking again is safe.
                Err(OpenError::Lost(_)) if attempts < ATTEMPTS => self.pool.retire(&key, &load),
                outcome => return outcome,
            }
        }
    }

    /// Room on a connection that is there, or that another is making, or that we make.
    async fn leased(&self, key: &Key, current: &Current) -> Result<Leased, OpenError> {
        if let Some(leased) = self.pool.lease(key) {
            return Ok(leased);
        }
        let turn = self.pool.turn(key);
        let _ours = turn.come().await;
        match self.pool.lease(key) {
            Some(leased) => Ok(leased),
            None => self.connect(key, current).await,
        }
    }

    async fn connect(&self, key: &Key, current: &Current) -> Result<Leased, OpenError> {
        let ours = current.identity.validity();
        let usable = self.setup.time.current_time().filter(|now| !ours.expired(*now));
        let now = usable.ok_or(OpenError::NoIdentity)?;
        let room = match &self.setup.limits {
            Some(limits) => Some(limits.attempt().ok_or(OpenError::NoDescriptors)?),
            None => None,
        };
        let since = self.setup.roster.now();
        let stream = self.shake_hands(key, current).await?;
        let theirs = peer(&stream).filter(|svid| *svid.id() == key.peer).ok_or(OpenError::NotHttp2)?;
        let leave_at = leave_at(now, ours.not_after.min(theirs.first_end()));
        let arrival =
            Arrival { peer: theirs, role: Role::Server, at: key.address.ip(), ours_end: ours.not_after };
        let believed =
            |svid: &Svid| self.setup.trust.current().verify(svid.chain(), Role::Server, now).is_ok();
        let entry = self.setup.roster.enter(arrival, since, believed).ok_or(OpenError::Dismissed)?;
        let (sender, connection) = h2_settings::client().handshake(stream).await.map_err(OpenError::Lost)?;
        let load = Arc::new(Load::default());
        let leased = self.pool.keep(key, sender, &load);
        let kept = Kept {
            key: key.clone(),
            load,
            entry,
            leave_at,
            _room: room,
            pool: Arc::clone(&self.pool),
            identity: Arc::clone(&self.setup.identity),
            time: Arc::clone(&self.setup.time),
        };
        tokio::spawn(kept.drive(connection));
        Ok(leased)
    }

    async fn shake_hands(&self, key: &Key, current: &Current) -> Result<Sealed, OpenError> {
        let MeshSetup { trust, time, dial, .. } = &self.setup;
        let config = mesh_client(&current.identity, Arc::clone(trust), key.peer.clone(), Arc::clone(time))?;
        let socket = dial(key.address).await.map_err(OpenError::Dial)?;
        // Not sent: the ID is what is verified.
        let name = ServerName::IpAddress(key.address.ip().into());
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, ReadAhead::new(socket));
        let stream = connecting.await.map_err(OpenError::Handshake)?;
        match stream.get_ref().1.alpn_protocol() {
            Some(H2) => Ok(stream),
            _ => Err(OpenError::NotHttp2),
        }
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

type Sealed = TlsStream<ReadAhead<TcpStream>>;
type Connection = h2::client::Connection<Sealed, Bytes>;

fn peer(stream: &Sealed) -> Option<Svid> {
    Svid::from_chain(stream.get_ref().1.peer_certificates()?.to_vec()).ok()
}

/// When a connection that is made at `now`, and whose certificates hold until `end`, takes its last stream: after three
/// quarters of that time. It is closed at the end with whatever it carries, and both sides renew at half of their
/// certificates' lives: streams that begin later find the new ones, and time to end.
fn leave_at(now: UnixTime, end: UnixTime) -> UnixTime {
    let left = end.as_secs().saturating_sub(now.as_secs());
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + left / 4 * 3))
}

/// Asks the peer for a stream to `destination`.
async fn ask(leased: Leased, destination: OriginalDst) -> Result<MeshStream, OpenError> {
    let Leased { sender, lease } = leased;
    let mut parts = uri::Parts::default();
    parts.authority = destination.socket_addr().to_string().parse().ok();
    let uri = Uri::from_parts(parts).map_err(|_| OpenError::Refused(StatusCode::BAD_REQUEST))?;
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = uri;
    exchange(sender, request, lease).await
}

async fn exchange(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    lease: Lease,
) -> Result<MeshStream, OpenError> {
    let mut sender = sender.ready().await.map_err(OpenError::Lost)?;
    let (response, send) = sender.send_request(request, false).map_err(OpenError::Lost)?;
    let response = response.await.map_err(OpenError::Lost)?;
    if response.status() != StatusCode::OK {
        return Err(OpenError::Refused(response.status()));
    }
    Ok(MeshStream::new(send, response.into_body(), Side::Client(lease)))
}

/// A connection on its own task.
struct Kept {
    key: Key,
    load: Arc<Load>,
    entry: Entry,
    /// No stream begins after that: see [`leave_at`].
    leave_at: UnixTime,
    /// For its descriptor, beside those of its streams' clients: it outlives them.
    _room: Option<DescriptorSlot>,
    pool: Arc<Pool>,
    identity: Arc<IdentityCell>,
    time: Arc<dyn TimeProvider>,
}

impl Kept {
    /// Until it ends by itself, the peer has to go, or the peer says nothing any more.
    async fn drive(self, mut connection: Connection) {
        let pings = connection.ping_pong();
        let Kept { key, load, mut entry, leave_at, _room, pool, identity, time } = self;
        let (mut opened, mut unused_for) = (0, Duration::ZERO);
        let look_around = || {
            let outdated = identity.current().is_none_or(|current| current.epoch != key.epoch);
            if outdated || time.current_time().is_none_or(|now| now > leave_at) {
                pool.retire(&key, &load);
            }
            unused_for += ASKED_EVERY;
            match load.used_since(opened) {
                Some(now) => (opened, unused_for) = (now, Duration::ZERO),
                None if unused_for >= WARM => pool.retire_unused(&key, &load, opened),
                None => {}
            }
        };
        let silent = async {
            match pings {
                Some(pings) => until_silent(pings, look_around).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = entry.dismissed() => load.dismissed.store(true, Relaxed),
            ended = &mut connection => if let Err(error) = ended {
                tracing::debug!(peer = key.peer.as_str(), %error, "a connection of the mesh broke");
            },
            () = silent => tracing::debug!(peer = key.peer.as_str(), "a peer no longer answers"),
        }
        pool.retire(&key, &load);
    }
}
