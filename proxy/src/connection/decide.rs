//! The verdict: from facts to a [`Permit`], without which nothing can be dialled.

use std::{net::IpAddr, sync::Arc};

use sidegate_policy::{
    Arrival, CanonicalPath, Date, Decision, Demands, Direction, HostEvidence, HostName, Observed, PolicySet,
    Reason, Request, SpiffeId, Treatment, Verdict,
    decision::{Dial, TlsMode},
    demands::{NONE, OriginTls},
    request::{HttpFacts, Upgrade},
};

use crate::{
    addrs::{ClientAddr, OriginalDst, UpstreamAddr},
    clock::today,
    peers::Peers,
};

/// What a verdict rests on. Kept while the connection lives, so that a new policy can judge it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Of a connection that came from outside: its source. `None`: it is the workload's own.
    pub client: Option<ClientAddr>,
    /// The workload at the far end: proven where it came from outside, otherwise the one that is to prove itself.
    pub peer: Option<SpiffeId>,
    /// What the proxy has ended of its TLS before it looked.
    pub arrival: Arrival,
    /// The host name and how it was learnt.
    pub host: Option<(HostEvidence, HostName)>,
    /// Where the client meant to go; may be a synthetic address.
    pub original: OriginalDst,
    /// `original` is a synthetic address: it stands for a name, never for itself.
    pub synthetic: bool,
    /// What the first bytes showed.
    pub observed: Observed,
    /// Why the first bytes show less than they should; the reason of a denial that is due to it.
    pub flaw: Option<Reason>,
    /// The request that is judged, where it is one and not a whole connection.
    pub http: Option<Requested>,
    /// The label of the certificate that the client was shown, where its TLS ended here with one that a rule names.
    pub certificate: Option<Box<str>>,
    /// Nobody looked at the first bytes, for no rule of that time asked for them. A later set may.
    pub unseen: bool,
}

/// Method and path of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// Exact method token.
    pub method: Box<str>,
    /// Canonical path.
    pub path: CanonicalPath,
    /// The protocol that it asks to go on with.
    pub upgrade: Option<Upgrade>,
    /// It carries the fields of an IMDSv2 session: see [`HttpFacts::session`].
    pub session: bool,
    /// It has neither a query nor a body.
    pub bare: bool,
}

impl Facts {
    /// What is known of a connection from `client` towards the workload before its first bytes.
    pub fn inbound(
        client: ClientAddr,
        original: OriginalDst,
        arrival: Arrival,
        peer: Option<SpiffeId>,
    ) -> Self {
        Facts {
            client: Some(client),
            peer,
            arrival,
            host: None,
            original,
            synthetic: false,
            observed: Observed::Opaque,
            flaw: None,
            http: None,
            certificate: None,
            unseen: true,
        }
    }

    /// Which way it goes.
    pub fn direction(&self) -> Direction {
        if self.client.is_some() { Direction::Ingress } else { Direction::Egress }
    }

    /// The policy's view of the facts.
    pub fn request(&self, today: Date) -> Request<'_> {
        Request {
            direction: self.direction(),
            host: self.host.as_ref().map(|(evidence, host)| (*evidence, host)),
            address: match self.client {
                Some(client) => Some(client.ip()),
                None => (!self.synthetic).then(|| self.original.ip()),
            },
            port: self.original.port(),
            observed: self.observed,
            peer: self.peer.as_ref(),
            arrival: self.arrival,
            http: self.http.as_ref().map(|http| HttpFacts {
                method: &http.method,
                path: &http.path,
                upgrade: http.upgrade,
                session: http.session,
            }),
            today,
        }
    }

    /// Whom `peers` names at the destination. Of a connection from outside: who has proven to be its peer.
    pub(crate) fn peer_by<'a>(&'a self, peers: &'a Peers) -> Option<&'a SpiffeId> {
        match self.client {
            Some(_) => self.peer.as_ref(),
            None if self.synthetic => None,
            None => peers.at(self.original.ip()).map(|peer| &peer.id),
        }
    }

    /// The same, with the peer of the moment.
    pub(crate) fn expecting(mut self, peers: &Peers) -> Facts {
        self.peer = self.peer_by(peers).cloned();
        self
    }

    /// As HTTP, which it may be where its first bytes were not seen or not understood.
    fn as_http(&self) -> Option<Request<'_>> {
        let hidden = self.unseen || self.flaw.is_some();
        hidden.then(|| Request { observed: Observed::Http, ..self.request(today()) })
    }
}

/// Permission to connect. Only [`decide`] makes one; `connect` consumes it.
///
/// ```
/// use sidegate_proxy::{connection::{connect::{Connected, ConnectError, connect}, decide::Permit}, server::Gate};
///
/// async fn with_permit(permit: Permit, gate: &Gate) -> Result<Connected, ConnectError> {
///     connect(permit, gate).await
/// }
/// ```
///
/// Nobody else can:
///
/// ```compile_fail,E0451
/// use sidegate_proxy::{connection::{connect::{Connected, ConnectError, connect}, decide::{Facts, Permit}}, server::Gate};
/// use std::sync::Arc;
///
/// async fn without_permit(facts: Arc<Facts>, decision: sidegate_policy::Decision, treatment: sidegate_policy::Treatment,
///     gate: &Gate) -> Result<Connected, ConnectError> {
///     connect(Permit { facts, decision, treatment, demands: None }, gate).await
/// }
/// ```
#[derive(Debug)]
pub struct Permit {
    facts: Arc<Facts>,
    decision: Decision,
    treatment: Treatment,
    demands: Option<Arc<Demands>>,
}

impl Permit {
    /// The facts that were judged.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// The decision.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// How to carry the connection. In audit mode a connection that would be denied passes untouched.
    pub fn treatment(&self) -> Treatment {
        self.treatment
    }

    /// What its rule demands beside the treatment. Nothing of what audit mode alone lets pass.
    pub fn demands(&self) -> &Demands {
        self.demands.as_deref().unwrap_or(&NONE)
    }

    /// The same, kept.
    pub(super) fn demanded(&self) -> Option<Arc<Demands>> {
        self.demands.clone()
    }
}

/// The refusal of a connection.
#[derive(Debug)]
pub struct Denied {
    /// The facts that were judged.
    pub facts: Arc<Facts>,
    /// The decision; its verdict is [`Verdict::Denied`].
    pub decision: Decision,
}

/// Judges facts by a policy set.
///
/// # Errors
/// The set denies them, or asks for a treatment that this build does not carry out.
pub fn decide(set: &PolicySet, facts: Arc<Facts>) -> Result<Permit, Denied> {
    let decision = judge(set, &facts);
    match decision.treatment {
        Some(treatment) if decision.verdict != Verdict::Denied => {
            let demands = decision.rule.filter(|_| treatment.demands).and_then(|rule| set.demands(rule));
            Ok(Permit { demands: demands.cloned(), facts, decision, treatment })
        }
        _ => Err(Denied { facts, decision: denied(decision, decision.reason) }),
    }
}

/// Whether a live connection may go on under another set, and that set's decision.
///
/// It may when the set allows it and the treatment it got satisfies the one it would get now.
pub(crate) fn decide_again(set: &PolicySet, peers: &Peers, live: &Carried<'_>) -> (Decision, bool) {
    let decision = judge(set, live.facts);
    if live.dial == Dial::Workload && live.facts.peer.as_ref() != live.facts.peer_by(peers) {
        return (denied(decision, Reason::MeshPeerMoved), false);
    }
    let Some(treatment) = decision.treatment.filter(|_| decision.verdict != Verdict::Denied) else {
        return (denied(decision, decision.reason), false);
    };
    if decision.verdict == Verdict::WouldDeny {
        return (decision, true);
    }
    let refused = dial_refused((set, peers), live, &decision, treatment)
        .or_else(|| tls_refused(live, treatment))
        .or_else(|| origin_refused(live, treatment, &set.demands_of(&decision).origin));
    match refused {
        None => (decision, true),
        Some(reason) => (denied(decision, reason), false),
    }
}

/// A live connection as a new set sees it.
pub(crate) struct Carried<'a> {
    pub(crate) facts: &'a Facts,
    /// What it was dialled as.
    pub(crate) dial: Dial,
    /// What happens to its TLS.
    pub(crate) mode: TlsMode,
    /// What was demanded of the server that it leads to.
    pub(crate) origin: &'a OriginTls,
    /// Where it leads; `None` while it is being dialled, when `connect` checks by itself.
    pub(crate) upstream: Option<UpstreamAddr>,
    /// The version that the server was seen to select.
    pub(crate) tls: Option<TlsVersion>,
    /// The handshake is not over: the version is still being watched for.
    pub(crate) gated: bool,
}

/// A TLS version that a server may select.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2, by a named exemption.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsVersion {
    /// As in records: `1.2`, `1.3`.
    pub fn word(self) -> &'static str {
        match self {
            TlsVersion::Tls12 => "1.2",
            TlsVersion::Tls13 => "1.3",
        }
    }
}

fn judge(set: &PolicySet, facts: &Facts) -> Decision {
    let decision = set.decide(&facts.request(today()));
    // A probe asks for nothing else.
    if decision.reason == Reason::ProbeAllows && !facts.http.as_ref().is_some_and(|http| http.bare) {
        return denied(decision, Reason::HttpNotAllowed);
    }
    let demands = set.demands_of(&decision);
    let carried = decision.treatment.is_some_and(|treatment| carried_out(treatment, demands));
    if decision.verdict != Verdict::Denied && !carried {
        return denied(decision, Reason::NotSupported);
    }
    if decision.verdict == Verdict::Allowed && shown_otherwise(facts, decision.treatment, demands) {
        return denied(decision, Reason::CarriedOtherwise);
    }
    match facts.flaw {
        Some(flaw) if decision.verdict != Verdict::Allowed && for_want_of_facts(decision.reason) => {
            Decision { reason: flaw, ..decision }
        }
        _ => without_hidden_requests(
            set,
            facts,
            without_hidden_hosts(set, facts, sealed_again(facts, decision)),
        ),
    }
}

/// Whether the client was shown another certificate than the rule names that lets it pass now: a less specific one, when
/// what is inside is none of what the most specific one allows, or one of a later set.
fn shown_otherwise(facts: &Facts, treatment: Option<Treatment>, demands: &Demands) -> bool {
    let ends = treatment.is_some_and(|treatment| treatment.tls == TlsMode::Terminate);
    ends && facts.arrival == Arrival::Terminated && facts.certificate != demands.certificate
}

/// Requests of TLS that was opened go on in TLS to a server that was verified, and never as they are: also where another
/// rule allows them meanwhile, or audit mode alone does.
fn sealed_again(facts: &Facts, decision: Decision) -> Decision {
    let opened = facts.http.is_some() && matches!(facts.observed, Observed::Tls { .. });
    let Some(treatment) = decision.treatment.filter(|treatment| opened && treatment.tls != TlsMode::Inspect)
    else {
        return decision;
    };
    match decision.verdict {
        Verdict::WouldDeny => {
            let sealed = Treatment { tls: TlsMode::Inspect, per_request: true, ..treatment };
            Decision { treatment: Some(sealed), ..decision }
        }
        _ => denied(decision, Reason::CarriedOtherwise),
    }
}

/// Nor a deny of HTTP by saying nothing, or what nobody can read, before the request.
fn without_hidden_requests(set: &PolicySet, facts: &Facts, decision: Decision) -> Decision {
    let allowed = decision.verdict == Verdict::Allowed && decision.reason != Reason::GrantAllows;
    let as_http = facts.as_http().filter(|_| allowed).map(|request| set.decide(&request));
    match as_http.filter(|decision| decision.reason == Reason::RuleDenies) {
        Some(deny) => {
            Decision { rule: deny.rule, ..denied(decision, facts.flaw.unwrap_or(Reason::RuleDenies)) }
        }
        None => decision,
    }
}

/// A deny by host must not be walked round by hiding the host: where one covers the port, an address rule carries only
/// what shows its host or names none. HTTP shows one host, but each further request may name another.
fn without_hidden_hosts(set: &PolicySet, facts: &Facts, decision: Decision) -> Decision {
    // Rules towards the workload name no hosts.
    if facts.client.is_some() {
        return decision;
    }
    let hidden = match facts.observed {
        _ if facts.flaw.is_some() => facts.flaw,
        // What the proxy gave out a name for is known by it; a grant is for whatever is at its address.
        _ if facts.unseen && !facts.synthetic && decision.reason != Reason::GrantAllows => {
            Some(Reason::HostHidden)
        }
        Observed::Tls { ech: true, .. } => Some(Reason::TlsEch),
        Observed::Http if facts.http.is_none() && !per_request(decision) => Some(Reason::HostHidden),
        _ => None,
    };
    let Some(reason) = hidden.filter(|_| decision.verdict == Verdict::Allowed) else { return decision };
    match set.host_deny_at(facts.original.port(), today()) {
        Some(rule) => Decision { rule: Some(rule), ..denied(decision, reason) },
        None => decision,
    }
}

fn per_request(decision: Decision) -> bool {
    decision.treatment.is_some_and(|treatment| treatment.per_request)
}

/// Whether this build carries out a treatment, and what its rule demands besides. What it does not is denied, never
/// weakened.
pub fn carried_out(treatment: Treatment, demands: &Demands) -> bool {
    let Treatment { dial, tls, private: _, per_request, demands: demanding } = treatment;
    if demanding && !honoured(demands, per_request) {
        return false;
    }
    let dialled = matches!(dial, Dial::Name | Dial::OriginalDestination);
    match tls {
        TlsMode::None => dialled,
        TlsMode::Passthrough { .. } => dialled && !per_request,
        TlsMode::Originate | TlsMode::Inspect => dialled,
        // Towards the workload the arrival was what the rule demands.
        TlsMode::Mesh => matches!(dial, Dial::Workload | Dial::OriginalDestination),
        TlsMode::Terminate => dial == Dial::OriginalDestination,
    }
}

/// Every demand by name, so that no new one is passed over in silence.
fn honoured(demands: &Demands, per_request: bool) -> bool {
    let Demands { limit, origin, certificate: _, client_address: _ } = demands;
    // Carried out wherever a server is verified, which is where they can be written.
    let OriginTls { roots: _, pins: _, client_identity: _ } = origin;
    // Limits are kept where requests are judged.
    limit.is_none() || per_request
}

/// Denials that better first bytes could have averted.
fn for_want_of_facts(reason: Reason) -> bool {
    matches!(reason, Reason::NoRule | Reason::HostMissing | Reason::ProtocolMismatch | Reason::TlsRequired)
}

fn denied(decision: Decision, reason: Reason) -> Decision {
    Decision { verdict: Verdict::Denied, reason, treatment: None, ..decision }
}

fn dial_refused(
    (set, peers): (&PolicySet, &Peers),
    live: &Carried<'_>,
    decision: &Decision,
    now: Treatment,
) -> Option<Reason> {
    let upstream = live.upstream?;
    match now.dial {
        // An address that the client chose proves nothing of a name.
        Dial::Name if live.dial != Dial::Name => Some(Reason::NoRule),
        Dial::Name => judge_answer((set, peers), live.facts, decision, upstream.ip()).err(),
        // Nobody has proven to be there.
        Dial::Workload if live.facts.client.is_none() && live.dial != Dial::Workload => {
            Some(Reason::TlsRequired)
        }
        Dial::Workload if live.facts.client.is_none() => {
            let there = peers.at(live.facts.original.ip());
            let same = there.is_some_and(|peer| peer.mesh_address(live.facts.original.ip()) == upstream);
            (!same).then_some(Reason::MeshPeerMoved)
        }
        _ => (!is_original(live.facts, upstream)).then_some(Reason::NoRule),
    }
}

/// Whether an address that a name leads to may be dialled, whatever the connection turns out to be.
///
/// # Errors
/// The fixed table or a deny rule forbids the address or the workload that is there, or a deny rule does for a protocol
/// that nobody looked for.
pub(crate) fn judge_answer(
    (set, peers): (&PolicySet, &Peers),
    facts: &Facts,
    decision: &Decision,
    answer: IpAddr,
) -> Result<(), Reason> {
    let peer = peers.at(answer.to_canonical()).map(|peer| &peer.id);
    let judge = |request: Request<'_>| {
        let request = Request { peer, ..request };
        set.judge_answer(&request, decision, answer).map_err(|refused| refused.reason)
    };
    judge(facts.request(today()))?;
    facts.as_http().map_or(Ok(()), judge)
}

fn is_original(facts: &Facts, upstream: UpstreamAddr) -> bool {
    let (dialled, meant): (IpAddr, IpAddr) = (upstream.ip(), facts.original.ip());
    dialled == meant && upstream.port() == facts.original.port()
}

fn tls_refused(live: &Carried<'_>, now: Treatment) -> Option<Reason> {
    match (now.tls, live.tls) {
        (TlsMode::Passthrough { min_tls12: false }, Some(TlsVersion::Tls12)) => {
            Some(Reason::TlsVersionServer)
        }
        (TlsMode::Passthrough { .. }, None) if !live.gated => Some(Reason::TlsRequired),
        _ => None,
    }
}

/// A server that was not verified as it would be now is not the one that the new rule lets the workload talk to; and TLS
/// that is open can't be closed again.
fn origin_refused(live: &Carried<'_>, now: Treatment, demanded: &OriginTls) -> Option<Reason> {
    let verified = |mode| matches!(mode, TlsMode::Originate | TlsMode::Inspect);
    match (live.mode, now.tls) {
        (TlsMode::Inspect, now) if now != TlsMode::Inspect => Some(Reason::CarriedOtherwise),
        (live, now) if verified(now) && !verified(live) => Some(Reason::TlsRequired),
        (_, now) if verified(now) && live.origin != demanded => Some(Reason::CarriedOtherwise),
        _ => None,
    }
}
