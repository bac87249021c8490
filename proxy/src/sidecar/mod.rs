//! `sidegate-proxy serve`: configuration, reload, readiness, metrics, admin.

mod admin_socket;
mod check;
pub mod config;
mod endpoints;
mod followed;
mod guests;
pub mod health;
mod inbound;
mod kernel;
pub mod listen;
pub mod logging;
mod owner;
mod policies;
mod privileges;
mod reload;
mod status;
mod watch;
mod web;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use sidegate_certs::UnixTime;
use sidegate_policy::{CompileOptions, Diagnostic, Generation, PolicySet};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::config::InspectionFiles;
use self::{
    admin_socket::AdminSocket,
    endpoints::Sources,
    followed::Followed,
    kernel::Kernel,
    listen::Purpose,
    policies::{Contents, PolicyFiles},
    reload::Reloader,
    status::{NONE_APPLIES, ReloadResult, Status},
    web::Door,
};
pub use self::{
    check::{Checked, check},
    config::Config,
    inbound::UNENFORCED,
    listen::ListenError,
    reload::RELOADS,
};
use crate::{
    access_log::{AccessLog, JsonLines, Sink},
    dns::{Names, ResolvConf, Resolver, SyntheticAddresses},
    identity,
    inspection::Inspection,
    mesh::Membership,
    metrics as meters,
    origins::{Origins, RootsFollower},
    peers,
    policy_store::PolicyStore,
    reception::CertificatesFollower,
    redirect::{RedirectError, links, original_dst},
    server::{Gate, Listeners, Running},
};

/// Version and source of this build; always 1.
pub const BUILD: &str = "sidegate_build_info";

/// Why the proxy did not start. Nothing was served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Policies are wrong; every diagnostic.
    #[error("{} in the policies", errors(.0.len()))]
    Policies(Vec<Diagnostic>),
    /// A listener is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The access log can't be opened.
    #[error("access log {path}: {source}{}; change `accessLog`", owner::told(Path::new(path), source))]
    AccessLog {
        /// Where.
        path: String,
        /// The system's words.
        source: io::Error,
    },
    /// What the workload has to believe can't be written.
    #[error(
        "inspection bundle {path}: {source}{}; change `inspection.bundle`",
        owner::told(Path::new(path), source)
    )]
    Inspection {
        /// Where.
        path: String,
        /// The system's words.
        source: io::Error,
    },
    /// No resolver is configured and the system names none.
    #[error("no resolver: {0}; name one in `resolvers`")]
    Resolvers(io::Error),
    /// The redirect rules are to be kept and can't be.
    #[error("redirect rules: {0}")]
    Redirect(#[from] RedirectError),
    /// The system refuses something else.
    #[error("{purpose}: {source}")]
    System {
        /// What was attempted.
        purpose: &'static str,
        /// The system's words.
        source: io::Error,
    },
}

/// Serves until SIGTERM or SIGINT, then drains. Returns when every connection has ended and every record is written.
///
/// # Errors
/// The proxy could not start.
pub fn serve(mut config: Config) -> Result<(), StartError> {
    privileges::confine().map_err(system("confining the process"))?;
    if let Err(error) = crate::limits::raise_descriptor_limit() {
        tracing::warn!(%error, "the limit of descriptors can't be raised");
    }
    let metrics = install_metrics();
    let doors = Doors::open(&mut config)?;
    let permitted = privileges::narrow().map_err(system("narrowing capabilities"))?;
    // With what is left, so that it is made only where it can be removed again.
    let admin = config.admin_socket.as_deref().map(AdminSocket::open).transpose()?;
    fill_from_system(&mut config)?;
    let (first, tried, options) = load(&config)?;
    let mut kernel = Kernel::open(&config, permitted, first.set.udp_destinations())?;
    privileges::renounce().map_err(system("dropping capabilities"))?;
    config.fill_identity(std::env::var(identity::VARIABLE).ok());
    let follower = config.identity.clone().map(Followed::begun);
    let roots = RootsFollower::begun(&config.roots);
    let certificates = CertificatesFollower::begun(&config.certificates);
    let mut origins = Origins::of_system().with_roots(&roots);
    if let Some(follower) = &follower {
        origins = origins.with_identity(Arc::clone(&follower.identities().identity));
    }
    let membership = follower.as_ref().map(|follower| Membership::new(follower.identities()));
    let reception = inbound::reception(&config, membership.as_ref(), &certificates)?;
    let gate = Arc::new(Gate { reception, ..open_gate(&config, first.set, origins, membership)? });
    kernel.record_refusals(&gate);
    let peers = config.peers.clone().map(|path| followed_peers(path, &gate));
    let identities = follower.as_ref().map(Followed::identities);
    let status =
        Arc::new(Status::new(kernel.capture(), identities, peers.as_ref().map(peers::Follower::told)));
    if let Some(documents) = first.documents {
        status.applied(gate.policies.current().generation(), documents);
        reload::counted(ReloadResult::Applied);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system("event loop"))?;
    runtime.block_on(async {
        let signals = Signals::listen().map_err(system("signals"))?;
        let files = PolicyFiles { paths: config.policies.clone() };
        let watch = watch::Watch::new(&config.policies);
        let running = Running::start(Arc::clone(&gate), doors.listeners).map_err(system("worker threads"))?;
        let sources = Arc::new(Sources {
            status: Arc::clone(&status),
            gate: Arc::clone(&gate),
            config: config.clone(),
            connections: running.connections(),
            metrics,
        });
        serve_endpoints(&sources, doors.ready, doors.metrics, admin.as_ref()).map_err(system("endpoints"))?;
        let reloader = Reloader {
            gate: Arc::clone(&gate),
            status: Arc::clone(&status),
            files,
            options,
            tried,
            kernel,
            captured: config.inbound.capture,
        };
        tokio::spawn(reloader.run(watch, signals.hangup));
        follower.map(|follower| tokio::spawn(follower.run()));
        tokio::spawn(roots.run());
        tokio::spawn(certificates.run());
        peers.map(|follower| tokio::spawn(follower.run()));
        gate.membership.clone().map(|membership| tokio::spawn(membership.watch()));
        tokio::spawn(renew_inspection(Arc::clone(&gate), config.inspection.clone()));
        status.serving();
        banner(&config, &gate, &status);
        stopped(signals.terminate, signals.interrupt).await;
        status.draining();
        drain(running, config.settings.drain_timeout).await;
        Ok::<(), StartError>(())
    })?;
    // A file system that hangs must not keep the process.
    runtime.shutdown_background();
    tracing::info!("stopped");
    Ok(())
}

/// The peers file, looked at once; the same holds for it.
fn followed_peers(path: PathBuf, gate: &Arc<Gate>) -> peers::Follower {
    let mut follower = peers::Follower::new(path, Arc::clone(gate));
    follower.look(UnixTime::now());
    follower
}

fn system(purpose: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { purpose, source }
}

/// Everything that listens on ports, bound before anything is served.
struct Doors {
    listeners: Listeners,
    ready: std::net::TcpListener,
    metrics: std::net::TcpListener,
}

impl Doors {
    /// Binds everything and writes the ports that the system chose into the configuration.
    fn open(config: &mut Config) -> Result<Doors, ListenError> {
        let each = config.settings.workers;
        let outbound = Purpose { what: "outbound listener", field: "listen.outbound" };
        let inbound = Purpose { what: "inbound listener", field: "listen.inbound" };
        let mesh = Purpose { what: "listener of the mesh", field: "listen.mesh" };
        let dns = Purpose { what: "DNS listener", field: "listen.dns" };
        let ready = Purpose { what: "readiness listener", field: "listen.ready" };
        let metrics = Purpose { what: "metrics listener", field: "listen.metrics" };
        let listen = &mut config.listen;
        let mut listeners = Listeners::default();
        (listeners.outbound, listen.outbound) = listen::loopback_tcp(outbound, listen.outbound, each)?;
        if config.inbound.capture {
            (listeners.inbound, listen.inbound) = listen::every_tcp(inbound, listen.inbound, each)?;
            (listeners.mesh, listen.mesh) = listen::every_tcp(mesh, listen.mesh, each)?;
        }
        (listeners.dns_udp, listeners.dns_tcp, listen.dns) = listen::loopback_both(dns, listen.dns, each)?;
        let ready = listen::tcp(ready, listen.ready)?;
        let metrics = listen::tcp(metrics, listen.metrics)?;
        listen.ready = ready.local_addr().unwrap_or(listen.ready);
        listen.metrics = metrics.local_addr().unwrap_or(listen.metrics);
        Ok(Doors { listeners, ready, metrics })
    }
}

/// The first policies; `documents` is `None` when there is none yet.
struct First {
    set: PolicySet,
    documents: Option<Vec<status::DocumentSummary>>,
}

fn load(config: &Config) -> Result<(First, Contents, CompileOptions), StartError> {
    let options = CompileOptions {
        workload: config.workload.clone(),
        generation: Generation(1),
        own_listeners: own_listeners(config),
        local_addresses: links::local_addresses().map_err(system("listing local addresses"))?,
        ..CompileOptions::default()
    };
    let contents = PolicyFiles { paths: config.policies.clone() }.read();
    if contents.is_empty() {
        tracing::warn!("no policy is there yet: everything is denied until one appears");
        return Ok((First { set: PolicySet::empty(Generation(0)), documents: None }, contents, options));
    }
    let loaded = contents.compile(&options).map_err(StartError::Policies)?;
    Ok((First { set: loaded.set, documents: Some(loaded.documents) }, contents, options))
}

fn own_listeners(config: &Config) -> Vec<SocketAddr> {
    let any = |port| SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
    let listen = &config.listen;
    inbound::own_ports(listen).into_iter().map(any).collect()
}

/// Takes resolvers and search domains from the system where the configuration names none.
fn fill_from_system(config: &mut Config) -> Result<(), StartError> {
    match ResolvConf::system() {
        Ok(found) => config.fill_from(found),
        Err(error) if config.settings.resolvers.is_empty() => return Err(StartError::Resolvers(error)),
        Err(error) => tracing::warn!(%error, "no search domains are known: /etc/resolv.conf can't be read"),
    }
    Ok(())
}

fn open_gate(
    config: &Config,
    first: PolicySet,
    origins: Origins,
    membership: Option<Membership>,
) -> Result<Gate, StartError> {
    let inspection = Inspection::new();
    if let Some(InspectionFiles { bundle }) = &config.inspection {
        inspection
            .publish(bundle)
            .map_err(|source| StartError::Inspection { path: bundle.display().to_string(), source })?;
    }
    let settings = config.settings.clone();
    let sink: Box<dyn Sink> = match &config.access_log {
        config::Target::Stdout => Box::new(JsonLines::stdout()),
        config::Target::File(path) => Box::new(
            JsonLines::file(path)
                .map_err(|source| StartError::AccessLog { path: path.display().to_string(), source })?,
        ),
    };
    let synthetic = match &config.state {
        Some(folder) => {
            private_folder(folder);
            SyntheticAddresses::load(&folder.join("synthetic-addresses"))
        }
        None => SyntheticAddresses::default(),
    };
    Ok(Gate {
        policies: PolicyStore::new(first),
        resolver: Resolver::new(settings.resolvers.clone()),
        synthetic,
        names: Names::new(settings.dns_names_per_minute),
        access_log: AccessLog::start(vec![sink]),
        settings,
        original_dst: Arc::new(original_dst),
        reception: None,
        origins,
        inspection,
        membership,
        workload: config.workload.as_ref().map(|id| id.as_str().to_owned()),
    })
}

/// Makes the state folder for its owner alone. Where that fails, loading says what is lost.
fn private_folder(folder: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
}

/// Buckets in seconds, of connections' lives and of connecting.
const LIVES: [f64; 10] = [0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0];
const CONNECTS: [f64; 10] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

fn install_metrics() -> PrometheusHandle {
    let lives = Matcher::Full(meters::DURATION.to_owned());
    let connects = Matcher::Full(meters::CONNECT.to_owned());
    let builder = PrometheusBuilder::new();
    let builder = builder.set_buckets_for_metric(lives, &LIVES).expect("there are buckets");
    let builder = builder.set_buckets_for_metric(connects, &CONNECTS).expect("there are buckets");
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // In tests another recorder may be there; the endpoints then show nothing, which they can tell.
    let _ = metrics::set_global_recorder(recorder);
    metrics::describe_gauge!(BUILD, "Version of this build; always 1.");
    metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // There from the start, so that the first count is seen to rise.
    for series in [meters::RECORDS_DROPPED, meters::RECORDS_LOST] {
        let _ = metrics::counter!(series);
    }
    for result in [ReloadResult::Applied, ReloadResult::Refused] {
        let _ = metrics::counter!(RELOADS, "result" => result.word());
    }
    metrics::describe_counter!(RELOADS, "Attempts to apply policies, by result.");
    identity::describe();
    peers::describe();
    handle
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

fn serve_endpoints(
    sources: &Arc<Sources>,
    ready: std::net::TcpListener,
    metrics: std::net::TcpListener,
    admin: Option<&AdminSocket>,
) -> io::Result<()> {
    let ready = Door::Tcp(tokio::net::TcpListener::from_std(ready)?);
    let scrape = Door::Tcp(tokio::net::TcpListener::from_std(metrics)?);
    tokio::spawn(web::serve(ready, endpoints::readiness(Arc::clone(sources))));
    tokio::spawn(web::serve(scrape, endpoints::scrape(Arc::clone(sources))));
    if let Some(admin) = admin {
        let admin = Door::Unix(tokio::net::UnixListener::from_std(admin.listener()?)?);
        tokio::spawn(web::serve(admin, endpoints::admin(Arc::clone(sources))));
    }
    let upkeep = sources.metrics.clone();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        loop {
            tick.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(())
}

async fn stopped(mut terminate: Signal, mut interrupt: Signal) {
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "draining: no new connections are taken");
}

async fn drain(running: Running, deadline: Duration) {
    // Joins threads, which must not keep the endpoints from answering.
    let _ = tokio::task::spawn_blocking(move || running.drain(deadline)).await;
}

/// One line that says what stands here and what is enforced.
fn banner(config: &Config, gate: &Gate, status: &Status) {
    let (applied, _) = status.policy();
    let idle = applied.as_ref().is_some_and(status::Applied::is_idle);
    let documents = applied.map(|applied| applied.documents).unwrap_or_default();
    let audits = documents.iter().filter(|document| document.audit).count();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        generation = gate.policies.current().generation().0,
        policies = documents.len(),
        audits,
        outbound = config.listen.outbound,
        inbound = config.inbound.capture.then_some(config.listen.inbound),
        mesh = config.inbound.capture.then_some(config.listen.mesh),
        dns = config.listen.dns,
        ready = %config.listen.ready,
        metrics = %config.listen.metrics,
        admin = %config.admin_socket.as_deref().unwrap_or(Path::new("-")).display(),
        workers = config.settings.workers,
        "{}{}",
        status.claim(),
        if config.inbound.capture { "; inbound TCP likewise" } else { "" },
    );
    if idle {
        tracing::error!("not ready: {NONE_APPLIES}");
    }
    inbound::tell(&documents, config.inbound.capture);
    tell_wanting(gate, &gate.policies.current());
    for document in documents.iter().filter(|document| document.audit) {
        tracing::warn!(
            policy = document.name,
            "this policy is in audit mode: what it would deny passes and is recorded"
        );
    }
}

/// The workload learns of the next authority for inspection long before it mints.
async fn renew_inspection(gate: Arc<Gate>, files: Option<InspectionFiles>) {
    let mut look = tokio::time::interval(Duration::from_secs(60 * 60));
    loop {
        look.tick().await;
        let renewed = gate.inspection.renew(UnixTime::now());
        if let Some(InspectionFiles { bundle }) = files.as_ref().filter(|_| renewed) {
            match gate.inspection.publish(bundle) {
                Ok(()) => {
                    tracing::info!(file = %bundle.display(), "the next authority for inspection is written")
                }
                Err(error) => {
                    tracing::error!(file = %bundle.display(), %error, "the next authority for inspection can't be written")
                }
            }
        }
    }
}

/// What rules demand and the configuration lacks. To be called for every generation.
fn tell_wanting(gate: &Gate, set: &PolicySet) {
    let certificates = gate.reception.iter().flat_map(|reception| reception.wanting(set));
    for line in gate.origins.wanting(set).into_iter().chain(certificates) {
        tracing::warn!("{line}");
    }
}

/// `1 error`, `2 errors`.
pub fn errors(count: usize) -> String {
    if count == 1 { "1 error".to_owned() } else { format!("{count} errors") }
}
