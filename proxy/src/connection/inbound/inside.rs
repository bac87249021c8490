//! What is inside TLS that the proxy has ended: looked at, judged, and carried to the application like what comes without.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
};

use sidegate_api::CloseReason;
use sidegate_policy::{Observed, reason::Side};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::{
    super::{
        Worker,
        client_address::introduce,
        connect::{ConnectError, connect_by},
        decide::{Facts, Permit, decide},
        explain::in_words,
        farewell,
        live::Judgement,
        observe::{Early, observe_inbound},
        record::Record,
        words::Words,
    },
    pump::pump,
};
use crate::{
    http::engine::{Opened, serve_stream},
    inspection::Rewound,
    limits::ConnectionSlot,
    mesh::{Broken, MeshStream, relay::Transfer},
};

/// A connection whose TLS has ended here.
pub(super) struct Inside {
    pub(super) record: Record,
    pub(super) slot: ConnectionSlot,
    pub(super) worker: Arc<Worker>,
}

/// A stream that came out of TLS.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Carries it to the application and back.
    fn carry(&mut self, socket: &mut TcpStream, moved: &Moved) -> impl Future<Output = CloseReason> + Send;
}

impl Carrier for TlsStream<Rewound> {
    async fn carry(&mut self, socket: &mut TcpStream, moved: &Moved) -> CloseReason {
        pump(self, socket, (&moved.sent, &moved.received)).await
    }
}

impl Carrier for MeshStream {
    async fn carry(&mut self, socket: &mut TcpStream, moved: &Moved) -> CloseReason {
        let mut transfer = Transfer::default();
        let ended = poll_fn(|cx| {
            let polled = transfer.poll_move(self, socket, cx);
            moved.sent.store(transfer.inward(), Relaxed);
            moved.received.store(transfer.outward(), Relaxed);
            polled
        })
        .await;
        match ended {
            Ok(()) => CloseReason::Done,
            Err(broken) if broken.was_dismissed() => CloseReason::PeerUntrusted,
            Err(Broken::Mesh(_)) => CloseReason::ClientReset,
            Err(Broken::Socket(_)) => {
                self.reset();
                CloseReason::UpstreamReset
            }
        }
    }
}

/// Bytes so far: to the application, and back.
#[derive(Debug, Default)]
pub(super) struct Moved {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Inside {
    /// Looks, judges, carries. `facts`: what is known before the first bytes.
    pub(super) async fn serve(mut self, mut stream: impl Carrier, facts: Facts) {
        let gate = Arc::clone(&self.worker.gate);
        let (facts, early) = observe_inbound(&mut stream, &gate, facts).await;
        let facts = Arc::new(facts);
        self.record.facts = Some(Arc::clone(&facts));
        match self.judge(Arc::clone(&facts)) {
            Ok(permit) if permit.treatment().per_request => self.by_request(stream, facts, early).await,
            Ok(permit) => match self.connect(permit).await {
                Ok(reached) => self.relay(stream, reached, early.bytes).await,
                Err(()) => self.say(stream, &facts, &early).await,
            },
            Err(_) if facts.observed == Observed::Http && early.bytes.starts_with(b"PRI * HTTP/2.0") => {
                self.by_request(stream, facts, early).await;
            }
            Err(judgement) => {
                self.record.denied(judgement.besides(early.besides));
                self.say(stream, &facts, &early).await;
            }
        }
    }

    async fn by_request(self, stream: impl Carrier, facts: Arc<Facts>, early: Early) {
        let Inside { record, slot, worker } = self;
        record.entry.judged_by_request();
        let http2 = early.bytes.starts_with(b"PRI * HTTP/2.0");
        serve_stream(Opened { record, slot, worker, facts, http2 }, stream, early.bytes).await;
    }

    /// Judges by the set of the moment.
    pub(super) fn judge(&self, facts: Arc<Facts>) -> Result<Permit, Judgement> {
        let policies = &self.worker.gate.policies;
        let outcome = {
            let set = policies.current();
            match decide(&set, facts) {
                Ok(permit) => {
                    self.record.entry.permitted(&permit, Judgement::of(&set, permit.decision()));
                    Ok(permit)
                }
                Err(denied) => Err(Judgement::of(&set, &denied.decision)),
            }
        };
        // A set that came between judging and registering has not seen this connection.
        self.record.entry.catch_up(policies);
        outcome
    }

    /// Reaches the application. `Err`: the record says why not.
    pub(super) async fn connect(&mut self, permit: Permit) -> Result<Reached, ()> {
        let worker = Arc::clone(&self.worker);
        match connect_by(permit, &worker.gate, &*worker.dial, Some(&worker.limits)).await {
            Ok(mut connected) => {
                self.record.upstream = Some(connected.address);
                self.record.entry.dialled(connected.address);
                self.record.entry.handshaken(None);
                self.record.entry.catch_up(&worker.gate.policies);
                // An application that is gone already shows itself when bytes are moved.
                let _ = introduce(&mut connected.upstream, &connected.permit).await;
                Ok(Reached { socket: connected.upstream, whole: false })
            }
            Err(ConnectError { reason, detail }) => {
                let policy = reason.side() == Side::Policy;
                let close = if policy { CloseReason::Denied } else { CloseReason::ConnectFailed };
                self.record.failed(reason, format!("{} ({detail})", in_words(reason)), close);
                Err(())
            }
        }
    }

    /// Moves bytes until both sides are done; `early` go first.
    pub(super) async fn relay(self, mut stream: impl Carrier, mut reached: Reached, early: Vec<u8>) {
        let Inside { record, slot, worker: _ } = self;
        let live = record.entry.live();
        let mut carried = Carried { record, moved: Moved::default(), early: 0 };
        if reached.socket.write_all(&early).await.is_err() {
            carried.record.closed(CloseReason::UpstreamReset);
            return;
        }
        carried.early = early.len() as u64;
        drop(early);
        let close = {
            let Carried { record, moved, early: _ } = &carried;
            let mut moving = pin!(stream.carry(&mut reached.socket, moved));
            let mut before = moved.sum();
            poll_fn(|cx| {
                if let Some(close) = record.entry.closing(cx) {
                    return Poll::Ready(close);
                }
                let polled = moving.as_mut().poll(cx);
                if std::mem::replace(&mut before, moved.sum()) != before {
                    live.touch();
                }
                polled
            })
            .await
        };
        reached.whole = close == CloseReason::Done;
        carried.record.closed(close);
        drop(carried);
        drop(slot);
    }

    /// The last words to a client whose record is complete.
    async fn say(self, mut stream: impl Carrier, facts: &Facts, early: &Early) {
        let Inside { record, slot, worker: _ } = self;
        let words = record.outcome().map(|judgement| Words::for_denial(facts, early, judgement));
        drop(record);
        if let Some(Words::Say(words)) = words {
            farewell::said(&mut stream, &words).await;
        }
        drop(slot);
    }
}

impl Moved {
    fn sum(&self) -> u64 {
        self.sent.load(Relaxed) + self.received.load(Relaxed)
    }
}

/// Whatever becomes of the connection, its record has what was moved.
struct Carried {
    record: Record,
    moved: Moved,
    /// Bytes that went to the application before.
    early: u64,
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.record.sent = self.early + self.moved.sent.load(Relaxed);
        self.record.received = self.moved.received.load(Relaxed);
    }
}

/// The application's side. What is cut off must not pass for an orderly end.
pub(super) struct Reached {
    socket: TcpStream,
    whole: bool,
}

impl Drop for Reached {
    fn drop(&mut self) {
        if !self.whole {
            farewell::reset(&self.socket);
        }
    }
}
