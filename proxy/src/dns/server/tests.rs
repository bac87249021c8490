//! The application's side of DNS, in front of honest and hostile resolvers.

mod answers;
mod refusals;
mod streams;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use sidegate_api::AccessRecord;
use sidegate_policy::{CompileOptions, Generation, HostName, PolicySet, Source, document};
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};

use crate::{
    access_log::{AccessLog, Sink},
    dns::{
        Names, Resolver, SyntheticAddresses,
        upstreams::{Seen, Upstream},
    },
    limits::Limits,
    policy_store::PolicyStore,
    server::Gate,
    settings::Settings,
};

/// A public address; documentation ranges are refused for names.
const GOOD: &str = "9.9.9.9";

const POLICY: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: shop }
spec:
  egress:
    - name: api
      to: [ { hosts: [ api.shop.test ] } ]
      ports: [ 443 ]
    - name: pages
      to: [ { hosts: [ "*.pages.test" ] } ]
      ports: [ 443 ]
    - name: internal
      to: [ { hosts: [ app.internal.test ], private: true } ]
      ports: [ 443 ]
    - name: database
      reason: "the database speaks first"
      to: [ { hosts: [ sql.shop.test ] } ]
      ports: [ 5432 ]
      protocol: tcp
      tls: { mode: none }
    - name: forbidden
      action: deny
      to: [ { hosts: [ bad.pages.test ] } ]
      ports: [ "1-65535" ]
"#;

const AUDIT: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: watched }
spec:
  mode: audit
  auditUntil: 9999-12-31
  egress:
    - name: api
      to: [ { hosts: [ api.shop.test ] } ]
      ports: [ 443 ]
"#;

const OTHER: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: shop }
spec:
  egress:
    - name: other
      to: [ { hosts: [ other.test ] } ]
      ports: [ 443 ]
"#;

fn policy(text: &str, generation: u64) -> PolicySet {
    let documents = document::parse(&Source::new("policy.yaml", text)).unwrap();
    let options = CompileOptions { generation: Generation(generation), ..CompileOptions::default() };
    PolicySet::compile(&documents, &options).unwrap()
}

/// An application, its resolver, and the server between them.
struct World {
    gate: Arc<Gate>,
    upstream: Upstream,
    udp: SocketAddr,
    tcp: SocketAddr,
    records: Records,
    serving: JoinSet<()>,
}

#[derive(Clone, Default)]
struct Records(Arc<Mutex<Vec<AccessRecord>>>);

impl Sink for Records {
    fn record(&mut self, record: &AccessRecord) {
        self.0.lock().unwrap().push(record.clone());
    }
}

impl World {
    async fn start(respond: impl Fn(&Seen) -> Vec<Message> + Send + Sync + 'static) -> World {
        Self::with(Settings::default(), policy(POLICY, 1), respond).await
    }

    async fn with(
        settings: Settings,
        set: PolicySet,
        respond: impl Fn(&Seen) -> Vec<Message> + Send + Sync + 'static,
    ) -> World {
        let upstream = Upstream::start(respond).await;
        let records = Records::default();
        let gate = Arc::new(Gate {
            reception: None,
            policies: PolicyStore::new(set),
            resolver: Resolver::new(vec![upstream.addr]),
            synthetic: SyntheticAddresses::default(),
            names: Names::new(settings.dns_names_per_minute),
            access_log: AccessLog::start(vec![Box::new(records.clone())]),
            settings,
            original_dst: Arc::new(|_| Err(std::io::ErrorKind::NotFound.into())),
            workload: None,
            origins: crate::origins::Origins::of_system(),
            inspection: crate::inspection::Inspection::new(),
            membership: None,
        });
        // Connections took all that is not reserved.
        let limits = Arc::new(Limits::with_descriptors(&gate.settings, 0));
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (udp, tcp) = (socket.local_addr().unwrap(), listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(super::serve_udp(gate.clone(), socket));
        serving.spawn(super::serve_tcp(gate.clone(), Arc::clone(&limits), listener));
        World { gate, upstream, udp, tcp, records, serving }
    }

    /// Asks over UDP.
    async fn ask(&self, name: &str, record_type: RecordType) -> Message {
        Message::from_vec(&self.send(&question(name, record_type)).await).unwrap()
    }

    async fn send(&self, bytes: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.udp).await.unwrap();
        socket.send(bytes).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let length =
            tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut buffer)).await.unwrap().unwrap();
        buffer.truncate(length);
        buffer
    }

    /// Asks for addresses: the response code and the addresses.
    async fn addresses(&self, name: &str) -> (ResponseCode, Vec<String>) {
        let answer = self.ask(name, RecordType::A).await;
        (answer.metadata.response_code, answer.answers.iter().map(|record| record.data.to_string()).collect())
    }

    /// Every record so far.
    fn records(&self) -> Vec<AccessRecord> {
        self.gate.access_log.finish();
        self.records.0.lock().unwrap().clone()
    }

    /// The only record so far.
    fn record(&self) -> AccessRecord {
        let [record] = &self.records()[..] else { panic!("{:?}", self.records()) };
        record.clone()
    }

    /// Names that were asked upstream.
    fn asked(&self) -> Vec<String> {
        self.upstream.seen().iter().map(Seen::name).collect()
    }
}

fn question(name: &str, record_type: RecordType) -> Vec<u8> {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), record_type));
    message.to_vec().unwrap()
}

fn host(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

fn good(seen: &Seen) -> Vec<Message> {
    vec![seen.addresses(300, &[GOOD, "2620:fe::9"])]
}

fn found() -> (ResponseCode, Vec<String>) {
    (ResponseCode::NoError, vec![GOOD.to_owned()])
}

/// NOERROR without records.
fn empty() -> (ResponseCode, Vec<String>) {
    (ResponseCode::NoError, Vec::new())
}

fn refused() -> (ResponseCode, Vec<String>) {
    (ResponseCode::Refused, Vec::new())
}
