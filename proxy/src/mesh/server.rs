//! Taking streams from workloads.

use std::{
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use hyper::{
    Request, Response, StatusCode,
    header::{ALLOW, HeaderValue},
};
use rustls::time_provider::TimeProvider;
use sidegate_certs::{
    IdentityCell, Svid, UnixTime,
    bundle::Role,
    tls::{H2, SetupError, TrustCell, mesh_server},
};
use sidegate_policy::SpiffeId;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    alive::until_silent,
    h2_settings,
    pool::Load,
    request::destination,
    roster::{Arrival, Entry, Roster, Since},
    stream::{MeshStream, Side},
};
use crate::{
    addrs::{ClientAddr, OriginalDst},
    tls::read_ahead::ReadAhead,
};

/// How often a connection looks whether the certificate that it was shown is still ours.
const RENEWED: Duration = Duration::from_secs(1);

/// What a peer asks for: a stream to `destination`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Who has proven to be there.
    pub peer: SpiffeId,
    /// From where.
    pub source: ClientAddr,
    /// Where the stream is to lead.
    pub destination: OriginalDst,
}

/// Why a peer gets no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It may not: 403.
    Forbidden,
    /// The destination is none of ours: 404.
    Unknown,
    /// The application can't be reached: 503.
    Unavailable,
}

/// Who decides about streams, and where they lead.
pub trait Tunnels: Send + Sync + 'static {
    /// What allows a stream.
    type Permit: Send;
    /// What it leads to.
    type Upstream: Send;

    /// Whether the peer gets the stream it asks for. Cancelled when the peer takes its question back.
    fn judge(&self, asked: Asked) -> impl Future<Output = Result<Self::Permit, Refusal>> + Send;

    /// Reaches the application. Cancelled likewise.
    fn dial(&self, permit: Self::Permit) -> impl Future<Output = Result<Self::Upstream, Refusal>> + Send;

    /// Carries the stream to its end. If it is cut off, `upstream` has to be reset. Not called where the peer was gone
    /// before it was told.
    fn carry(&self, upstream: Self::Upstream, stream: MeshStream) -> impl Future<Output = ()> + Send;
}

/// Why a connection ended otherwise than in order.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The client proved nothing that we believe, or no TLS 1.3.
    #[error("handshake: {0}")]
    Handshake(#[source] io::Error),
    /// The handshake took too long.
    #[error("no handshake in time")]
    HandshakeTimedOut,
    /// The client speaks no HTTP/2.
    #[error("the client does not speak HTTP/2")]
    NotHttp2,
    /// The peer had to go.
    #[error("the peer was dismissed")]
    Dismissed,
    /// The peer said nothing any more.
    #[error("the peer no longer answers")]
    Silent,
    /// HTTP/2 was broken, or the connection was.
    #[error("connection lost: {0}")]
    Lost(#[from] h2::Error),
}

/// A peer that has proven who it is.
pub struct Admitted {
    connection: Connection,
    id: SpiffeId,
    /// When its certificate ends.
    expiry: UnixTime,
    /// Which of our certificates it was shown.
    epoch: u64,
    entry: Entry,
}

impl Admitted {
    /// Serves its streams until the connection ends. Streams go on by themselves, and end with it.
    ///
    /// # Errors
    /// The peer had to go, or the connection broke.
    pub async fn serve<T: Tunnels>(
        self,
        server: &MeshServer,
        source: ClientAddr,
        tunnels: Arc<T>,
    ) -> Result<(), ServeError> {
        server.serve_admitted(self, source, tunnels).await
    }
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admitted").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Takes connections of the mesh.
pub struct MeshServer {
    acceptor: TlsAcceptor,
    identity: Arc<IdentityCell>,
    trust: Arc<TrustCell>,
    time: Arc<dyn TimeProvider>,
    roster: Arc<Roster>,
    /// How long a handshake may take.
    patience: Duration,
    draining: watch::Sender<()>,
}

impl MeshServer {
    /// Serves the identity of the moment to peers whom the trust of the moment vouches for.
    ///
    /// # Errors
    /// This build's cryptography can't do TLS 1.3.
    pub fn new(
        identity: Arc<IdentityCell>,
        trust: Arc<TrustCell>,
        time: Arc<dyn TimeProvider>,
        roster: Arc<Roster>,
        patience: Duration,
    ) -> Result<Self, SetupError> {
        let config = mesh_server(Arc::clone(&identity), Arc::clone(&trust), Arc::clone(&time))?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(MeshServer { acceptor, identity, trust, time, roster, patience, draining: watch::Sender::new(()) })
    }

    /// Asks all peers that are connected to open no more streams here. Their connections end with their last stream.
    pub fn drain(&self) {
        self.draining.send_replace(());
    }

    /// Serves a connection until it ends. Streams go on by themselves, and end with it.
    ///
    /// # Errors
    /// The peer is nobody we believe, had to go, or the connection broke.
    pub async fn serve<T: Tunnels>(
        &self,
        socket: TcpStream,
        source: ClientAddr,
        tunnels: Arc<T>,
    ) -> Result<(), ServeError> {
        self.admit(socket).await?.serve(self, source, tunnels).await
    }

    /// Whether there is an identity to show.
    pub fn has_identity(&self) -> bool {
        let now = self.time.current_time();
        let holds = |validity: sidegate_certs::Validity| now.is_some_and(|now| !validity.expired(now));
        self.identity.current().is_some_and(|current| holds(current.identity.validity()))
    }

    /// The handshake: who is there.
    ///
    /// # Errors
    /// Nobody we believe, or somebody who had to go meanwhile.
    pub async fn admit(&self, socket: TcpStream) -> Result<Admitted, ServeError> {
        let since = self.roster.now();
        let at = socket.peer_addr().map_err(ServeError::Handshake)?.ip().to_canonical();
        // Before the handshake: one that is renewed meanwhile only makes the peer come back.
        let epoch = self.epoch();
        let shaken = timeout(self.patience, self.shake_hands(socket)).await;
        let (connection, svid) = shaken.unwrap_or(Err(ServeError::HandshakeTimedOut))?;
        let expiry = svid.validity().not_after;
        let entry = self.enter(svid.clone(), at, since)?;
        Ok(Admitted { connection, id: svid.id().clone(), expiry, epoch, entry })
    }

    async fn serve_admitted<T: Tunnels>(
        &self,
        admitted: Admitted,
        source: ClientAddr,
        tunnels: Arc<T>,
    ) -> Result<(), ServeError> {
        let Admitted { connection, id, expiry, epoch, entry } = admitted;
        let load = Arc::new(Load::default());
        let peer = Peer { id, source, load, tunnels };
        let left = self.time.current_time().map(|now| expiry.as_secs().saturating_sub(now.as_secs()));
        let left = Duration::from_secs(left.unwrap_or(0));
        peer.serve(connection, entry, self.leaving(left, epoch)).await
    }

    /// Which of our certificates is shown now.
    fn epoch(&self) -> u64 {
        self.identity.current().map_or(0, |current| current.epoch)
    }

    fn enter(&self, peer: Svid, at: IpAddr, since: Since) -> Result<Entry, ServeError> {
        let ours = self.identity.current().ok_or(ServeError::Dismissed)?;
        let arrival = Arrival { peer, role: Role::Client, at, ours_end: ours.identity.validity().not_after };
        let believed = |svid: &Svid| {
            let now = self.time.current_time();
            now.is_some_and(|now| self.trust.current().verify(svid.chain(), Role::Client, now).is_ok())
        };
        self.roster.enter(arrival, since, believed).ok_or(ServeError::Dismissed)
    }

    async fn shake_hands(&self, socket: TcpStream) -> Result<(Connection, Svid), ServeError> {
        // Frames are written when they are complete: nothing is gained by holding them back.
        socket.set_nodelay(true).map_err(ServeError::Handshake)?;
        let stream = self.acceptor.accept(ReadAhead::new(socket)).await.map_err(ServeError::Handshake)?;
        let session = stream.get_ref().1;
        let chain = session.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
        let svid = Svid::from_chain(chain).map_err(|error| ServeError::Handshake(io::Error::other(error)))?;
        if session.alpn_protocol() != Some(H2) {
            return Err(ServeError::NotHttp2);
        }
        Ok((h2_settings::server().handshake(stream).await?, svid))
    }

    /// Returns when a peer is to open no more streams: its certificate has ended, ours that it was shown was renewed, so that
    /// it comes back and sees the new one, or we drain.
    async fn leaving(&self, left: Duration, epoch: u64) {
        let mut draining = self.draining.subscribe();
        let renewed = async {
            let mut look = interval(RENEWED);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while self.epoch() == epoch {
                look.tick().await;
            }
        };
        tokio::select! {
            () = sleep(left) => {}
            _ = draining.changed() => {}
            () = renewed => {}
        }
    }
}

impl std::fmt::Debug for MeshServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MeshServer").field("patience", &self.patience).finish_non_exhaustive()
    }
}

type Connection = h2::server::Connection<TlsStream<ReadAhead<TcpStream>>, Bytes>;

/// One connection's peer, and who decides about its streams.
struct Peer<T> {
    id: SpiffeId,
    source: ClientAddr,
    load: Arc<Load>,
    tunnels: Arc<T>,
}

impl<T: Tunnels> Peer<T> {
    async fn serve(
        self,
        mut connection: Connection,
        mut entry: Entry,
        leaving: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let pings = connection.ping_pong();
        let silent = async {
            match pings {
                Some(pings) => until_silent(pings, || ()).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(silent, leaving);
        let peer = Arc::new(self);
        let mut stays = true;
        loop {
            tokio::select! {
                biased;
                () = entry.dismissed() => {
                    peer.load.dismissed.store(true, Relaxed);
                    return Err(ServeError::Dismissed);
                }
                () = &mut leaving, if stays => {
                    stays = false;
                    connection.graceful_shutdown();
                }
                asked = connection.accept() => match asked {
                    Some(Ok((request, respond))) => {
                        tokio::spawn(Arc::clone(&peer).answer(request, respond));
                    }
                    // A peer that was asked to leave may be gone before we have said so to the end.
                    Some(Err(error)) if stays || !error.is_io() => return Err(error.into()),
                    Some(Err(_)) | None => return Ok(()),
                },
                () = &mut silent => return Err(ServeError::Silent),
            }
        }
    }

    async fn answer(self: Arc<Self>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (parts, recv) = request.into_parts();
        let reached = async {
            let destination = destination(&parts)?;
            let asked = Asked { peer: self.id.clone(), source: self.source, destination };
            let permit = self.tunnels.judge(asked).await?;
            Ok::<_, StatusCode>(self.tunnels.dial(permit).await?)
        };
        let reached = tokio::select! {
            biased;
            // Without this, streams that are opened and reset at once would dial without end (CVE-2023-44487).
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
            reached = reached => reached,
        };
        match reached {
            Ok(upstream) => self.carry(recv, respond, upstream).await,
            Err(status) => {
                // A peer that is gone needs no answer.
                let _ = respond.send_response(refused(status), true);
            }
        }
    }

    async fn carry(&self, recv: RecvStream, mut respond: SendResponse<Bytes>, upstream: T::Upstream) {
        let Ok(send) = respond.send_response(Response::new(()), false) else { return };
        let stream = MeshStream::new(send, recv, Side::Server(Arc::clone(&self.load)));
        self.tunnels.carry(upstream, stream).await;
    }
}

impl From<Refusal> for StatusCode {
    fn from(refusal: Refusal) -> StatusCode {
        match refusal {
            Refusal::Forbidden => StatusCode::FORBIDDEN,
            Refusal::Unknown => StatusCode::NOT_FOUND,
            Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

fn refused(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("CONNECT"));
    }
    response
}
