//! The running proxy: listeners, worker threads, and the way to stop them.

use std::{
    io,
    net::{TcpListener, UdpSocket},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use sidegate_api::CloseReason;
use socket2::SockRef;
use tokio::{
    net, runtime,
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    access_log::AccessLog,
    addrs::OriginalDst,
    connection::{
        LiveConnection, Worker,
        accept::accept_all,
        connect::{Dialler, dial},
        inbound,
        live::Registry,
        outbound,
    },
    dns::{
        Names, Resolver, SyntheticAddresses,
        server::{serve_tcp, serve_udp},
    },
    http::upstream::Pool,
    inspection::Inspection,
    limits::Limits,
    mesh::Membership,
    metrics::Meters,
    origins::Origins,
    policy_store::PolicyStore,
    reception::Reception,
    settings::Settings,
};

/// Bound sockets, made by whoever starts the proxy (in `sidegate run`, inside the command's network namespace).
/// Several sockets of one kind are spread over the workers (SO_REUSEPORT).
#[derive(Debug, Default)]
pub struct Listeners {
    /// Redirected outbound TCP (15001).
    pub outbound: Vec<TcpListener>,
    /// Redirected inbound TCP (15006).
    pub inbound: Vec<TcpListener>,
    /// Connections of the mesh (15008).
    pub mesh: Vec<TcpListener>,
    /// DNS over UDP (15053).
    pub dns_udp: Vec<UdpSocket>,
    /// DNS over TCP (15053).
    pub dns_tcp: Vec<TcpListener>,
}

/// How the original destination of a captured connection is learnt; tests give their own.
pub type OriginalDstSource = Arc<dyn Fn(&tokio::net::TcpStream) -> io::Result<OriginalDst> + Send + Sync>;

/// Everything that the stages of a connection share.
pub struct Gate {
    /// The current policies.
    pub policies: PolicyStore,
    /// The proxy's own resolver.
    pub resolver: Resolver,
    /// Names behind synthetic addresses.
    pub synthetic: SyntheticAddresses,
    /// What the application was told of names, and how many it may ask for.
    pub names: Names,
    /// Whom to believe about servers that the proxy itself speaks TLS to.
    pub origins: Origins,
    /// How those who connect from outside are received; `None`: nobody listens for them.
    pub reception: Option<Reception>,
    /// What opens the workload's TLS where a rule says so.
    pub inspection: Inspection,
    /// The workload's place in the mesh; `None`: it has no identity.
    pub membership: Option<Membership>,
    /// Where records go.
    pub access_log: AccessLog,
    /// Deadlines and limits.
    pub settings: Settings,
    /// How original destinations are learnt.
    pub original_dst: OriginalDstSource,
    /// The workload's SPIFFE ID for records.
    pub workload: Option<String>,
}

/// A started proxy. Dropped without [`Running::drain`], it stops at once.
pub struct Running {
    stop: watch::Sender<Option<Instant>>,
    threads: Vec<JoinHandle<()>>,
    access_log: AccessLog,
    live: Vec<Arc<Registry>>,
}

/// A view of the connections that live. Cheap to clone; outlives the proxy, and is then empty.
#[derive(Clone, Debug)]
pub struct Connections(Arc<[Arc<Registry>]>);

impl Connections {
    /// Those that were permitted, worker by worker.
    pub fn tell(&self) -> Vec<LiveConnection> {
        self.0.iter().flat_map(|registry| registry.tell()).collect()
    }
}

/// How long connections that were told to close at the end of a drain may take to do so.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// How long the sinks may take to the last records.
const LAST_RECORDS: Duration = Duration::from_secs(5);

impl Running {
    /// Starts the worker threads. Ready to serve when it returns.
    ///
    /// # Errors
    /// A listener can't be taken over, or the system has no event loop or thread to give.
    pub fn start(gate: Arc<Gate>, listeners: Listeners) -> io::Result<Running> {
        Self::start_with(gate, listeners, Arc::new(dial))
    }

    /// As [`Running::start`], with a stated way of opening sockets.
    fn start_with(gate: Arc<Gate>, listeners: Listeners, dial: Arc<Dialler>) -> io::Result<Running> {
        let meters = Arc::new(Meters::new());
        let limits = Arc::new(Limits::new(&gate.settings));
        gate.resolver.narrow_to(limits.questions());
        let shares = share(listeners, gate.settings.workers.max(1))?;
        let (stop, stopped) = watch::channel(None);
        let access_log = gate.access_log.clone();
        let mut running = Running { stop, threads: Vec::new(), access_log, live: Vec::new() };
        for (number, share) in shares.into_iter().enumerate() {
            let worker = Arc::new(Worker {
                gate: Arc::clone(&gate),
                meters: Arc::clone(&meters),
                limits: Arc::clone(&limits),
                live: Arc::default(),
                carriers: Arc::default(),
                pool: Pool::new(),
                mesh: crate::connection::mesh_of(&gate, &dial, &limits),
                dial: Arc::clone(&dial),
            });
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let sockets = share.open(&runtime)?;
            running.live.push(Arc::clone(&worker.live));
            let stopped = stopped.clone();
            let work = move || {
                runtime.block_on(serve(worker, sockets, stopped));
                runtime.shutdown_timeout(LAST_MOMENT);
            };
            running.threads.push(thread::Builder::new().name(format!("worker-{number}")).spawn(work)?);
        }
        Ok(running)
    }

    /// A view of the connections that live.
    pub fn connections(&self) -> Connections {
        Connections(self.live.clone().into())
    }

    /// Stops accepting, lets live connections end within `deadline`, closes the rest, joins the threads. When it
    /// returns, every record has reached the sinks, unless a sink is stuck.
    pub fn drain(mut self, deadline: Duration) {
        self.stop(deadline);
        if !self.access_log.finish_within(LAST_RECORDS) {
            tracing::error!("the access log takes no more records; the last ones may be lost");
        }
    }

    fn stop(&mut self, deadline: Duration) {
        self.stop.send_replace(Some(Instant::now() + deadline));
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// One worker's sockets.
#[derive(Default)]
struct Share {
    outbound: Vec<TcpListener>,
    inbound: Vec<TcpListener>,
    mesh: Vec<TcpListener>,
    dns_udp: Vec<UdpSocket>,
    dns_tcp: Vec<TcpListener>,
}

/// Spreads the sockets over the workers. Each worker listens for connections: where there are fewer sockets than workers,
/// several workers accept from one.
fn share(listeners: Listeners, workers: usize) -> io::Result<Vec<Share>> {
    let mut shares: Vec<Share> = (0..workers).map(|_| Share::default()).collect();
    spread(listeners.outbound, &mut shares, |share| &mut share.outbound)?;
    spread(listeners.inbound, &mut shares, |share| &mut share.inbound)?;
    spread(listeners.mesh, &mut shares, |share| &mut share.mesh)?;
    for (number, socket) in listeners.dns_udp.into_iter().enumerate() {
        shares[number % workers].dns_udp.push(socket);
    }
    for (number, socket) in listeners.dns_tcp.into_iter().enumerate() {
        shares[number % workers].dns_tcp.push(socket);
    }
    Ok(shares)
}

fn spread(
    sockets: Vec<TcpListener>,
    shares: &mut [Share],
    of: fn(&mut Share) -> &mut Vec<TcpListener>,
) -> io::Result<()> {
    let workers = shares.len();
    for (worker, share) in shares.iter_mut().enumerate().skip(sockets.len()) {
        if let Some(socket) = sockets.get(worker % sockets.len().max(1)) {
            of(share).push(socket.try_clone()?);
        }
    }
    for (number, socket) in sockets.into_iter().enumerate() {
        // Accepted sockets inherit it: one system call a connection less.
        SockRef::from(&socket).set_tcp_nodelay(true)?;
        of(&mut shares[number % workers]).push(socket);
    }
    Ok(())
}

impl Share {
    /// Enters the sockets into the worker's event loop.
    fn open(self, runtime: &runtime::Runtime) -> io::Result<Sockets> {
        let _context = runtime.enter();
        let listener = |socket: TcpListener| {
            socket.set_nonblocking(true)?;
            net::TcpListener::from_std(socket)
        };
        let datagrams = |socket: UdpSocket| {
            socket.set_nonblocking(true)?;
            net::UdpSocket::from_std(socket)
        };
        Ok(Sockets {
            outbound: self.outbound.into_iter().map(listener).collect::<io::Result<_>>()?,
            inbound: self.inbound.into_iter().map(listener).collect::<io::Result<_>>()?,
            mesh: self.mesh.into_iter().map(listener).collect::<io::Result<_>>()?,
            dns_udp: self.dns_udp.into_iter().map(datagrams).collect::<io::Result<_>>()?,
            dns_tcp: self.dns_tcp.into_iter().map(listener).collect::<io::Result<_>>()?,
        })
    }
}

struct Sockets {
    outbound: Vec<net::TcpListener>,
    inbound: Vec<net::TcpListener>,
    mesh: Vec<net::TcpListener>,
    dns_udp: Vec<net::UdpSocket>,
    dns_tcp: Vec<net::TcpListener>,
}

/// A worker's life: serves until told to stop, then waits for its connections, closes those that are left.
async fn serve(worker: Arc<Worker>, sockets: Sockets, mut stopped: watch::Receiver<Option<Instant>>) {
    let mut accepting = JoinSet::new();
    let mut serving = JoinSet::new();
    for listener in sockets.outbound {
        let worker = Arc::clone(&worker);
        accepting.spawn(async move { accept_all(&worker, listener, outbound::STORY).await });
    }
    for listener in sockets.inbound {
        let worker = Arc::clone(&worker);
        accepting.spawn(async move { accept_all(&worker, listener, inbound::STORY).await });
    }
    for listener in sockets.mesh {
        let worker = Arc::clone(&worker);
        accepting.spawn(async move { accept_all(&worker, listener, inbound::streams::STORY).await });
    }
    for socket in sockets.dns_udp {
        serving.spawn(serve_udp(Arc::clone(&worker.gate), socket));
    }
    for listener in sockets.dns_tcp {
        serving.spawn(serve_tcp(Arc::clone(&worker.gate), Arc::clone(&worker.limits), listener));
    }
    let watched = Arc::clone(&worker);
    serving.spawn(async move {
        watched.live.watch(&watched.gate.policies, watched.gate.settings.idle_timeout).await;
    });
    let deadline = match stopped.wait_for(Option::is_some).await {
        Ok(told) => told.unwrap_or_else(Instant::now),
        Err(_) => Instant::now(),
    };
    accepting.shutdown().await;
    worker.live.drain();
    if let Some(reception) = &worker.gate.reception {
        reception.mesh.drain();
    }
    let ended = async {
        worker.live.empty().await;
        worker.carriers.empty().await;
    };
    if timeout_at(deadline, ended).await.is_err() {
        worker.live.close_all(CloseReason::Drained);
        let _ = timeout(LAST_MOMENT, worker.live.empty()).await;
    }
    serving.shutdown().await;
}

#[cfg(test)]
mod tests;
