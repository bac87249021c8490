//! Resolvers for tests, honest and hostile, on a loopback port of their own.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        RData, Record, RecordType,
        rdata::{A, AAAA},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};

/// One question as a resolver sees it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) message: Message,
    pub(super) from: SocketAddr,
    pub(super) tcp: bool,
    /// Counted from 0 over both transports.
    pub(super) number: usize,
}

/// A resolver; stops when dropped.
pub(super) struct Upstream {
    pub(super) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _serving: JoinSet<()>,
}

impl Upstream {
    /// Sends every message that `respond` returns, in order; none is silence.
    pub(super) async fn start(respond: impl Fn(&Seen) -> Vec<Message> + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", respond).await
    }

    pub(super) async fn start_at(
        place: &str,
        respond: impl Fn(&Seen) -> Vec<Message> + Send + Sync + 'static,
    ) -> Self {
        let (tcp, udp) = pair(place).await;
        let addr = tcp.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let respond: Arc<Respond> = Arc::new(respond);
        let mut serving = JoinSet::new();
        serving.spawn(serve_udp(udp, seen.clone(), respond.clone()));
        serving.spawn(serve_tcp(tcp, seen.clone(), respond));
        Upstream { addr, seen, _serving: serving }
    }

    /// How many questions were asked so far.
    pub(super) fn count(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Everything that was asked so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

type Respond = dyn Fn(&Seen) -> Vec<Message> + Send + Sync;

/// A stream listener and a datagram socket on one port.
async fn pair(place: &str) -> (TcpListener, UdpSocket) {
    loop {
        let tcp = TcpListener::bind(place).await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (tcp, udp);
        }
    }
}

async fn serve_udp(socket: UdpSocket, seen: Arc<Mutex<Vec<Seen>>>, respond: Arc<Respond>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        for answer in note(&seen, &respond, &buffer[..length], from, false) {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

async fn serve_tcp(listener: TcpListener, seen: Arc<Mutex<Vec<Seen>>>, respond: Arc<Respond>) {
    loop {
        let (mut stream, from) = listener.accept().await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await.unwrap();
        for answer in note(&seen, &respond, &bytes, from, true) {
            stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    }
}

fn note(
    seen: &Mutex<Vec<Seen>>,
    respond: &Arc<Respond>,
    bytes: &[u8],
    from: SocketAddr,
    tcp: bool,
) -> Vec<Vec<u8>> {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let asked = Seen { message: Message::from_vec(bytes).unwrap(), from, tcp, number: seen.len() };
    seen.push(asked.clone());
    drop(seen);
    respond(&asked).iter().map(|answer| answer.to_vec().unwrap()).collect()
}

impl Seen {
    /// The name asked for, without the last dot.
    pub(super) fn name(&self) -> String {
        self.message.queries[0].name().to_ascii().trim_end_matches('.').to_owned()
    }

    pub(super) fn record_type(&self) -> RecordType {
        self.message.queries[0].query_type()
    }

    /// An answer with a code alone.
    pub(super) fn code(&self, code: ResponseCode) -> Message {
        let mut answer = Message::response(self.message.metadata.id, OpCode::Query);
        answer.metadata.response_code = code;
        answer.metadata.recursion_available = true;
        answer.add_query(self.message.queries[0].clone());
        answer
    }

    /// An answer with those of the addresses that are of the family asked for.
    pub(super) fn addresses(&self, ttl: u32, addresses: &[&str]) -> Message {
        let mut answer = self.code(ResponseCode::NoError);
        let owner = self.message.queries[0].name();
        for address in addresses {
            let rdata = match (address.parse().unwrap(), self.record_type()) {
                (IpAddr::V4(address), RecordType::A) => RData::A(A(address)),
                (IpAddr::V6(address), RecordType::AAAA) => RData::AAAA(AAAA(address)),
                _ => continue,
            };
            answer.add_answer(Record::from_rdata(owner.clone(), ttl, rdata));
        }
        answer
    }
}
