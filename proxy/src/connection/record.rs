//! The access record of one connection: opened at accept, written exactly once by its drop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Instant, SystemTime},
};

use sidegate_api::{
    AccessRecord, CloseReason,
    access_record::{HttpFacts, SCHEMA, TlsFacts},
};
use sidegate_policy::{Direction, Observed, Reason, SpiffeId, Verdict};

use super::{
    Worker,
    decide::{Facts, TlsVersion},
    live::{Entry, Judgement},
};
use crate::{
    addrs::{ClientAddr, OriginalDst, UpstreamAddr},
    clock::{self, rfc3339_millis},
    metrics::verdict_word,
};

/// What is known of a connection so far. Whatever becomes of it (cancel and panic included), its drop writes one
/// record and counts it.
pub(crate) struct Record {
    worker: Arc<Worker>,
    /// The connection's place among the live; also where the policy leaves its last judgement.
    pub(crate) entry: Entry,
    time: SystemTime,
    started: Instant,
    direction: Direction,
    source: ClientAddr,
    pub(crate) original: Option<OriginalDst>,
    pub(crate) upstream: Option<UpstreamAddr>,
    pub(crate) facts: Option<Arc<Facts>>,
    pub(crate) tls: Option<TlsVersion>,
    /// The workload that has proven to be at the far end.
    pub(crate) peer: Option<SpiffeId>,
    /// Overrules the policy's last judgement: limits, failures of the far end, refusals after the verdict.
    outcome: Option<Judgement>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    close: CloseReason,
    of: Of,
}

/// What a record is of.
enum Of {
    Connection,
    /// A connection whose requests, so many, tell of it; without one it is told of by itself.
    Requests(Arc<AtomicUsize>),
    Request(Option<HttpFacts>),
}

impl Record {
    /// Opens the record of a connection from `source`.
    pub(crate) fn open(worker: &Arc<Worker>, source: ClientAddr, direction: Direction) -> Record {
        worker.meters.active.increment(1);
        Self::new(worker, (source, direction), Of::Connection)
    }

    /// Opens the record of one request on a connection from `source`.
    pub(crate) fn of_request(
        worker: &Arc<Worker>,
        source: ClientAddr,
        original: Option<OriginalDst>,
        facts: Arc<Facts>,
    ) -> Record {
        let mut record = Self::new(worker, (source, facts.direction()), Of::Request(None));
        record.original = original;
        record.facts = Some(facts);
        record
    }

    fn new(worker: &Arc<Worker>, (source, direction): (ClientAddr, Direction), of: Of) -> Record {
        Record {
            entry: worker.live.enter(),
            worker: Arc::clone(worker),
            time: SystemTime::now(),
            started: Instant::now(),
            direction,
            source,
            original: None,
            upstream: None,
            facts: None,
            tls: None,
            peer: None,
            outcome: None,
            sent: 0,
            received: 0,
            close: CloseReason::Internal,
            of,
        }
    }

    /// Who opened the connection.
    pub(crate) fn source(&self) -> ClientAddr {
        self.source
    }

    /// What a request asks for.
    pub(crate) fn requested(&mut self, method: &str, path: &str) {
        self.of =
            Of::Request(Some(HttpFacts { method: method.to_owned(), path: path.to_owned(), status: 0 }));
    }

    /// What a request was answered with.
    pub(crate) fn answered(&mut self, answer: u16) {
        if let Of::Request(Some(HttpFacts { status, .. })) = &mut self.of {
            *status = answer;
        }
    }

    /// The requests on this connection have their own records. While there are none it needs one, however it ends.
    pub(crate) fn told_by_requests(&mut self, requests: Arc<AtomicUsize>) {
        self.of = Of::Requests(requests);
    }

    /// A refusal that is not of one of its requests.
    pub(crate) fn told_by_itself(&mut self, judgement: Judgement) {
        self.of = Of::Connection;
        self.denied(judgement);
    }

    /// How it ended, if that is known yet.
    pub(crate) fn close(&self) -> Option<CloseReason> {
        (self.close != CloseReason::Internal).then_some(self.close)
    }

    /// Refused: the policy's last word, or one that overrules it.
    pub(crate) fn denied(&mut self, judgement: Judgement) {
        self.outcome = Some(judgement);
        self.close = CloseReason::Denied;
    }

    /// Permitted, but it came to nothing for this reason. Where the reason is the far end's or the resolver's, the
    /// verdict stands.
    pub(crate) fn failed(&mut self, reason: Reason, explanation: String, close: CloseReason) {
        let mut judgement = self.entry.last_judgement().unwrap_or_else(|| Judgement::refused(reason));
        let fault_beyond = matches!(
            reason.side(),
            sidegate_policy::reason::Side::Upstream | sidegate_policy::reason::Side::Resolver
        );
        if !fault_beyond {
            judgement.verdict = Verdict::Denied;
        }
        judgement.reason = reason;
        judgement.explanation = Some(explanation.into());
        self.outcome = Some(judgement);
        self.close = close;
    }

    /// Passed by audit mode alone, for a reason that showed after the verdict.
    pub(crate) fn would_deny(&mut self, reason: Reason, explanation: String) {
        let last = self.entry.last_judgement().unwrap_or_else(|| Judgement::refused(reason));
        let (verdict, explanation) = (Verdict::WouldDeny, Some(explanation.into()));
        self.outcome = Some(Judgement { verdict, reason, explanation, ..last });
    }

    /// What overrules the policy's last judgement, if anything does.
    pub(crate) fn outcome(&self) -> Option<&Judgement> {
        self.outcome.as_ref()
    }

    /// How it ended.
    pub(crate) fn closed(&mut self, close: CloseReason) {
        self.close = close;
    }

    /// How it ended; a connection that was told to close while in a stage was dropped there.
    fn close_reason(&self) -> CloseReason {
        match self.close {
            CloseReason::Internal => self.entry.told_to_close().unwrap_or(CloseReason::Internal),
            known => known,
        }
    }

    fn judgement(&mut self, close: CloseReason) -> Judgement {
        let last = self.outcome.take().or_else(|| self.entry.last_judgement());
        // Neither judged nor refused: it was cut off in a stage, by a drain or by a fault of ours.
        last.unwrap_or_else(|| match close {
            CloseReason::Drained => Judgement::refused(Reason::Draining),
            _ => Judgement::refused(Reason::Internal),
        })
    }

    fn tls_facts(&self) -> Option<TlsFacts> {
        let version = self.tls.map(|tls| tls.word().into());
        // Whom the peers file names is not proven to be there; who came from outside is.
        let arrived = || self.facts.as_ref().filter(|facts| facts.client.is_some())?.peer.as_ref();
        let peer = self.peer.as_ref().or_else(arrived).map(|peer| peer.as_str().into());
        (version.is_some() || peer.is_some()).then_some(TlsFacts { version, peer })
    }

    fn protocol(&self) -> &'static str {
        match self.facts.as_ref().map(|facts| facts.observed) {
            Some(Observed::Tls { .. }) => "tls",
            Some(Observed::Http) => "http",
            _ => "tcp",
        }
    }
}

fn direction_word(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let close = self.close_reason();
        let judgement = self.judgement(close);
        let lived = self.started.elapsed();
        let meters = &self.worker.meters;
        if let Of::Request(_) = self.of {
            meters.requests(judgement.verdict, judgement.reason).increment(1);
        } else {
            meters.active.decrement(1);
            // Those of a connection that is told by its requests are counted.
            if !matches!(&self.of, Of::Requests(requests) if requests.load(Relaxed) > 0) {
                meters.connections(judgement.verdict, judgement.reason).increment(1);
            }
            meters.closed(close).increment(1);
            meters.duration.record(lived.as_secs_f64());
        }
        // Seen from the workload, which is the far end of what comes in.
        let (sent, received) = match self.direction {
            Direction::Egress => (self.sent, self.received),
            Direction::Ingress => (self.received, self.sent),
        };
        meters.sent.increment(sent);
        meters.received.increment(received);
        let http = match std::mem::replace(&mut self.of, Of::Connection) {
            Of::Requests(requests) if requests.load(Relaxed) > 0 => return,
            Of::Connection | Of::Requests(_) => None,
            Of::Request(http) => http,
        };
        let facts = self.facts.as_ref();
        self.worker.gate.access_log.write(AccessRecord {
            schema: SCHEMA.into(),
            time: rfc3339_millis(self.time),
            direction: direction_word(self.direction).into(),
            workload: self.worker.gate.workload.clone(),
            source: Some(self.source.socket_addr()),
            original_dst: self.original.map(OriginalDst::socket_addr),
            upstream: self.upstream.map(UpstreamAddr::socket_addr),
            host: facts.and_then(|facts| facts.host.as_ref()).map(|(_, host)| host.as_str().into()),
            protocol: self.protocol().into(),
            tls: self.tls_facts(),
            dns: None,
            http,
            verdict: verdict_word(judgement.verdict).into(),
            policy: judgement.policy.map(Into::into),
            rule: judgement.rule.map(Into::into),
            reason: judgement.reason.word().into(),
            explanation: judgement.explanation.map(Into::into),
            generation: judgement.generation,
            bytes_sent: self.sent,
            bytes_received: self.received,
            duration_ms: clock::millis(lived),
            close_reason: close,
        });
    }
}
