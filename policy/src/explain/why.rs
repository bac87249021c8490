//! The checks in order, and why each near rule does not match. A slow walk over all rules.

use std::{cmp::Reverse, net::IpAddr};

use ipnet::IpNet;

use crate::{
    Decision, Direction, HostName, HostPattern, Observed, PolicySet, Predicate, Reason, Request, RuleId,
    Verdict,
    deny_table::denied_destination,
    document::{Action, Destination, Protocol},
    host::public_labels,
    set::rule::{CompiledRule, Miss, Stage},
};

use super::{NearRule, Step};

/// Most near rules that are shown.
const SHOWN: usize = 5;

pub(super) fn steps(set: &PolicySet, request: &Request<'_>, decision: &Decision) -> Vec<Step> {
    if decision.reason == Reason::NoPolicy {
        return vec![Step { check: "policies", found: "none applies".to_owned() }];
    }
    let named = |rule: RuleId| set.view(rule).to_string();
    let mut steps = Vec::new();
    let mut add = |check, found| steps.push(Step { check, found });
    let table = table_step(set, request, decision);
    let closed = table.is_err();
    if let (Direction::Egress, Ok(found) | Err(found)) = (request.direction, table) {
        add("fixed-table", found);
    }
    if closed {
        return steps;
    }
    let count = set.rules().filter(|(_, rule)| rule.direction == request.direction);
    let (allows, denies): (Vec<_>, Vec<_>) = count.partition(|(_, rule)| rule.action == Action::Allow);
    match (decision.reason, decision.rule) {
        (Reason::RuleDenies, Some(rule)) => {
            add("deny-rules", format!("{} matches", named(rule)));
            if decision.verdict == Verdict::Denied {
                return steps;
            }
        }
        _ => add("deny-rules", format!("none of {} matches", denies.len())),
    }
    match (decision.verdict, decision.reason, decision.rule) {
        (Verdict::Allowed, Reason::RuleAllows, Some(rule)) => {
            add(
                "allow-rules",
                format!("of {}, {} is the most specific that matches", allows.len(), named(rule)),
            );
        }
        (Verdict::Allowed, Reason::ProbeAllows, _) => {
            add("allow-rules", format!("none of {} matches", allows.len()));
            add("probes", "it is a declared health probe".to_owned());
        }
        (Verdict::Allowed, ..) => {}
        (Verdict::WouldDeny, reason, Some(rule)) if reason != Reason::RuleDenies => {
            add("allow-rules", format!("{} fails ({reason}), and is in audit", named(rule)));
        }
        (Verdict::WouldDeny, Reason::RuleDenies, _) => {
            add("default", "in audit: recorded, not enforced".to_owned())
        }
        (Verdict::WouldDeny, ..) => {
            add("allow-rules", format!("none of {} matches", allows.len()));
            add("default", "every policy is in audit: recorded, not enforced".to_owned());
        }
        (Verdict::Denied, ..) => {
            add("allow-rules", format!("none of {} matches", allows.len()));
            add("default", "denied".to_owned());
        }
    }
    steps
}

/// `Err`: the table ends the judgement.
fn table_step(set: &PolicySet, request: &Request<'_>, decision: &Decision) -> Result<String, String> {
    let Some(address) = request.address else { return Ok("no address to look at".to_owned()) };
    let own = decision.reason == Reason::AddressOwnListener;
    match (denied_destination(address), decision.reason, decision.rule) {
        _ if own => Err(format!("{address} is the proxy's own listener")),
        (None, ..) => Ok(format!("nothing against {address}")),
        (Some(_), Reason::GrantAllows, Some(rule)) => Ok(format!("opened by {}", set.view(rule))),
        (Some(reason), Reason::RuleDenies, _) => Ok(format!("{address} ({reason}) is opened by a grant")),
        (Some(reason), found, _) if found == reason => Err(format!("{address} is closed ({reason})")),
        (Some(reason), ..) => Err(format!("{address} ({reason}) is opened by a grant, but not for this")),
    }
}

/// Allow rules by how near they came: first those that were reached, then those for a destination much alike.
pub(super) fn near_rules(set: &PolicySet, request: &Request<'_>) -> Vec<NearRule> {
    let misses = set.misses(request);
    let mut near: Vec<(Option<Stage>, u32, RuleId, String)> = Vec::new();
    for (id, rule) in set.rules() {
        if let Some(miss) = misses.get(&id) {
            near.push((Some(miss.stage), 0, id, why(rule, *miss, request)));
        } else if rule.action == Action::Allow
            && rule.direction == request.direction
            && let Some((likeness, why)) = likeness(rule, request)
        {
            near.push((None, likeness, id, why));
        }
    }
    near.sort_by_key(|(stage, likeness, id, _)| (Reverse((*stage, *likeness)), *id));
    let shown = near.into_iter().take(SHOWN);
    shown
        .map(|(stage, _, id, why)| NearRule { rule: set.view(id), failed: failed_word(stage), why })
        .collect()
}

fn failed_word(stage: Option<Stage>) -> &'static str {
    stage.map_or(Predicate::Destination, Stage::predicate).word()
}

fn why(rule: &CompiledRule, miss: Miss, request: &Request<'_>) -> String {
    let observed = match request.observed {
        Observed::Tls { .. } => "TLS",
        Observed::Http => "plaintext HTTP",
        Observed::Opaque => "neither TLS nor HTTP",
        Observed::Udp => "a datagram",
    };
    match (miss.stage, request.address, request.http) {
        (Stage::Except, Some(address), _) => format!("{address} is in its `except`"),
        (Stage::Port, ..) => format!("port {} is not among its ports ({})", request.port, port_list(rule)),
        (Stage::Protocol, ..) if rule.protocol == Protocol::Tcp && request.observed != Observed::Udp => {
            "a `tcp` rule for a name needs the address that our DNS gave out; a name in the first bytes is a claim"
                .to_owned()
        }
        (Stage::Protocol, ..) => format!("it is for `{}`; this is {observed}", rule.protocol.word()),
        (Stage::Address, Some(address), _) => format!("its name may not lead to {address} ({})", miss.reason),
        (Stage::Http, _, Some(http)) => {
            let path = http.path.as_str();
            match http.upgrade {
                Some(upgrade) => format!("none of its `http` entries lets {path} become a {}", upgrade.word()),
                None => format!("{} {path} is not among its `http` entries", http.method),
            }
        }
        _ => format!("{} ({})", miss.reason.meaning().trim_end_matches('.'), miss.reason),
    }
}

fn port_list(rule: &CompiledRule) -> String {
    let shown = rule.ports.iter().take(SHOWN).map(|range| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    });
    let more = if rule.ports.len() > SHOWN { ", ..." } else { "" };
    shown.collect::<Vec<_>>().join(", ") + more
}

/// How alike a rule's nearest end is to what was asked for (higher is more alike), and the difference in words.
fn likeness(rule: &CompiledRule, request: &Request<'_>) -> Option<(u32, String)> {
    let of_end = |end: &Destination| match end {
        Destination::Hosts { hosts, .. } => {
            let (_, host) = request.host?;
            hosts.iter().filter_map(|pattern| host_likeness(pattern, host)).max()
        }
        Destination::Cidrs { cidrs, .. } => {
            let address = request.address?;
            cidrs.iter().filter_map(|net| net_likeness(*net, address)).max()
        }
        Destination::Workloads(patterns) => {
            let peer = request.peer?;
            let shown = patterns.first()?;
            Some((1, format!("{} is not {}", peer.as_str(), shown.as_str())))
        }
        _ => None,
    };
    rule.ends.iter().filter_map(of_end).max()
}

/// Names that share two labels or more, and more than strangers do.
fn host_likeness(pattern: &HostPattern, host: &HostName) -> Option<(u32, String)> {
    let shared = pattern.name().labels().rev().zip(host.labels().rev()).take_while(|(a, b)| a == b).count();
    let difference = match pattern {
        HostPattern::OneLabel(suffix) if host.as_str().ends_with(suffix.as_str()) => "exactly one label more",
        HostPattern::AnyDepth(_) => "at least one label more",
        _ => "",
    };
    let comma = if difference.is_empty() { "" } else { ": it matches " };
    let likeness =
        u32::try_from(shared).ok().filter(|_| shared >= 2 && shared > public_labels(host.as_str()))?;
    Some((likeness, format!("{host} is not {pattern}{comma}{difference}")))
}

/// Prefixes that share half of their bits or more with the address.
fn net_likeness(net: IpNet, address: IpAddr) -> Option<(u32, String)> {
    let (shared, whole) = match (net.network(), address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => ((net.to_bits() ^ address.to_bits()).leading_zeros(), 32),
        (IpAddr::V6(net), IpAddr::V6(address)) => ((net.to_bits() ^ address.to_bits()).leading_zeros(), 128),
        _ => return None,
    };
    (shared * 2 >= whole).then(|| (shared, format!("{address} is not in {net}")))
}
