//! What DNS and the connection pipeline ask beside the verdict itself.

use std::{cmp::Reverse, net::IpAddr};

use crate::{
    Date, Decision, HostName, NameDecision, NearMiss, Predicate, Reason, Request, Verdict,
    deny_table::{denied_answer, denied_destination},
    document::Protocol,
};

use super::{
    AnswerRefused, Peek, PolicySet, RuleId,
    decide::denies_of_answer,
    index::{Candidate, Rank},
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
    set.egress.allow.visit_host(host.as_str(), |candidate| {
        any = true;
        let Some(rule) = set.compiled(candidate.entry.rule) else { return };
        if denied_at_all_ports(set, host, &candidate, rule.protocol, today) {
            return;
        }
        synthetic |= rule.protocol == Protocol::Tcp;
        private |= candidate.entry.private;
        best = best.max(Some((candidate.rank, Reverse(candidate.entry.rule))));
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
    if set.egress.deny.is_empty() {
        return false;
    }
    let last = u32::from(allow.entry.last_port);
    let mut port = u32::from(allow.entry.first_port);
    while port <= last {
        let mut next = port;
        set.egress.deny.visit_host(host.as_str(), |deny| {
            let covers = u32::from(deny.entry.first_port) <= port && port <= u32::from(deny.entry.last_port);
            if covers && is_whole_denial(set, deny.entry.rule, protocol, today) {
                next = next.max(u32::from(deny.entry.last_port) + 1);
            }
        });
        if next == port {
            return false;
        }
        port = next;
    }
    true
}

/// An enforced deny rule that takes everything an allow rule of this protocol could match.
fn is_whole_denial(set: &PolicySet, deny: RuleId, allowed: Protocol, today: Date) -> bool {
    let Some(rule) = set.compiled(deny) else { return false };
    let covers = match rule.protocol {
        Protocol::Tls | Protocol::Tcp => true,
        other => other == allowed,
    };
    covers && rule.http.is_empty() && !rule.in_audit(today)
}

/// The most specific enforced deny rule for a name.
fn denying_rule(set: &PolicySet, host: &HostName, today: Date) -> Option<RuleId> {
    let mut best: Option<(Rank, Reverse<RuleId>)> = None;
    set.egress.deny.visit_host(host.as_str(), |deny| {
        if is_whole_denial(set, deny.entry.rule, Protocol::Tls, today) {
            best = best.max(Some((deny.rank, Reverse(deny.entry.rule))));
        }
    });
    best.map(|(_, Reverse(rule))| rule)
}

fn near_rule(set: &PolicySet, host: &HostName) -> Option<NearMiss> {
    set.egress.allow.hosts().near(host.as_str()).map(|rule| NearMiss { rule, failed: Predicate::Destination })
}

pub(super) fn peek(
    set: &PolicySet,
    address: Option<IpAddr>,
    synthetic: Option<&HostName>,
    port: u16,
) -> Peek {
    if address.is_some_and(|address| denied_destination(address).is_some()) {
        return Peek::Unneeded;
    }
    let mut needed = synthetic.is_none() && set.hosts_at.contains(port);
    let mut opaque = false;
    let mut look = |candidate: Candidate<'_>| {
        let covers = candidate.covers_port(port) && !candidate.excepted;
        let looks = set.compiled(candidate.entry.rule).is_some_and(|rule| rule.looks_at_bytes());
        needed |= looks && covers;
        opaque |= !looks && covers;
    };
    if let Some(address) = address {
        set.egress.allow.visit_address(address, &mut look);
    }
    if let Some(host) = synthetic {
        set.egress.allow.visit_host(host.as_str(), &mut look);
    }
    let mut denies = |candidate: Candidate<'_>| {
        let partial = set
            .compiled(candidate.entry.rule)
            .is_some_and(|rule| rule.protocol == Protocol::Http || !rule.http.is_empty());
        needed |= partial && candidate.covers_port(port) && !candidate.excepted;
    };
    if let Some(address) = address {
        set.egress.deny.visit_address(address, &mut denies);
    }
    if let Some(host) = synthetic {
        set.egress.deny.visit_host(host.as_str(), &mut denies);
    }
    match (needed, opaque) {
        (true, _) => Peek::Needed,
        (false, true) => Peek::Unneeded,
        (false, false) => Peek::Brief,
    }
}
