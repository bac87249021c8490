//! The verdict. In order:
//!
//! 1. the fixed deny table and the proxy's own listeners, opened by grants for exact triples (own listeners never);
//! 2. any matching deny rule;
//! 3. the most specific matching allow rule decides the treatment; else a declared health probe passes;
//! 4. an allow rule in audit that fails only in its TLS or HTTP part;
//! 5. the default deny, which passes as `would-deny` while every policy is in audit.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr};

use crate::{
    Arrival, Decision, Direction, NearMiss, Observed, Predicate, Reason, Request, Treatment, Verdict,
    address::with_embedded,
    decision::{Dial, TlsMode},
    deny_table::{Grant, Opening, denied_destination},
};

use super::{
    PolicySet, RuleId,
    index::{Candidate, Spot},
    rank::Rank,
    rule::{CompiledRule, DenyMatch, Miss, Stage},
};

pub(super) fn decide(set: &PolicySet, request: &Request<'_>) -> Decision {
    if set.policies == 0 {
        return denied(set, Reason::NoPolicy, None, None);
    }
    let grant = match check_table(set, request) {
        Ok(grant) => grant,
        Err((reason, near)) => return denied(set, reason, None, near),
    };
    let (denies, allows) = matching_rules(set, request, grant.is_some());
    if let Some((_, Reverse(rule))) = denies.enforced {
        return denied(set, Reason::RuleDenies, Some(rule), None);
    }
    let decision = match grant {
        Some(rule) => allowed(set, Reason::GrantAllows, rule, granted(request)),
        None => by_allow_rules(set, request, &allows),
    };
    enforced_on_datagrams(request, with_late_denies(set, &denies, decision))
}

/// The kernel refuses datagrams by the list of those that are allowed; audit can't let others pass.
fn enforced_on_datagrams(request: &Request<'_>, decision: Decision) -> Decision {
    if request.observed == Observed::Udp && decision.verdict == Verdict::WouldDeny {
        return Decision { verdict: Verdict::Denied, treatment: None, ..decision };
    }
    decision
}

/// Datagrams have no requests.
fn granted(request: &Request<'_>) -> Treatment {
    Treatment { per_request: request.observed != Observed::Udp, ..PROBE_TREATMENT }
}

const PROBE_TREATMENT: Treatment = Treatment {
    dial: Dial::OriginalDestination,
    tls: TlsMode::None,
    private: false,
    per_request: true,
    demands: false,
};

fn denied(set: &PolicySet, reason: Reason, rule: Option<RuleId>, nearest: Option<NearMiss>) -> Decision {
    Decision { verdict: Verdict::Denied, reason, rule, treatment: None, nearest, generation: set.generation }
}

fn allowed(set: &PolicySet, reason: Reason, rule: RuleId, treatment: Treatment) -> Decision {
    let (verdict, rule, treatment) = (Verdict::Allowed, Some(rule), Some(treatment));
    Decision { verdict, reason, rule, treatment, nearest: None, generation: set.generation }
}

/// `Ok(Some(rule))`: a grant opens the destination. `Err`: the table denies it, or the grant does not go that far.
fn check_table(set: &PolicySet, request: &Request<'_>) -> Result<Option<RuleId>, (Reason, Option<NearMiss>)> {
    let (Direction::Egress, Some(address)) = (request.direction, request.address) else { return Ok(None) };
    if set.is_own_listener(address, request.port) {
        return Err((Reason::AddressOwnListener, near_grant(set, request)));
    }
    let Some(reason) = denied_destination(address) else { return Ok(None) };
    let udp = request.observed == Observed::Udp;
    let mut refused = None;
    let opens = set.grants.iter().filter(|(opening, ..)| {
        opening.address == address && opening.port == request.port && opening.udp == udp
    });
    for (_, grant, rule) in opens {
        match grant.admits(request.observed, request.http) {
            Ok(()) => return Ok(Some(*rule)),
            Err((reason, failed)) => {
                refused = refused.or(Some((reason, Some(NearMiss { rule: *rule, failed }))));
            }
        }
    }
    Err(refused.unwrap_or_else(|| (reason, near_grant(set, request))))
}

/// A grant for the same address: by another protocol, else at another port.
fn near_grant(set: &PolicySet, request: &Request<'_>) -> Option<NearMiss> {
    let at_address = set.grants.iter().filter(|(opening, ..)| Some(opening.address) == request.address);
    let nearness =
        |(opening, _, rule): &&(Opening, Grant, RuleId)| (opening.port != request.port, opening.port, *rule);
    let (opening, _, rule) = at_address.min_by_key(nearness)?;
    let failed = if opening.port == request.port { Predicate::Protocol } else { Predicate::Port };
    Some(NearMiss { rule: *rule, failed })
}

/// The most specific deny rule of each kind that matches.
#[derive(Debug, Default)]
pub(super) struct Denies {
    pub(super) enforced: Option<(Rank, Reverse<RuleId>)>,
    pub(super) audited: Option<(Rank, Reverse<RuleId>)>,
    /// Enforced, but judged only within requests.
    pub(super) within_requests: Option<(Rank, Reverse<RuleId>)>,
    audited_within_requests: Option<(Rank, Reverse<RuleId>)>,
}

impl Denies {
    fn consider_all(&mut self, set: &PolicySet, spot: Spot<'_>, request: &Request<'_>) {
        for candidate in spot.denies() {
            if let Some(rule) = set.compiled(candidate.entry.rule) {
                self.consider(candidate, rule, request);
            }
        }
    }

    fn consider(&mut self, candidate: Candidate<'_>, rule: &CompiledRule, request: &Request<'_>) {
        if !candidate.covers_port(request.port) || candidate.is_excepted() {
            return;
        }
        let audited = rule.in_audit(request.today);
        let slot = match rule.check_deny(request) {
            DenyMatch::No => return,
            DenyMatch::Yes if audited => &mut self.audited,
            DenyMatch::Yes => &mut self.enforced,
            DenyMatch::WithinRequests if audited => &mut self.audited_within_requests,
            DenyMatch::WithinRequests => &mut self.within_requests,
        };
        *slot = (*slot).max(Some((candidate.spot.rank, Reverse(candidate.entry.rule))));
    }
}

/// What every rule that the request reaches has to say, in one walk. `granted`: allow rules have no say.
fn matching_rules(set: &PolicySet, request: &Request<'_>, granted: bool) -> (Denies, Allows) {
    let (mut denies, mut allows) = (Denies::default(), Allows::default());
    let floor = if granted { Rank::ALL } else { Rank::NONE };
    let index = &set.side(request.direction).index;
    index.visit(request, floor, |spot| {
        denies.consider_all(set, spot, request);
        if granted { floor } else { allows.consider_all(set, spot, request) }
    });
    if let Some(address) = request.address {
        consider_embedded(set, request, address, &mut denies);
    }
    (denies, allows)
}

/// Deny rules by the IPv4 addresses that an IPv6 address carries.
fn consider_embedded(set: &PolicySet, request: &Request<'_>, address: IpAddr, denies: &mut Denies) {
    for carried in with_embedded(address).into_iter().flatten().filter(|carried| *carried != address) {
        consider_address(set, request, carried, denies);
    }
}

fn consider_address(set: &PolicySet, request: &Request<'_>, address: IpAddr, denies: &mut Denies) {
    set.side(request.direction).index.visit_address(address, Rank::ALL, |spot| {
        denies.consider_all(set, spot, request);
        Rank::ALL
    });
}

/// Deny rules that concern one address that a name resolved to, and the workload that is known to be there.
pub(super) fn denies_of_answer(set: &PolicySet, request: &Request<'_>, answer: IpAddr) -> Denies {
    let mut denies = Denies::default();
    if let Some(peer) = request.peer {
        set.side(request.direction).index.visit_peer(peer, |spot| denies.consider_all(set, spot, request));
    }
    consider_address(set, request, answer, &mut denies);
    consider_embedded(set, request, answer, &mut denies);
    denies
}

/// Denies that bear on a decision only once its treatment is known, and denies in audit.
fn with_late_denies(set: &PolicySet, denies: &Denies, decision: Decision) -> Decision {
    let Some(treatment) = decision.treatment else { return decision };
    // A deny of certain requests holds for the whole where requests stay unseen.
    let unseen = |late: Option<(Rank, Reverse<RuleId>)>| late.filter(|_| !treatment.per_request);
    if let Some((_, Reverse(rule))) = unseen(denies.within_requests) {
        return denied(set, Reason::RuleDenies, Some(rule), None);
    }
    match denies.audited.max(unseen(denies.audited_within_requests)) {
        Some((_, Reverse(rule))) => would_deny(set, Reason::RuleDenies, Some(rule), treatment, None),
        None => decision,
    }
}

fn would_deny(
    set: &PolicySet,
    reason: Reason,
    rule: Option<RuleId>,
    treatment: Treatment,
    nearest: Option<NearMiss>,
) -> Decision {
    let treatment = Some(treatment);
    Decision { verdict: Verdict::WouldDeny, reason, rule, treatment, nearest, generation: set.generation }
}

/// The best of what the allow rules had to say.
#[derive(Default)]
struct Allows {
    /// Of equally specific ones that with the lowest limit, so that no other leads round it.
    matching: Option<(Rank, Reverse<u32>, Reverse<RuleId>, Treatment)>,
    /// Failed only in the TLS or HTTP part of a rule in audit.
    audited: Option<(Rank, Reverse<RuleId>, Treatment, Miss)>,
    nearest: Option<(Stage, Rank, Reverse<RuleId>, Reason)>,
}

impl Allows {
    /// Returns the rank below which a rule can't be the most specific any more.
    fn consider_all(&mut self, set: &PolicySet, spot: Spot<'_>, request: &Request<'_>) -> Rank {
        let floor = self.floor();
        if spot.rank < floor {
            return floor;
        }
        for candidate in spot.allows() {
            if let Some(rule) = set.compiled(candidate.entry.rule) {
                self.consider(candidate, rule, request);
            }
        }
        self.floor()
    }

    fn floor(&self) -> Rank {
        self.matching.map_or(Rank::NONE, |(rank, ..)| rank)
    }

    fn consider(&mut self, candidate: Candidate<'_>, rule: &CompiledRule, request: &Request<'_>) {
        let key = (candidate.spot.rank, Reverse(candidate.entry.rule));
        let treatment = || rule.treatment(candidate.spot.end, candidate.entry.private);
        let miss = match check(candidate, rule, request) {
            Ok(()) => {
                let better = (key.0, Reverse(rule.rate()), key.1);
                if self.matching.is_none_or(|(rank, rate, rule, _)| (rank, rate, rule) < better) {
                    self.matching = Some((better.0, better.1, better.2, treatment()));
                }
                return;
            }
            Err(miss) => miss,
        };
        if matches!(miss.stage, Stage::Tls | Stage::Http)
            && rule.in_audit(request.today)
            && self.audited.is_none_or(|(rank, rule, ..)| (rank, rule) < key)
        {
            self.audited = Some((key.0, key.1, relaxed(treatment(), miss), miss));
        }
        let nearness = (miss.stage, key.0, key.1, miss.reason);
        if self.nearest.is_none_or(|nearest| (nearest.0, nearest.1, nearest.2) < (miss.stage, key.0, key.1)) {
            self.nearest = Some(nearness);
        }
    }
}

fn check(candidate: Candidate<'_>, rule: &CompiledRule, request: &Request<'_>) -> Result<(), Miss> {
    if candidate.is_excepted() {
        return Err(Miss { stage: Stage::Except, reason: Reason::NoRule });
    }
    if !candidate.covers_port(request.port) {
        return Err(Miss { stage: Stage::Port, reason: Reason::NoRule });
    }
    rule.check_allow(candidate.spot.end, candidate.entry.private, request)
}

/// Every allow rule that the request reached, and where it failed last; for explanations.
pub(super) fn misses(set: &PolicySet, request: &Request<'_>) -> BTreeMap<RuleId, Miss> {
    let mut misses: BTreeMap<RuleId, Miss> = BTreeMap::new();
    set.side(request.direction).index.visit(request, Rank::NONE, |spot| {
        for candidate in spot.allows() {
            let Some(rule) = set.compiled(candidate.entry.rule) else { continue };
            let Err(miss) = check(candidate, rule, request) else { continue };
            let farthest = misses.entry(candidate.entry.rule).or_insert(miss);
            if farthest.stage < miss.stage {
                *farthest = miss;
            }
        }
        Rank::NONE
    });
    misses
}

/// A rule in audit still carries the connection its way, less the demand that failed.
fn relaxed(treatment: Treatment, miss: Miss) -> Treatment {
    match (miss.reason, treatment.tls) {
        (Reason::TlsVersionClient, TlsMode::Passthrough { .. }) => {
            Treatment { tls: TlsMode::Passthrough { min_tls12: true }, ..treatment }
        }
        (Reason::TlsEch, TlsMode::Passthrough { .. }) => treatment,
        (Reason::HttpNotAllowed | Reason::UpgradeNotAllowed, _) => treatment,
        _ => Treatment { tls: TlsMode::None, ..treatment },
    }
}

fn by_allow_rules(set: &PolicySet, request: &Request<'_>, allows: &Allows) -> Decision {
    if let Some((.., Reverse(rule), treatment)) = allows.matching {
        return allowed(set, Reason::RuleAllows, rule, treatment);
    }
    if set.is_probe(request) {
        let (verdict, reason, treatment) = (Verdict::Allowed, Reason::ProbeAllows, Some(PROBE_TREATMENT));
        let generation = set.generation;
        return Decision { verdict, reason, rule: None, treatment, nearest: None, generation };
    }
    if let Some((_, Reverse(rule), treatment, miss)) = allows.audited {
        return would_deny(set, miss.reason, Some(rule), treatment, None);
    }
    default_deny(set, request, allows)
}

fn default_deny(set: &PolicySet, request: &Request<'_>, allows: &Allows) -> Decision {
    let nearest =
        allows.nearest.map(|(stage, _, Reverse(rule), _)| NearMiss { rule, failed: stage.predicate() });
    let nearest = nearest.or_else(|| near_name(set, request));
    let reason = default_reason(set, request, allows);
    if set.audits_all(request.today) {
        return would_deny(set, reason, None, unguarded(request), nearest);
    }
    denied(set, reason, None, nearest)
}

/// A rule for a neighbouring name, where none matches.
pub(super) fn near_name(set: &PolicySet, request: &Request<'_>) -> Option<NearMiss> {
    let (_, host) = request.host?;
    let rule = set.side(request.direction).index.hosts().near(host.as_str())?;
    Some(NearMiss { rule, failed: Predicate::Destination })
}

fn default_reason(set: &PolicySet, request: &Request<'_>, allows: &Allows) -> Reason {
    match (allows.nearest, request.direction, request.observed) {
        (Some((stage, .., reason)), ..) if stage > Stage::Port => reason,
        (_, Direction::Egress, Observed::Tls { .. }) if request.host.is_none() => Reason::HostMissing,
        (_, Direction::Egress, Observed::Udp) => Reason::UdpRefused,
        (_, Direction::Ingress, _)
            if request.arrival != Arrival::Mesh && set.meshed_at.contains(request.port) =>
        {
            Reason::MeshRequired
        }
        (None, Direction::Ingress, _) if set.ingress.ports.contains(request.port) => Reason::PeerNotAllowed,
        _ => Reason::NoRule,
    }
}

/// What audit mode does with a connection that nothing allows: it passes as it would without a proxy.
fn unguarded(request: &Request<'_>) -> Treatment {
    let dial = if request.address.is_some() { Dial::OriginalDestination } else { Dial::Name };
    Treatment { dial, tls: TlsMode::None, private: true, per_request: false, demands: false }
}
