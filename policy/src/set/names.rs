//! What DNS and the connection pipeline ask beside the verdict itself.

use std::{cmp::Reverse, net::IpAddr};

use crate::{
    Date, Decision, HostName, NameDecision, NearMiss, Predicate, Reason, Request, SpiffeId, Verdict,
    address::with_embedded,
    deny_table::{denied_answer, denied_destination},
    document::Protocol,
};

use super::{
    AnswerRefused, Peek, PolicySet, RuleId,
    decide::denies_of_answer,
    index::{Candidate, Spot},
    rank::Rank,
    rule::CompiledRule,
};

pub(super) fn judge_answer(
    set: &PolicySet,
    request: &Request<'_>,
    decision: &Decision,
    answer: IpAddr,
) -> Result<(), AnswerRefused> {
    let treatment = decision.treatment;
    if set.is_own_listener(answer.to_canonical(), request.port) {
        return Err(AnswerRefused { reason: Reason::AddressOwnListener, rule: None });
    }
    if let Some(reason) = denied_answer(answer, treatment.is_some_and(|treatment| treatment.private)) {
        return Err(AnswerRefused { reason, rule: None });
    }
    let denies = denies_of_answer(set, request, answer);
    let unseen = denies.within_requests.filter(|_| !treatment.is_some_and(|treatment| treatment.per_request));
    match denies.enforced.or(unseen) {
        Some((_, Reverse(rule))) => Err(AnswerRefused { reason: Reason::RuleDenies, rule: Some(rule) }),
        None => Ok(()),
    }
}

pub(super) fn judge_name(set: &PolicySet, host: &HostName, today: Date) -> NameDecision {
    let mut best: Option<(Rank, Reverse<RuleId>)> = None;
    let (mut synthetic, mut private, mut any) = (false, false, false);
    set.egress.index.visit_host(host.as_str(), |spot| {
        for candidate in spot.allows() {
            any = true;
            let Some(rule) = set.compiled(candidate.entry.rule) else { continue };
            if denied_at_all_ports(set, host, &candidate, rule.protocol, today) {
                continue;
            }
            synthetic |= rule.protocol == Protocol::Tcp;
            private |= candidate.entry.private;
            best = best.max(Some((spot.rank, Reverse(candidate.entry.rule))));
        }
    });
    let rule = best.map(|(_, Reverse(rule))| rule);
    let mut decision = NameDecision {
        verdict: Verdict::Allowed,
        reason: Reason::RuleAllows,
        rule,
        synthetic,
        wildcard: best.is_some_and(|(rank, _)| rank < Rank::EXACT_HOST),
        // Audit withholds nothing that it would let a connection reach.
        private: private || set.audits_all(today),
        nearest: None,
        generation: set.generation,
    };
    if rule.is_some() {
        return decision;
    }
    decision.reason = refusal(set, any);
    decision.rule = denying_rule(set, host, today);
    if decision.rule.is_some() && set.policies > 0 {
        decision.reason = Reason::RuleDenies;
    }
    decision.nearest = near_rule(set, host);
    decision.verdict = Verdict::Denied;
    if set.audits_all(today) && set.policies > 0 {
        decision.verdict = Verdict::WouldDeny;
    }
    decision
}

/// The most specific allow rule that names a workload.
pub(super) fn rule_for_peer(set: &PolicySet, peer: &SpiffeId) -> Option<RuleId> {
    let mut best: Option<(Rank, Reverse<RuleId>)> = None;
    set.egress.index.visit_peer(peer, |spot| {
        best = best.max(spot.allows().map(|candidate| (spot.rank, Reverse(candidate.entry.rule))).max());
    });
    best.map(|(_, Reverse(rule))| rule)
}

fn refusal(set: &PolicySet, any: bool) -> Reason {
    match (set.policies, any) {
        (0, _) => Reason::NoPolicy,
        (_, true) => Reason::RuleDenies,
        (_, false) => Reason::NameNotAllowed,
    }
}

/// Whether enforced deny rules for the host take every port of an allow rule's entry.
fn denied_at_all_ports(
    set: &PolicySet,
    host: &HostName,
    allow: &Candidate<'_>,
    protocol: Protocol,
    today: Date,
) -> bool {
    let denied_to_the_end = |(first, last): &(u16, u16)| {
        let (mut port, last) = (u32::from(*first), u32::from(*last));
        while port <= last {
            let next = after_denied(set, host, port, |deny| is_whole_denial(set, deny, protocol, today));
            if next == port {
                return false;
            }
            port = next;
        }
        true
    };
    allow.ports().iter().all(denied_to_the_end)
}

/// The first port after those, from `port` on, that one range of a deny rule for the host covers; `port` itself when
/// none covers it.
fn after_denied(set: &PolicySet, host: &HostName, port: u32, counts: impl Fn(RuleId) -> bool) -> u32 {
    let mut next = port;
    set.egress.index.visit_host(host.as_str(), |spot| {
        for deny in spot.denies().filter(|deny| counts(deny.entry.rule)) {
            let covering =
                |(first, last): &&(u16, u16)| (u32::from(*first)..=u32::from(*last)).contains(&port);
            next =
                deny.ports().iter().find(covering).map_or(next, |(_, last)| next.max(u32::from(*last) + 1));
        }
    });
    next
}

/// An enforced deny rule that takes everything an allow rule of this protocol could match.
fn is_whole_denial(set: &PolicySet, deny: RuleId, allowed: Protocol, today: Date) -> bool {
    let Some(rule) = set.compiled(deny) else { return false };
    let covers = match rule.protocol {
        Protocol::Tls => true,
        Protocol::Tcp => allowed != Protocol::Udp,
        other => other == allowed,
    };
    covers && rule.http.is_empty() && !rule.in_audit(today)
}

/// The most specific enforced deny rule for a name.
fn denying_rule(set: &PolicySet, host: &HostName, today: Date) -> Option<RuleId> {
    let mut best: Option<(Rank, Reverse<RuleId>)> = None;
    set.egress.index.visit_host(host.as_str(), |spot| {
        let whole = |deny: &Candidate<'_>| is_whole_denial(set, deny.entry.rule, Protocol::Tls, today);
        let denies = spot.denies().filter(whole).map(|deny| (spot.rank, Reverse(deny.entry.rule)));
        best = best.max(denies.max());
    });
    best.map(|(_, Reverse(rule))| rule)
}

fn near_rule(set: &PolicySet, host: &HostName) -> Option<NearMiss> {
    set.egress.index.hosts().near(host.as_str()).map(|rule| NearMiss { rule, failed: Predicate::Destination })
}

pub(super) fn peek(
    set: &PolicySet,
    address: Option<IpAddr>,
    synthetic: Option<&HostName>,
    peer: Option<&SpiffeId>,
    port: u16,
) -> Peek {
    if let Some(address) = address.filter(|address| denied_destination(*address).is_some()) {
        // What grants open is judged request by request.
        let granted = set
            .grants
            .iter()
            .any(|(opening, ..)| opening.address == address && opening.port == port && !opening.udp);
        return if granted { Peek::Needed } else { Peek::Unneeded };
    }
    // Where a name leads is not known yet: a rule may deny HTTP there.
    let mut needed =
        if synthetic.is_some() { set.requests_denied_at.contains(port) } else { set.hosts_at.contains(port) };
    let mut opaque = false;
    let mut look = |spot: Spot<'_>| {
        for rule in covering(spot.allows(), set, port) {
            needed |= rule.looks_at_bytes();
            opaque |= !rule.looks_at_bytes();
        }
        needed |= denies_by_bytes(set, spot, port);
        Rank::NONE
    };
    if let Some(address) = address {
        set.egress.index.visit_address(address, Rank::NONE, &mut look);
    }
    if let Some(host) = synthetic {
        set.egress.index.visit_host(host.as_str(), |spot| {
            look(spot);
        });
    }
    if let Some(peer) = peer {
        set.egress.index.visit_peer(peer, |spot| {
            look(spot);
        });
    }
    // Deny rules hold for the IPv4 addresses that an IPv6 address carries; allow rules don't.
    let embedded = address.map_or([None; 3], with_embedded);
    for carried in embedded.into_iter().flatten().filter(|carried| Some(*carried) != address) {
        set.egress.index.visit_address(carried, Rank::ALL, |spot| {
            needed |= denies_by_bytes(set, spot, port);
            Rank::ALL
        });
    }
    match (needed, opaque) {
        (true, _) => Peek::Needed,
        (false, true) => Peek::Unneeded,
        (false, false) => Peek::Brief,
    }
}

/// The rules of those that cover the port and don't except the address.
pub(super) fn covering<'s>(
    candidates: impl Iterator<Item = Candidate<'s>>,
    set: &'s PolicySet,
    port: u16,
) -> impl Iterator<Item = &'s CompiledRule> {
    let counting =
        candidates.filter(move |candidate| candidate.covers_port(port) && !candidate.is_excepted());
    counting.filter_map(|candidate| set.compiled(candidate.entry.rule))
}

/// Whether a deny rule that reads the first bytes may bear on the port.
pub(super) fn denies_by_bytes(set: &PolicySet, spot: Spot<'_>, port: u16) -> bool {
    covering(spot.denies(), set, port).any(CompiledRule::is_for_requests)
}
