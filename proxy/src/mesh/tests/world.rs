//! Two workloads, an application, and who vouches for them.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use rustls::{pki_types::UnixTime, time_provider::TimeProvider};
use sidegate_certs::{
    Authority, Identity, IdentityCell, PrivateKey, Profile, Revocations, TrustBundle, TrustStore,
    authority::Revoked, lifetime, tls::TrustCell,
};
use sidegate_policy::{SpiffeId, TrustDomain};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

use crate::{
    addrs::{ClientAddr, OriginalDst, UpstreamAddr},
    connection::connect::dial,
    mesh::{
        Asked, Ended, Mesh, MeshServer, MeshSetup, MeshStream, OpenError, Refusal, Roster, ServeError,
        Tunnels, relay,
    },
};

/// The present when a test begins.
const NOW: u64 = 1_800_000_000;
/// Longer than anything takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/{path}")).unwrap()
}

/// A clock that a test moves.
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn new() -> Self {
        Clock(AtomicU64::new(NOW))
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, SeqCst);
    }

    pub(crate) fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(SeqCst)))
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.now())
    }
}

/// A trust domain.
pub(crate) struct Domain(Authority);

impl Domain {
    pub(crate) fn new(name: &str, now: UnixTime) -> Self {
        let domain = TrustDomain::parse(name).unwrap();
        Domain(Authority::root(&domain, PrivateKey::generate().unwrap(), now, lifetime::ROOT).unwrap())
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        let root = self.0.root_certificate().unwrap().clone();
        TrustBundle::from_roots(self.0.trust_domain().clone(), vec![root]).unwrap()
    }

    /// A list of these certificates.
    pub(crate) fn revoked(&self, identities: &[&Identity], now: UnixTime) -> Revocations {
        let entry = |identity: &&Identity| Revoked { serial: identity.svid().serial().to_vec(), at: now };
        let entries: Vec<_> = identities.iter().map(entry).collect();
        let next = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 86_400));
        let list = self.0.revocation_list(&entries, 1, now, next).unwrap();
        let mut revocations = Revocations::default();
        revocations.admit(&list, &[self.0.root_certificate().unwrap().clone()]).unwrap();
        revocations
    }

    /// Lives for an hour.
    pub(crate) fn identity(&self, path: &str, now: UnixTime) -> Identity {
        let key = PrivateKey::generate().unwrap();
        let id = SpiffeId::parse(&format!("spiffe://{}/{path}", self.0.trust_domain().as_str())).unwrap();
        let svid = self.0.issue(key.public(), &Profile::new(id, lifetime::LEAF).unwrap(), now).unwrap();
        Identity::new(svid, &key).unwrap()
    }
}

/// What lies behind the server: one application, whatever is asked for.
pub(crate) struct Behind {
    app: SocketAddr,
    /// Everything that was asked for.
    pub(crate) asked: Mutex<Vec<Asked>>,
    /// What every peer is told.
    pub(crate) refusal: Mutex<Option<Refusal>>,
    /// Dials wait while this is true.
    pub(crate) held: watch::Sender<bool>,
    /// Dials under way.
    pub(crate) dialling: watch::Sender<usize>,
    ended: mpsc::UnboundedSender<Ended>,
}

/// A dial that is under way until this is dropped.
pub(crate) struct Dial(watch::Sender<usize>);

impl Drop for Dial {
    fn drop(&mut self) {
        self.0.send_modify(|dialling| *dialling -= 1);
    }
}

impl Tunnels for Behind {
    type Permit = Dial;
    type Upstream = TcpStream;

    async fn judge(&self, asked: Asked) -> Result<Dial, Refusal> {
        self.asked.lock().unwrap().push(asked);
        if let Some(refusal) = *self.refusal.lock().unwrap() {
            return Err(refusal);
        }
        self.dialling.send_modify(|dialling| *dialling += 1);
        Ok(Dial(self.dialling.clone()))
    }

    async fn dial(&self, _dial: Dial) -> Result<TcpStream, Refusal> {
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.unwrap();
        dial(UpstreamAddr::new(self.app)).await.map_err(|_| Refusal::Unavailable)
    }

    async fn carry(&self, mut upstream: TcpStream, mut stream: MeshStream) {
        let ended = relay(&mut stream, &mut upstream).await;
        if ended.broken.is_some() {
            upstream.set_zero_linger().unwrap();
        }
        drop(upstream);
        // A test may be over already.
        let _ = self.ended.send(ended);
    }
}

/// A client's sidecar, a server's, and the application of the latter.
pub(crate) struct World {
    pub(crate) clock: Arc<Clock>,
    pub(crate) domain: Domain,
    pub(crate) trust: Arc<TrustCell>,
    pub(crate) ours: Arc<IdentityCell>,
    pub(crate) theirs: Arc<IdentityCell>,
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) server: Arc<MeshServer>,
    pub(crate) server_roster: Arc<Roster>,
    /// Where the server listens.
    pub(crate) at: UpstreamAddr,
    /// Where the application listens.
    pub(crate) app: TcpListener,
    pub(crate) behind: Arc<Behind>,
    /// How streams ended, as the server tells.
    pub(crate) ended: mpsc::UnboundedReceiver<Ended>,
    /// How connections ended, as the server tells.
    pub(crate) served: mpsc::UnboundedReceiver<Result<(), ServeError>>,
    /// TCP connections that the server accepted.
    pub(crate) accepted: watch::Receiver<usize>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(Clock::new());
        let domain = Domain::new("example.org", clock.now());
        let trust = Arc::new(TrustCell::new(TrustStore::new([domain.bundle()])));
        let (ours, theirs) = (Arc::new(IdentityCell::empty()), Arc::new(IdentityCell::empty()));
        ours.replace(domain.identity("client", clock.now()));
        theirs.replace(domain.identity("server", clock.now()));
        let server_roster = Arc::new(Roster::new());
        let (time, roster) = (Arc::<Clock>::clone(&clock), Arc::clone(&server_roster));
        let server =
            MeshServer::new(Arc::clone(&theirs), Arc::clone(&trust), time, roster, PATIENCE).unwrap();
        let server = Arc::new(server);
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tell, ended) = mpsc::unbounded_channel();
        let behind = Arc::new(Behind {
            app: app.local_addr().unwrap(),
            asked: Mutex::default(),
            refusal: Mutex::default(),
            held: watch::Sender::new(false),
            dialling: watch::Sender::new(0),
            ended: tell,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = UpstreamAddr::new(listener.local_addr().unwrap());
        let (served, accepted) = serve(listener, Arc::clone(&server), Arc::clone(&behind));
        let mesh = Arc::new(Mesh::new(setup(&ours, &trust, &clock)));
        World {
            clock,
            domain,
            trust,
            ours,
            theirs,
            mesh,
            server,
            server_roster,
            at,
            app,
            behind,
            ended,
            served,
            accepted,
        }
    }

    /// Another client's sidecar.
    pub(crate) fn mesh_of(&self, identity: Identity) -> Mesh {
        let cell = Arc::new(IdentityCell::empty());
        cell.replace(identity);
        Mesh::new(setup(&cell, &self.trust, &self.clock))
    }

    pub(crate) async fn open(&self) -> Result<MeshStream, OpenError> {
        self.mesh.open(&id("server"), self.at, destination()).await
    }

    /// A stream of another client, which expects `server`, and the application's end of it.
    pub(crate) async fn pair_of(&self, mesh: &Mesh, server: &str) -> (MeshStream, TcpStream) {
        let server = id(server);
        let (stream, app) = tokio::join!(mesh.open(&server, self.at, destination()), self.app.accept());
        (stream.unwrap(), app.unwrap().0)
    }

    /// A stream, and the application's end of it.
    pub(crate) async fn pair(&self) -> (MeshStream, TcpStream) {
        self.pair_of(&self.mesh, "server").await
    }

    pub(crate) fn handshakes(&self) -> usize {
        *self.accepted.borrow()
    }
}

pub(crate) fn destination() -> OriginalDst {
    OriginalDst::new("10.0.0.7:8080".parse().unwrap())
}

pub(crate) fn setup(ours: &Arc<IdentityCell>, trust: &Arc<TrustCell>, clock: &Arc<Clock>) -> MeshSetup {
    MeshSetup {
        identity: Arc::clone(ours),
        trust: Arc::clone(trust),
        time: Arc::<Clock>::clone(clock),
        roster: Arc::new(Roster::new()),
        dial: Arc::new(dial),
        limits: None,
        patience: PATIENCE,
    }
}

type Outcomes = mpsc::UnboundedReceiver<Result<(), ServeError>>;

fn serve(
    listener: TcpListener,
    server: Arc<MeshServer>,
    behind: Arc<Behind>,
) -> (Outcomes, watch::Receiver<usize>) {
    let (tell, served) = mpsc::unbounded_channel();
    let (count, accepted) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((socket, from)) = listener.accept().await {
            count.send_modify(|count| *count += 1);
            let (server, behind, tell) = (Arc::clone(&server), Arc::clone(&behind), tell.clone());
            tokio::spawn(async move { tell.send(server.serve(socket, ClientAddr::new(from), behind).await) });
        }
    });
    (served, accepted)
}
