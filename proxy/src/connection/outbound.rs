//! The outbound story in order. The only place that calls its stages.

use std::sync::Arc;

use sidegate_api::CloseReason;
use sidegate_certs::tls::H2;
use sidegate_policy::{
    Direction, Observed, Reason, Verdict,
    decision::{Dial, TlsMode},
    reason::Side,
};

use super::{
    Worker,
    accept::{Accepted, Story, learn_destination},
    client_address::introduce,
    connect::{ConnectError, Connected, connect_by},
    decide::{Facts, Permit, TlsVersion, decide},
    explain::in_words,
    farewell,
    link::Link,
    live::Judgement,
    mesh::{Joined, join},
    observe::{Classified, Early, observe},
    relay::{MeshRelay, Relay, SealedRelay},
    version_gate::{Demand, Passed, Stopped, pass_version},
    words::Words,
};
use crate::{
    clock::today,
    http::{
        engine::{Opened, serve, serve_stream},
        upstream::verify,
    },
    inspection::Refused,
    origins::Speaks,
    tls::server_gate::{ACCESS_DENIED_ALERT, PROTOCOL_VERSION_ALERT},
};

/// What becomes of redirected connections of the workload.
pub(crate) const STORY: Story = Story { direction: Direction::Egress, start };

/// Carries one connection to its end, on this worker.
fn start(link: Link) {
    let live = link.record.entry.live();
    // Boxed, so that its size is gone from memory once bytes are relayed; and alone in its box, so that it never moves.
    let establishing = Box::pin(establish(link));
    tokio::spawn(async move {
        let established = live.until_closed(establishing).await;
        if let Some(established) = established {
            established.relay().await;
        }
    });
}

/// A connection whose bytes are to be moved.
pub(super) enum Established {
    Bare(Relay),
    Sealed(Box<SealedRelay>),
    Mesh(MeshRelay),
}

impl Established {
    /// To its end.
    pub(super) async fn relay(self) {
        match self {
            Established::Bare(relay) => relay.await,
            Established::Sealed(relay) => relay.await,
            Established::Mesh(relay) => relay.await,
        }
    }
}

/// From a socket to an established connection. `None`: it was refused or failed; its record is written.
async fn establish(mut link: Link) -> Option<Established> {
    let original = match learn_destination(&mut link) {
        Ok(original) => original,
        Err(reason) => return refuse(link, Judgement::refused(reason), Words::Reset).await,
    };
    let classified = observe(Accepted { link, original }).await;
    let judged = admit(classified).await?;
    if judged.permit.treatment().tls == TlsMode::Inspect {
        return inspect(judged).await;
    }
    carry(judged).await
}

/// From a permit to an established connection, or its requests to their end.
pub(super) async fn carry(judged: Judged) -> Option<Established> {
    let Judged { mut link, permit, early } = judged;
    if permit.treatment().per_request {
        let facts = Arc::clone(permit.facts());
        link.record.entry.judged_by_request();
        serve(link, facts, early.bytes).await;
        return None;
    }
    if permit.treatment().dial == Dial::Workload {
        return over_mesh(link, permit, early).await;
    }
    let worker = Arc::clone(&link.worker);
    if permit.treatment().tls == TlsMode::Originate {
        return originate(&worker, link, permit, early).await;
    }
    let began = std::time::Instant::now();
    let Connected { permit, mut upstream, address } =
        match connect_by(permit, &worker.gate, &*worker.dial, Some(&worker.limits)).await {
            Ok(connected) => connected,
            Err(error) => return fail(link, &early, error).await,
        };
    worker.meters.connect.record(began.elapsed().as_secs_f64());
    // An application that is gone already shows itself when bytes are moved.
    let _ = introduce(&mut upstream, &permit).await;
    link.record.upstream = Some(address);
    link.record.entry.dialled(address);
    link.record.entry.catch_up(&worker.gate.policies);
    match demand(&worker, &permit, &early) {
        None => {
            link.record.entry.handshaken(None);
            Some(Established::Bare(Relay::new(link, upstream, early.bytes, Vec::new())))
        }
        Some(demand) => match pass_version(&mut link, &mut upstream, early, demand).await {
            Ok(passed) => relay_after_handshake(&worker, link, upstream, passed),
            Err(stopped) => stop(link, upstream, stopped).await,
        },
    }
}

/// Bytes that are not looked at, put into TLS to a server that is verified before any of them is sent.
async fn originate(worker: &Worker, mut link: Link, permit: Permit, early: Early) -> Option<Established> {
    let host = permit.facts().host.as_ref().map(|(_, host)| host.clone());
    let missing = || ConnectError::new(Reason::HostMissing, "TLS to a server without a name");
    let trusted = worker.gate.origins.trusted(&permit.demands().origin);
    let (host, trusted) = match host.ok_or_else(missing).and_then(|host| Ok((host, trusted?))) {
        Ok(ready) => ready,
        Err(error) => return fail(link, &early, error).await,
    };
    let began = std::time::Instant::now();
    let connected = connect_by(permit, &worker.gate, &*worker.dial, Some(&worker.limits)).await;
    let Connected { upstream, address, .. } = match connected {
        Ok(connected) => connected,
        Err(error) => return fail(link, &early, error).await,
    };
    worker.meters.connect.record(began.elapsed().as_secs_f64());
    link.record.upstream = Some(address);
    link.record.entry.dialled(address);
    link.record.entry.catch_up(&worker.gate.policies);
    let (demand, patience) = ((&trusted, Speaks::Anything), worker.gate.settings.connect_timeout);
    match worker.gate.origins.originate(upstream, &host, demand, patience).await {
        Ok(sealed) => {
            worker.meters.tls13.increment(1);
            link.record.tls = Some(TlsVersion::Tls13);
            link.record.entry.handshaken(link.record.tls);
            link.record.entry.catch_up(&worker.gate.policies);
            Some(Established::Sealed(Box::new(SealedRelay::new(link, sealed, early.bytes))))
        }
        Err(error) => fail(link, &early, error).await,
    }
}

/// To a workload, which proves who it is before a byte of the client's is sent.
async fn over_mesh(mut link: Link, permit: Permit, early: Early) -> Option<Established> {
    let worker = Arc::clone(&link.worker);
    let began = std::time::Instant::now();
    let Joined { stream, address, peer } = match join(&permit, &worker).await {
        Ok(joined) => joined,
        Err(error) => return fail(link, &early, error).await,
    };
    worker.meters.connect.record(began.elapsed().as_secs_f64());
    let record = &mut link.record;
    record.upstream = Some(address);
    (record.tls, record.peer) = (Some(TlsVersion::Tls13), Some(peer));
    record.entry.dialled(address);
    record.entry.handshaken(record.tls);
    record.entry.catch_up(&worker.gate.policies);
    Some(Established::Mesh(MeshRelay::new(link, stream, early.bytes)))
}

/// The server first: nothing is minted for one that can't be verified. Then the client, then its requests.
async fn inspect<T>(judged: Judged) -> Option<T> {
    let Judged { mut link, permit, early } = judged;
    let (worker, facts) = (Arc::clone(&link.worker), Arc::clone(permit.facts()));
    let Some((_, host)) = &facts.host else {
        let error = ConnectError::new(Reason::HostMissing, "inspection needs the server's name");
        return fail(link, &early, error).await;
    };
    match verify(&worker, permit).await {
        Ok(address) => {
            link.record.upstream = Some(address);
            link.record.entry.dialled(address);
            link.record.entry.catch_up(&worker.gate.policies);
        }
        Err(error) => return fail(link, &early, error).await,
    }
    let Link { mut record, client, slot, worker: _ } = link;
    let patience = worker.gate.settings.classify_timeout;
    match worker.gate.inspection.accept(host, early.bytes, client, patience).await {
        Ok(stream) => {
            record.tls = Some(TlsVersion::Tls13);
            record.entry.handshaken(record.tls);
            let http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
            let opened =
                Opened { record, slot, worker: Arc::clone(&worker), facts: Arc::clone(&facts), http2 };
            serve_stream(opened, stream, Vec::new()).await;
        }
        Err(Refused { reason, detail }) => {
            record.failed(reason, format!("{} ({detail})", in_words(reason)), CloseReason::TlsRefused);
            drop(record);
            drop(slot);
        }
    }
    None
}

/// A permitted connection.
pub(super) struct Judged {
    pub(super) link: Link,
    pub(super) permit: Permit,
    pub(super) early: Early,
}

/// Judges the facts; refuses the client if they are denied.
pub(super) async fn admit(classified: Classified) -> Option<Judged> {
    let Classified { link, facts, early } = classified;
    let outcome = {
        let set = link.worker.gate.policies.current();
        match decide(&set, facts) {
            Ok(permit) => {
                link.record.entry.permitted(&permit, Judgement::of(&set, permit.decision()));
                Ok(permit)
            }
            Err(denied) => Err((Judgement::of(&set, &denied.decision).besides(early.besides), denied.facts)),
        }
    };
    // A set that came between judging and registering has not seen this connection.
    link.record.entry.catch_up(&link.worker.gate.policies);
    match outcome {
        Ok(permit) => Some(Judged { link, permit, early }),
        Err((judgement, facts)) if judged_by_request(&link, &facts, &early, judgement.reason) => {
            serve(link, facts, early.bytes).await;
            None
        }
        Err((judgement, facts)) => {
            let words = Words::for_denial(&facts, &early, &judgement);
            refuse(link, judgement, words).await
        }
    }
}

/// Whether a denied connection may still hold requests that are allowed: it shows no host, or not those of all its
/// requests. Nothing is dialled before one of them is permitted.
fn judged_by_request(link: &Link, facts: &Facts, early: &Early, reason: Reason) -> bool {
    let http2 = early.bytes.starts_with(b"PRI * HTTP/2.0");
    let probed =
        || facts.client.is_some() && link.worker.gate.policies.current().has_probe_at(facts.original.port());
    facts.observed == Observed::Http
        && facts.flaw.is_none()
        && (http2 || reason == Reason::HostHidden || probed())
}

/// What the treatment demands of the server's choice of TLS; `None`: it is not watched.
fn demand(worker: &Worker, permit: &Permit, early: &Early) -> Option<Demand> {
    let decision = permit.decision();
    let min_tls12 = match permit.treatment().tls {
        TlsMode::Passthrough { min_tls12 } => min_tls12,
        // Nothing is demanded of what audit alone lets pass, but its record says what a rule for it must demand.
        TlsMode::None if decision.verdict == Verdict::WouldDeny && early.hello.is_some() => true,
        _ => return None,
    };
    let set = worker.gate.policies.current();
    let audited = |rule| set.generation() == decision.generation && set.audits(rule, today());
    let audit = decision.verdict == Verdict::WouldDeny || decision.rule.is_some_and(audited);
    Some(Demand { min_tls12, audit })
}

fn relay_after_handshake(
    worker: &Worker,
    mut link: Link,
    upstream: tokio::net::TcpStream,
    passed: Passed,
) -> Option<Established> {
    match passed.version {
        Some(TlsVersion::Tls13) => worker.meters.tls13.increment(1),
        Some(TlsVersion::Tls12) => worker.meters.tls12.increment(1),
        None => {}
    }
    if passed.over {
        // The server refused by an alert, which the client has.
        link.record.closed(CloseReason::Done);
        return None;
    }
    link.record.tls = passed.version;
    if let Some(reason) = passed.would_stop {
        link.record.would_deny(reason, in_words(reason));
    }
    link.record.entry.handshaken(passed.version);
    link.record.entry.catch_up(&worker.gate.policies);
    Some(Established::Bare(Relay::new(link, upstream, passed.to_upstream, passed.to_client)))
}

/// Writes the record, then tells the client.
pub(super) async fn refuse<T>(mut link: Link, judgement: Judgement, words: Words) -> Option<T> {
    link.record.denied(judgement);
    part(link, words).await
}

/// A permitted connection that could not be made.
async fn fail<T>(mut link: Link, early: &Early, error: ConnectError) -> Option<T> {
    let ConnectError { reason, detail } = error;
    let close = if reason.side() == Side::Policy { CloseReason::Denied } else { CloseReason::ConnectFailed };
    link.record.failed(reason, format!("{} ({detail})", in_words(reason)), close);
    let words = match (&link.record.facts, link.record.outcome()) {
        (Some(facts), Some(judgement)) => Words::for_failure(facts, early, judgement),
        _ => Words::Reset,
    };
    part(link, words).await
}

/// A handshake that must not go on: both sides are told, before any application data.
async fn stop<T>(mut link: Link, upstream: tokio::net::TcpStream, stopped: Stopped) -> Option<T> {
    let Stopped { reason, close } = stopped;
    let Some(reason) = reason else {
        link.record.closed(close);
        farewell::reset(&upstream);
        return part(link, Words::Reset).await;
    };
    link.record.failed(reason, in_words(reason), close);
    let alert = match reason {
        Reason::TlsSecondHello | Reason::TlsRequired => ACCESS_DENIED_ALERT,
        _ => PROTOCOL_VERSION_ALERT,
    };
    let Link { record, client, slot, .. } = link;
    drop(record);
    tokio::join!(farewell::say(client, &alert), farewell::say(upstream, &alert));
    drop(slot);
    None
}

/// Closes the client's side; the record is written before the last words are.
async fn part<T>(link: Link, words: Words) -> Option<T> {
    let Link { record, client, slot, .. } = link;
    drop(record);
    match words {
        Words::Reset => farewell::reset(&client),
        Words::Say(words) => farewell::say(client, &words).await,
    }
    drop(slot);
    None
}
