//! One question's story: judged, asked upstream only if a rule could allow the name, judged again, answered.

use std::{net::IpAddr, sync::Arc};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RecordType},
};
use sidegate_policy::{HostName, NameDecision, PolicySet, Reason, Verdict, deny_table};

use super::{
    ResolveError, Resolved,
    local::{self, Local},
    message::{Question, Reply},
    record::{QuestionRecord, sentence},
    resolver::Family,
    search,
};
use crate::{clock, server::Gate};

/// Seconds for which clients may keep synthetic and local addresses. They don't change, but the policy may.
const OWN_TTL: u32 = 60;

/// Seconds for which clients may keep the addresses of a peer: it may move.
const PEER_TTL: u32 = 5;

/// What to send back. Owns its addresses; see [`Reply`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Addresses { addresses: Vec<IpAddr>, ttl: u32 },
    NoRecords,
    Code(ResponseCode),
}

/// Either what to send back, or the name that must be asked upstream first.
pub(super) enum Next {
    Answer(Told),
    Upstream(HostName, Family),
}

/// Everything that can be said without waiting. The verdict falls here, and no question leaves before it.
pub(super) fn judge(gate: &Gate, question: &Question, record: &mut QuestionRecord) -> Next {
    Next::Answer(match local::answer(question.name(), question.record_type()) {
        Some(Local::Loopback(address)) => {
            record.conclude(Verdict::Allowed, Reason::Loopback);
            address
                .map_or(Told::NoRecords, |address| Told::Addresses { addresses: vec![address], ttl: OWN_TTL })
        }
        Some(Local::NoSuchName) => {
            record.conclude(Verdict::Denied, Reason::DnsType);
            Told::Code(ResponseCode::NXDomain)
        }
        None => return judge_type(gate, question, record),
    })
}

/// What may be told of a name.
#[derive(Clone, Copy)]
enum Type {
    Addresses(Family),
    /// Told that there is none, clients go on without ECH, which would hide the name from the rules.
    None,
    /// Not told.
    Other,
}

fn judge_type(gate: &Gate, question: &Question, record: &mut QuestionRecord) -> Next {
    let asked = match question.record_type() {
        RecordType::A => Type::Addresses(Family::V4),
        RecordType::AAAA => Type::Addresses(Family::V6),
        RecordType::HTTPS | RecordType::SVCB => Type::None,
        _ => Type::Other,
    };
    match host_of(question.name()) {
        Some(host) => judge_host(gate, host, asked, record),
        None => {
            record.conclude(Verdict::Denied, Reason::HostInvalid);
            Next::Answer(Told::Code(denied_code(gate)))
        }
    }
}

fn judge_host(gate: &Gate, host: HostName, asked: Type, record: &mut QuestionRecord) -> Next {
    let set = gate.policies.current();
    let today = clock::today();
    let decision = set.judge_name(&host, today);
    record.judged(&set, &decision);
    if decision.verdict == Verdict::Denied {
        let no_rule = matches!(decision.reason, Reason::NameNotAllowed | Reason::NoRule);
        if let Some(told) = peer(gate, (&set, &decision), (&host, asked), record).filter(|_| no_rule) {
            return Next::Answer(told);
        }
        if no_rule && search::is_candidate(&set, &host, &gate.settings.dns_search, today) {
            record.conclude(Verdict::Denied, Reason::DnsSearch);
            return Next::Answer(Told::Code(ResponseCode::NXDomain));
        }
        return Next::Answer(Told::Code(denied_code(gate)));
    }
    let family = match asked {
        Type::Addresses(family) => family,
        Type::None => return Next::Answer(Told::NoRecords),
        Type::Other => {
            // The name exists, for all we know: whatever denied names are answered with, not that it doesn't.
            record.conclude(Verdict::Denied, Reason::DnsType);
            return Next::Answer(Told::Code(ResponseCode::Refused));
        }
    };
    if !within_budget(gate, &set, &decision, &host) {
        record.conclude(Verdict::Denied, Reason::DnsBudget);
        return Next::Answer(Told::Code(denied_code(gate)));
    }
    if decision.synthetic {
        return Next::Answer(synthetic(gate, &host, family, record));
    }
    Next::Upstream(host, family)
}

/// The addresses of a workload that the peers file gives this name to, where some rule allows something to it. Nothing is
/// asked upstream; whether a connection there is allowed is judged when it comes.
fn peer(
    gate: &Gate,
    (set, decision): (&PolicySet, &NameDecision),
    (host, asked): (&HostName, Type),
    record: &mut QuestionRecord,
) -> Option<Told> {
    let peers = gate.policies.peers();
    let peer = peers.named(host)?;
    let rule = set.rule_for_peer(&peer.id)?;
    let (verdict, reason) = (Verdict::Allowed, Reason::RuleAllows);
    record.judged(set, &NameDecision { verdict, reason, rule: Some(rule), nearest: None, ..*decision });
    let family = match asked {
        Type::Addresses(family) => family,
        Type::None => return Some(Told::NoRecords),
        Type::Other => {
            record.conclude(Verdict::Denied, Reason::DnsType);
            return Some(Told::Code(ResponseCode::Refused));
        }
    };
    let of_family = |address: &&IpAddr| address.is_ipv4() == (family == Family::V4);
    let addresses: Vec<IpAddr> = peer.addresses.iter().filter(of_family).copied().collect();
    Some(match addresses.is_empty() {
        true => Told::NoRecords,
        false => Told::Addresses { addresses, ttl: PEER_TTL },
    })
}

/// Asks upstream, judges again with the policy of now, and keeps what the fixed deny table lets through.
pub(super) async fn ask(
    gate: &Arc<Gate>,
    host: HostName,
    family: Family,
    record: &mut QuestionRecord,
) -> Told {
    let outcome = gate.resolver.resolve(&host, family).await;
    let set = gate.policies.current();
    let decision = set.judge_name(&host, clock::today());
    record.judged(&set, &decision);
    if decision.verdict == Verdict::Denied {
        return Told::Code(denied_code(gate));
    }
    if decision.synthetic {
        // A rule that came meanwhile wants the name to carry the permission.
        return synthetic(gate, &host, family, record);
    }
    match outcome {
        Ok(resolved) => {
            let addresses = filter(&decision, &resolved.addresses, record);
            if addresses.is_empty() {
                return Told::NoRecords;
            }
            gate.names.remember(&host, &addresses);
            Told::Addresses { addresses, ttl: resolved.ttl }
        }
        Err(ResolveError::NotFound) => Told::Code(ResponseCode::NXDomain),
        Err(ResolveError::NoAddress) => Told::NoRecords,
        Err(error @ (ResolveError::Failed | ResolveError::Timeout | ResolveError::Budget)) => {
            record.unresolved(error.reason());
            Told::Code(ResponseCode::ServFail)
        }
    }
}

/// An answer of which nothing is left is NOERROR without records: told "refused" for one family, C libraries give up
/// the other as well.
fn filter(decision: &NameDecision, addresses: &[IpAddr], record: &mut QuestionRecord) -> Vec<IpAddr> {
    let mut withheld = Vec::new();
    let mut kept = Vec::new();
    for address in addresses {
        match refused(decision, *address) {
            None => kept.push(*address),
            Some(reason) => withheld.push((*address, reason)),
        }
    }
    if let Some((address, reason)) = withheld.first() {
        let text = format!(
            "{} of {} addresses withheld, such as {address}: {}",
            withheld.len(),
            addresses.len(),
            sentence(*reason)
        );
        if kept.is_empty() {
            record.conclude(Verdict::Denied, *reason);
        }
        record.note(text);
    }
    kept
}

fn refused(decision: &NameDecision, address: IpAddr) -> Option<Reason> {
    match decision.verdict {
        // Audit lets pass what would have passed without us; the table for destinations is closed even then.
        Verdict::WouldDeny => deny_table::denied_destination(address),
        Verdict::Allowed | Verdict::Denied => deny_table::denied_answer(address, decision.private),
    }
}

/// Resolves the name of a connection that a rule permits. A name under a pattern takes from the budget that DNS
/// questions take from: an SNI carries data out by the proxy's own question as well as a question of the application's.
pub(crate) async fn resolve_permitted(
    gate: &Gate,
    host: &HostName,
    family: Family,
) -> Result<Resolved, ResolveError> {
    let admitted = {
        let set = gate.policies.current();
        within_budget(gate, &set, &set.judge_name(host, clock::today()), host)
    };
    if admitted { gate.resolver.resolve(host, family).await } else { Err(ResolveError::Budget) }
}

/// Only names that a pattern lets through have a budget: those that rules spell out are as many as the rules say.
fn within_budget(gate: &Gate, set: &PolicySet, decision: &NameDecision, host: &HostName) -> bool {
    match decision.rule {
        Some(rule) if decision.wildcard && decision.verdict == Verdict::Allowed => {
            gate.names.admit(set.rule(rule), host)
        }
        _ => true,
    }
}

fn synthetic(gate: &Gate, host: &HostName, family: Family, record: &mut QuestionRecord) -> Told {
    let Some((v4, v6)) = gate.synthetic.assign(host) else {
        record.conclude(Verdict::Denied, Reason::LimitSynthetic);
        return Told::Code(ResponseCode::ServFail);
    };
    let address = match family {
        Family::V4 => IpAddr::V4(v4),
        Family::V6 => IpAddr::V6(v6),
    };
    Told::Addresses { addresses: vec![address], ttl: OWN_TTL }
}

fn denied_code(gate: &Gate) -> ResponseCode {
    if gate.settings.dns_denied_nxdomain { ResponseCode::NXDomain } else { ResponseCode::Refused }
}

/// Escapes of bytes that are no part of host names never parse.
fn host_of(name: &Name) -> Option<HostName> {
    HostName::parse(&name.to_ascii()).ok()
}

impl Told {
    /// For the wire.
    pub(super) fn reply(&self) -> Reply<'_> {
        match self {
            Told::Addresses { addresses, ttl } => Reply::Addresses { addresses, ttl: *ttl },
            Told::NoRecords => Reply::NoRecords,
            Told::Code(code) => Reply::Code(*code),
        }
    }

    /// For records: the response code's name and the number of addresses.
    pub(super) fn facts(&self) -> (&'static str, usize) {
        match self {
            Told::Addresses { addresses, .. } => ("NOERROR", addresses.len()),
            Told::NoRecords => ("NOERROR", 0),
            Told::Code(ResponseCode::NXDomain) => ("NXDOMAIN", 0),
            Told::Code(ResponseCode::ServFail) => ("SERVFAIL", 0),
            Told::Code(_) => ("REFUSED", 0),
        }
    }
}
