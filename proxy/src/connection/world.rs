//! A whole world for tests of the pipeline: a proxy, an origin, a resolver and a client, on one event loop.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, OnceLock},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use rustls::pki_types::CertificateDer;
use sidegate_api::AccessRecord;
use sidegate_certs::{
    Authority, PrivateKey, Profile, UnixTime, lifetime,
    tls::{Credential, Origin},
};
use sidegate_policy::{
    CompileOptions, Document, Generation, HostName, PolicySet, Source, SpiffeId, TrustDomain, document,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{
    Worker,
    accept::accept_all,
    connect::{Dialler, dial},
};
use crate::{
    access_log::{AccessLog, Sink},
    addrs::{OriginalDst, UpstreamAddr},
    dns::{Names, Resolver, SyntheticAddresses},
    limits::Limits,
    mesh::Membership,
    metrics::Meters,
    origins::Origins,
    policy_store::PolicyStore,
    reception::Reception,
    server::Gate,
    settings::Settings,
};

/// Compiles YAML documents. The policies of tests are valid.
pub(crate) fn policies(yaml: &str, generation: u64) -> PolicySet {
    let documents: Vec<Document> = document::parse(&Source::new("test.yaml", yaml)).expect("a valid policy");
    let options = CompileOptions { generation: Generation(generation), ..CompileOptions::default() };
    PolicySet::compile(&documents, &options).expect("policies that agree")
}

/// Everything dialled, and where it really leads.
#[derive(Clone, Default)]
pub(crate) struct Net {
    routes: Arc<Mutex<HashMap<SocketAddr, SocketAddr>>>,
    dialled: Arc<Mutex<Vec<SocketAddr>>>,
    /// The error number of every attempt.
    failing: Arc<Mutex<Option<i32>>>,
}

impl Net {
    /// Leads what is dialled at `address` to a loopback listener.
    pub(crate) fn route(&self, address: &str, to: SocketAddr) {
        self.routes.lock().unwrap().insert(address.parse().unwrap(), to);
    }

    /// From now on the kernel refuses every attempt so.
    pub(crate) fn fail(&self, errno: i32) {
        *self.failing.lock().unwrap() = Some(errno);
    }

    pub(crate) fn dialled(&self) -> Vec<String> {
        self.dialled.lock().unwrap().iter().map(SocketAddr::to_string).collect()
    }

    /// Opens sockets in this network.
    pub(crate) fn dialler(&self) -> Arc<Dialler> {
        let net = self.clone();
        Arc::new(move |address| net.dial(address))
    }

    fn dial(&self, address: UpstreamAddr) -> super::dial::Attempt<TcpStream> {
        self.dialled.lock().unwrap().push(address.socket_addr());
        if let Some(errno) = *self.failing.lock().unwrap() {
            return Box::pin(async move { Err(io::Error::from_raw_os_error(errno)) });
        }
        match self.routes.lock().unwrap().get(&address.socket_addr()) {
            Some(to) => dial(UpstreamAddr::new(*to)),
            None => Box::pin(std::future::pending()),
        }
    }
}

#[derive(Clone, Default)]
pub(crate) struct Records(Arc<Mutex<Vec<AccessRecord>>>);

impl Records {
    /// Those written so far with a verdict.
    pub(crate) fn of(&self, verdict: &str) -> Vec<AccessRecord> {
        self.0.lock().unwrap().iter().filter(|record| record.verdict == verdict).cloned().collect()
    }
}

impl Sink for Records {
    fn record(&mut self, record: &AccessRecord) {
        self.0.lock().unwrap().push(record.clone());
    }
}

/// A proxy that runs on the test's own event loop.
pub(crate) struct World {
    pub(crate) worker: Arc<Worker>,
    pub(crate) net: Net,
    pub(crate) proxy: SocketAddr,
    /// Where connections towards the workload are captured, and where those of the mesh come.
    pub(crate) inbound: SocketAddr,
    pub(crate) mesh: SocketAddr,
    pub(crate) questions: Arc<Mutex<Vec<String>>>,
    records: Records,
    wanted: Wanted,
    _running: JoinSet<()>,
}

/// Names that exist, by family.
pub(crate) type Zone = &'static [(&'static str, &'static [&'static str])];

/// Who vouches for the web of the tests, and a certificate of `www.ok.example`.
pub(crate) fn web() -> &'static (Origin, Credential) {
    static WEB: OnceLock<(Origin, Credential)> = OnceLock::new();
    WEB.get_or_init(|| {
        let Web { root, chain, key } = made_web();
        let origin = Origin::from_roots(std::slice::from_ref(root)).unwrap();
        (origin, Credential::new(chain.clone(), key).unwrap())
    })
}

/// The root of the tests' web.
pub(crate) fn web_root_pem() -> String {
    sidegate_certs::certificate_to_pem(&made_web().root)
}

/// The public key of its server.
pub(crate) fn web_spki() -> Vec<u8> {
    made_web().key.public().spki().to_vec()
}

struct Web {
    root: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
}

fn made_web() -> &'static Web {
    static WEB: OnceLock<Web> = OnceLock::new();
    WEB.get_or_init(|| {
        let (domain, now) = (TrustDomain::parse("web.test").unwrap(), UnixTime::now());
        let root = Authority::root(&domain, PrivateKey::generate().unwrap(), now, lifetime::ROOT).unwrap();
        let id = SpiffeId::parse("spiffe://web.test/server").unwrap();
        let names = vec![HostName::parse("www.ok.example").unwrap()];
        let profile = Profile::new(id, lifetime::LEAF).unwrap().with_names(names);
        let key = PrivateKey::generate().unwrap();
        let chain = root.issue(key.public(), &profile, now).unwrap().chain().to_vec();
        Web { root: root.root_certificate().unwrap().clone(), chain, key }
    })
}

/// Where captured connections meant to go, by their source.
#[derive(Clone, Default)]
pub(crate) struct Wanted(Arc<Mutex<HashMap<SocketAddr, SocketAddr>>>);

impl Wanted {
    fn of(&self, stream: &TcpStream) -> io::Result<OriginalDst> {
        let wanted = self.0.lock().unwrap().get(&stream.peer_addr()?).copied();
        assert_ne!(wanted, Some(PANIC), "asked to panic");
        assert!(stream.nodelay()?, "Nagle's algorithm is on");
        wanted.map(OriginalDst::new).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A connection to `proxy` that meant to go to `destination`.
    pub(crate) async fn connect(&self, proxy: SocketAddr, destination: Option<SocketAddr>) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        if let Some(destination) = destination {
            self.0.lock().unwrap().insert(socket.local_addr().unwrap(), destination);
        }
        socket.connect(proxy).await.unwrap()
    }
}

/// What the stages share, over a policy and a resolver of the test's own.
pub(crate) fn gate(
    yaml: &str,
    resolver: Resolver,
    settings: Settings,
    (records, wanted): (&Records, &Wanted),
) -> Arc<Gate> {
    let wanted = wanted.clone();
    Arc::new(Gate {
        policies: PolicyStore::new(policies(yaml, 1)),
        resolver,
        synthetic: SyntheticAddresses::default(),
        names: Names::new(60),
        access_log: AccessLog::start(vec![Box::new(records.clone())]),
        original_dst: Arc::new(move |stream| wanted.of(stream)),
        origins: Origins::new(web().0.clone()),
        reception: None,
        inspection: crate::inspection::Inspection::new(),
        membership: None,
        workload: Some("spiffe://example.org/ns/test/sa/app".into()),
        settings,
    })
}

/// What judges and nothing more.
pub(crate) fn idle_gate(yaml: &str) -> Arc<Gate> {
    gate(yaml, Resolver::new(Vec::new()), Settings::default(), (&Records::default(), &Wanted::default()))
}

/// Waits until `count` records are written; there must never be more.
pub(crate) async fn written(gate: &Gate, records: &Records, count: usize) -> Vec<AccessRecord> {
    loop {
        gate.access_log.finish();
        let records = records.0.lock().unwrap().clone();
        assert!(records.len() <= count, "more records than connections: {records:#?}");
        if records.len() == count {
            return records;
        }
        tokio::task::yield_now().await;
    }
}

impl World {
    pub(crate) async fn start(yaml: &str, zone: Zone) -> World {
        Self::with_settings(yaml, zone, Settings::default()).await
    }

    pub(crate) async fn with_settings(yaml: &str, zone: Zone, settings: Settings) -> World {
        Self::of(yaml, zone, settings, |_| ()).await
    }

    pub(crate) async fn with_origins(yaml: &str, zone: Zone, settings: Settings, origins: Origins) -> World {
        Self::of(yaml, zone, settings, |gate| gate.origins = origins).await
    }

    /// With a place in the mesh.
    pub(crate) async fn of_member(
        yaml: &str,
        zone: Zone,
        settings: Settings,
        membership: Membership,
    ) -> World {
        Self::of(yaml, zone, settings, |gate| gate.membership = Some(membership)).await
    }

    /// With those received who come from outside.
    pub(crate) async fn with_reception(
        yaml: &str,
        zone: Zone,
        settings: Settings,
        reception: Reception,
    ) -> World {
        Self::of(yaml, zone, settings, |gate| gate.reception = Some(reception)).await
    }

    async fn of(yaml: &str, zone: Zone, settings: Settings, change: impl FnOnce(&mut Gate)) -> World {
        let (resolver, questions, mut running) = resolver(zone).await;
        let (records, wanted) = (Records::default(), Wanted::default());
        let mut gate = gate(yaml, resolver, settings, (&records, &wanted));
        change(Arc::get_mut(&mut gate).expect("nobody else has it"));
        let net = Net::default();
        let limits = Arc::new(Limits::new(&gate.settings));
        let worker = Arc::new(Worker {
            meters: Arc::new(Meters::new()),
            mesh: super::mesh_of(&gate, &net.dialler(), &limits),
            limits,
            live: Arc::default(),
            carriers: Arc::default(),
            pool: crate::http::upstream::Pool::new(),
            dial: net.dialler(),
            gate,
        });
        let mut listen = Vec::new();
        for story in [super::outbound::STORY, super::inbound::STORY, super::inbound::streams::STORY] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            socket2::SockRef::from(&listener).set_tcp_nodelay(true).unwrap();
            listen.push(listener.local_addr().unwrap());
            let accepting = Arc::clone(&worker);
            running.spawn(async move { accept_all(&accepting, listener, story).await });
        }
        let watching = Arc::clone(&worker);
        running.spawn(async move {
            watching.live.watch(&watching.gate.policies, watching.gate.settings.idle_timeout).await;
        });
        let [proxy, inbound, mesh] = listen[..] else { unreachable!() };
        World { worker, net, proxy, inbound, mesh, questions, records, wanted, _running: running }
    }

    /// A listener that the proxy reaches at `address`.
    pub(crate) async fn origin(&self, address: &str) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.net.route(address, listener.local_addr().unwrap());
        listener
    }

    /// A connection captured on its way to `destination`.
    pub(crate) async fn client(&self, destination: &str) -> TcpStream {
        self.client_to(Some(destination.parse().unwrap())).await
    }

    /// A connection captured on its way to the workload's `destination`.
    pub(crate) async fn visitor(&self, destination: &str) -> TcpStream {
        self.wanted.connect(self.inbound, Some(destination.parse().unwrap())).await
    }

    pub(crate) async fn client_to(&self, destination: Option<SocketAddr>) -> TcpStream {
        self.wanted.connect(self.proxy, destination).await
    }

    /// As [`written`].
    pub(crate) async fn records(&self, count: usize) -> Vec<AccessRecord> {
        written(&self.worker.gate, &self.records, count).await
    }

    /// Every record so far.
    pub(crate) fn so_far(&self) -> Vec<AccessRecord> {
        self.worker.gate.access_log.finish();
        self.records.0.lock().unwrap().clone()
    }

    /// Those denied so far.
    pub(crate) fn denied(&self) -> Vec<AccessRecord> {
        self.worker.gate.access_log.finish();
        self.records.of("denied")
    }

    pub(crate) async fn record(&self) -> AccessRecord {
        self.records(1).await.remove(0)
    }
}

/// A destination at which learning the destination panics.
pub(crate) const PANIC: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(9, 9, 9, 9)), 9);

/// An honest resolver over a zone.
async fn resolver(zone: Zone) -> (Resolver, Arc<Mutex<Vec<String>>>, JoinSet<()>) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let questions: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&questions);
    let mut running = JoinSet::new();
    running.spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let reply = respond(&asked, zone);
            seen.lock().unwrap().push(asked.queries[0].name().to_utf8());
            socket.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
        }
    });
    (Resolver::new(vec![address]), questions, running)
}

fn respond(asked: &Message, zone: Zone) -> Message {
    use hickory_proto::rr::{
        RData, Record,
        rdata::{A, AAAA},
    };
    let question = asked.queries[0].clone();
    let name = question.name().to_utf8();
    let known = zone.iter().find(|(known, _)| name.trim_end_matches('.') == *known);
    let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
    reply.add_query(question.clone());
    let Some((_, addresses)) = known else {
        reply.metadata.response_code = ResponseCode::NXDomain;
        return reply;
    };
    for address in addresses.iter().map(|text| text.parse::<IpAddr>().unwrap()) {
        let rdata = match (address, question.query_type()) {
            (IpAddr::V4(v4), RecordType::A) => RData::A(A(v4)),
            (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(AAAA(v6)),
            _ => continue,
        };
        reply.add_answer(Record::from_rdata(question.name().clone(), 60, rdata));
    }
    reply
}
