use sidegate_api::AccessRecord;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::connection::world::{Net, Records, Wanted, gate, written};

const POLICY: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: test }
spec:
  egress:
    - name: db
      reason: "a database of the test"
      to: [ { cidrs: [ 10.0.0.0/8 ] } ]
      ports: [ 5432 ]
      protocol: tcp
      tls: { mode: none }
"#;
const DB: &str = "10.1.2.3:5432";

/// A proxy with threads of its own, and an origin behind [`DB`].
struct Started {
    gate: Arc<Gate>,
    running: Option<Running>,
    proxy: std::net::SocketAddr,
    origin: net::TcpListener,
    records: Records,
    wanted: Wanted,
}

impl Started {
    async fn new(workers: usize) -> Started {
        let (records, wanted, world) = (Records::default(), Wanted::default(), Net::default());
        let settings = Settings { workers, ..Settings::default() };
        let gate = gate(POLICY, Resolver::new(Vec::new()), settings, (&records, &wanted));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = listener.local_addr().unwrap();
        let origin = net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        world.route(DB, origin.local_addr().unwrap());
        let listeners = Listeners { outbound: vec![listener], ..Listeners::default() };
        let running = Running::start_with(gate.clone(), listeners, world.dialler()).unwrap();
        Started { gate, running: Some(running), proxy, origin, records, wanted }
    }

    async fn joined(&self) -> (TcpStream, TcpStream) {
        let client = self.wanted.connect(self.proxy, Some(DB.parse().unwrap())).await;
        (client, self.origin.accept().await.unwrap().0)
    }

    fn drain(&mut self, deadline: Duration) -> JoinHandle<()> {
        let running = self.running.take().unwrap();
        thread::spawn(move || running.drain(deadline))
    }

    async fn record(&self) -> AccessRecord {
        written(&self.gate, &self.records, 1).await.remove(0)
    }
}

#[tokio::test]
async fn workers_share_one_socket() {
    let started = Started::new(3).await;
    for _ in 0..20 {
        let (mut client, mut server) = started.joined().await;
        client.write_all(b"x").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'x');
    }
    written(&started.gate, &started.records, 20).await;
}

#[tokio::test]
async fn a_drain_waits_for_what_lives_and_accepts_nothing_new() {
    let mut started = Started::new(2).await;
    let (mut client, mut server) = started.joined().await;
    let draining = started.drain(Duration::from_secs(600));
    while TcpStream::connect(started.proxy).await.is_ok() {
        tokio::task::yield_now().await;
    }
    client.write_all(b"still here").await.unwrap();
    server.read_exact(&mut [0; 10]).await.unwrap();
    assert!(!draining.is_finished());
    drop((client, server));
    draining.join().unwrap();
    let lived = started.records.of("allowed");
    assert_eq!(lived.iter().map(|record| record.close_reason).collect::<Vec<_>>(), [CloseReason::Done]);
}

#[tokio::test]
async fn a_drain_closes_what_is_left_at_its_deadline() {
    let mut started = Started::new(1).await;
    let (mut client, mut server) = started.joined().await;
    let draining = started.drain(Duration::from_millis(10));
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    draining.join().unwrap();
    assert_eq!(started.record().await.close_reason, CloseReason::Drained);
}
