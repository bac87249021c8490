//! Connections to far ends that speak HTTP: dialled by a permit, kept for the next request, reused only for the very same
//! destination under the very same policy.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::atomic::{AtomicI32, Ordering::Relaxed},
    time::Duration,
};

use hyper::{
    Request, Response, Version,
    body::Incoming,
    client::conn::{http1, http2},
    http::uri::Scheme,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pingora_pool::{ConnectionMeta, ConnectionPool};
use sidegate_certs::tls::H2;
use sidegate_policy::{
    Generation, HostName, Reason, SpiffeId,
    decision::{Dial, TlsMode},
    demands::ClientAddress,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use super::body::Sent;
use crate::{
    addrs::{ClientAddr, UpstreamAddr},
    connection::{
        Worker,
        client_address::introduce,
        connect::{ConnectError, Connected, connect_by},
        decide::{Permit, TlsVersion, judge_answer},
        mesh::{Joined, join},
    },
    mesh::Mesh,
    origins::{Speaks, Trusted, Verification},
};

/// Idle connections kept on one worker; the one that waited longest makes room.
const IDLE_CONNECTIONS: usize = 128;
/// How long one waits for its next request. Servers close after about a minute; ours must not be the later.
const IDLE: Duration = Duration::from_secs(30);
/// Windows of HTTP/2, in bytes: of a stream, and of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// What a connection was made for. Nothing else may use it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    generation: Generation,
    /// The name that was resolved, or none where the original destination was dialled.
    host: Option<HostName>,
    /// The original destination, where that was dialled.
    address: Option<UpstreamAddr>,
    port: u16,
    tls: TlsMode,
    /// How its server was verified, and what it was shown.
    verified: Option<Verification>,
    /// Over the mesh: who has proven to be there, and which of our certificates it was shown.
    peer: Option<(SpiffeId, u64)>,
    /// As the client speaks; where TLS is originated it is negotiated.
    http2: bool,
    /// HTTP/1.1 whatever could be negotiated.
    upgradable: bool,
    /// Whom a PROXY protocol header names on it.
    client: Option<ClientAddr>,
}

/// Whether the far end says which HTTP it speaks.
fn negotiates(tls: TlsMode) -> bool {
    matches!(tls, TlsMode::Originate | TlsMode::Inspect)
}

/// What a request needs of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// In plaintext this version, over TLS what is negotiated.
    As(Version),
    /// HTTP/1.1, which can be switched to another protocol.
    Upgradable,
}

impl Key {
    fn of(worker: &Worker, permit: &Permit, wanted: Wanted, trusted: Option<&Trusted>) -> Key {
        let facts = permit.facts();
        let over_mesh = permit.treatment().dial == Dial::Workload;
        let epoch = worker.mesh.as_ref().map_or(0, Mesh::epoch);
        let by_name = permit.treatment().dial == Dial::Name || facts.synthetic;
        let original = UpstreamAddr::new(facts.original.socket_addr());
        let proxied = permit.demands().client_address == Some(ClientAddress::ProxyProtocol);
        Key {
            generation: permit.decision().generation,
            host: facts.host.as_ref().filter(|_| by_name).map(|(_, host)| host.clone()),
            address: (!by_name).then_some(original),
            port: facts.original.port(),
            tls: permit.treatment().tls,
            verified: trusted.map(|trusted| trusted.verification.clone()),
            peer: facts.peer.clone().filter(|_| over_mesh).map(|peer| (peer, epoch)),
            http2: wanted == Wanted::As(Version::HTTP_2) && !negotiates(permit.treatment().tls),
            upgradable: wanted == Wanted::Upgradable,
            client: proxied.then_some(facts.client).flatten(),
        }
    }
}

/// A connection to a far end that takes a request now.
pub(super) struct Upstream {
    key: Key,
    pub(super) address: UpstreamAddr,
    pub(super) tls: Option<TlsVersion>,
    sender: Sender,
    /// Told when the connection is gone.
    gone: watch::Receiver<bool>,
}

enum Sender {
    Http1(http1::SendRequest<Sent>),
    Http2(http2::SendRequest<Sent>),
}

/// A request that was not answered.
pub(super) struct Unanswered {
    pub(super) error: hyper::Error,
    /// The request itself, where nothing of it was sent.
    pub(super) unsent: Option<Request<Sent>>,
}

impl Upstream {
    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&mut self, request: Request<Sent>) -> Result<Response<Incoming>, Unanswered> {
        let sent = match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        };
        sent.map_err(|mut failed| {
            let unsent = failed.take_message();
            Unanswered { error: failed.into_error(), unsent }
        })
    }

    /// As requests name it: over the mesh the application itself speaks plaintext.
    pub(super) fn scheme(&self) -> Scheme {
        match self.key.tls {
            TlsMode::Originate | TlsMode::Inspect => Scheme::HTTPS,
            _ => Scheme::HTTP,
        }
    }

    /// The workload that has proven to be there.
    pub(super) fn peer(&self) -> Option<&SpiffeId> {
        self.key.peer.as_ref().map(|(peer, _)| peer)
    }

    /// Whether it speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Takes a request at once. A fresh connection does once its task has run.
    fn is_open(&self) -> bool {
        !*self.gone.borrow()
            && match &self.sender {
                Sender::Http1(sender) => sender.is_ready(),
                Sender::Http2(sender) => sender.is_ready(),
            }
    }

    fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }
}

/// The idle connections of a worker.
pub(crate) struct Pool {
    idle: std::sync::Arc<ConnectionPool<Upstream>>,
    hasher: RandomState,
    next: AtomicI32,
}

impl Pool {
    /// Empty.
    pub(crate) fn new() -> Self {
        let idle = std::sync::Arc::new(ConnectionPool::new(IDLE_CONNECTIONS));
        Pool { idle, hasher: RandomState::new(), next: AtomicI32::new(0) }
    }

    /// An idle connection that `permit` may use.
    fn take(&self, worker: &Worker, permit: &Permit, key: &Key) -> Option<Upstream> {
        let group = self.hasher.hash_one(key);
        while let Some(upstream) = self.idle.get(&group) {
            // The pool knows hashes alone: two keys may share one.
            if upstream.key == *key && upstream.is_open() && still_permitted(worker, permit, &upstream) {
                return Some(upstream);
            }
        }
        None
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn keep(&self, upstream: Upstream) {
        if upstream.is_closed() {
            return;
        }
        let meta = ConnectionMeta::new(self.hasher.hash_one(&upstream.key), self.next.fetch_add(1, Relaxed));
        let gone = upstream.gone.clone();
        let (evicted, used) = self.idle.put(&meta, upstream);
        let idle = std::sync::Arc::clone(&self.idle);
        tokio::spawn(async move { idle.idle_timeout(&meta, Some(IDLE), evicted, gone, used).await });
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// A name's address is judged again with each use: it was judged for another request. So is where a workload is.
fn still_permitted(worker: &Worker, permit: &Permit, upstream: &Upstream) -> bool {
    let policies = &worker.gate.policies;
    let (set, peers, facts) = (policies.current(), policies.peers(), permit.facts());
    match permit.treatment().dial {
        Dial::OriginalDestination => true,
        Dial::Workload => {
            let there = peers.at(facts.original.ip());
            there.is_some_and(|peer| peer.mesh_address(facts.original.ip()) == upstream.address)
        }
        Dial::Name => {
            set.generation() == permit.decision().generation
                && judge_answer((&set, &peers), facts, permit.decision(), upstream.address.ip()).is_ok()
        }
    }
}

/// A connection for the request that `permit` allows, and whether it had been idle.
pub(super) async fn upstream_for(
    worker: &Worker,
    permit: Permit,
    wanted: Wanted,
) -> Result<(Upstream, bool), ConnectError> {
    let trusted = trusted(worker, &permit)?;
    let key = Key::of(worker, &permit, wanted, trusted.as_ref());
    match worker.pool.take(worker, &permit, &key) {
        Some(upstream) => Ok((upstream, true)),
        None => Ok((dial(worker, permit, key, trusted).await?, false)),
    }
}

/// Makes sure of the server before its client is answered for it: a verified connection waits for the first request.
pub(crate) async fn verify(worker: &Worker, permit: Permit) -> Result<UpstreamAddr, ConnectError> {
    let (upstream, _) = upstream_for(worker, permit, Wanted::As(Version::HTTP_11)).await?;
    let address = upstream.address;
    worker.pool.keep(upstream);
    Ok(address)
}

/// How the server is to be verified; `None`: it is spoken to in plaintext.
fn trusted(worker: &Worker, permit: &Permit) -> Result<Option<Trusted>, ConnectError> {
    match permit.treatment().tls {
        TlsMode::Originate | TlsMode::Inspect => {
            worker.gate.origins.trusted(&permit.demands().origin).map(Some)
        }
        _ => Ok(None),
    }
}

async fn dial(
    worker: &Worker,
    permit: Permit,
    key: Key,
    trusted: Option<Trusted>,
) -> Result<Upstream, ConnectError> {
    if permit.treatment().dial == Dial::Workload {
        let Joined { stream, address, peer: _ } = join(&permit, worker).await?;
        let http2 = key.http2;
        return speak(stream, http2, (key, address, Some(TlsVersion::Tls13))).await;
    }
    let host = permit.facts().host.as_ref().map(|(_, host)| host.clone());
    let Connected { permit, upstream: mut socket, address } =
        connect_by(permit, &worker.gate, &*worker.dial, Some(&worker.limits)).await?;
    match (permit.treatment().tls, trusted) {
        (TlsMode::Originate | TlsMode::Inspect, Some(trusted)) => {
            let Some(host) = host else {
                return Err(ConnectError::new(Reason::HostMissing, "TLS to a server without a name"));
            };
            let speaks = if key.upgradable { Speaks::Http1 } else { Speaks::Http };
            let (demand, patience) = ((&trusted, speaks), worker.gate.settings.connect_timeout);
            let stream = worker.gate.origins.originate(socket, &host, demand, patience).await?;
            let http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
            speak(stream, http2, (key, address, Some(TlsVersion::Tls13))).await
        }
        // The TLS of these has ended here, on the workload's side.
        (TlsMode::Mesh | TlsMode::Terminate, _) if permit.facts().client.is_none() => Err(uncarried()),
        (TlsMode::None | TlsMode::Mesh | TlsMode::Terminate, None) => {
            // An application that is gone already shows itself when it is asked.
            let _ = introduce(&mut socket, &permit).await;
            let http2 = key.http2;
            speak(socket, http2, (key, address, None)).await
        }
        _ => Err(uncarried()),
    }
}

fn uncarried() -> ConnectError {
    ConnectError::new(Reason::NotSupported, "requests are not carried so")
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    http2: bool,
    (key, address, tls): (Key, UpstreamAddr, Option<TlsVersion>),
) -> Result<Upstream, ConnectError> {
    let malformed = |error: hyper::Error| ConnectError::new(Reason::UpstreamMalformed, error.to_string());
    let io = TokioIo::new(stream);
    let (told, gone) = watch::channel(false);
    let sender = if http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let (sender, connection) = builder.handshake(io).await.map_err(malformed)?;
        tokio::spawn(async move {
            let _ = connection.await;
            told.send_replace(true);
        });
        Sender::Http2(sender)
    } else {
        let (sender, connection) = http1::Builder::new().handshake(io).await.map_err(malformed)?;
        tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
            told.send_replace(true);
        });
        Sender::Http1(sender)
    };
    Ok(Upstream { key, address, tls, sender, gone })
}
